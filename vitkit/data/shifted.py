"""Test sets of their own for classes that a model knows already: CIFAR-10.1, CIFAR-10H, ImageNet's.

All are read from local folders and nothing is fetched. The classes of ImageNet-1k are in the order
of their sorted identifiers, which is the order of its models' outputs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitkit.data.config import MAX_PIXELS
from vitkit.data.folder import open_picture, pictures_in
from vitkit.data.imagenet import IDENTIFIER, IMAGENET_CLASSES
from vitkit.data.preprocess import Preprocessing, to_channels
from vitkit.data.splits import ResidentSplit, Split, StreamedSplit
from vitkit.errors import DataError

__all__ = [
    "Published",
    "RealLabels",
    "read_cifar10_1",
    "read_cifar10h",
    "read_cifar_c",
    "read_imagenet_c",
    "read_imagenet_folder",
    "read_imagenet_real",
]

CIFAR10_TEST = 10_000
SEVERITIES = 5

COUNTED = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
)
"""The corruptions whose errors are averaged."""

EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
"""Those that were published to choose a model by."""


@dataclass(frozen=True)
class _Reader:
    """Decodes a picture as a model wants it: a pure function of the file."""

    preprocessing: Preprocessing
    max_pixels: int

    def __call__(self, path: object) -> Tensor:
        want = self.preprocessing
        return want.fit(open_picture(Path(str(path)), want.in_chans, self.max_pixels))


@dataclass(frozen=True)
class RealLabels:
    """ImageNet's validation pictures with all the classes that people see in them.

    Attributes:
        images: with the first of its classes as each picture's target.
        labels: of each picture; pictures without any are left out.
    """

    images: StreamedSplit
    labels: tuple[tuple[int, ...], ...]


def read_cifar10_1(folder: str | Path, preprocessing: Preprocessing) -> ResidentSplit:
    """CIFAR-10.1, version 6 if it is there: 2,000 new images for CIFAR-10's classes.

    Args:
        folder: that holds ``cifar10.1_v6_data.npy`` and ``cifar10.1_v6_labels.npy``.
        preprocessing: of the model: its size and channels.

    Raises:
        DataError: absent, or not what the files should hold.

    Source: Recht et al., "Do CIFAR-10 classifiers generalize to CIFAR-10?", arXiv 1806.00451.
    """
    folder = _folder(folder, "eval.cifar10_1")
    for version in ("v6", "v4"):
        images = folder / f"cifar10.1_{version}_data.npy"
        if images.is_file():
            break
    else:
        raise DataError(
            f"{folder} holds no cifar10.1_v6_data.npy; eval.cifar10_1 is the folder of CIFAR-10.1's"
            " npy files"
        )
    pixels = _array(images)
    labels = _labels(_array(folder / images.name.replace("data", "labels")), images, pixels, 10)
    _require_pixels(pixels, images)
    like = _like_cifar(pixels, preprocessing.in_chans)
    return ResidentSplit(preprocessing.fit(like), labels)


@dataclass(frozen=True)
class Published:
    """Test images under one corruption, as they were published.

    Attributes:
        corruption: its name.
        severity: 1 to 5.
        read: reads them.
    """

    corruption: str
    severity: int
    read: Callable[[], Split]


def read_cifar_c(
    folder: str | Path, preprocessing: Preprocessing, num_classes: int
) -> list[Published]:
    """CIFAR-10-C or CIFAR-100-C; the images are read when they are asked for.

    Args:
        folder: that holds ``labels.npy`` and ``<corruption>.npy``, 50,000 images each, the first
            10,000 of severity 1; the 15 corruptions that count, or all 19.
        preprocessing: of the model: its size and channels.
        num_classes: 10 or 100.

    Raises:
        DataError: absent, or not what the files should hold.

    Source: Hendrycks and Dietterich, arXiv 1903.12261.
    """
    folder = _folder(folder, "eval.cifar_c")
    files = _corruptions_in(folder, ".npy", "eval.cifar_c", "<corruption>.npy")
    targets = _array(files[COUNTED[0]].parent / "labels.npy")
    found = []
    for name, path in files.items():
        pixels = _array(path, mapped=True)  # all files are three gigabytes
        labels = _labels(targets, path, pixels, num_classes)
        if len(pixels) % SEVERITIES:
            raise DataError(f"{path} has {len(pixels)} images; five severities of as many needed")
        _require_pixels(pixels, path)
        count = len(pixels) // SEVERITIES
        for severity in range(1, SEVERITIES + 1):
            part = slice((severity - 1) * count, severity * count)
            read = partial(_part, pixels, labels, part, preprocessing)
            found.append(Published(name, severity, read))
    return found


def _part(
    pixels: NDArray[Any], labels: Tensor, part: slice, preprocessing: Preprocessing
) -> ResidentSplit:
    """Some images of a file, fitted to the model as they are taken."""
    images = _like_cifar(np.array(pixels[part]), preprocessing.in_chans)
    return ResidentSplit(images, labels[part], fit=preprocessing.fit)


def read_imagenet_c(
    folder: str | Path,
    preprocessing: Preprocessing,
    *,
    class_names: Sequence[str] = (),
    max_pixels: int = MAX_PIXELS,
) -> list[Published]:
    """ImageNet-C; the pictures are listed and decoded when they are asked for.

    Args:
        folder: that holds ``<corruption>/<severity 1 to 5>/<class>/``; the archives' own folders
            (``noise``, ``blur``, ...) may lie between. The pictures are cut out already, as
            published: only their size is fitted.
        preprocessing, class_names: of the model, as for :func:`read_imagenet_folder`.
        max_pixels: larger pictures are refused.

    Raises:
        DataError: absent, or a severity is missing.

    Source: Hendrycks and Dietterich, arXiv 1903.12261.
    """
    folder = _folder(folder, "eval.imagenet_c")
    whole = replace(preprocessing, crop_pct=1.0)
    found = []
    for name, path in _corruptions_in(folder, "", "eval.imagenet_c", "<corruption>/").items():
        for severity in range(1, SEVERITIES + 1):
            read = partial(
                read_imagenet_folder,
                _folder(path / str(severity), "eval.imagenet_c"),
                whole,
                setting="eval.imagenet_c",
                class_names=class_names,
                max_pixels=max_pixels,
            )
            found.append(Published(name, severity, read))
    return found


def _corruptions_in(folder: Path, suffix: str, setting: str, form: str) -> dict[str, Path]:
    """Name -> file or folder of each corruption that is here: those that count, and more.

    Raises:
        DataError: one that counts is missing.
    """
    found = {
        name: path
        for name in (*COUNTED, *EXTRA)
        for path in sorted([*folder.glob(f"{name}{suffix}"), *folder.glob(f"*/{name}{suffix}")])[:1]
    }
    missing = [name for name in COUNTED if name not in found]
    if missing:
        raise DataError(
            f"{folder} has no {', '.join(missing[:3])}; {setting} is the folder of {form} of all "
            f"{len(COUNTED)} corruptions"
        )
    return found


def _require_pixels(pixels: NDArray[Any], path: Path) -> None:
    """Refuse other pixels than CIFAR's.

    Raises:
        DataError: they are others.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != (32, 32, 3):
        raise DataError(
            f"{path}: given {pixels.dtype} {pixels.shape}, allowed: uint8 (images, 32, 32, 3)"
        )


def _like_cifar(pixels: NDArray[Any], in_chans: int) -> Tensor:
    """CIFAR's pixels (N, 32, 32, 3) as uint8 (N, channels, 32, 32)."""
    return to_channels(torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), in_chans)


def _labels(labels: NDArray[Any], path: Path, pixels: NDArray[Any], num_classes: int) -> Tensor:
    """int64 (N,): the classes of as many images.

    Raises:
        DataError: they are no such classes.
    """
    if labels.shape != pixels.shape[:1] or not np.isin(labels, np.arange(num_classes)).all():
        raise DataError(
            f"{path.name} has {len(pixels)} images, but its labels are not as many numbers from "
            f"0 to {num_classes - 1}"
        )
    return torch.from_numpy(labels.astype(np.int64))


def read_cifar10h(path: str | Path) -> NDArray[np.float64]:
    """The shares of people who chose each class for each of CIFAR-10's test images, (10000, 10).

    Args:
        path: ``cifar10h-counts.npy`` or ``cifar10h-probs.npy``, or the folder that holds it.

    Raises:
        DataError: absent, or not what the file should hold.

    Source: Peterson et al., arXiv 1908.07086.
    """
    path = Path(path)
    if path.is_dir():
        found = [p for n in ("counts", "probs") if (p := path / f"cifar10h-{n}.npy").is_file()]
        path = found[0] if found else path / "cifar10h-counts.npy"
    values = _array(path)
    if values.shape != (CIFAR10_TEST, 10) or values.dtype.kind not in "uif":
        raise DataError(f"{path}: given {values.dtype} {values.shape}, allowed: (10000, 10)")
    shares = values.astype(np.float64)
    totals = shares.sum(1, keepdims=True)
    if not np.isfinite(shares).all() or (shares < 0).any() or (totals <= 0).any():
        raise DataError(f"{path}: every row must hold counts or shares that sum to more than 0")
    return np.asarray(shares / totals)


def read_imagenet_folder(
    folder: str | Path,
    preprocessing: Preprocessing,
    *,
    setting: str,
    classes: Sequence[int] | None = None,
    class_names: Sequence[str] = (),
    max_pixels: int = MAX_PIXELS,
) -> StreamedSplit:
    """Pictures in a folder a class: ImageNetV2, ImageNet-A, ImageNet-R, ImageNet-Sketch.

    Folders named by numbers (ImageNetV2) are class indices; else the sorted folders are the sorted
    classes.

    Args:
        folder: that holds the folders.
        preprocessing: of the model.
        setting: the key that named the folder, for errors.
        classes: ascending ImageNet-1k indices of the folders; None: all thousand.
        class_names: of the model. Where they are ImageNet's identifiers, so must the folders be.
        max_pixels: larger pictures are refused.

    Raises:
        DataError: absent, no pictures, or other folders than needed.
    """
    folder = _folder(folder, setting)
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    wanted = range(IMAGENET_CLASSES) if classes is None else classes
    identified = [name for name in class_names if re.fullmatch(IDENTIFIER, name)]
    if classes is None and names and all(name.isdigit() for name in names):
        by_name = {name: int(name) for name in names}
    elif len(names) == len(wanted):
        by_name = dict(zip(names, wanted, strict=True))
        if len(identified) == IMAGENET_CLASSES:
            _require_identifiers(by_name, class_names, folder, setting)
    else:
        raise DataError(
            f"{folder} holds {len(names)} folders; {setting} needs {len(wanted)}, one a class, "
            "named by ImageNet's identifiers"
        )
    if max(by_name.values()) >= IMAGENET_CLASSES:
        raise DataError(f"{folder}: folders named by numbers must be 0 to {IMAGENET_CLASSES - 1}")
    items, targets = [], []
    for name, target in by_name.items():
        for path in pictures_in(folder / name):
            items.append(str(path))
            targets.append(target)
    if not items:
        raise DataError(f"{folder} holds no pictures; {setting} is a folder of folders of them")
    return StreamedSplit(items, targets, _Reader(preprocessing, max_pixels))


def _require_identifiers(
    by_name: dict[str, int], class_names: Sequence[str], folder: Path, setting: str
) -> None:
    """See that each folder is called as the class that it stands for.

    Raises:
        DataError: one is not: another of ImageNet's test sets, or classes in another order.
    """
    for name, index in by_name.items():
        if class_names[index] != name:
            raise DataError(
                f"{folder / name} would stand for class {index}, which this model calls "
                f"{class_names[index]}; is it another test set than {setting} names?"
            )


def read_imagenet_real(
    folder: str | Path, preprocessing: Preprocessing, *, max_pixels: int = MAX_PIXELS
) -> RealLabels:
    """ImageNet's validation pictures under the labels of ReaL.

    Args:
        folder: that holds ``real.json`` and, at any depth, ``ILSVRC2012_val_<number>.JPEG`` files.
        preprocessing: of the model.
        max_pixels: larger pictures are refused.

    Raises:
        DataError: absent, no pictures, or no list of labels for each.

    Source: Beyer et al., "Are we done with ImageNet?", arXiv 2006.07159.
    """
    folder = _folder(folder, "eval.imagenet_real")
    file = folder / "real.json"
    if not file.is_file():
        raise DataError(f"{file} is missing; eval.imagenet_real is the folder that holds it")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{file} is damaged: {error}") from error
    if not isinstance(content, list) or not all(_are_classes(labels) for labels in content):
        raise DataError(f"{file}: a list of lists of class indices from 0 to 999 is needed")
    items, labels = [], []
    for path in pictures_in(folder):
        number = re.fullmatch(r"ILSVRC2012_val_(\d{8})", path.stem)
        if number is None:
            continue
        index = int(number[1]) - 1
        if not 0 <= index < len(content):
            raise DataError(f"{path}: {file.name} has labels of {len(content)} pictures only")
        if content[index]:
            items.append(str(path))
            labels.append(tuple(content[index]))
    if not items:
        raise DataError(f"{folder} holds no ILSVRC2012_val_<number>.JPEG with labels")
    first = [some[0] for some in labels]
    split = StreamedSplit(items, first, _Reader(preprocessing, max_pixels))
    return RealLabels(split, tuple(labels))


def _are_classes(labels: Any) -> bool:
    return isinstance(labels, list) and all(
        isinstance(label, int) and 0 <= label < IMAGENET_CLASSES for label in labels
    )


def _folder(path: str | Path, setting: str) -> Path:
    folder = Path(path)
    if not folder.is_dir():
        raise DataError(f"no folder {folder}; {setting} must name a folder that is here already")
    return folder


def _array(path: Path, *, mapped: bool = False) -> NDArray[Any]:
    """An array from a file in which nothing is run; ``mapped``: read as it is used."""
    try:
        values = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError(f"no such file: {path}") from error
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} is damaged or no npy file") from error
    if not isinstance(values, np.ndarray):
        raise DataError(f"{path} holds several arrays; one npy file is needed")
    return values
