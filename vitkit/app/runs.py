"""One run, one folder: made once, found again for resuming and evaluating."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from vitkit.app.invocation import is_child, resume_command
from vitkit.config import RunConfig
from vitkit.errors import RunError
from vitkit.weights import tested_name

__all__ = [
    "discard_run_folder",
    "find_checkpoint",
    "finished_results",
    "make_run_folder",
    "require_unused",
    "resumable_checkpoint",
    "runs_folder",
]

FOLDER_VARIABLE = "VITKIT_RUN_DIR"
"""Tells the processes that a run starts which folder is theirs."""


def runs_folder(config: RunConfig) -> Path:
    """``<root>/<name>``: where the runs of a config lie that name no folder of their own."""
    model = config.model.name.replace("/", "-")
    return Path(config.run.root) / (config.run.name or f"{model}-{config.data.name}")


def require_unused(config: RunConfig) -> None:
    """See that ``run.dir`` holds no other run: rather before data are read than when it is made.

    Raises:
        RunError: it is not empty, or cannot be looked into.
    """
    if config.run.dir is None or _inherited_folder() is not None:
        return
    folder = Path(config.run.dir)
    with _no_such_folder(folder):
        if not (folder.exists() and any(folder.iterdir())):
            return
    resumable = (folder / "checkpoints" / "last.ckpt").is_file()
    more = f", or go on with it: {resume_command(folder)}" if resumable else ""
    raise RunError(
        f"{folder} is not empty, and a run is never overwritten; choose another run.dir{more}"
    )


def make_run_folder(config: RunConfig) -> Path:
    """``<root>/<name>/<date-time>``, or exactly ``run.dir``; new, and writable.

    Raises:
        RunError: it exists already, or cannot be made or written.
    """
    if (inherited := _inherited_folder()) is not None:
        return inherited
    require_unused(config)
    folder = Path(config.run.dir or config.run.root)
    with _no_such_folder(folder):
        folder = folder if config.run.dir else _dated_folder(config)
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.write_bytes(b"vitkit")
        probe.unlink()
    os.environ[FOLDER_VARIABLE] = str(folder)
    return folder


def _inherited_folder() -> Path | None:
    """The folder that the first of a training's processes has made, in another of them."""
    inherited = os.environ.get(FOLDER_VARIABLE)
    return Path(inherited) if inherited and is_child() else None


@contextmanager
def _no_such_folder(folder: Path) -> Iterator[None]:
    """What the disk says against a run's folder, as one line."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"cannot write the run folder {folder}: {error.strerror}; "
            "set run.root, or run.dir if you gave it, to a folder you may write"
        ) from error


def discard_run_folder(folder: Path, *, logged_too: bool = True) -> None:
    """Remove a run folder that has no checkpoint.

    Args:
        folder: of the run.
        logged_too: also where steps were logged; False leaves them to be looked at.
    """
    if is_child() or any((folder / "checkpoints").glob("*.ckpt")):
        return
    if not logged_too and _has_log(folder):
        return
    shutil.rmtree(folder, ignore_errors=True)


def _has_log(folder: Path) -> bool:
    """Whether ``metrics.csv`` has more than its head."""
    log = folder / "metrics.csv"
    return log.is_file() and log.read_bytes().count(b"\n") > 1


def finished_results(run: str | Path) -> Path | None:
    """``results.json`` of a run, which is written last of all; None if the run is not finished."""
    path = Path(run) / "results.json"
    return path if path.is_file() else None


def resumable_checkpoint(run: str | Path) -> Path:
    """``checkpoints/last.ckpt`` of a run folder.

    Raises:
        RunError: there is nothing to resume.
    """
    folder = Path(run)
    if folder.is_file() and folder.parent.name == "checkpoints":
        raise RunError(
            f"nothing to resume: {folder} is a file; name its run: --resume {folder.parent.parent}"
        )
    if not folder.is_dir():
        raise RunError(f"nothing to resume: {folder} is no run folder{_runs_beside(folder)}")
    path = folder / "checkpoints" / "last.ckpt"
    if not path.is_file():
        if inside := _runs_inside(folder):
            raise RunError(f"nothing to resume: {inside}")
        raise RunError(
            f"nothing to resume: {path} does not exist; the run stopped before its first "
            "checkpoint. Start it anew"
        )
    return path


def find_checkpoint(source: str | Path) -> Path:
    """The checkpoint that a run folder or a file stands for.

    In a folder it is the one that ``results.json`` says was tested, or else ``last.ckpt``.

    Raises:
        RunError: nothing there.
    """
    path = Path(source)
    if path.is_file():
        return path
    for folder in (path / "checkpoints", path):
        for name in (tested_name(path), "last.ckpt", "best.ckpt"):
            if name and (folder / name).is_file():
                return folder / name
    if path.is_dir():
        raise RunError(
            _runs_inside(path) or f"no checkpoint in {path}; expected checkpoints/last.ckpt"
        )
    raise RunError(f"no such run folder or checkpoint: {path}{_runs_beside(path)}")


def _runs_inside(folder: Path, depth: int = 2) -> str:
    """What to say of a folder that holds runs; empty if it holds none.

    Args:
        folder: to look into.
        depth: folders between it and a run's own files; no more, for it may be a home folder.
    """
    patterns = [f"{'*/' * count}checkpoints/last.ckpt" for count in range(1, depth + 1)]
    newest = {
        path.parent.parent: path.stat().st_mtime
        for pattern in patterns
        for path in folder.glob(pattern)
    }
    runs = sorted(newest, key=lambda run: -newest[run])
    if not runs:
        return ""
    shown = ", ".join(str(run.relative_to(folder)) for run in runs[:5])
    more = f" and {len(runs) - 5} more" if len(runs) > 5 else ""
    return f"{folder} is no run, but holds {shown}{more}; the newest is {runs[0]}"


def _runs_beside(path: Path) -> str:
    """Where the folder that a missing run should be in holds others: those."""
    inside = _runs_inside(path.parent, depth=1) if path.parent.is_dir() else ""
    return f"; {inside}" if inside else ""


def _dated_folder(config: RunConfig) -> Path:
    stamp, parent = datetime.now().strftime("%Y%m%d-%H%M%S"), runs_folder(config)
    parent.mkdir(parents=True, exist_ok=True)
    folder, count = parent / stamp, 1
    while True:
        try:
            folder.mkdir()
            return folder
        except FileExistsError:  # another run's, of this very second
            folder, count = parent / f"{stamp}-{count}", count + 1
