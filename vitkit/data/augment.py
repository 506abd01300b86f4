"""Random crop and flip of a whole batch at once, each image with its own parameters."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vitkit.data.config import AugmentConfig
from vitkit.data.random import position_uniform

__all__ = ["Augment"]

CROP_Y, CROP_X, FLIP = range(3)
"""The draws of an image: which of its random numbers decides what."""


class Augment:
    """Training augmentation in tensors, on any device, reproducible from (seed, epoch, position).

    Args:
        config: what to do.
        seed: of the run.
    """

    def __init__(self, config: AugmentConfig, seed: int = 0) -> None:
        self.config, self.seed = config, seed

    def __call__(self, images: Tensor, positions: Tensor, epoch: int) -> Tensor:
        """uint8 (B, channels, height, width) -> the same shape and type."""
        if not self.config.crop_padding and not self.config.flip:
            return images
        height, width = images.shape[-2:]
        padding = self.config.crop_padding
        top = self._draw(epoch, positions, CROP_Y, 2 * padding + 1)
        left = self._draw(epoch, positions, CROP_X, 2 * padding + 1)
        rows = top[:, None] + torch.arange(height, device=images.device)
        columns = left[:, None] + torch.arange(width, device=images.device)
        if self.config.flip:
            flipped = self._draw(epoch, positions, FLIP, 2).bool()
            columns = torch.where(flipped[:, None], columns.flip(1), columns)
        if padding:
            mode = "constant" if self.config.padding_mode == "zero" else "reflect"
            images = F.pad(images, (padding,) * 4, mode=mode)
        batch = torch.arange(len(images), device=images.device)[:, None, None]
        # One gather does crop and flip: (B, rows, columns, channels), then channels back in front.
        return images[batch, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)

    def _draw(self, epoch: int, positions: Tensor, draw: int, count: int) -> Tensor:
        """A whole number from 0 to count - 1 for each image."""
        uniform = position_uniform(self.seed, epoch, positions, draw)
        return (uniform * count).to(torch.int64)
