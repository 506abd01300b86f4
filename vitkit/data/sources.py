"""Data sets by name. Add one: a function in a file of its own and a line in :data:`DATASETS`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedShuffleSplit
from torch import Tensor

from vitkit.data.cifar import read_cifar
from vitkit.data.config import DataConfig
from vitkit.data.folder import read_folder
from vitkit.data.info import DataInfo
from vitkit.data.preprocess import picture_to_tensor, resize_images, to_channels
from vitkit.data.splits import ImageData, ResidentSplit, Split, StreamedSplit
from vitkit.errors import DataError, UnknownNameError

__all__ = [
    "DATASETS",
    "RawData",
    "data_from_datasets",
    "load_data",
    "register_dataset",
    "stratified_split",
]

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
DIGITS_TEST_SEED, DIGITS_TEST_FRACTION = 0, 0.2


@dataclass(frozen=True)
class RawData:
    """What a source yields, before it is fitted to a model.

    Attributes:
        name: of the data set.
        class_names: by class index.
        train: training images, validation not yet cut from them unless ``val`` is given.
        val, test: as the source has them, or None.
    """

    name: str
    class_names: Sequence[str]
    train: Split
    val: Split | None = None
    test: Split | None = None


Source = Callable[[DataConfig, "tuple[int, int] | None", "int | None"], RawData]


def load_data(
    config: DataConfig,
    *,
    img_size: tuple[int, int] | None = None,
    in_chans: int | None = None,
) -> ImageData:
    """Read a data set, cut validation from it, and fit it to a model's size and channels.

    Args:
        config: which data, and how.
        img_size: (height, width) that the model wants; the data's own size if None.
        in_chans: channels that the model wants; the data's own if None.

    Raises:
        DataError: missing, damaged, or two sizes that contradict each other.
        UnknownNameError: no such data set.
    """
    source = DATASETS.get(config.name)
    if source is None:
        raise UnknownNameError("data set", config.name, DATASETS, f"known: {', '.join(DATASETS)}")
    wanted = _wanted_size(config, img_size)
    return _finish(source(config, wanted, in_chans), config, wanted, in_chans)


def data_from_datasets(
    train: Any,
    val: Any = None,
    test: Any = None,
    *,
    class_names: Sequence[str],
    config: DataConfig | None = None,
    name: str = "custom",
    img_size: tuple[int, int] | None = None,
    in_chans: int | None = None,
) -> ImageData:
    """Data of your own: anything with ``len()`` and ``[i]`` that yields (picture, class index).

    Pictures are PIL images, uint8 arrays (height, width[, channels]) or uint8 tensors (channels,
    height, width), all of one size unless ``img_size`` is given.

    Args:
        train, val, test: the splits; without ``val`` it is cut from ``train``.
        class_names: by class index.
        config: for ``val_fraction``, ``split_seed`` and ``normalize``.
        name: shown in results.
        img_size: (height, width) to resize to.
        in_chans: 1 or 3.
    """
    config = config or DataConfig(name=name)
    splits = [None if s is None else _resident(s, img_size, in_chans) for s in (train, val, test)]
    assert splits[0] is not None
    raw = RawData(name, class_names, splits[0], splits[1], splits[2])
    return _finish(raw, config, img_size, in_chans)


def register_dataset(name: str) -> Callable[[Source], Source]:
    """Make a function (config, img_size, in_chans) -> :class:`RawData` known as ``data.name``."""

    def register(source: Source) -> Source:
        DATASETS[name] = source
        return source

    return register


def stratified_split(targets: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """(kept, cut) indices, ascending; each class gives its share, at least what rounding leaves.

    Args:
        targets: int64 (N,).
        fraction: share that is cut.
        seed: of the choice.
    """
    generator = torch.Generator().manual_seed(seed)
    cut = []
    for label in targets.unique(sorted=True):
        members = (targets == label).nonzero().flatten()
        order = members[torch.randperm(len(members), generator=generator)]
        cut.append(order[: round(len(members) * fraction)])
    chosen = torch.cat(cut).sort().values
    kept = torch.ones(len(targets), dtype=torch.bool)
    kept[chosen] = False
    return kept.nonzero().flatten(), chosen


def _digits(config: DataConfig, size: Any, in_chans: Any) -> RawData:
    """1,797 handwritten digits of 8 x 8 pixels that ship with scikit-learn; fixed test indices."""
    digits = load_digits()
    pixels = (digits.images * (255.0 / 16.0)).round().astype(np.uint8)
    images = torch.from_numpy(pixels)[:, None]
    targets = torch.from_numpy(digits.target.astype(np.int64))
    splitter = StratifiedShuffleSplit(
        1, test_size=DIGITS_TEST_FRACTION, random_state=DIGITS_TEST_SEED
    )
    train, test = next(splitter.split(digits.images, digits.target))
    whole = ResidentSplit(images, targets)
    return RawData(
        "digits",
        [str(d) for d in range(10)],
        whole.subset(torch.from_numpy(np.sort(train))),
        test=whole.subset(torch.from_numpy(np.sort(test))),
    )


def _cifar10(config: DataConfig, size: Any, in_chans: Any) -> RawData:
    names, train, test = read_cifar("cifar10", config.root, config.download)
    return RawData("cifar10", names, ResidentSplit(*train), test=ResidentSplit(*test))


def _cifar100(config: DataConfig, size: Any, in_chans: Any) -> RawData:
    names, train, test = read_cifar("cifar100", config.root, config.download)
    return RawData("cifar100", names, ResidentSplit(*train), test=ResidentSplit(*test))


def _synthetic(config: DataConfig, size: tuple[int, int] | None, in_chans: int | None) -> RawData:
    """A pattern a class, under noise: learnable, made on the spot, for trying things out."""
    height, width = size or (32, 32)
    channels = in_chans or 3
    generator = torch.Generator().manual_seed(config.split_seed)
    classes, count = config.synthetic_classes, config.synthetic_size
    patterns = torch.rand(classes, channels, height, width, generator=generator)
    targets = torch.arange(count) % classes
    noise = torch.rand(count, channels, height, width, generator=generator)
    images = ((0.5 * patterns[targets] + 0.5 * noise) * 255).to(torch.uint8)
    whole = ResidentSplit(images, targets)
    train, test = stratified_split(targets, 0.2, config.split_seed)
    names = [f"class {i}" for i in range(classes)]
    return RawData("synthetic", names, whole.subset(train), test=whole.subset(test))


def _image_folder(
    config: DataConfig, size: tuple[int, int] | None, in_chans: int | None
) -> RawData:
    names, splits = read_folder(config, size, in_chans or 3)
    train, val, test = splits
    if test is None:
        # One folder of classes: a test set is cut first, so that it never depends on the
        # validation share.
        kept, cut = stratified_split(train.targets, 0.2, config.split_seed)
        train, test = train.subset(kept), train.subset(cut)
    return RawData("image_folder", names, train, val, test)


DATASETS: dict[str, Source] = {
    "digits": _digits,
    "cifar10": _cifar10,
    "cifar100": _cifar100,
    "image_folder": _image_folder,
    "synthetic": _synthetic,
}


def _finish(
    raw: RawData, config: DataConfig, size: tuple[int, int] | None, in_chans: int | None
) -> ImageData:
    """Cut validation, fit size and channels, measure the statistics."""
    train, val = raw.train, raw.val
    if val is None and config.val_fraction > 0:
        kept, cut = stratified_split(train.targets, config.val_fraction, config.split_seed + 1)
        if len(cut):
            train, val = train.subset(kept), train.subset(cut)
    if not len(train):
        raise DataError(f"{raw.name} has no training images")
    train = _fitted(train, size, in_chans)
    val = None if val is None else _fitted(val, size, in_chans)
    test = None if raw.test is None else _fitted(raw.test, size, in_chans)
    first = train.images[0] if isinstance(train, ResidentSplit) else train[0][0]
    mean, std = _statistics(train, config, first.shape[0])
    counts = torch.bincount(train.targets, minlength=len(raw.class_names))
    info = DataInfo(
        name=raw.name,
        class_names=tuple(raw.class_names),
        in_chans=int(first.shape[0]),
        img_size=(int(first.shape[1]), int(first.shape[2])),
        mean=mean,
        std=std,
        num_train=len(train),
        num_val=0 if val is None else len(val),
        num_test=0 if test is None else len(test),
        class_counts=tuple(counts.tolist()),
    )
    return ImageData(info, train, val, test)


def _fitted(split: Split, size: tuple[int, int] | None, in_chans: int | None) -> Split:
    if isinstance(split, StreamedSplit):
        return split  # its decoder fits each image
    images = split.images
    if in_chans is not None:
        images = to_channels(images, in_chans)
    if size is not None:
        images = resize_images(images, size)
    return ResidentSplit(images, split.targets)


def _statistics(
    train: Split, config: DataConfig, channels: int
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
        yield from train.images.split(4096)
        return
    step = max(1, len(train) // streamed)
    for index in range(0, len(train), step):
        yield train[index][0][None]


def _wanted_size(config: DataConfig, img_size: tuple[int, int] | None) -> tuple[int, int] | None:
    own = config.img_size
    asked = (own, own) if isinstance(own, int) else own
    if asked is not None and img_size is not None and tuple(asked) != tuple(img_size):
        raise DataError(
            f"data.img_size {asked} and model.img_size {tuple(img_size)} differ; leave one out"
        )
    return asked if asked is not None else img_size


def _resident(dataset: Any, size: tuple[int, int] | None, in_chans: int | None) -> ResidentSplit:
    images, targets = [], []
    for index in range(len(dataset)):
        picture, target = dataset[index]
        image = _as_tensor(picture, in_chans)
        images.append(image if size is None else resize_images(image[None], size)[0])
        targets.append(int(target))
    shapes = {tuple(image.shape) for image in images}
    if len(shapes) > 1:
        raise DataError(f"pictures of several shapes {sorted(shapes)[:3]}; give img_size")
    return ResidentSplit(torch.stack(images), torch.tensor(targets, dtype=torch.int64))


def _as_tensor(picture: Any, in_chans: int | None) -> Tensor:
    if isinstance(picture, Image.Image):
        channels = in_chans or (1 if picture.mode in ("1", "L") else 3)
        return picture_to_tensor(picture, channels)
    tensor = torch.as_tensor(np.asarray(picture)) if not isinstance(picture, Tensor) else picture
    if tensor.dtype != torch.uint8:
        raise DataError(
            f"pictures must be uint8, given {tensor.dtype}; drop ToTensor/normalisation"
        )
    if not isinstance(picture, Tensor):
        tensor = tensor[None] if tensor.ndim == 2 else tensor.permute(2, 0, 1)
    return tensor if in_chans is None else to_channels(tensor[None], in_chans)[0]
