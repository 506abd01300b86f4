"""A folder a class: ``root/{train,val,test}/<class>/*`` or ``root/<class>/*``."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

import torch
from PIL import Image
from torch import Tensor

from vitkit.data.preprocess import Choose, Fit, picture_to_tensor
from vitkit.data.raw import RawData, Request
from vitkit.data.splits import ResidentSplit, Split, StreamedSplit, train_and_test
from vitkit.errors import DataError, first_line, nearest

__all__ = [
    "FORMATS",
    "READ_ERRORS",
    "SUFFIXES",
    "BadFile",
    "Decoder",
    "decoded",
    "find_images",
    "open_picture",
    "opened",
    "pictures_in",
    "read",
    "read_splits",
    "what_is_wrong",
]

T = TypeVar("T")

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "AVIF")
"""In Pillow's words, what a picture's file may hold, whatever its suffix says. Pillow knows dozens
more, old and rarely looked at, and hands PostScript to another program."""

READ_ERRORS = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""What Pillow raises over a file that it cannot read."""

SPLITS = ("train", "val", "test")
DEFAULT_SIZE = (224, 224)
PIECE = 256
LABELS = "labels.txt"
"""In the root: what the classes should be, a line each."""


@dataclass(frozen=True)
class BadFile:
    """A file that cannot be read.

    Attributes:
        path: the file.
        reason: in a few words.
    """

    path: Path
    reason: str


@dataclass(frozen=True)
class Decoder:
    """Decodes a picture to one size: a pure function of the file.

    Attributes:
        fit: to that size.
        in_chans: 1 or 3.
        max_pixels: larger pictures are refused.
    """

    fit: Fit
    in_chans: int
    max_pixels: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of every image."""
        return (self.in_chans, *self.fit.size)

    def __call__(self, path: object) -> Tensor:
        """uint8 (channels, height, width)."""
        return self.fit(self._whole(path))

    def cropped(self, path: object, choose: Choose) -> Tensor:
        """A part of the whole picture, at that size; see :class:`~vitkit.data.crops.Cropping`."""
        return self.fit.cropped(self._whole(path), choose)

    def _whole(self, path: object) -> Tensor:
        return open_picture(Path(str(path)), self.in_chans, self.max_pixels)


def open_picture(path: Path, in_chans: int, max_pixels: int) -> Tensor:
    """A file's picture, uint8 (channels, height, width); of an animation the first frame.

    Raises:
        DataError: empty, no picture, of another format than :data:`FORMATS`, truncated, or more
            than ``max_pixels``.
    """
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path}: empty file")
        with opened(path, max_pixels) as picture:
            picture.load()
            return picture_to_tensor(picture, in_chans)
    except READ_ERRORS as error:
        raise DataError(f"{path}: {what_is_wrong(error)}") from error


@contextmanager
def opened(path: str | Path, max_pixels: int) -> Iterator[Image.Image]:
    """A picture whose head is read, and no more yet: here alone are pictures' files opened.

    Raises:
        DataError: it has more than ``max_pixels``, by what its head says.
        OSError, ValueError, SyntaxError, DecompressionBombError: what Pillow says of a file that
            is none of :data:`FORMATS`, or damaged; :func:`what_is_wrong` has better words.
    """
    with Image.open(path, formats=_formats()) as picture:
        pixels = picture.width * picture.height
        if pixels > max_pixels:
            raise DataError(
                f"{path}: {pixels:,} pixels, data.max_pixels is {max_pixels:,} (vitkit predict: "
                "--max-pixels)"
            )
        yield picture


@cache
def _formats() -> tuple[str, ...]:
    """Those of :data:`FORMATS` that the Pillow which is installed has a reader for."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def what_is_wrong(error: Exception) -> str:
    """In a few words, with a file of which Pillow says :data:`READ_ERRORS`."""
    text = str(error)
    if "truncated" in text:
        return "truncated image"
    if "cannot identify" in text:
        return f"no readable picture (read are {', '.join(FORMATS)})"
    return first_line(error)


def find_images(root: Path) -> tuple[list[str], dict[str, list[tuple[Path, int]]]]:
    """Class names, and for each split that exists its (file, class index) pairs, sorted.

    A root with ``test/<class>`` and no ``train`` holds images to test on alone.

    Raises:
        DataError: no such folder, fewer than two classes, a class without images, a class of val
            or test that train lacks, a val or test without pictures, or a ``labels.txt`` of others.
    """
    if not root.is_dir():
        raise DataError(f"no folder {root}{_near(root)}; data.root must hold a folder per class")
    parts = {name: root / name for name in SPLITS if (root / name).is_dir()}
    first = "train"
    if "train" not in parts and _class_folders(root / "test"):
        first, parts = "test", {"test": root / "test"}
    elif "train" not in parts:
        parts = {"train": root}
    classes = _class_folders(parts[first])
    if not any(pictures_in(parts[first] / name) for name in classes):
        raise DataError(_no_classes(parts[first], classes))
    if len(classes) == 1 and first == "train":
        raise DataError(
            f"{parts['train']} holds one class only, {classes[0]}; a classifier needs two or more "
            f"(if the classes are inside it, set data.root={parts['train'] / classes[0]})"
        )
    _require_listed(classes, root / LABELS)
    found = {}
    for split, folder in parts.items():
        unknown = sorted(set(_class_folders(folder)) - set(classes))
        if unknown:
            raise DataError(f"{folder / unknown[0]}: this class is not in {parts['train']}")
        pairs = []
        for index, name in enumerate(classes):
            files = pictures_in(folder / name)
            if not files and split == "train":
                raise DataError(
                    f"{folder / name} holds no pictures, but every folder in {folder} stands for a "
                    "class; put pictures there, or set data.root to a folder of classes only"
                )
            pairs += [(path, index) for path in files]
        if not pairs and split != first:
            raise DataError(
                f"{folder} holds no pictures in folders of the classes; put them into "
                f"{folder / classes[0]} and so on, or move {folder.name} out of {root}"
            )
        found[split] = pairs
    return classes, found


def read(request: Request) -> RawData:
    """A folder a class; without a folder ``test`` a fifth is cut off as the test set.

    Every file is decoded once, to see that it can be. Of a root that holds test images alone the
    training split is empty.

    Raises:
        DataError: as :func:`find_images`; or damaged files, all of them named.
    """
    config = request.config
    classes, found = find_images(Path(config.root))
    splits = read_splits(found, request)
    skipped = sum(map(len, found.values())) - sum(map(len, splits.values()))
    test = splits.get("test")
    if test is not None and "train" not in found:
        none = test.subset(torch.zeros(0, dtype=torch.int64))
        return RawData("image_folder", classes, none, None, test, skipped, fitted=True)
    train = splits["train"]
    if test is None:
        kept, cut = train_and_test(train.targets, config)
        train, test = train.subset(kept), train.subset(cut)
    return RawData("image_folder", classes, train, splits.get("val"), test, skipped, fitted=True)


def read_splits(found: dict[str, list[tuple[Path, int]]], request: Request) -> dict[str, Split]:
    """Decode every file of each split once, and hold the pictures if they fit. What does not fit is
    not looked at where ``data.on_bad_image`` trusts it.

    Args:
        found: split -> (file, class index) pairs.
        request: size, channels, and what to do with damaged files.

    Raises:
        DataError: damaged files, all of them named; a split without readable pictures.
    """
    config = request.config
    in_chans = request.in_chans or 3
    size = request.img_size or DEFAULT_SIZE
    decoder = Decoder(request.fit(size), in_chans, config.max_pixels)
    count = sum(len(pairs) for pairs in found.values())
    resident = config.may_hold(count * in_chans * size[0] * size[1])
    splits: dict[str, Split] = {}
    bad: list[BadFile] = []
    done = 0
    for name, pairs in found.items():
        images, good = [], []
        trusted = config.on_bad_image == "trust" and not resident
        for (path, target), image in [] if trusted else decoded(pairs, decoder):
            done += 1
            if request.on_file is not None:
                request.on_file(done, count)
            if isinstance(image, BadFile):
                bad.append(image)
                continue
            good.append((path, target))
            if resident:
                images.append(image)
        good = pairs if trusted else good
        targets = [target for _, target in good]
        keys = torch.tensor([_key(path, Path(config.root), sized=not trusted) for path, _ in good])
        if resident and images:
            splits[name] = ResidentSplit(torch.stack(images), torch.tensor(targets), keys)
        elif good:
            splits[name] = StreamedSplit([str(path) for path, _ in good], targets, decoder, keys)
    if bad and config.on_bad_image != "skip":
        raise DataError(_damage(bad))
    for name in found:
        if name not in splits:
            raise DataError(f"{config.root}: not one picture of {name} can be read")
    return splits


def _key(path: Path, root: Path, *, sized: bool) -> int:
    """Of a file, wherever its root lies: from its place in it and its length, 63 bits. One that is
    not looked at may be mended later, and has another length then.
    """
    place = f"{path.relative_to(root).as_posix()} {path.stat().st_size if sized else ''}"
    return int.from_bytes(hashlib.sha256(place.encode()).digest()[:8], "big") >> 1


def decoded(
    pairs: list[tuple[Path, int]], decode: Callable[[Path], T]
) -> Iterator[tuple[tuple[Path, int], T | BadFile]]:
    """Each (file, class index) with what is made of its picture, or is wrong with it, in order.

    Decoding runs in threads, for Pillow lets go of the interpreter meanwhile.
    """

    def attempt(pair: tuple[Path, int]) -> T | BadFile:
        try:
            return decode(pair[0])
        except DataError as error:
            return BadFile(pair[0], str(error).removeprefix(f"{pair[0]}: "))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        # In pieces, so that a large set is never held whole on its way through.
        for start in range(0, len(pairs), PIECE):
            piece = pairs[start : start + PIECE]
            yield from zip(piece, pool.map(attempt, piece), strict=True)


def _damage(bad: list[BadFile]) -> str:
    shown = "\n  ".join(f"{b.path}: {b.reason}" for b in bad[:20])
    more = f"\n  and {len(bad) - 20} more" if len(bad) > 20 else ""
    return (
        f"{len(bad)} damaged images; repair them, or leave them out with "
        f"data.on_bad_image=skip:\n  {shown}{more}"
    )


def _no_classes(folder: Path, names: list[str]) -> str:
    inside = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
    why = f"none of its folders ({inside}) holds pictures" if names else "it holds no folders"
    return (
        f"{folder} does not look like a folder per class: {why}; "
        "set data.root to the folder that holds yours"
    )


def _require_listed(classes: list[str], file: Path) -> None:
    """Hold the classes against a file that lists them, a line each, in any order; if there is one.

    Raises:
        DataError: it is no text, or lists others than there are folders.
    """
    if not file.is_file():
        return
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is no text in UTF-8; it should hold a class a line") from error
    listed = {line.strip() for line in lines if line.strip()}
    apart = {"lists": listed - set(classes), "lacks": set(classes) - listed}
    said = [f"{verb} {min(names)!r}" for verb, names in apart.items() if names]
    if said:
        raise DataError(
            f"{file} {' and '.join(said)}, unlike the folders beside it; put right what is wrong, "
            "or remove the file"
        )


def _near(folder: Path) -> str:
    """A folder beside where this one should be, with nearly its name."""
    if not folder.parent.is_dir():
        return ""
    close = nearest(folder.name, _class_folders(folder.parent), n=1)
    return f"; did you mean {folder.parent / close[0]}?" if close else ""


def _class_folders(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def pictures_in(folder: Path) -> list[Path]:
    """Files under a folder whose suffix is a picture's, sorted; what is hidden, or lies in a hidden
    folder, is left out.
    """
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )
