"""Test-time augmentation: one prediction from several views of an image.

Probabilities are averaged, and their logarithms stand for logits, so that every metric reads as
without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["SHIFT", "VIEWS", "averaged", "views_of"]

SHIFT = 1 / 32
"""How far the views of ``multicrop`` are moved, as a share of a side, at least one pixel."""

VIEWS = ("none", "flip", "multicrop")

Predict = Callable[[Tensor], Tensor]


def averaged(predict: Predict, views: str) -> Predict:
    """A predictor that averages over views.

    Args:
        predict: images (B, channels, height, width) -> logits (B, classes).
        views: ``none``; ``flip``: the image and its mirror image; ``multicrop``: both at three
            places, the middle counting twice.

    Raises:
        ValueError: other views.

    Source: ``multicrop`` after K. Jordan, "94% on CIFAR-10 in 3.29 seconds", arXiv 2404.00498,
    who averages logits.
    """
    if views not in VIEWS:
        raise ValueError(f"views: given {views!r}, allowed: {', '.join(VIEWS)}")
    if views == "none":
        return predict

    def mean(images: Tensor) -> Tensor:
        parts = [
            predict(view).float().log_softmax(1) + math.log(weight)
            for weight, view in views_of(images, views)
        ]
        return torch.stack(parts).logsumexp(0)

    return mean


def views_of(images: Tensor, views: str) -> list[tuple[float, Tensor]]:
    """(weight, images) of each view; the weights sum to one."""
    mirrored = [(0.5, images), (0.5, images.flip(-1))]
    if views == "flip":
        return mirrored
    height, width = images.shape[-2:]
    down, right = max(1, round(height * SHIFT)), max(1, round(width * SHIFT))
    # Float32 holds every uint8 exactly, and torch pads no uint8.
    padded = F.pad(images.float(), (right, right, down, down), mode="reflect").to(images.dtype)
    out = [(0.5 * weight, view) for weight, view in mirrored]
    for top, left in ((0, 0), (2 * down, 2 * right)):
        moved = padded[..., top : top + height, left : left + width]
        out += [(0.125, moved), (0.125, moved.flip(-1))]
    return out
