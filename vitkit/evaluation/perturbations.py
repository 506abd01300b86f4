"""Tests that Vision Transformers are known for: missing and shuffled patches, noise, few pixels.

All take uint8 images (B, channels, height, width) and give the same; an image's random numbers come
from (seed, its place in the split).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from vitkit.evaluation.corruptions.randomness import Draws

__all__ = ["lower_resolution", "occlude_patches", "shuffle_patches", "white_noise"]

Grid = tuple[int, int]


def occlude_patches(
    images: Tensor, grid: Grid, share: float, *, indices: Tensor, seed: int = 0
) -> Tensor:
    """Random patches set to black.

    Args:
        images: as of the module.
        grid: (rows, columns) of patches; both divide the image.
        share: of the patches that is dropped, rounded down.
        indices: int64 (B,), places in the split.
        seed: of the choice.

    Raises:
        ValueError: the grid does not divide the image.

    Source: Naseer et al., "Intriguing properties of Vision Transformers", arXiv 2105.10497; there a
    whole batch loses the same patches, here each image its own.
    """
    _require_divisor(images, grid)
    count = grid[0] * grid[1]
    draws = Draws(seed, indices.to(images.device), "occlusion", count)
    kept = draws.order(0, count) >= int(count * share + 1e-9)
    height, width = images.shape[-2:]
    mask = kept.view(-1, 1, *grid)
    mask = mask.repeat_interleave(height // grid[0], 2).repeat_interleave(width // grid[1], 3)
    return images * mask


def shuffle_patches(images: Tensor, grid: Grid, *, indices: Tensor, seed: int = 0) -> Tensor:
    """The patches of each image in random order.

    Args, errors and source as of :func:`occlude_patches`.
    """
    _require_divisor(images, grid)
    rows, columns = grid
    height, width = images.shape[-2] // rows, images.shape[-1] // columns
    draws = Draws(seed, indices.to(images.device), "shuffling", rows * columns)
    order = draws.order(0, rows * columns)
    patches = images.unflatten(-1, (columns, width)).unflatten(-3, (rows, height))
    patches = patches.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)  # (B, patches, C, height, width)
    patches = patches[torch.arange(len(images), device=images.device)[:, None], order]
    whole = patches.unflatten(1, grid).permute(0, 3, 1, 4, 2, 5)
    return whole.flatten(4, 5).flatten(2, 3)


def white_noise(images: Tensor, sigma: float, *, indices: Tensor, seed: int = 0) -> Tensor:
    """Normal noise added to each value.

    Args:
        images: as of the module.
        sigma: standard deviation, 1 being the distance from black to white.
        indices: int64 (B,), places in the split.
        seed: of the noise, which is the same at each strength.
    """
    draws = Draws(seed, indices.to(images.device), "white noise")
    noisy = images + draws.normal(0, *images.shape[1:]) * (255 * sigma)
    return noisy.round().clamp(0, 255).to(torch.uint8)


def lower_resolution(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images reduced to (height, width) pixels and enlarged to their own size again (bicubic, with
    antialiasing): the model sees its usual size and fewer details.
    """
    small = tv.resize(images, list(size), InterpolationMode.BICUBIC, antialias=True)
    own = list(images.shape[-2:])
    return tv.resize(small, own, InterpolationMode.BICUBIC, antialias=True)


def _require_divisor(images: Tensor, grid: Grid) -> None:
    height, width = images.shape[-2:]
    if height % grid[0] or width % grid[1]:
        raise ValueError(
            f"a grid of {grid[0]} x {grid[1]} does not divide images of {height} x {width}"
        )
