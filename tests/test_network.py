"""The guard of all tests: what asks the network fails, even where the error is caught."""

from __future__ import annotations

import contextlib
import os
import socket
from urllib.request import urlopen

import pytest

NOWHERE = "192.0.2.1"
"""An address that is kept free for documentation: none answers."""


@pytest.mark.parametrize("url", ["http://example.invalid/", f"http://{NOWHERE}/"])
def test_a_page_is_not_asked_for(url: str) -> None:
    with (
        pytest.raises(pytest.fail.Exception, match="the network was asked: where is"),
        contextlib.suppress(Exception),
    ):
        urlopen(url, timeout=0.1)


@pytest.mark.parametrize("call", ["connect", "connect_ex"])
def test_nor_is_an_address_that_is_known(call: str) -> None:
    with socket.socket() as one:
        one.settimeout(0.1)
        with pytest.raises(pytest.fail.Exception, match=rf"the network was asked: .*{NOWHERE}"):
            getattr(one, call)((NOWHERE, 80))


def test_a_proxy_leads_nowhere_else() -> None:
    assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == "*"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_this_machine_is_reached(host: str) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection((host, server.getsockname()[1]), timeout=5) as asked,
    ):
        answering, _ = server.accept()
        with answering:
            answering.sendall(b"here")
        assert asked.recv(4) == b"here"
