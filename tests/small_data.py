"""Small made-up data sets in the exact shape of the real ones."""

from __future__ import annotations

import dataclasses
import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vitkit.data import cifar

__all__ = ["write_cifar", "write_pictures"]


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


def write_pictures(root: Path, *, a_class: int = 10) -> None:
    """A folder a class, with PNG files of several sizes."""
    rng = np.random.default_rng(1)
    for label in ("cat", "dog"):
        (root / label).mkdir(parents=True)
        for index in range(a_class):
            pixels = rng.integers(0, 256, (40 + index, 52, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / label / f"{index}.png")
