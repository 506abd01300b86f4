"""What a run's folder tells: its records, its curves, its config. A page needs nothing else."""

from __future__ import annotations

import csv
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from vitkit.errors import RunError, first_line
from vitkit.records import ExampleRecord, Plain, PredictionRecord, Record

__all__ = [
    "Curve",
    "Run",
    "holds_records",
    "holds_seeds",
    "labels_of",
    "read_run",
    "read_seeds",
    "suffixes_of",
]

T = TypeVar("T")

SUITES = ("shift", "others", "speed")
"""In the names of records beside ``eval.json``."""

FILES = ("results.json", "metrics.csv", "eval.json", *(f"eval-{suite}.json" for suite in SUITES))
"""A folder with one of them is worth a page."""

SEEDS = "seeds.json"

AXES = ("step", "epoch", "seconds")
"""Columns of ``metrics.csv`` that are no curves."""

DAMAGES = (
    *(ValueError, KeyError, TypeError, AttributeError, EOFError),
    *(zipfile.BadZipFile, zlib.error),
)
"""What a file that is not whole makes its readers raise."""


@dataclass(frozen=True)
class Curve:
    """One column of ``metrics.csv``.

    Attributes:
        steps: of the training, ascending.
        values: at these steps; may be NaN or infinite.
    """

    steps: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Run:
    """What a folder holds; None, or empty, for what is not there.

    Attributes:
        folder: the folder.
        suffix: of the files of an evaluation that shares it, such as ``-best``.
        results: ``results.json``.
        standard, shift, others, speed: ``eval.json`` and its siblings.
        curves: name -> curve, of ``metrics.csv``.
        config: text of ``config.yaml``.
        predictions: ``predictions.npz``.
        examples: ``examples.npz``, where it belongs to the predictions.
    """

    folder: Path
    suffix: str = ""
    results: Record | None = None
    standard: Record | None = None
    shift: Record | None = None
    others: Record | None = None
    speed: Record | None = None
    curves: dict[str, Curve] = field(default_factory=dict)
    config: str = ""
    predictions: PredictionRecord | None = None
    examples: ExampleRecord | None = None

    @property
    def name(self) -> str:
        """Its folder, and that one's where it is but a time: ``flowers/20260101-120000``; of
        several seeds the folder that holds theirs: ``flowers``.
        """
        unsaid = ("runs", "seeds", "/", ".", "..")
        given = [part for part in self.folder.parts if part not in unsaid]
        parts = given or self.folder.resolve().parts
        return "/".join(parts[-2:]) + (f" {self.suffix.lstrip('-')}" if self.suffix else "")

    @property
    def records(self) -> list[Record]:
        """Those there are, what was measured most carefully first."""
        found = (self.standard, self.results, self.shift, self.others, self.speed)
        return [record for record in found if record is not None]

    @property
    def split(self) -> str:
        """Of the predictions: that of ``eval.json``; else test, or val where nothing was tested."""
        if self.standard:
            return str(self.standard.facts.get("split", "test"))
        names = self.results.metrics if self.results else {}
        tested = any(name.startswith("test/") for name in names)
        return "val" if not tested and any(name.startswith("val/") for name in names) else "test"

    def metric(self, name: str) -> float | None:
        """A metric by its whole name, from the first record that has it."""
        return next((r.metrics[name] for r in self.records if name in r.metrics), None)

    def measured(self, name: str) -> float | None:
        """A metric of the split: ``acc`` is ``test/acc``."""
        return self.metric(f"{self.split}/{name}")

    def record_of(self, name: str) -> Record | None:
        """The record that :meth:`measured` takes a metric of the split from."""
        return next((r for r in self.records if f"{self.split}/{name}" in r.metrics), None)

    def fact(self, name: str) -> Plain:
        """A fact, from the training's record first."""
        records = [r for r in (self.results, *self.records) if r is not None]
        return next((r.facts[name] for r in records if r.facts.get(name) is not None), None)

    def evaluated(self, name: str) -> Plain:
        """A fact of what was measured, from the most careful record first."""
        return next((r.facts[name] for r in self.records if r.facts.get(name) is not None), None)

    def settings(self) -> dict[str, Any]:
        """``config.yaml`` as dotted keys; empty where there is none.

        Raises:
            RunError: it is no YAML.
        """
        try:
            sections = YAML(typ="safe", pure=True).load(self.config) if self.config else {}
        except YAMLError as error:
            where = self.folder / "config.yaml"
            raise RunError(f"{where} is damaged: {first_line(error)}") from error
        return _dotted(sections) if isinstance(sections, dict) else {}


def read_run(folder: Path, suffix: str = "") -> Run:
    """All that is known of a run.

    Args:
        folder: of the run, or where an evaluation left its records.
        suffix: of the evaluation's files.

    Raises:
        RunError: there is nothing, or a file is damaged.
    """
    if not folder.is_dir():
        raise RunError(f"no such run folder: {folder}")
    if not holds_records(folder, suffix):
        raise RunError(
            f"{folder} has none of {', '.join(FILES)}: name the folder of a run, such as "
            "runs/<name>/<time>"
        )
    predictions = _read(folder / f"predictions{suffix}.npz", PredictionRecord.read)
    examples = _read(folder / f"examples{suffix}.npz", ExampleRecord.read)
    if predictions is None or examples is None or not _belong_together(predictions, examples):
        examples = None
    return Run(
        folder=folder,
        suffix=suffix,
        results=_results(folder, suffix),
        standard=_read(folder / f"eval{suffix}.json", Record.read),
        shift=_read(folder / f"eval-shift{suffix}.json", Record.read),
        others=_read(folder / f"eval-others{suffix}.json", Record.read),
        speed=_read(folder / f"eval-speed{suffix}.json", Record.read),
        curves=_read(folder / "metrics.csv", _read_curves) or {},
        config=_text(folder / "config.yaml"),
        predictions=predictions,
        examples=examples,
    )


def holds_seeds(folder: Path) -> bool:
    """Whether ``train --seeds`` left its summary here."""
    return (folder / SEEDS).is_file()


def read_seeds(folder: Path) -> Run:
    """What several seeds of one recipe gave: ``seeds.json`` as results, ``recipe.yaml`` as config.

    Raises:
        RunError: there is none, or it is damaged.
    """
    results = _read(folder / SEEDS, Record.read, "train --seeds")
    if results is None:
        raise RunError(
            f"{folder} has no {SEEDS}: name folders that train --seeds has left, such as "
            "runs/<name>/seeds, or runs alone"
        )
    config = _text(folder / "recipe.yaml", "train --seeds")
    return Run(folder=folder, results=results, config=config)


def _results(folder: Path, suffix: str) -> Record | None:
    """What the training left; of other weights than it tested the facts alone."""
    record = _read(folder / "results.json", Record.read)
    return Record({}, record.facts, record.tables) if record is not None and suffix else record


def labels_of(runs: Sequence[Run]) -> list[str]:
    """A name for each run that no other has."""
    labels: list[str] = []
    for run in runs:
        before = sum(other.name == run.name for other in runs[: len(labels)])
        labels.append(f"{run.name} ({before + 1})" if before else run.name)
    return labels


def holds_records(folder: Path, suffix: str = "") -> bool:
    """Whether there is anything to report about a run, or an evaluation with this suffix."""
    own = (f"eval{part}{suffix}.json" for part in ("", *(f"-{suite}" for suite in SUITES)))
    return any((folder / name).is_file() for name in (*FILES, *own))


def suffixes_of(folder: Path) -> list[str]:
    """Suffixes of the evaluations in a folder beside the usual one, sorted."""
    found = {path.stem.removeprefix("eval") for path in folder.glob("eval-*.json")}
    for suite in SUITES:
        found = {name.removeprefix(f"-{suite}") for name in found}
    return sorted(found - {""})


def _read(path: Path, reader: Callable[[Path], T], writer: str = "vitkit eval") -> T | None:
    """What a reader makes of a file; None where there is none.

    Args:
        path: of the file.
        reader: makes something of it.
        writer: the command that writes it.

    Raises:
        RunError: the file is damaged.
    """
    if not path.is_file():
        return None
    try:
        return reader(path)
    except DAMAGES as error:
        raise RunError(
            f"{path} is damaged ({first_line(error)}); remove it, or write it anew with {writer}"
        ) from error


def _text(path: Path, writer: str = "vitkit eval") -> str:
    """A file of text; empty where there is none. Args and errors as of :func:`_read`."""
    return _read(path, lambda file: file.read_text(encoding="utf-8"), writer) or ""


def _read_curves(path: Path) -> dict[str, Curve]:
    """Every column that holds numbers; rows without it are left out."""
    steps: dict[str, list[int]] = {}
    values: dict[str, list[float]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            for name, text in row.items():
                if text and name and name not in AXES:
                    steps.setdefault(name, []).append(int(row["step"]))
                    values.setdefault(name, []).append(float(text))
    return {name: Curve(tuple(steps[name]), tuple(values[name])) for name in steps}


def _belong_together(predictions: PredictionRecord, examples: ExampleRecord) -> bool:
    """Whether the pictures are of the images that were predicted."""
    if not len(predictions.indices):
        return False
    if not np.isin(examples.studied, predictions.indices).all():
        return False
    places = np.searchsorted(predictions.indices, examples.indices)
    places = np.minimum(places, len(predictions.indices) - 1)
    same = np.array_equal(predictions.indices[places], examples.indices)
    return bool(same and np.array_equal(predictions.targets[places], examples.targets))


def _dotted(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _dotted(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
