"""Random crops cut out of whole pictures, where these are decoded.

A batch can only crop what is left of a picture at the model's size. A picture that is read anew for
each epoch is cropped before it is resized, and so loses nothing: a tenth of a photograph is then
reduced to the model's size instead of enlarged.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from vitkit.data.augment import BOX_DRAWS, RESIZED_CROP, crop_boxes
from vitkit.data.config import AugmentConfig
from vitkit.data.preprocess import Box, Choose
from vitkit.data.random import uniform_table
from vitkit.data.splits import Split, StreamedSplit

__all__ = ["CroppedPictures", "Cropping", "RandomCrop", "crop_of"]


@runtime_checkable
class Cropping(Protocol):
    """A decoder that can show a part of a picture, besides the whole at one size."""

    def cropped(self, item: Any, choose: Choose) -> Tensor:
        """The part of an item's picture that ``choose`` picks by (height, width), brought to the
        size of all: uint8 (channels, height, width).
        """


@dataclass(frozen=True)
class RandomCrop:
    """A part of each picture, a function of (seed, epoch, position): of the numbers by which
    :class:`~vitkit.data.augment.Augment` crops images that are held.

    Attributes:
        seed: of the run.
        scale: smallest and largest share of the picture's area, evenly spread.
        ratio: smallest width over height; its logarithm is evenly spread up to the inverse.
    """

    seed: int
    scale: tuple[float, float]
    ratio: float

    def box(self, size: tuple[int, int], epoch: int, position: int) -> Box:
        """The part of a picture at its place in an epoch.

        Args:
            size: (height, width) of the picture.
            epoch: from 0.
            position: in the epoch's order.
        """
        draws = range(RESIZED_CROP, RESIZED_CROP + BOX_DRAWS)
        numbers = uniform_table(self.seed, epoch, np.array([position], dtype=np.int64), draws)
        top, left, height, width = crop_boxes(numbers, size, self.scale, self.ratio)[0].tolist()
        return top, left, height, width


def crop_of(split: Split, config: AugmentConfig, seed: int) -> RandomCrop | None:
    """How a split's pictures are cropped while they are decoded.

    None where nothing is to be cropped so, or where batches are: images that are held, and those of
    a decoder that is not :class:`Cropping`.

    Args:
        split: to be trained on.
        config: the augmentation.
        seed: of the run.
    """
    can = isinstance(split, StreamedSplit) and isinstance(split.decode, Cropping)
    if not can or not config.resized_crop_scale:
        return None
    scale = (config.resized_crop_scale, config.resized_crop_largest)
    return RandomCrop(seed, scale, config.resized_crop_ratio)


class CroppedPictures(Dataset[tuple[Tensor, int]]):
    """A streamed split whose pictures are asked for by (index, epoch, position).

    Args:
        split: of a decoder that is :class:`Cropping`.
        crop: what is shown of each.
    """

    def __init__(self, split: StreamedSplit, crop: RandomCrop) -> None:
        self.split, self.crop = split, crop

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: tuple[int, int, int]) -> tuple[Tensor, int]:
        which, epoch, position = index
        decode: Any = self.split.decode
        choose = partial(self.crop.box, epoch=epoch, position=position)
        return decode.cropped(self.split.items[which], choose), int(self.split.targets[which])
