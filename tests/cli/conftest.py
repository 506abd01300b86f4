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
