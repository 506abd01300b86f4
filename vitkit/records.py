"""What a run or an evaluation leaves behind for people and reports: plain values in files."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ExampleRecord",
    "Plain",
    "PredictionRecord",
    "Record",
    "Table",
    "is_share",
    "write_arrays",
    "write_beside",
    "write_text",
]

Plain = str | int | float | bool | None

Table = dict[str, list[Any]]
"""Columns of one length, by name."""

TABLES = "tables"

SHARE = re.compile(r"(^|/)(acc|aurra|err|precision|recall|f1|mce|t?ace)|(^|/|_)ece|_acc$")


@dataclass(frozen=True)
class Record:
    """One object: metrics under the names they are logged by, then the facts about the run, then
    tables, if any.

    Attributes:
        metrics: such as ``test/acc``, a fraction in [0, 1].
        facts: wall seconds, parameters, versions, hardware, commit, seed, ...
        tables: what has rows, such as numbers a class; in the file under ``tables``.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Plain] = field(default_factory=dict)
    tables: dict[str, Table] = field(default_factory=dict)

    def flat(self) -> dict[str, Plain]:
        """Metrics first, then facts."""
        return {**self.metrics, **self.facts}

    def write(self, path: Path) -> None:
        """Write as JSON, beside and renamed: a reader never sees half a file."""
        flat = self.flat()
        text = json.dumps(flat, indent=2, allow_nan=True)
        if self.tables:
            head = f"{text[:-2]},\n" if flat else "{\n"
            text = f'{head}  "{TABLES}": {_tables_text(self.tables)}\n}}'
        write_text(path, text + "\n")

    @classmethod
    def read(cls, path: Path) -> Record:
        """Read what :meth:`write` wrote; a key with a slash is a metric."""
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        tables: dict[str, Table] = content.pop(TABLES, {})
        flat: Mapping[str, Plain] = content
        metrics = {
            key: float(value)
            for key, value in flat.items()
            if "/" in key and isinstance(value, int | float)
        }
        facts = {key: value for key, value in flat.items() if key not in metrics}
        return cls(metrics, facts, tables)


@dataclass(frozen=True)
class PredictionRecord:
    """What a model said about every image of a split: ``predictions.npz``.

    Attributes:
        logits: float32 (N, classes).
        targets: int64 (N,).
        indices: int64 (N,): the images' places in the split.
        confusion: int64 (classes, classes): row the right class, column the predicted one.
        class_names: text (classes,).
        pictures: text (): a digest of which pictures they are; empty in files of earlier versions.
    """

    logits: NDArray[np.float32]
    targets: NDArray[np.int64]
    indices: NDArray[np.int64]
    confusion: NDArray[np.int64]
    class_names: NDArray[np.str_]
    pictures: NDArray[np.str_] = field(default_factory=lambda: np.array(""))

    def write(self, path: Path) -> None:
        """Write beside and rename."""
        write_arrays(path, vars(self))

    @classmethod
    def read(cls, path: Path) -> PredictionRecord:
        """Read what :meth:`write` wrote: arrays only, nothing in the file is run."""
        return cls(**_read_arrays(path, cls.__dataclass_fields__))


@dataclass(frozen=True)
class ExampleRecord:
    """Pictures of a split that a page shows, and where the model looks in some: ``examples.npz``.

    Attributes:
        indices: int64 (P,): the pictures' places in the split.
        targets: int64 (P,): their right classes; whoever reads sees by them whether the pictures
            belong to a ``predictions.npz``.
        pictures: uint8 (P, height, width, channels), made small.
        studied: int64 (M,): places in the split of the scenes.
        scenes: uint8 (M, height, width, channels): some of the pictures, less small.
        layers, heads: int64 (L,) and (K,): which of the model's the maps are of, from 0.
        grid: int64 (2,): rows and columns of patches.
        maps: uint8 (M, L, K, N, N): attention weights, a row for each token that asks, as 255ths
            of the row's largest; tokens in front of the patches first.
        peaks: float32 (M, L, K, N): each row's largest weight.
        relevance: float16 (M, rows, columns): for the predicted class, the largest of each picture
            being 1. Like the maps, empty where the model has none.
        fronts: text (F,): what the tokens in front of the patches are; empty where there are none,
            and in files of earlier versions.
    """

    indices: NDArray[np.int64]
    targets: NDArray[np.int64]
    pictures: NDArray[np.uint8]
    studied: NDArray[np.int64]
    scenes: NDArray[np.uint8]
    layers: NDArray[np.int64]
    heads: NDArray[np.int64]
    grid: NDArray[np.int64]
    maps: NDArray[np.uint8]
    peaks: NDArray[np.float32]
    relevance: NDArray[np.float16]
    fronts: NDArray[np.str_] = field(default_factory=lambda: np.zeros(0, dtype=np.str_))

    def write(self, path: Path) -> None:
        """Write beside and rename."""
        write_arrays(path, vars(self), compressed=True)

    @classmethod
    def read(cls, path: Path) -> ExampleRecord:
        """Read what :meth:`write` wrote: arrays only, nothing in the file is run."""
        return cls(**_read_arrays(path, cls.__dataclass_fields__))


def write_beside(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file beside its place, under this process's own name for it, and rename it there."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        write(beside)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_arrays(path: Path, arrays: Mapping[str, Any], *, compressed: bool = False) -> None:
    """Write an ``.npz`` file whole or not at all."""

    def write(beside: Path) -> None:
        with beside.open("wb") as file:
            (np.savez_compressed if compressed else np.savez)(file, allow_pickle=False, **arrays)

    write_beside(path, write)


def _read_arrays(path: Path, names: Iterable[str]) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in names if name in arrays}


def _tables_text(tables: Mapping[str, Table]) -> str:
    """A line a column: a list of a thousand numbers is read as one."""
    parts = []
    for name, table in tables.items():
        columns = ",\n".join(
            f"      {json.dumps(column)}: {json.dumps(values)}" for column, values in table.items()
        )
        parts.append(f"    {json.dumps(name)}: {{\n{columns}\n    }}")
    return "{\n" + ",\n".join(parts) + "\n  }"


def is_share(name: str) -> bool:
    """Whether a metric of this name is a share, which people read in percent."""
    return SHARE.search(name) is not None


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    write_beside(path, lambda beside: beside.write_text(text, encoding="utf-8"))
