"""A folder a class: ``root/{train,val,test}/<class>/*`` or ``root/<class>/*``."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from vitkit.data.config import DataConfig
from vitkit.data.preprocess import fit_image, picture_to_tensor
from vitkit.data.splits import ResidentSplit, Split, StreamedSplit
from vitkit.errors import DataError

__all__ = ["SUFFIXES", "BadFile", "Decoder", "find_images", "open_picture", "read_folder"]

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}
SPLITS = ("train", "val", "test")
DEFAULT_SIZE = (224, 224)


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
        size: (height, width); the shorter side is resized, then the centre is cut out.
        in_chans: 1 or 3.
        max_pixels: larger pictures are refused.
    """

    size: tuple[int, int]
    in_chans: int
    max_pixels: int

    def __call__(self, path: object) -> Tensor:
        """uint8 (channels, height, width)."""
        image = open_picture(Path(str(path)), self.in_chans, self.max_pixels)
        return fit_image(image, self.size)


def open_picture(path: Path, in_chans: int, max_pixels: int) -> Tensor:
    """A file's picture, uint8 (channels, height, width); of an animation the first frame.

    Raises:
        DataError: empty, no picture, truncated, or more than ``max_pixels``.
    """
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path}: empty file")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                pixels = picture.width * picture.height
                if pixels > max_pixels:
                    raise DataError(f"{path}: {pixels:,} pixels, data.max_pixels is {max_pixels:,}")
                picture.load()
                return picture_to_tensor(picture, in_chans)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: {_reason(error)}") from error


def find_images(root: Path) -> tuple[list[str], dict[str, list[tuple[Path, int]]]]:
    """Class names, and for each split that exists its (file, class index) pairs, sorted.

    Raises:
        DataError: no such folder, no classes, a class without images, or a class of val or test
            that train lacks.
    """
    if not root.is_dir():
        raise DataError(f"no folder {root}; data.root must hold a folder per class")
    parts = {name: root / name for name in SPLITS if (root / name).is_dir()}
    if "train" not in parts:
        parts = {"train": root}
    classes = _class_folders(parts["train"])
    if not classes:
        raise DataError(f"{parts['train']} holds no folders; it needs one per class")
    found = {}
    for split, folder in parts.items():
        unknown = sorted(set(_class_folders(folder)) - set(classes))
        if unknown:
            raise DataError(f"{folder / unknown[0]}: this class is not in {parts['train']}")
        pairs = []
        for index, name in enumerate(classes):
            files = _pictures(folder / name)
            if not files and split == "train":
                raise DataError(f"{folder / name} holds no pictures; remove it or fill it")
            pairs += [(path, index) for path in files]
        found[split] = pairs
    return classes, found


def read_folder(
    config: DataConfig, size: tuple[int, int] | None, in_chans: int
) -> tuple[list[str], tuple[Split, Split | None, Split | None]]:
    """Class names and (train, val, test); all files were decoded once to see that they can be.

    Raises:
        DataError: as :func:`find_images`; or damaged files, all of them named.
    """
    classes, found = find_images(Path(config.root))
    decoder = Decoder(size or DEFAULT_SIZE, in_chans, config.max_pixels)
    count = sum(len(pairs) for pairs in found.values())
    megabytes = count * in_chans * decoder.size[0] * decoder.size[1] / 2**20
    fits = config.resident == "always" or megabytes <= config.resident_budget_mb
    resident = fits and config.resident != "never"
    splits: dict[str, Split] = {}
    bad: list[BadFile] = []
    for name, pairs in found.items():
        images, good = _decode_all(pairs, decoder, keep=resident, bad=bad)
        targets = [target for _, target in good]
        if resident and images:
            splits[name] = ResidentSplit(torch.stack(images), torch.tensor(targets))
        elif good:
            splits[name] = StreamedSplit([str(path) for path, _ in good], targets, decoder)
    if bad and config.on_bad_image == "stop":
        shown = "\n  ".join(f"{b.path}: {b.reason}" for b in bad[:20])
        more = f"\n  and {len(bad) - 20} more" if len(bad) > 20 else ""
        raise DataError(
            f"{len(bad)} damaged images; repair them, or leave them out with "
            f"data.on_bad_image=skip:\n  {shown}{more}"
        )
    return classes, (splits["train"], splits.get("val"), splits.get("test"))


def _decode_all(
    pairs: list[tuple[Path, int]], decoder: Decoder, *, keep: bool, bad: list[BadFile]
) -> tuple[list[Tensor], list[tuple[Path, int]]]:
    """Decoded images (if kept) and the pairs that could be read; the others go to ``bad``."""
    images, good = [], []
    for path, target in pairs:
        try:
            image = decoder(path)
        except DataError as error:
            bad.append(BadFile(path, str(error).removeprefix(f"{path}: ")))
            continue
        good.append((path, target))
        if keep:
            images.append(image)
    return images, good


def _class_folders(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )


def _reason(error: Exception) -> str:
    text = str(error)
    if "truncated" in text:
        return "truncated image"
    if "cannot identify" in text:
        return "no readable picture"
    return text.splitlines()[0] if text else type(error).__name__
