"""Random changes of a whole batch at once, each image with its own parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vitkit.data.config import AugmentConfig
from vitkit.data.geometry import erase, pick, resized_crop
from vitkit.data.ops import operate
from vitkit.data.policies import ColorJitter, Policy, make_policy
from vitkit.data.random import epoch_order, position_noise, position_uniform, uniform_table
from vitkit.errors import DataError

__all__ = ["BOX_DRAWS", "RESIZED_CROP", "Augment", "crop_boxes", "random_boxes"]

CROP_Y, CROP_X, FLIP = range(3)
"""The draws of an image: which of its random numbers decides what."""
RESIZED_CROP, POLICY, JITTER, CUTOUT, ERASE, NOISE = range(1000, 7000, 1000)
"""The first draw of each part that needs several."""

ATTEMPTS = 10
"""Boxes that an image draws until one fits, as torchvision and timm do."""
BOX_DRAWS = 2 * ATTEMPTS + 2

Numbers = NDArray[np.float64]
Boxes = NDArray[np.int64]


class Augment:
    """Training augmentation in tensors, on any device, reproducible from (seed, epoch, position).

    In order: crop, flip, policy, colour jitter; then, on normalised images, cutout and erasing.
    Pictures that are decoded anew for each epoch are cropped before they are images:
    :mod:`vitkit.data.crops`.
    What an image draws is worked out on the CPU, where positions are: it is the same on every
    device and waits for none. Only of several processes each waits once a batch, for torch sends
    its positions to the device. Pixels are changed, and noise made, where the images are.

    Args:
        config: what to do.
        seed: of the run.
        mean: of the training pixels, in [0, 1]: what a policy of timm's shows outside an image.
        size: training images; asked for by ``flip: alternate`` alone.
        repeats: places of each image in an epoch.

    Raises:
        DataError: changes of colour for images of neither 1 nor 3 channels, or alternating flips
            without ``size``.
    """

    def __init__(
        self,
        config: AugmentConfig,
        seed: int = 0,
        *,
        mean: Sequence[float] = (0.5,),
        size: int = 0,
        repeats: int = 1,
    ) -> None:
        self.config, self.seed, self.size, self.repeats = config, seed, size, repeats
        self.mean = [min(255, round(255 * value)) for value in mean]
        self.policies: list[tuple[int, Policy]] = []
        policy = make_policy(config.policy)
        if policy is not None:
            self.policies.append((POLICY, policy))
        if config.color_jitter or config.color_jitter_hue:
            jitter = ColorJitter(config.color_jitter, config.color_jitter_hue)
            self.policies.append((JITTER, jitter))
        if self.policies and len(mean) not in (1, 3):
            raise DataError(
                f"data.augment.policy and color_jitter are for 1 or 3 channels, the images have "
                f"{len(mean)}; leave them out"
            )
        if config.flip == "alternate" and size < 1:
            raise DataError("flip=alternate goes by the image: give size, the training images")
        self._order: tuple[int, Tensor] | None = None

    def __call__(self, images: Tensor, positions: Tensor, epoch: int) -> Tensor:
        """Change each image by what it draws.

        Args:
            images: uint8 (B, channels, height, width).
            positions: int64 (B,) on the CPU.
            epoch: from 0.

        Returns:
            The same shape and type.

        Raises:
            DataError: images of another type.
        """
        if images.dtype != torch.uint8:
            raise DataError(f"augmentation takes uint8 images, given {images.dtype}")
        positions = positions.cpu()  # several processes have theirs sent with their batch
        size = (images.shape[2], images.shape[3])
        if self.config.resized_crop_scale:
            numbers = self._numbers(epoch, positions, RESIZED_CROP, BOX_DRAWS)
            images = resized_crop(images, self._crop_boxes(numbers, size))
        images = self._crop_and_flip(images, positions, epoch)
        for first_draw, policy in self.policies:
            layers = policy(self._numbers(epoch, positions, first_draw, policy.draws), size)
            fill = self.mean if policy.like_timm else (0,)
            for codes, amounts in zip(*layers, strict=True):
                images = operate(images, codes, amounts, fill=fill, bilinear=policy.like_timm)
        return images

    def erase(self, inputs: Tensor, positions: Tensor, epoch: int) -> Tensor:
        """Cutout and random erasing (arXiv 1708.04552, 1708.04896) of normalised images.

        Zero is the mean colour there, and noise has mean 0 and variance 1.

        Args:
            inputs: float (B, channels, height, width).
            positions, epoch: as in the call before it.
        """
        positions = positions.cpu()
        config, size = self.config, (inputs.shape[2], inputs.shape[3])
        if config.cutout:
            numbers = self._numbers(epoch, positions, CUTOUT, 2)
            inputs = erase(inputs, _squares(numbers, config.cutout, size))
        if config.erase_prob:
            numbers = self._numbers(epoch, positions, ERASE, BOX_DRAWS + 1)
            most = (size[0] - 1, size[1] - 1)
            boxes = random_boxes(numbers[:-1], size, most, config.erase_scale, config.erase_ratio)
            boxes[numbers[-1] >= config.erase_prob] = 0
            sent = positions.to(inputs.device, non_blocking=True)
            inputs = erase(
                inputs,
                boxes,
                None
                if config.erase_mode == "constant"
                else lambda image, element: position_noise(
                    self.seed, epoch, sent, image, element, NOISE
                ),
            )
        return inputs

    def _crop_and_flip(self, images: Tensor, positions: Tensor, epoch: int) -> Tensor:
        padding = self.config.crop_padding
        if not padding and self.config.flip == "none":
            return images
        height, width = images.shape[-2:]
        top = self._draw(epoch, positions, CROP_Y, 2 * padding + 1)
        left = self._draw(epoch, positions, CROP_X, 2 * padding + 1)
        drawn = [top, left, self._flipped(epoch, positions)]
        top, left, flipped = torch.stack(drawn)[:, :, None].to(images.device, non_blocking=True)
        rows = top + torch.arange(height, device=images.device)
        columns = left + torch.arange(width, device=images.device)
        if self.config.flip != "none":
            columns = torch.where(flipped.bool(), columns.flip(1), columns)
        if padding:
            mode = "constant" if self.config.padding_mode == "zero" else "reflect"
            if mode == "reflect" and padding >= min(height, width):
                raise DataError(
                    f"data.augment.crop_padding: given {padding}, allowed if padding_mode=reflect: "
                    f"up to {min(height, width) - 1}, less than the images' shorter side"
                )
            images = F.pad(images, (padding,) * 4, mode=mode)
        return pick(images, rows, columns)

    def _flipped(self, epoch: int, positions: Tensor) -> Tensor:
        """1 for the images that are mirrored, else 0, int64 (B,).

        Alternating: by chance when an image is first seen, from then on in turn.
        """
        if self.config.flip == "none":
            return torch.zeros_like(positions)
        if self.config.flip == "random":
            return self._draw(epoch, positions, FLIP, 2)
        if self._order is None or self._order[0] != epoch:
            self._order = (epoch, epoch_order(self.size, self.seed, epoch, self.repeats))
        first = self._draw(0, self._order[1][positions], FLIP, 2)
        turn = epoch * self.repeats + positions % self.repeats
        return (first + turn) % 2

    def _crop_boxes(self, numbers: Numbers, size: tuple[int, int]) -> Boxes:
        scale = (self.config.resized_crop_scale, self.config.resized_crop_largest)
        return crop_boxes(numbers, size, scale, self.config.resized_crop_ratio)

    def _draw(self, epoch: int, positions: Tensor, draw: int, count: int) -> Tensor:
        """A whole number from 0 to count - 1 for each image."""
        uniform = position_uniform(self.seed, epoch, positions, draw)
        return (uniform * count).to(torch.int64)

    def _numbers(self, epoch: int, positions: Tensor, first: int, count: int) -> Numbers:
        """Random numbers of each image, (count, B)."""
        draws = range(first, first + count)
        return uniform_table(self.seed, epoch, positions.numpy(), draws)


def crop_boxes(
    numbers: Numbers, size: tuple[int, int], scale: tuple[float, float], ratio: float
) -> Boxes:
    """Boxes of a share of the area and an aspect by chance; the largest one if none fits.

    Args:
        numbers: random numbers, (BOX_DRAWS, B).
        size: (height, width) of the images.
        scale: smallest and largest share of the area.
        ratio: smallest width over height; the largest is its inverse.

    Returns:
        int64 (B, 4): top, left, height, width.
    """
    boxes = random_boxes(numbers, size, size, scale, ratio)
    height, width = size
    rows, columns = min(height, round(width / ratio)), min(width, round(height / ratio))
    whole = ((height - rows) // 2, (width - columns) // 2, rows, columns)
    return np.where(boxes[:, 2:3] > 0, boxes, whole)


def random_boxes(
    numbers: Numbers,
    size: tuple[int, int],
    most: tuple[int, int],
    scale: tuple[float, float],
    ratio: float,
) -> Boxes:
    """The first box of ten that fits, int64 (B, 4): top, left, height, width; zeros if none does.

    Args:
        numbers: in [0, 1), (:data:`BOX_DRAWS`, B).
        size: (height, width) of the images.
        most: (height, width) that a box may have.
        scale: smallest and largest share of the area, evenly spread.
        ratio: smallest width over height; its logarithm is evenly spread up to the inverse.
    """
    share, shape = numbers[:-2].reshape(2, ATTEMPTS, -1)
    area = (scale[0] + (scale[1] - scale[0]) * share) * (size[0] * size[1])
    aspect = np.exp(math.log(ratio) * (1.0 - 2.0 * shape))
    rows, columns = np.round(np.sqrt(area / aspect)), np.round(np.sqrt(area * aspect))
    fits = (rows >= 1) & (rows <= most[0]) & (columns >= 1) & (columns <= most[1])
    first, images = fits.argmax(0), np.arange(fits.shape[1])
    rows, columns = rows[first, images], columns[first, images]
    top = np.floor(numbers[-2] * (size[0] - rows + 1))
    left = np.floor(numbers[-1] * (size[1] - columns + 1))
    boxes = np.stack((top, left, rows, columns), 1).astype(np.int64)
    return np.where(fits[first, images][:, None], boxes, 0)


def _squares(numbers: Numbers, side: int, size: tuple[int, int]) -> Boxes:
    if side > min(size):
        raise DataError(
            f"data.augment.cutout: given {side}, allowed: up to {min(size)}, the shorter side of "
            "the images in pixels"
        )
    room = np.array([[size[0] - side + 1], [size[1] - side + 1]])
    corners = (numbers * room).astype(np.int64).T
    return np.concatenate((corners, np.full_like(corners, side)), 1)
