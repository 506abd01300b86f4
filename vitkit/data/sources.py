"""Data sets by name, split, and fitted to a model.

Add one: a file with a function ``read(request)`` and a line of :data:`DATASETS`.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from vitkit.data.config import ImageDataConfig
from vitkit.data.info import DataInfo
from vitkit.data.preprocess import Fit, as_image, to_channels
from vitkit.data.raw import OnFile, RawData, Request, Source
from vitkit.data.splits import (
    ImageData,
    ResidentSplit,
    Split,
    StreamedSplit,
    labelled_part,
    pictures_digest,
    stratified_split,
)
from vitkit.errors import DataError, UnknownNameError

__all__ = ["DATASETS", "data_from_datasets", "load_data", "register_dataset"]

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

DATASETS: dict[str, str | Source] = {
    "digits": "vitkit.data.digits",
    "cifar10": "vitkit.data.cifar",
    "cifar100": "vitkit.data.cifar",
    "image_folder": "vitkit.data.folder",
    "unlabelled": "vitkit.data.unlabelled",
    "synthetic": "vitkit.data.synthetic",
}
"""Name -> the module whose ``read`` reads it, imported when asked for, or a function like it."""


def load_data(
    config: ImageDataConfig,
    *,
    img_size: tuple[int, int] | None = None,
    in_chans: int | None = None,
    on_file: OnFile | None = None,
) -> ImageData:
    """Read a data set, cut validation from it, and fit it to a model's size and channels.

    Args:
        config: which data, and how.
        img_size: (height, width) that the model wants; the data's own size if None.
        in_chans: channels that the model wants; the data's own if None.
        on_file: told (files done, files in all) by sources that take long.

    Raises:
        DataError: missing, damaged, or two sizes that contradict each other.
        UnknownNameError: no such data set.
    """
    request = Request(config, _wanted_size(config, img_size), in_chans, on_file)
    return _finish(_source(config.name)(request), request)


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
    return _finish(raw, request)


def register_dataset(name: str) -> Callable[[Source], Source]:
    """Make a function from :class:`~vitkit.data.raw.Request` to
    :class:`~vitkit.data.raw.RawData` known as ``data.name``. Registering a name again replaces it.

    Raises:
        ValueError: the name belongs to one of vitkit's own data sets.
    """
    if isinstance(DATASETS.get(name), str):
        raise ValueError(f"data set name {name!r} is taken; choose another")

    def register(source: Source) -> Source:
        DATASETS[name] = source
        return source

    return register


def _source(name: str) -> Source:
    home = DATASETS.get(name)
    if home is None:
        raise UnknownNameError("data set", name, DATASETS, f"known: {', '.join(DATASETS)}")
    if isinstance(home, str):
        source: Source = import_module(home).read
        return source
    return home


def _finish(raw: RawData, request: Request) -> ImageData:
    """Cut validation, keep what is labelled, fit size and channels, measure the statistics."""
    config, in_chans = request.config, request.in_chans
    train, val = raw.train, raw.val
    if val is None and config.val_fraction > 0 and len(train):
        kept, cut = stratified_split(train.targets, config.val_fraction, config.split_seed + 1)
        if len(cut):
            train, val = train.subset(kept), train.subset(cut)
    if not len(train) and raw.test is None:
        raise DataError(f"{raw.name} has no training images")
    if len(train):
        train = labelled_part(train, config.label_fraction, config.split_seed)
    # A fifth of two pictures a class is none: then there is no test.
    test = raw.test if raw.test is not None and len(raw.test) else None
    fit = None if raw.fitted else _fit([train, val, test], request)
    whole = _fits([train, val, test], fit, config)
    train = _fitted(train, fit, in_chans, whole)
    val = None if val is None else _fitted(val, fit, in_chans, whole)
    test = None if test is None else _fitted(test, fit, in_chans, whole)
    _require_one_shape({"train": train, "val": val, "test": test})
    # Of images to test on alone the statistics are read by nobody: they come with the model.
    seen = train if len(train) or test is None else test
    channels, height, width = seen.shape
    mean, std = _statistics(seen, config, channels)
    counts = torch.bincount(train.targets, minlength=len(raw.class_names))
    info = DataInfo(
        name=raw.name,
        class_names=tuple(raw.class_names),
        in_chans=int(channels),
        img_size=(int(height), int(width)),
        mean=mean,
        std=std,
        num_train=len(train),
        num_val=0 if val is None else len(val),
        num_test=0 if test is None else len(test),
        class_counts=tuple(counts.tolist()),
        num_skipped=raw.num_skipped,
        pictures=pictures_digest(train),
        interpolation=config.interpolation,
        crop_pct=config.crop_pct,
        crop_mode=config.crop_mode,
    )
    return ImageData(info, train, val, test)


def _require_one_shape(splits: Mapping[str, Split | None]) -> None:
    shapes = {
        name: split.shape for name, split in splits.items() if split is not None and len(split)
    }
    if len(set(shapes.values())) > 1:
        raise DataError(
            f"images of several shapes (channels, height, width): {shapes}; give img_size and "
            "in_chans to make them alike"
        )


def _fit(splits: Sequence[Split | None], request: Request) -> Fit | None:
    """How images in memory are brought to the size that is wanted; None: they stay as they are.
    Where no size is wanted a crop still is.
    """
    size = request.img_size
    held = [split for split in splits if isinstance(split, ResidentSplit) and len(split)]
    if size is None and request.config.crop_pct < 1.0 and held:
        size = held[0].shape[1:]
    return None if size is None else request.fit(size)


def _fits(splits: Sequence[Split | None], fit: Fit | None, config: ImageDataConfig) -> bool:
    """Whether images in memory may be held at the size that is wanted."""
    held = [split for split in splits if isinstance(split, ResidentSplit)]
    if fit is None or config.resident == "always" or not held:
        return True
    values = sum(len(split) * split.shape[0] * fit.size[0] * fit.size[1] for split in held)
    as_they_are = sum(split.images.numel() for split in held)
    small = config.resident == "auto" and values <= config.resident_budget_mb * 2**20
    return small or values <= as_they_are


def _fitted(split: Split, fit: Fit | None, in_chans: int | None, whole: bool) -> Split:
    """Size and channels of a split; unless ``whole``, images are fitted as they are taken."""
    if isinstance(split, StreamedSplit):
        return split  # its decoder fits each image
    images = split.images
    if in_chans is not None:
        images = to_channels(images, in_chans)
    if fit is not None and not whole:
        return replace(split, images=images, fit=fit)
    return replace(split, images=images if fit is None else fit(images))


def _statistics(
    train: Split, config: ImageDataConfig, channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of pixels in [0, 1], by ``data.normalize``."""
    if config.normalize == "none":
        return (0.0,) * channels, (1.0,) * channels
    if config.normalize == "half":
        return (0.5,) * channels, (0.5,) * channels
    if config.normalize == "imagenet":
        if channels != 3:
            raise DataError(f"data.normalize=imagenet needs 3 channels, the images have {channels}")
        return IMAGENET
    sums = torch.zeros(2, channels, dtype=torch.float64)
    count = 0
    for images in _some_images(train):
        pixels = images.to(torch.float64) / 255.0
        sums += torch.stack([pixels.sum((0, 2, 3)), pixels.square().sum((0, 2, 3))])
        count += images.shape[0] * images.shape[2] * images.shape[3]
    mean = sums[0] / count
    std = (sums[1] / count - mean.square()).clamp(min=0).sqrt()
    # A constant channel must not be divided by zero.
    std = torch.where(std < 1e-4, 1.0, std)
    return tuple(mean.tolist()), tuple(std.tolist())


def _some_images(train: Split, streamed: int = 2048) -> Any:
    """All resident images in chunks; of streamed ones an even sample, for each must be decoded."""
    if isinstance(train, ResidentSplit):
        for chunk in torch.arange(len(train), device=train.images.device).split(512):
            yield train.take(chunk)
        return
    step = max(1, len(train) // streamed)
    for index in range(0, len(train), step):
        yield train[index][0][None]


def _wanted_size(
    config: ImageDataConfig, img_size: tuple[int, int] | None
) -> tuple[int, int] | None:
    own = config.img_size
    asked = (own, own) if isinstance(own, int) else own
    if asked is not None and img_size is not None and tuple(asked) != tuple(img_size):
        raise DataError(
            f"data.img_size {asked} and model.img_size {tuple(img_size)} differ; leave one out"
        )
    return asked if asked is not None else img_size


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

    def fitted(self, picture: Tensor) -> Tensor:
        """The picture at the size that is wanted."""
        return picture if self.fit is None else self.fit(picture)

    def __call__(self, index: object) -> Tensor:
        """uint8 (channels, height, width)."""
        assert isinstance(index, int)
        return self.fitted(self.pair(index)[0])


def _own_splits(own: Mapping[str, _OwnPictures], request: Request) -> dict[str, Split]:
    """The splits of a person's own data: in memory if all of them fit."""
    first = own["train"].pair(0)[0]
    size = request.img_size
    if size is None and request.config.crop_pct < 1.0:
        size = (int(first.shape[1]), int(first.shape[2]))
    fit = None if size is None else request.fit(size)
    own = {which: replace(pictures, fit=fit) for which, pictures in own.items()}
    count = sum(len(pictures.dataset) for pictures in own.values())
    held = _may_be_held(own["train"].fitted(first).numel() * count, request.config)
    return {which: _own_split(pictures, held) for which, pictures in own.items()}


def _own_split(pictures: _OwnPictures, held: bool) -> Split:
    """One of them, each item read once, and the first again to see that it is the same."""
    which = pictures.which
    again = pictures.pair(0)[0]
    images, targets, keys, shapes, steady = [], [], [], set(), True
    for index in range(len(pictures.dataset)):
        picture, target = pictures.pair(index)
        if index == 0:
            steady = torch.equal(picture, again)
        if held and not steady:
            raise DataError(
                f"{which}[0]: two readings differ, but pictures are read once and held: leave out "
                "what changes them at random, and use data.augment"
            )
        image = pictures.fitted(picture)
        shapes.add((int(image.shape[0]), int(image.shape[1]), int(image.shape[2])))
        targets.append(target)
        keys.append(_key_of(picture) if steady else index)
        if held:
            images.append(image)
    if len(shapes) > 1:
        raise DataError(f"{which}: pictures of several shapes {sorted(shapes)[:3]}; give img_size")
    if held:
        return ResidentSplit(torch.stack(images), torch.tensor(targets), torch.tensor(keys))
    decode = replace(pictures, shape=shapes.pop())
    return StreamedSplit(list(range(len(targets))), targets, decode, torch.tensor(keys))


def _may_be_held(values: int, config: ImageDataConfig) -> bool:
    """Whether so many uint8 values may lie in memory."""
    if config.resident == "auto":
        return values <= config.resident_budget_mb * 2**20
    return config.resident == "always"


def _key_of(picture: Tensor) -> int:
    """Which picture it is, by its pixels before they are fitted to a size: 63 bits."""
    digest = hashlib.blake2b(repr(tuple(picture.shape)).encode(), digest_size=8)
    digest.update(picture.numpy().tobytes())
    return int.from_bytes(digest.digest(), "big") >> 1


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
