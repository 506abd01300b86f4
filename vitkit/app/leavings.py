"""What measuring checkpoints leaves in a run's folder: under which names, and clearing it away."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain, count
from pathlib import Path

from vitkit.records import Record
from vitkit.report import suffixes_of
from vitkit.weights import tested_name

__all__ = ["DRAWINGS", "INSPECTED", "forget", "keep_in", "left", "suffix_of", "with_split"]

RECORDS = {
    "standard": "eval{}.json",
    "shift": "eval-shift{}.json",
    "others": "eval-others{}.json",
    "speed": "eval-speed{}.json",
    "probe": "probe{}.json",
}
"""What was measured -> its record; ``{}`` is where a suffix goes, see :func:`suffix_of`."""

FILES = {
    **RECORDS,
    "predictions": "predictions{}.npz",
    "examples": "examples{}.npz",
    "head": "probe-head{}.safetensors",
    "page": "report/index{}.html",
    "translations": "translations-{}.txt",
}
"""The same with what lies beside the records; of translations the suffix begins with the split."""

INSPECTED = "inspect"
"""Folder of what was seen inside a model."""

DRAWINGS = "drawings"
"""Table of ``inspect.json`` that names the pictures beside it."""


def left(folder: Path, what: str, suffix: str = "") -> Path:
    """A file by what it holds.

    Args:
        folder: of the run.
        what: a key of :data:`FILES`.
        suffix: see :func:`suffix_of`.
    """
    return folder / FILES[what].format(suffix)


def suffix_of(path: Path, folder: Path, used: set[tuple[Path, str]] | None = None) -> str:
    """What is put into the names of files where a folder has some of another checkpoint.

    A run's own names belong to the checkpoint that it tested, whichever is measured first.

    Args:
        path: of the checkpoint.
        folder: where its files go.
        used: (folder, suffix) of those that are measured in the same call; this one is added.
    """
    used = set() if used is None else used
    own = path.parent.name != "checkpoints" or path.name == (tested_name(folder) or "last.ckpt")
    names = chain([""] if own else [], [f"-{path.stem}"], (f"-{path.stem}-{n}" for n in count(2)))
    suffix = next(name for name in names if (folder, name) not in used)
    used.add((folder, suffix))
    return suffix


def with_split(suffix: str, split: str, asked: str, there: Sequence[str]) -> str:
    """The suffix with what tells the splits that are evaluated beside the usual one.

    Args:
        suffix: see :func:`suffix_of`.
        split: that is evaluated.
        asked: a split, ``auto`` or ``all``.
        there: the splits that there are.
    """
    usual = "test" if "test" in there else "val"
    return f"{suffix}-{split}" if asked == "all" and split != usual else suffix


def keep_in(folder: Path, kept: Path) -> None:
    """Move what was measured of a finished run, before it is made longer.

    Args:
        folder: of the run.
        kept: folder that becomes like it.
    """
    for path in _measured(folder):
        there = kept / path.relative_to(folder)
        there.parent.mkdir(parents=True, exist_ok=True)
        path.replace(there)


def forget(folder: Path) -> None:
    """Clear away what was measured of a run before it was finished: it is not about the finished
    one. Those names go that :func:`suffix_of` gives; copies under names of a person's own stay.

    Args:
        folder: of the run.
    """
    for path in _measured(folder):
        path.unlink()
    for place in (folder / INSPECTED, folder / "report"):
        with suppress(OSError):  # it is not there, or holds files of a person's own
            place.rmdir()


def _measured(folder: Path) -> list[Path]:
    """All files that measuring the run's checkpoints has left."""
    found = [
        left(folder, what, one)
        for suffix in _suffixes(folder)
        for what in FILES
        for one in (_of_splits(suffix) if what == "translations" else [suffix])
    ]
    seen = folder / INSPECTED
    if (record := _record_of_a_run(seen / "inspect.json")) is not None:
        drawn = record.tables.get(DRAWINGS, {}).get("file", [])
        found += [seen / Path(name).name for name in ("inspect.json", "inspect.npz", *drawn)]
    return [path for path in dict.fromkeys(found) if path.is_file()]


def _suffixes(folder: Path) -> list[str]:
    """The usual names' and those of the records of other checkpoints and splits."""
    probed = {path.stem.removeprefix("probe") for path in folder.glob("probe-*.json")}
    others = {*suffixes_of(folder), *probed}
    return ["", *(suffix for suffix in sorted(others) if _has_record(folder, suffix))]


def _has_record(folder: Path, suffix: str) -> bool:
    """Whether a record lies under names that are given to those of its own checkpoint."""
    records = [_record_of_a_run(left(folder, what, suffix)) for what in RECORDS]
    stems = {Path(str(one.facts["checkpoint"])).stem for one in records if one is not None}
    splits = r"(-(train|val|test))?"
    return any(re.fullmatch(rf"(-{re.escape(s)}(-\d+)?)?{splits}", suffix) for s in stems)


def _record_of_a_run(path: Path) -> Record | None:
    """A record of ours about a checkpoint of a run; None of anything else."""
    try:
        record = Record.read(path)
        about = record.facts.get("checkpoint")
        tables = record.tables.get(DRAWINGS, {}).get("file", [])
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    ours = isinstance(about, str) and Path(about).parent.name == "checkpoints"
    return record if ours and isinstance(tables, list) else None


def _of_splits(suffix: str) -> list[str]:
    """Suffixes of the translations that may belong to a record: the split comes first in them."""
    return [split + suffix.removesuffix(f"-{split}") for split in ("train", "val", "test")]
