"""Small made-up data sets in the exact shape of the real ones."""

from __future__ import annotations

import dataclasses
import hashlib
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vitkit.data import cifar

__all__ = ["write_cifar", "write_pairs", "write_pictures", "write_verses"]


def write_cifar(
    name: str, root: Path, monkeypatch: pytest.MonkeyPatch, *, a_class: int = 10, test: int = 1
) -> None:
    """CIFAR's files with a few images of each class, and their sums in place of the real ones.

    Args:
        name: ``cifar10`` or ``cifar100``.
        root: becomes ``data.root``.
        monkeypatch: takes the sums back.
        a_class: training images of each class, spread over the training files.
        test: test images of each class.
    """
    layout = cifar.LAYOUTS[name]
    classes = 10 if name == "cifar10" else 100
    folder = root / layout.folder
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)

    def write(file: str, content: Mapping[str, Any]) -> str:
        raw = pickle.dumps(dict(content), protocol=2)
        (folder / file).write_bytes(raw)
        return hashlib.md5(raw, usedforsecurity=False).hexdigest()

    def batch(count: int) -> dict[str, Any]:
        pixels = rng.integers(0, 256, (count, 3 * 32 * 32), dtype=np.uint8)
        labels = [index % classes for index in range(count)]
        return {"data": pixels, layout.labels_key: labels, "filenames": [""] * count}

    a_file = classes * a_class // len(layout.train)
    names = [f"class {index}" for index in range(classes)]
    small = dataclasses.replace(
        layout,
        train={file: write(file, batch(a_file)) for file in layout.train},
        test={file: write(file, batch(classes * test)) for file in layout.test},
        meta=(layout.meta[0], write(layout.meta[0], {layout.names_key: names})),
    )
    monkeypatch.setitem(cifar.LAYOUTS, name, small)

    def refuse(*arguments: object) -> None:
        raise AssertionError("a test asked for a download")

    monkeypatch.setattr(cifar, "_download", refuse)


def write_pictures(
    root: Path, *, a_class: int = 10, classes: Sequence[str] = ("cat", "dog")
) -> None:
    """A folder a class, with PNG files of several sizes."""
    rng = np.random.default_rng(1)
    for label in classes:
        (root / label).mkdir(parents=True)
        for index in range(a_class):
            pixels = rng.integers(0, 256, (40 + index, 52, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / label / f"{index}.png")


def write_verses(path: Path, *, lines: int = 120) -> None:
    """A text of a few words in an order that can be learned: what a line says follows its first."""
    rng = np.random.default_rng(2)
    verses = [f"{name}: {verb} the {thing}.\n" for name, verb, thing in _VERSES]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(verses[i] for i in rng.integers(0, len(verses), lines)), "utf-8")


def write_pairs(root: Path, *, train: int = 60, other: int = 8, test: str = "test") -> None:
    """Pairs of sentences in Multi30k's layout: English words and their German ones, in order.

    Args:
        root: folder of the files.
        train: training pairs.
        other: validation pairs, and test pairs.
        test: name of the test files.
    """
    rng = np.random.default_rng(3)
    root.mkdir(parents=True, exist_ok=True)
    for split, count in {"train": train, "val": other, test: other}.items():
        chosen = [rng.choice(len(_WORDS), rng.integers(2, 6)) for _ in range(count)]
        for side, language in enumerate(("en", "de")):
            sentences = [" ".join(_WORDS[word][side] for word in words) for words in chosen]
            (root / f"{split}.{language}").write_text("\n".join(sentences) + "\n", "utf-8")


_VERSES = [
    ("ROMEO", "praises", "moon"),
    ("JULIET", "mistrusts", "moon"),
    ("TYBALT", "draws", "sword"),
    ("NURSE", "brings", "ladder"),
]
_WORDS = [
    ("one", "eins"),
    ("two", "zwei"),
    ("three", "drei"),
    ("four", "vier"),
    ("five", "fünf"),
    ("six", "sechs"),
    ("twelve", "zwölf"),
]
