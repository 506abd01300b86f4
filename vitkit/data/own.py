"""Data of a person's own, handed in from Python."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from vitkit.data.config import ImageDataConfig
from vitkit.data.preprocess import Choose, Fit, as_image
from vitkit.data.raw import RawData, Request
from vitkit.data.sources import prepared
from vitkit.data.splits import ImageData, ResidentSplit, Split, StreamedSplit, picture_digest
from vitkit.errors import DataError

__all__ = ["data_from_datasets"]

READ_TWICE = 32
"""Pictures of a split that are read again: what is thrown by chance shows in one of them."""


def data_from_datasets(
    train: Any,
    val: Any = None,
    test: Any = None,
    *,
    class_names: Sequence[str],
    config: ImageDataConfig | None = None,
    name: str = "custom",
    img_size: tuple[int, int] | None = None,
    in_chans: int | None = None,
) -> ImageData:
    """Data of your own: anything with ``len()`` and ``[i]`` that yields (picture, class index).

    Pictures are PIL images, uint8 arrays (height, width[, channels]) or uint8 tensors (channels,
    height, width), all of one size unless ``img_size`` is given. They are read once and held in
    memory if they fit ``config.resident_budget_mb``; else each is read again when it is needed,
    with what the data set does to it at random.

    Args:
        train, val, test: the splits; without ``val`` it is cut from ``train``.
        class_names: by class index.
        config: for ``val_fraction``, ``split_seed``, ``normalize``, ``resident`` and how pictures
            are fitted to a size.
        name: shown in results.
        img_size: (height, width) that pictures are fitted to.
        in_chans: 1 or 3.

    Raises:
        DataError: an item that is no such pair, or that is to be held and is another each time it
            is read; the message names it.
    """
    config = config or ImageDataConfig(name=name)
    if isinstance(class_names, str):
        raise DataError(f"class_names: given the text {class_names!r}; give a list of names")
    request = Request(config, img_size, in_chans)
    given = {"train": train, "val": val, "test": test}
    named = {which: one for which, one in given.items() if which == "train" or one is not None}
    own = {
        which: _OwnPictures(dataset, which, len(class_names), in_chans)
        for which, dataset in named.items()
    }
    splits = _own_splits(own, request)
    raw = RawData(
        name, class_names, splits["train"], splits.get("val"), splits.get("test"), fitted=True
    )
    return prepared(raw, request)


@dataclass(frozen=True)
class _OwnPictures:
    """Reads a picture of a person's data set by its place, as a decoder reads a file.

    Attributes:
        dataset: has ``len()`` and ``[i]``.
        which: split it is, for errors.
        num_classes: how many there are.
        in_chans: channels wanted; their own if None.
        fit: to one size; None: pictures stay as they are.
        shape: (channels, height, width) of all of them, once that is known.
    """

    dataset: Any
    which: str
    num_classes: int
    in_chans: int | None
    fit: Fit | None = None
    shape: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        if not (hasattr(self.dataset, "__len__") and hasattr(self.dataset, "__getitem__")):
            raise DataError(
                f"{self.which}: given a {type(self.dataset).__name__}; give something with len() "
                "and [i], such as a list or a torch Dataset"
            )
        if not len(self.dataset):
            raise DataError(f"{self.which}: it is empty")

    def pair(self, index: int) -> tuple[Tensor, int]:
        """(picture as it is, class index)."""
        where = f"{self.which}[{index}]"
        return _pair(self.dataset[index], where, self.num_classes, self.in_chans)

    def random_item(self) -> int | None:
        """The first of some places, spread over all, whose picture is another each time; None where
        there is none.
        """
        count = len(self.dataset)
        for index in range(0, count, max(1, count // READ_TWICE)):
            one, other = (self.pair(index)[0] for _ in range(2))
            if not torch.equal(one, other):
                return index
        return None

    def fitted(self, picture: Tensor) -> Tensor:
        """The picture at the size that is wanted."""
        return picture if self.fit is None else self.fit(picture)

    def __call__(self, index: object) -> Tensor:
        """uint8 (channels, height, width)."""
        assert isinstance(index, int)
        return self.fitted(self.pair(index)[0])

    def cropped(self, index: object, choose: Choose) -> Tensor:
        """A part of the picture as it is; see :class:`~vitkit.data.crops.Cropping`."""
        assert isinstance(index, int) and self.fit is not None
        return self.fit.cropped(self.pair(index)[0], choose)


def _own_splits(own: Mapping[str, _OwnPictures], request: Request) -> dict[str, Split]:
    """The splits of a person's own data: in memory if all of them fit."""
    first = own["train"].pair(0)[0]
    size = request.img_size
    if size is None and request.config.crop_pct < 1.0:
        size = (int(first.shape[1]), int(first.shape[2]))
    fit = None if size is None else request.fit(size)
    own = {which: replace(pictures, fit=fit) for which, pictures in own.items()}
    count = sum(len(pictures.dataset) for pictures in own.values())
    held = request.config.may_hold(own["train"].fitted(first).numel() * count)
    return {which: _own_split(pictures, held, request) for which, pictures in own.items()}


def _own_split(pictures: _OwnPictures, held: bool, request: Request) -> Split:
    """A split. Each item is read once, some twice more, to see whether they stay the same."""
    which = pictures.which
    random = pictures.random_item()
    if held and random is not None:
        raise DataError(
            f"{which}[{random}]: two readings differ, but pictures are read once and held: leave "
            "out what changes them at random, and use data.augment"
        )
    images, targets, keys, shapes = [], [], [], set()
    for index in range(len(pictures.dataset)):
        picture, target = pictures.pair(index)
        image = pictures.fitted(picture)
        shapes.add((int(image.shape[0]), int(image.shape[1]), int(image.shape[2])))
        targets.append(target)
        keys.append(_key_of(picture) if random is None else index)
        if held:
            images.append(image)
    if len(shapes) > 1:
        raise DataError(
            f"{which}: pictures of several shapes {sorted(shapes)[:3]}; give img_size and in_chans"
        )
    if held:
        return ResidentSplit(torch.stack(images), torch.tensor(targets), torch.tensor(keys))
    shape = shapes.pop()
    # Pictures of one size need no fitting, but their crops do.
    decode = replace(pictures, shape=shape, fit=pictures.fit or request.fit(shape[1:]))
    return StreamedSplit(list(range(len(targets))), targets, decode, torch.tensor(keys))


def _key_of(picture: Tensor) -> int:
    """Which picture it is, by its pixels before they are fitted to a size: 63 bits."""
    return int.from_bytes(picture_digest(picture, 8), "big") >> 1


def _pair(item: Any, where: str, num_classes: int, in_chans: int | None) -> tuple[Tensor, int]:
    """An item as (image, class index).

    Raises:
        DataError: it is something else.
    """
    if not isinstance(item, tuple | list) or len(item) != 2:
        many = f" of {len(item)}" if isinstance(item, tuple | list) else ""
        raise DataError(
            f"{where}: given a {type(item).__name__}{many}; give a pair (picture, class index)"
        )
    picture, label = item
    try:
        target = operator.index(label)
    except TypeError:
        target = -1
    if not 0 <= target < num_classes:
        raise DataError(
            f"{where}: class index {label!r}, allowed: a whole number from 0 to {num_classes - 1}"
        )
    try:
        return as_image(picture, in_chans), target
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
