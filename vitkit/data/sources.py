"""Data sets by name, split, and fitted to a model.

Add one: a file with a function ``read(request)`` and a line of :data:`DATASETS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from typing import Any

import torch

from vitkit.data.config import ImageDataConfig
from vitkit.data.info import DataInfo
from vitkit.data.preprocess import Fit, to_channels
from vitkit.data.raw import OnFile, RawData, Request, Source
from vitkit.data.splits import (
    ImageData,
    ResidentSplit,
    Split,
    StreamedSplit,
    labelled_part,
    pictures_digest,
    train_and_val,
)
from vitkit.errors import DataError, UnknownNameError

__all__ = ["DATASETS", "load_data", "prepared", "register_dataset"]

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
    return prepared(_source(config.name)(request), request)


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
        raise UnknownNameError("data set", name, DATASETS, f"(known: {', '.join(DATASETS)})")
    if isinstance(home, str):
        source: Source = import_module(home).read
        return source
    return home


def prepared(raw: RawData, request: Request) -> ImageData:
    """What a source gave, made ready: validation cut off, what is not labelled left out, size and
    channels fitted, statistics measured.

    Args:
        raw: what the source gave.
        request: what was asked of it.

    Raises:
        DataError: no training images, or images of several shapes.
    """
    config, in_chans = request.config, request.in_chans
    train, val = raw.train, raw.val
    if val is None and config.val_fraction > 0 and len(train):
        kept, cut = train_and_val(train.targets, config)
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
    if fit is None or not held:
        return True
    values = sum(len(split) * split.shape[0] * fit.size[0] * fit.size[1] for split in held)
    as_they_are = sum(split.images.numel() for split in held)
    return config.may_hold(values) or values <= as_they_are


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
