"""The report: what is kept of a finished model, and the page that is made of files alone."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from vitkit.app.examples import examples_of
from vitkit.app.leavings import left
from vitkit.app.subjects import Subject
from vitkit.app.suites import record_of
from vitkit.errors import ConfigError, RunError
from vitkit.evaluation.agreement import compare_means, compare_paired
from vitkit.evaluation.classification import Predictions
from vitkit.records import write_text
from vitkit.report import (
    Run,
    comparison_page,
    holds_records,
    holds_seeds,
    read_run,
    read_seeds,
    run_page,
    seed_values,
    seeds_page,
    suffixes_of,
)
from vitkit.report.measures import COMPARED

__all__ = ["Tested", "report_comparison", "report_evaluation", "report_run", "report_training"]

MOST_LOGITS = 20_000_000
"""Logits that a training keeps: 80 MB. Beyond that an evaluation may."""


@dataclass(frozen=True)
class Tested:
    """A model and what it said of a split.

    Attributes:
        subject: the model with its data.
        predictions: of every image of the split.
        split: ``test`` or ``val``.
    """

    subject: Subject
    predictions: Predictions
    split: str


def report_training(folder: Path, tested: Tested | None) -> Path | None:
    """Predictions, pictures and page of a finished training; a failure is one line and no more.

    Args:
        folder: of the run, its results written.
        tested: the model that was tested, if it classifies images.
    """
    try:
        if tested is not None and tested.predictions.logits.numel() <= MOST_LOGITS:
            record = record_of(tested.subject, tested.predictions, tested.split)
            record.write(left(folder, "predictions"))
        return _reported(folder, tested, "")
    except (Exception, KeyboardInterrupt) as error:
        _told(folder, error)
        return None


def report_evaluation(folder: Path, tested: Tested | None, suffix: str = "") -> Path | None:
    """Pictures and page of an evaluation whose records are written; a failure is one line.

    Args:
        folder: of the records.
        tested: the model with its predictions, if the evaluation made any.
        suffix: of the records' names.
    """
    try:
        return _reported(folder, tested, suffix)
    except (Exception, KeyboardInterrupt) as error:
        _told(folder, error)
        return None


def report_run(folder: str | Path) -> Path:
    """Write the page of a run from its files, and those of other evaluations in its folder.

    Args:
        folder: of a run, or where an evaluation left its records.

    Returns:
        The page.

    Raises:
        RunError: nothing to report, a damaged file, or the page cannot be written.
    """
    place = Path(folder)
    suffixes = suffixes_of(place) if place.is_dir() else []
    if holds_records(place) or not suffixes:
        suffixes = ["", *suffixes]
    pages = [_write_page(place, suffix) for suffix in suffixes]
    return pages[0]


def report_comparison(folders: Sequence[str | Path], out: str | Path) -> Path:
    """Write one page about several runs, or about several recipes over seeds, from their files.

    Args:
        folders: two or more, either of runs or of seeds that ``train --seeds`` trained; the first
            is held against each other one.
        out: the page; a file that is no page of vitkit is not overwritten.

    Raises:
        ConfigError: fewer than two runs.
        RunError: nothing to report, a damaged file, or the page cannot be written.
    """
    if len(folders) < 2:
        raise ConfigError("nothing to compare: name two runs or more")
    page = Path(out)
    if page.is_dir():
        raise RunError(f"{page} is a folder; name a file: --out {page / 'compare.html'}")
    if page.exists() and not _is_page(page):
        raise RunError(f"{page} is no page of vitkit and is not overwritten; choose another --out")
    places = [Path(folder) for folder in folders]
    if any(map(holds_seeds, places)):
        recipes = [read_seeds(place) for place in places]
        tests = [_tests(recipes[0], other) for other in recipes[1:]]
        text = seeds_page(recipes, tests)
    else:
        runs = [read_run(place) for place in places]
        text = comparison_page(runs, [_paired(runs[0], other) for other in runs[1:]])
    _write(page, text)
    return page


def _reported(folder: Path, tested: Tested | None, suffix: str) -> Path:
    if tested is not None:
        made = examples_of(tested.subject, tested.predictions, tested.split)
        made.write(left(folder, "examples", suffix))
    return _write_page(folder, suffix)


def _write_page(folder: Path, suffix: str) -> Path:
    page = left(folder, "page", suffix)
    _write(page, run_page(read_run(folder, suffix)))
    return page


def _write(page: Path, text: str) -> None:
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        write_text(page, text)
    except OSError as error:
        raise RunError(f"cannot write {page}: {error.strerror}; choose another place") from error


def _told(folder: Path, error: BaseException) -> None:
    """The run is done and stays so."""
    lines = str(error).strip().splitlines()
    reason = "interrupted" if isinstance(error, KeyboardInterrupt) else type(error).__name__
    said = f"{reason}: {lines[0]}" if lines else reason
    print(
        f"note: the report was not written ({said}); vitkit report {folder} makes it",
        file=sys.stderr,
        flush=True,
    )


def _is_page(path: Path) -> bool:
    with path.open("rb") as file:
        return b'content="vitkit"' in file.read(4096)


def _tests(first: Run, other: Run) -> dict[str, Mapping[str, float]]:
    """One recipe's means against another's, of what both measured with two seeds or more."""
    if (first.split, first.fact("data")) != (other.split, other.fact("data")):
        return {}
    found: dict[str, Mapping[str, float]] = {}
    for name, _, _ in COMPARED:
        ours, theirs = (list(seed_values(recipe, name).values()) for recipe in (first, other))
        if min(len(ours), len(theirs)) > 1:
            found[name] = asdict(compare_means(ours, theirs))
    return found


def _paired(first: Run, other: Run) -> dict[str, float] | None:
    """The first run against another, where both were asked about the same images."""
    a, b = first.predictions, other.predictions
    if a is None or b is None or first.split != other.split:
        return None
    if first.evaluated("data") != other.evaluated("data"):
        return None
    same = ("indices", "targets", "class_names", "pictures")
    if not all(np.array_equal(getattr(a, name), getattr(b, name)) for name in same):
        return None
    right = [torch.from_numpy(p.logits.argmax(1) == p.targets) for p in (a, b)]
    return asdict(compare_paired(*right))
