"""Look through a data set before training: counts, sizes, damaged files, duplicates, balance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from vitkit.data.config import ImageDataConfig
from vitkit.data.folder import BadFile, decoded, find_images, open_picture
from vitkit.data.raw import OnFile
from vitkit.data.sources import load_data
from vitkit.data.splits import (
    TEST_FRACTION,
    ResidentSplit,
    Split,
    labelled_indices,
    picture_digest,
    train_and_test,
    train_and_val,
)
from vitkit.data.unlabelled import find_pictures

__all__ = ["DataReport", "check_data"]

SHOWN = 5
"""Pairs of duplicates that are named."""

DAMAGED_SHOWN = 20
"""Damaged files that are named, unless all are asked for."""

FILES = {"image_folder": find_images, "unlabelled": find_pictures}
"""Data sets of files that are looked at as they are, before they are resized."""


@dataclass
class DataReport:
    """What was found.

    Attributes:
        name: of the data set.
        class_names: by class index.
        counts: split -> images of each class, as a training splits them.
        sizes: (height, width) -> images of that size.
        damaged: files that cannot be read.
        duplicates: (first split, second split) -> pixel-identical images beyond the first.
        examples: the first duplicate pairs.
        notes: how splits come about that are not there as folders.
    """

    name: str
    class_names: list[str]
    counts: dict[str, list[int]] = field(default_factory=dict)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    damaged: list[BadFile] = field(default_factory=list)
    duplicates: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def lines(self, *, all_damaged: bool = False) -> list[str]:
        """For printing; fits 80 columns but for paths.

        Args:
            all_damaged: name every damaged file, however many there are.
        """
        splits = list(self.counts)
        lines = [f"{self.name}: {len(self.class_names)} classes"]
        lines.append(f"{'class':<24}" + "".join(f"{name:>10}" for name in splits))
        for index, name in enumerate(self.class_names):
            row = "".join(f"{self.counts[s][index]:>10,}" for s in splits)
            lines.append(f"{name[:23]:<24}{row}")
        lines.append(f"{'all':<24}" + "".join(f"{sum(self.counts[s]):>10,}" for s in splits))
        lines += self.notes
        common = ", ".join(f"{h} x {w} ({n:,})" for (h, w), n in self.sizes.most_common(3))
        more = f" and {len(self.sizes) - 3} more" if len(self.sizes) > 3 else ""
        lines.append(f"sizes: {common}{more}")
        train = [count for count in self.counts.get("train", []) if count]
        if train:
            lines.append(
                f"balance: the largest class has {max(train) / min(train):.2f} x the smallest"
            )
        lines.append(f"damaged files: {len(self.damaged)}")
        named = self.damaged if all_damaged else self.damaged[:DAMAGED_SHOWN]
        lines += [f"  {bad.path}: {bad.reason}" for bad in named]
        if rest := len(self.damaged) - len(named):
            lines.append(f"  and {rest:,} more; vitkit check-data --all names every one")
        for (one, two), count in sorted(self.duplicates.items()):
            where = f"within {one}" if one == two else f"between {one} and {two}"
            lines.append(f"duplicates {where}: {count}")
        lines += [f"  {a} = {b}" for a, b in self.examples]
        if not self.duplicates:
            lines.append("duplicates: none")
        return lines


def check_data(config: ImageDataConfig, on_file: OnFile | None = None) -> DataReport:
    """Look at every image once.

    Args:
        config: which data.
        on_file: told (files done, files in all) while a folder is read.

    Raises:
        DataError: the data set is absent or has no classes.
    """
    if config.name in FILES:
        return _check_files(config, on_file)
    data = load_data(config)
    report = DataReport(data.info.name, list(data.info.class_names))
    seen: dict[bytes, tuple[str, str]] = {}
    for name, split in (("train", data.train), ("val", data.val), ("test", data.test)):
        if split is None:
            continue
        counts = [0] * data.info.num_classes
        for index, (digest, size) in enumerate(_digests(split)):
            counts[int(split.targets[index])] += 1
            report.sizes[size] += 1
            _note(report, seen, digest, name, f"{name} {index}")
        report.counts[name] = counts
    return report


def _check_files(config: ImageDataConfig, on_file: OnFile | None) -> DataReport:
    classes, found = FILES[config.name](Path(config.root))
    report = DataReport(str(config.root), classes)
    good: dict[str, list[_Picture]] = {}
    total, done = sum(len(pairs) for pairs in found.values()), 0
    for split, pairs in found.items():
        good[split] = []
        for (path, target), seen_picture in decoded(
            pairs, lambda path: _seen(open_picture(path, 3, config.max_pixels))
        ):
            done += 1
            if on_file is not None:
                on_file(done, total)
            if isinstance(seen_picture, BadFile):
                report.damaged.append(seen_picture)
                continue
            digest, size = seen_picture
            report.sizes[size] += 1
            good[split].append(_Picture(path, target, digest))
    seen: dict[bytes, tuple[str, str]] = {}
    for split, pictures in _as_trained(good, config, report.notes).items():
        counts = Counter(picture.target for picture in pictures)
        report.counts[split] = [counts[index] for index in range(len(classes))]
        for picture in pictures:
            _note(report, seen, picture.digest, split, str(picture.path))
    return report


@dataclass(frozen=True)
class _Picture:
    path: Path
    target: int
    digest: bytes


def _as_trained(
    good: dict[str, list[_Picture]], config: ImageDataConfig, notes: list[str]
) -> dict[str, list[_Picture]]:
    """The splits of a training: what has no folder of its own is cut from the training images."""
    train = good.get("train", [])
    cut: dict[str, list[_Picture]] = {}
    if "test" not in good and config.name == "image_folder":
        train, cut["test"] = _parted(train, train_and_test, config)
        notes.append(_said("test", f"{TEST_FRACTION:.0%} of each class", cut["test"]))
    if "val" not in good and config.val_fraction and train:
        train, cut["val"] = _parted(train, train_and_val, config)
        notes.append(_said("val", f"{config.val_fraction:.0%} of train", cut["val"]))
    if config.label_fraction < 1.0 and train:
        chosen = labelled_indices(_targets(train), config.label_fraction, config.split_seed)
        train = [train[i] for i in chosen.tolist()]
        notes.append(f"train: data.label_fraction keeps {config.label_fraction:.0%} of each class")
    splits = {**good, **cut, "train": train}
    return {name: splits[name] for name in ("train", "val", "test") if splits.get(name)}


def _said(split: str, share: str, cut: list[_Picture]) -> str:
    """How a split comes about that has no folder."""
    if cut:
        return f"{split}: no folder {split}/, so {share} are set aside"
    return f"{split}: none; there is no folder {split}/, and {share} is not one picture"


def _parted(
    pictures: list[_Picture],
    rule: Callable[[Tensor, ImageDataConfig], tuple[Tensor, Tensor]],
    config: ImageDataConfig,
) -> tuple[list[_Picture], list[_Picture]]:
    """The pictures in two parts, by the rule of a training."""
    if not pictures:
        return [], []
    kept, cut = (part.tolist() for part in rule(_targets(pictures), config))
    return [pictures[i] for i in kept], [pictures[i] for i in cut]


def _targets(pictures: list[_Picture]) -> Tensor:
    return torch.tensor([picture.target for picture in pictures], dtype=torch.int64)


def _note(
    report: DataReport, seen: dict[bytes, tuple[str, str]], digest: bytes, split: str, where: str
) -> None:
    first = seen.setdefault(digest, (split, where))
    if first[1] != where:
        report.duplicates[(first[0], split)] += 1
        if len(report.examples) < SHOWN:
            report.examples.append((first[1], where))


def _digests(split: Split) -> Iterator[tuple[bytes, tuple[int, int]]]:
    for index in range(len(split)):
        if isinstance(split, ResidentSplit):
            yield _seen(split.take(torch.tensor([index]))[0])
        else:
            yield _seen(split[index][0])


def _seen(image: Tensor) -> tuple[bytes, tuple[int, int]]:
    """Digest of an image's pixels, and its (height, width): all that is kept of it."""
    return picture_digest(image, 16), (int(image.shape[1]), int(image.shape[2]))
