"""How far heads look: the mean distance between a patch and what it attends to.

Source: Dosovitskiy et al., "An image is worth 16x16 words", arXiv 2010.11929, figure 7 (right).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vitkit.explain.anatomy import anatomy_of
from vitkit.explain.maps import attention_maps
from vitkit.nn import grid_positions

__all__ = ["attention_distance", "mean_attention_distance"]


def attention_distance(
    maps: Tensor, grid: tuple[int, int], cell: tuple[float, float] = (1.0, 1.0)
) -> Tensor:
    """Mean distance of attention maps, over the patches that look.

    Prefix tokens have no place: their rows and columns are left out, and the rest of each row is
    scaled to sum to one, so that it is a mean.

    Args:
        maps: (..., N, N), patches last and row by row.
        grid: (rows, columns) of the patches.
        cell: (height, width) of a patch in pixels.

    Returns:
        float32 (...), in pixels.
    """
    places = grid_positions(grid) * torch.tensor(cell, dtype=torch.float64)
    distances = torch.cdist(places, places).to(maps.device, torch.float32)
    count = len(places)
    patches = maps[..., -count:, -count:].float()
    total = patches.sum(dim=-1).clamp(min=torch.finfo(patches.dtype).tiny)
    return ((patches * distances).sum(dim=-1) / total).mean(dim=-1)


def mean_attention_distance(model: nn.Module, images: Tensor) -> Tensor:
    """Mean attention distance of every head, in pixels of the model's input.

    Args:
        model: vitkit's or timm's, with attention.
        images: its input, float (B, channels, height, width); the source averages over 128.

    Returns:
        float32 (B, L, H).

    Raises:
        EvaluationError: a model without attention that can be read.
    """
    rows, columns = grid = anatomy_of(model).grid(images)
    cell = (images.shape[-2] / rows, images.shape[-1] / columns)
    return attention_distance(attention_maps(model, images), grid, cell)
