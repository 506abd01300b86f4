"""Downloads from a server of this test's own: whole or nothing, taken up where they stopped."""

from __future__ import annotations

import dataclasses
import hashlib
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from tests.small_data import write_cifar
from vitkit.data import cifar
from vitkit.data.cifar import read_cifar
from vitkit.data.download import fetch
from vitkit.errors import DataError

CONTENT = bytes(range(256)) * 800
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()


@dataclass
class Served:
    """What the server has, how it behaves, and what it was asked.

    Attributes:
        content: of its one file.
        resumes: whether it can send a rest.
        lose_after: bytes after which it hangs up, one number an answer; whole answers then.
        asked: the Range of each request, or None.
        sent: bytes of each answer.
    """

    content: bytes = CONTENT
    resumes: bool = True
    lose_after: list[int] = field(default_factory=list)
    asked: list[str | None] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def served() -> Iterator[Served]:
    has = Served()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            has.asked.append(wanted)
            if self.path != "/file":
                self.send_error(404)
                return
            start = 0
            if wanted and has.resumes:
                start = int(wanted.removeprefix("bytes=").removesuffix("-"))
                if start >= len(has.content):
                    self.send_error(416)
                    return
                self.send_response(206)
                last = len(has.content) - 1
                self.send_header("Content-Range", f"bytes {start}-{last}/{len(has.content)}")
            else:
                self.send_response(200)
            rest = has.content[start:]
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            rest = rest[: has.lose_after.pop(0)] if has.lose_after else rest
            has.sent.append(len(rest))
            self.wfile.write(rest)

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    has.url = f"http://127.0.0.1:{server.server_port}/file"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield has
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_whole_file(served: Served, tmp_path: Path) -> None:
    fetch(served.url, tmp_path / "new" / "file", MD5)
    assert (tmp_path / "new" / "file").read_bytes() == CONTENT
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["file"]
    assert served.asked == [None]


def test_a_lost_connection_is_taken_up_where_it_was_lost(served: Served, tmp_path: Path) -> None:
    served.lose_after = [1000, 500]
    fetch(served.url, tmp_path / "file", MD5)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert served.asked == [None, "bytes=1000-", "bytes=1500-"]
    assert sum(served.sent) == len(CONTENT)  # nothing twice


def test_an_interrupted_download_leaves_a_part_that_the_next_call_goes_on_from(
    served: Served, tmp_path: Path
) -> None:
    served.lose_after = [1000, *[0] * 20]
    with pytest.raises(
        DataError, match=r"lost 203,800 bytes before the end.* goes on from"
    ) as said:
        fetch(served.url, tmp_path / "file", MD5)
    assert "\n" not in str(said.value)
    assert [p.name for p in tmp_path.iterdir()] == ["file.part"]
    assert (tmp_path / "file.part").read_bytes() == CONTENT[:1000]
    served.lose_after = []
    served.asked.clear()
    fetch(served.url, tmp_path / "file", MD5)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert served.asked == ["bytes=1000-"]
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_ctrl_c_leaves_nothing_that_looks_finished(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vitkit.data import download

    def stop(path: Path) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(download, "md5_of", stop)
        with pytest.raises(KeyboardInterrupt):
            fetch(served.url, tmp_path / "file", MD5)
    assert [p.name for p in tmp_path.iterdir()] == ["file.part"]
    fetch(served.url, tmp_path / "file", MD5)  # all has come: the server is asked for no more
    assert served.asked == [None, f"bytes={len(CONTENT)}-"]
    assert (tmp_path / "file").read_bytes() == CONTENT


@pytest.mark.parametrize("part", [b"another file", CONTENT + b"and more"])
def test_a_wrong_beginning_is_thrown_away(served: Served, tmp_path: Path, part: bytes) -> None:
    (tmp_path / "file.part").write_bytes(part)
    fetch(served.url, tmp_path / "file", MD5)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert served.asked == [f"bytes={len(part)}-", None]


def test_a_server_that_cannot_send_a_rest_sends_all(served: Served, tmp_path: Path) -> None:
    served.resumes = False
    (tmp_path / "file.part").write_bytes(CONTENT[:5000])
    fetch(served.url, tmp_path / "file", MD5)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert served.sent == [len(CONTENT)]


def test_another_file_is_refused_and_not_asked_for_again(served: Served, tmp_path: Path) -> None:
    served.content = CONTENT[::-1]
    with pytest.raises(DataError, match=f"another file .its MD5 sum is not {MD5}") as said:
        fetch(served.url, tmp_path / "file", MD5)
    assert "goes on" not in str(said.value)
    assert served.asked == [None]
    assert not list(tmp_path.iterdir())


def test_what_is_not_there(served: Served, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"could not download .*404"):
        fetch(served.url + "s", tmp_path / "file", MD5)
    with pytest.raises(DataError, match="could not download nonsense"):
        fetch("nonsense", tmp_path / "file", MD5)
    (tmp_path / "taken").touch()
    with pytest.raises(DataError, match="could not download"):
        fetch(served.url, tmp_path / "taken" / "file", MD5)
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]


def test_cifar_by_way_of_a_lost_connection(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    download = cifar._download
    write_cifar("cifar10", tmp_path / "files", monkeypatch)
    monkeypatch.setattr(cifar, "_download", download)  # the real one again, from this server
    layout = cifar.LAYOUTS["cifar10"]
    packed = tmp_path / "packed"
    with tarfile.open(packed, "w:gz") as tar:
        tar.add(tmp_path / "files" / layout.folder, layout.folder)
    served.content = packed.read_bytes()
    md5 = hashlib.md5(served.content, usedforsecurity=False).hexdigest()
    here = dataclasses.replace(layout, url=served.url, archive=(layout.archive[0], md5))
    monkeypatch.setitem(cifar.LAYOUTS, "cifar10", here)

    root = tmp_path / "data"
    served.lose_after = [2000, *[0] * 20]
    with pytest.raises(DataError, match=r"lost .* or fetch it elsewhere and set data\.root"):
        read_cifar("cifar10", root, download=True)
    assert [p.name for p in root.iterdir()] == [f"{layout.archive[0]}.part"]
    with pytest.raises(DataError, match=r"data.download=true"):
        read_cifar("cifar10", root)  # the part passes for nothing
    served.lose_after = []
    elsewhere = dataclasses.replace(here, url="http://127.0.0.1:9/none")
    monkeypatch.setitem(cifar.LAYOUTS, "cifar10", elsewhere)
    names, train, test = read_cifar("cifar10", root, download=served.url)  # a mirror
    wanted = read_cifar("cifar10", tmp_path / "files")
    assert names == wanted[0]
    assert torch.equal(train[0], wanted[1][0]) and torch.equal(test[1], wanted[2][1])
    assert served.asked[-1] == "bytes=2000-"
