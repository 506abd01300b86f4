"""Images of one split: held as one tensor, or decoded when asked for."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import overload

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from vitkit.data.config import ImageDataConfig
from vitkit.data.info import DataInfo
from vitkit.data.preprocess import Fit

__all__ = [
    "TEST_FRACTION",
    "ImageData",
    "ResidentSplit",
    "Split",
    "StreamedSplit",
    "Strings",
    "keys_of",
    "labelled_indices",
    "labelled_part",
    "picture_digest",
    "pictures_digest",
    "sample_images",
    "stratified_split",
    "train_and_test",
    "train_and_val",
]

TEST_FRACTION = 0.2
"""Share of each class that is set aside where a source has no test images."""


@dataclass(frozen=True)
class ResidentSplit:
    """All images in memory.

    Attributes:
        images: uint8 (N, channels, height, width).
        targets: int64 (N,).
        keys: int64 (N,): which picture of its source each is, before anything was cut off or
            resized; its place, unless given.
        fit: how images are brought to another size as they are taken; None: as they are.
    """

    images: Tensor
    targets: Tensor
    keys: Tensor | None = None
    fit: Fit | None = None

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of an image that is taken."""
        channels, height, width = self.images.shape[1:]
        return (channels, height, width) if self.fit is None else (channels, *self.fit.size)

    def take(self, indices: Tensor) -> Tensor:
        """Some images, where they are held: uint8 (n, channels, height, width)."""
        images = self.images[indices]
        return images if self.fit is None else self.fit(images)

    def subset(self, indices: Tensor) -> ResidentSplit:
        """Some of the images, in the order of ``indices``."""
        keys = keys_of(self)[indices]
        return ResidentSplit(self.images[indices], self.targets[indices], keys, self.fit)

    def with_targets(self, targets: Tensor) -> ResidentSplit:
        """The same images with other class indices."""
        return replace(self, targets=targets)


class Strings(Sequence[str]):
    """Strings, such as paths, in one piece of memory.

    Reading a string from a list counts a reference, which is written beside it: every worker
    process would come to have a copy of all of them.

    Args:
        strings: as file systems know them.
    """

    def __init__(self, strings: Iterable[str]) -> None:
        self._bytes = np.array([os.fsencode(string) for string in strings], dtype=np.bytes_)

    def __len__(self) -> int:
        return len(self._bytes)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [os.fsdecode(one) for one in self._bytes[index].tolist()]
        return os.fsdecode(self._bytes[index].item())


class StreamedSplit(Dataset[tuple[Tensor, int]]):
    """Images decoded one by one: for data that does not fit in memory.

    Args:
        items: what stands for each image, such as its path; if all are strings, they are held as
            :class:`Strings`.
        targets: class index of each image.
        decode: item -> uint8 (channels, height, width), of one shape for all items, which it may
            state as its own ``shape``. Where it is a :class:`~vitkit.data.crops.Cropping`, random
            crops of a training are cut out of whole pictures.
        keys: as of :class:`ResidentSplit`.
    """

    def __init__(
        self,
        items: Sequence[object],
        targets: Sequence[int],
        decode: Callable[[object], Tensor],
        keys: Tensor | None = None,
    ) -> None:
        words = [item for item in items if isinstance(item, str)]
        self.items: Sequence[object] = Strings(words) if len(words) == len(items) else list(items)
        self.targets = torch.as_tensor(list(targets), dtype=torch.int64)
        self.decode = decode
        self.keys = keys

    def __len__(self) -> int:
        return len(self.items)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of an image."""
        stated: tuple[int, int, int] | None = getattr(self.decode, "shape", None)
        if stated is not None:
            return stated
        channels, height, width = self[0][0].shape
        return channels, height, width

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.decode(self.items[index]), int(self.targets[index])

    def subset(self, indices: Tensor) -> StreamedSplit:
        """Some of the images, in the order of ``indices``."""
        chosen = indices.tolist()
        items, targets = [self.items[i] for i in chosen], self.targets[indices].tolist()
        return StreamedSplit(items, targets, self.decode, keys_of(self)[indices])

    def with_targets(self, targets: Tensor) -> StreamedSplit:
        """The same images with other class indices."""
        return StreamedSplit(self.items, targets.tolist(), self.decode, self.keys)


Split = ResidentSplit | StreamedSplit


def keys_of(split: Split) -> Tensor:
    """Which pictures of their source a split holds, int64 (N,)."""
    return torch.arange(len(split)) if split.keys is None else split.keys


def pictures_digest(split: Split) -> str:
    """SHA-256 of which pictures a split holds, in which order: the same at every size."""
    return hashlib.sha256(keys_of(split).numpy().tobytes()).hexdigest()


def picture_digest(image: Tensor, size: int) -> bytes:
    """Of one picture's shape and pixels, ``size`` bytes; alike pictures have the same."""
    digest = hashlib.blake2b(repr(tuple(image.shape)).encode(), digest_size=size)
    digest.update(image.numpy().tobytes())
    return digest.digest()


@dataclass(frozen=True)
class ImageData:
    """A data set, split.

    Attributes:
        info: facts that travel with the model.
        train: what is learned from.
        val: what choices are made on; None if there is none.
        test: what is reported on; None if there is none.
    """

    info: DataInfo
    train: Split
    val: Split | None
    test: Split | None


def stratified_split(targets: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """(kept, cut) indices, ascending; each class gives its share, rounded, and keeps an image.

    Args:
        targets: int64 (N,).
        fraction: share that is cut.
        seed: of the choice.
    """
    cut = [
        members[: min(round(len(members) * fraction), len(members) - 1)]
        for members in _shuffled_by_class(targets, seed)
    ]
    chosen = torch.cat(cut).sort().values
    kept = torch.ones(len(targets), dtype=torch.bool)
    kept[chosen] = False
    return kept.nonzero().flatten(), chosen


def train_and_test(targets: Tensor, config: ImageDataConfig) -> tuple[Tensor, Tensor]:
    """Indices to train on and to test on, where a source has no test images of its own.

    Cut before validation, so that the test set never depends on the validation share.

    Args:
        targets: int64 (N,), N at least 1.
        config: for ``split_seed``.
    """
    return stratified_split(targets, TEST_FRACTION, config.split_seed)


def train_and_val(targets: Tensor, config: ImageDataConfig) -> tuple[Tensor, Tensor]:
    """Indices to train on and to validate on, where a source has no validation images of its own.

    Args:
        targets: int64 (N,) of the training images, N at least 1.
        config: for ``val_fraction`` and ``split_seed``.
    """
    return stratified_split(targets, config.val_fraction, config.split_seed + 1)


def labelled_part(train: Split, fraction: float, seed: int) -> Split:
    """The training images whose labels may be used: a share of each class, at least one image.

    Args:
        train: training images, validation cut off already.
        fraction: share of them; 1 = all.
        seed: of the splits.
    """
    if fraction == 1.0 or not len(train):
        return train
    return train.subset(labelled_indices(train.targets, fraction, seed))


def labelled_indices(targets: Tensor, fraction: float, seed: int) -> Tensor:
    """Which images :func:`labelled_part` keeps of those with ``targets`` (N,): ascending."""
    chosen = [
        members[: max(1, round(len(members) * fraction))]
        for members in _shuffled_by_class(targets, seed + 2)  # beside those of test and validation
    ]
    return torch.cat(chosen).sort().values


def _shuffled_by_class(targets: Tensor, seed: int) -> Iterator[Tensor]:
    """Indices of each class in a random order, class by class."""
    generator = torch.Generator().manual_seed(seed)
    for label in targets.unique(sorted=True):
        members = (targets == label).nonzero().flatten()
        yield members[torch.randperm(len(members), generator=generator)]


def sample_images(split: Split, count: int) -> Tensor:
    """At most ``count`` images spread evenly over a split, uint8 (N, channels, height, width)."""
    step = max(1, -(-len(split) // count))
    if isinstance(split, ResidentSplit):
        return split.take(torch.arange(0, len(split), step, device=split.images.device))
    return torch.stack([split[index][0] for index in range(0, len(split), step)])
