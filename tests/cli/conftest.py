"""What tests of the command line start from."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Command


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vitkit_command: Command) -> Command:
    """The ``vitkit`` command in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return vitkit_command


def one_line(err: str, *parts: str) -> None:
    """An error is told in one line, without a traceback, and these parts are in what is said."""
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, err
    for part in parts:
        assert part in err, err


def only_line(err: str, *parts: str) -> None:
    """As :func:`one_line`, and nothing is said beside it."""
    assert len(err.splitlines()) == 1, err
    one_line(err, *parts)
