"""Output that goes nowhere: work whose results are on disk goes on, and a reader may leave."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import TINY
from tests.interrupted import stop_at
from vitkit.cli import main
from vitkit.cli.main import _quiet_threads

Go = Callable[..., int]

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="/dev/full exists on Linux only")


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Go]:
    """The ``vitkit`` command in this process; its exit code."""

    # Started in the background, the tests would have inherited a Ctrl-C that is ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def call(*arguments: str) -> int:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["vitkit", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        return int(left.value.code or 0)

    yield call
    signal.signal(signal.SIGINT, before)


def _closed_pipe() -> Any:
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


def test_training_goes_on_when_nobody_reads(
    go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``train ... 2>&1 | head -2``."""
    with _closed_pipe() as out, _closed_pipe() as err:
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        assert go("train", *TINY, "run.dir=run") == 0
    assert (tmp_path / "run" / "results.json").exists()
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()


@on_linux
def test_training_goes_on_when_the_disk_of_its_log_is_full(
    go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert go("train", *TINY, "run.dir=run") == 0
    assert (tmp_path / "run" / "results.json").exists()
    assert capsys.readouterr().err.startswith("note: output could not be written: No space left")


@on_linux
def test_a_list_that_cannot_be_written_is_a_failure(
    go: Go, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert go("models") == 1
    assert capsys.readouterr().err.startswith("error: output could not be written: No space left")


@pytest.mark.parametrize("arguments", [("models",), ("train", "--list-keys"), ("--help",)])
def test_a_reader_may_leave(arguments: tuple[str, ...]) -> None:
    """``vitkit models | head -2``, as a process of its own: Python flushes once more at its end."""
    command = [sys.executable, "-m", "vitkit", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stderr is not None
        child.stdout.close()
        assert child.stderr.read() == b""
        assert child.wait() == 0


def test_closed_streams(go: Go, monkeypatch: pytest.MonkeyPatch) -> None:
    """``>&- 2>&-``: Python has no streams then."""
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert go("train", *TINY, "--dry-run") == 0
    assert go("models", "nonsense") == 2


def test_ctrl_c_before_training_leaves_nothing(
    go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from vitkit.training.task import ClassificationTask

    def interrupt(self: Any) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(ClassificationTask, "configure_optimizers", interrupt)
    assert go("train", *TINY, "run.dir=run") == 130
    assert capsys.readouterr().err == "interrupted; what was written before is whole\n"
    assert not (tmp_path / "run").exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_while_testing_tells_how_to_go_on(
    go: Go, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from vitkit.app.jobs import classification

    def interrupt(*args: Any, **kwargs: Any) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(classification, "evaluate_checkpoint", interrupt)
    assert go("train", *TINY, "run.dir=run", "trainer.max_epochs=1") == 130
    assert "vitkit train --resume run" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
def test_a_closed_terminal_leaves_a_checkpoint(
    go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_at(monkeypatch, 2, signal.SIGHUP)
    inherited = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
    try:
        assert go("train", *TINY, "run.dir=run") == 129
    finally:
        signal.signal(signal.SIGHUP, inherited)
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
def test_under_nohup_a_closed_terminal_is_nothing(
    go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        stop_at(monkeypatch, 2, signal.SIGHUP)
        assert go("train", *TINY, "run.dir=run") == 0
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("debug", [False, True])
def test_a_librarys_thread_that_meets_a_full_disk_shows_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], debug: bool
) -> None:
    """Who waits for it, as TensorBoard's flush does, gives the error; others are shown."""
    monkeypatch.setattr("sys.argv", ["vitkit", *["--debug"] * debug])

    def fail(error: Exception) -> None:
        raise error

    shown = []
    monkeypatch.setattr("threading.excepthook", lambda failure: shown.append(failure.exc_value))
    full, other = OSError(errno.ENOSPC, "No space left"), ValueError("another")
    with _quiet_threads():
        for error in (full, other):
            thread = threading.Thread(target=fail, args=[error])
            thread.start()
            thread.join()
    assert shown == ([full, other] if debug else [other])
