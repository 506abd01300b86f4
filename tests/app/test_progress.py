"""Long jobs other than training tell how far they are, and finish with all of it."""

from __future__ import annotations

import re

import pytest

from vitkit.app import progress


def test_plain_lines_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "PLAIN_LINE_SECONDS", 0.0)
    with progress.counted("reading", "files") as tell:
        tell(1, 2000)
        tell(2000, 2000)
    first, last = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"  reading 1/2,000  [\d,.]+ files/s  [\d:]+ left", first)
    assert re.fullmatch(r"  reading 2,000/2,000  [\d,]+ files/s  0:00 left", last)


def test_a_quick_or_quiet_job_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.counted("reading", "files") as tell:
        tell(5, 5)
    with progress.counted("reading", "files", show=False) as tell:
        tell(5, 5)
    assert capsys.readouterr().err == ""


def test_a_bar_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress.counted("evaluating test", "images") as tell:
        tell(10, 10)
    assert "evaluating test" in capsys.readouterr().err
