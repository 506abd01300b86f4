"""Where a token is: sin-cos tables, resizing of learned ones, biases of distances.

A learned table is a parameter of the model that owns it (timm's ``pos_embed``); what can be
computed about it is here. A new scheme is a new small class: here one that yields a float mask
(added to the scores), in :mod:`vitkit.nn.rotary` one that yields a :class:`vitkit.nn.Rotation`
(turns q and k).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "Alibi",
    "RelativeBias",
    "RelativeBias2d",
    "alibi_slopes",
    "geometric_frequencies",
    "grid_positions",
    "relative_positions",
    "resize_offsets",
    "resize_position_grid",
    "sincos_1d",
    "sincos_2d",
]


def sincos_1d(length: int, embed_dim: int, *, base: float = 10000.0, offset: int = 0) -> Tensor:
    """Sine in even channels, cosine in odd ones, wavelengths from 2 pi to 2 pi base.

    Returns:
        float32 (length, embed_dim) for positions offset, offset + 1, ...

    Raises:
        ValueError: an odd width.

    Source: arXiv 1706.03762, section 3.5.
    """
    if embed_dim % 2:
        raise ValueError(f"sin-cos positions need an even width, given {embed_dim}")
    positions = torch.arange(offset, offset + length, dtype=torch.float64)
    angles = positions[:, None] * geometric_frequencies(embed_dim // 2, base)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1).float()


def sincos_2d(grid: tuple[int, int], embed_dim: int, *, base: float = 10000.0) -> Tensor:
    """Fixed table of a grid: a quarter of the channels each for sin y, cos y, sin x, cos x.

    Returns:
        float32 (rows * columns, embed_dim), row by row.

    Raises:
        ValueError: a width that is no multiple of 4.

    Source: Beyer et al., "Better plain ViT baselines", arXiv 2205.01580 (the order of the quarters
    is ours).
    """
    if embed_dim % 4:
        raise ValueError(f"2-D sin-cos positions need a width divisible by 4, given {embed_dim}")
    angles = grid_positions(grid)[:, :, None] * geometric_frequencies(embed_dim // 4, base)
    return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(1).float()


def grid_positions(grid: tuple[int, int]) -> Tensor:
    """(row, column) of each cell, row by row: float64 (rows * columns, 2)."""
    rows, columns = (torch.arange(n, dtype=torch.float64) for n in grid)
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1).flatten(0, 1)


def resize_position_grid(
    table: Tensor, old: tuple[int, int], new: tuple[int, int], *, num_prefix: int = 0
) -> Tensor:
    """Resample a position table from one grid to another; prefix rows are kept.

    Bicubic with antialiasing in float32, to the explicit new size, as timm does.

    Args:
        table: (1, num_prefix + rows * columns, C).
        old: (rows, columns) of ``table``.
        new: (rows, columns) wanted; need not be square.

    Returns:
        (1, num_prefix + new rows * new columns, C), in the dtype of ``table``.
    """
    if old == new:
        return table
    prefix, cells = table[:, :num_prefix], table[:, num_prefix:]
    image = cells.float().unflatten(1, old).permute(0, 3, 1, 2)
    # On a GPU torch's own has no deterministic gradient.
    exact = image.requires_grad and image.device.type == "cuda"
    image = _resampled_by_products(image, new) if exact else _resampled(image, new)
    cells = image.flatten(2).transpose(1, 2).to(table.dtype)
    return torch.cat([prefix, cells], dim=1)


def _resampled(image: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(image, size=size, mode="bicubic", antialias=True, align_corners=False)


def _resampled_by_products(image: Tensor, size: tuple[int, int]) -> Tensor:
    """The same by two matrix products: what one row, and one column, of ones becomes."""
    with torch.autocast(image.device.type, enabled=False):  # it would multiply in bfloat16
        rows, columns = (torch.eye(n, device=image.device)[None, None] for n in image.shape[-2:])
        down = _resampled(rows, (size[0], rows.shape[-1]))[0, 0]
        across = _resampled(columns, (columns.shape[-2], size[1]))[0, 0]
        return down @ image @ across


class Alibi(nn.Module):
    """Linear biases: each head takes its slope times the distance off its scores.

    Args:
        num_heads: H.

    Source: Press et al., "Train short, test long", arXiv 2108.12409, section 3; without causal
    order the distance counts in both directions alike, so a text and its mirror image are one.
    """

    slopes: Tensor

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.register_buffer("slopes", alibi_slopes(num_heads), persistent=False)

    def forward(self, num_queries: int, num_keys: int | None = None) -> Tensor:
        """Bias of N queries on M keys, aligned at the end: float (1, H, N, M)."""
        distance = relative_positions(num_queries, num_keys, device=self.slopes.device).abs()
        return (-self.slopes[:, None, None] * distance)[None]


class RelativeBias(nn.Module):
    """T5's learned bias of each head for the distance from query to key, in buckets.

    The near half of the distances has a bucket each, the far ones share buckets that grow
    logarithmically up to ``max_distance`` and beyond. One table serves all layers of a stack.

    Args:
        num_heads: H.
        num_buckets: rows of the table, shared by both directions.
        max_distance: from here on all distances are one bucket.
        bidirectional: keys behind the query have buckets of their own; without, they share that of
            distance 0, as they are masked in causal order.

    Raises:
        ValueError: numbers that leave no bucket for the far distances.

    Source: Raffel et al., "Exploring the limits of transfer learning", arXiv 1910.10683.
    """

    starts: Tensor

    def __init__(
        self,
        num_heads: int,
        *,
        num_buckets: int = 32,
        max_distance: int = 128,
        bidirectional: bool = True,
    ) -> None:
        super().__init__()
        self.bidirectional = bidirectional
        self.buckets_a_side = num_buckets // 2 if bidirectional else num_buckets
        exact = self.buckets_a_side // 2
        if num_buckets % 4 or not 0 < exact < max_distance:
            raise ValueError(
                f"num_buckets {num_buckets}, max_distance {max_distance}; allowed: a multiple of 4 "
                "buckets, and a distance beyond those that have a bucket each"
            )
        self.table = nn.Parameter(torch.empty(num_buckets, num_heads).normal_(std=0.02))
        far = self.buckets_a_side - exact
        # Less a hair, so that whole numbers do not round up.
        grown = [exact * (max_distance / exact) ** (k / far) - 1e-9 for k in range(1, far)]
        starts = torch.tensor([*range(1, exact + 1), *map(math.ceil, grown)])
        self.register_buffer("starts", starts, persistent=False)

    def forward(self, num_queries: int, num_keys: int | None = None) -> Tensor:
        """Bias of N queries on M keys, aligned at the end: float (1, H, N, M)."""
        places = relative_positions(num_queries, num_keys, device=self.table.device)
        return self.table[self.buckets(places)].permute(2, 0, 1)[None]

    def buckets(self, places: Tensor) -> Tensor:
        """Rows of the table for key minus query, int of any shape: int64 of that shape."""
        distance = places.abs() if self.bidirectional else (-places).clamp(min=0)
        bucket = torch.bucketize(distance, self.starts, right=True)
        return bucket + self.buckets_a_side * (places > 0) if self.bidirectional else bucket


NEIGHBOURS = ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0), (1, 1), (-1, -1), (1, -1), (-1, 1))
"""(row, column) offsets that heads begin with, the nearest first."""


class RelativeBias2d(nn.Module):
    """A learned bias of each layer and head for the offset from query to key on a grid.

    Each head begins with an eye on one neighbour, in turn over heads and layers, like the taps of a
    convolution: the bias falls with the squared distance from that place. Prefix tokens have no
    place: their bias is 0.

    Args:
        depth: L, layers.
        num_heads: H.
        grid: (rows, columns); on a larger one, offsets beyond its own take the farthest bias.
        num_prefix: tokens before the grid.
        locality: how steeply the first biases fall; with 0 all are 0.

    Source: the table is Swin's, arXiv 2103.14030; the start is ConViT's, arXiv 2103.10697.
    """

    FLOOR = -8.0
    """Least bias to begin with: e^-8 of the weight, still within reach of a gradient."""

    def __init__(
        self,
        depth: int,
        num_heads: int,
        grid: tuple[int, int],
        *,
        num_prefix: int = 0,
        locality: float = 1.0,
    ) -> None:
        super().__init__()
        self.num_prefix = num_prefix
        offsets = grid_positions((2 * grid[0] - 1, 2 * grid[1] - 1))
        offsets -= torch.tensor([grid[0] - 1.0, grid[1] - 1.0])
        eyes = torch.tensor([NEIGHBOURS[i % len(NEIGHBOURS)] for i in range(depth * num_heads)])
        away = (offsets[None] - eyes[:, None]).square().sum(-1)
        table = (-locality * away).clamp(min=self.FLOOR).float()
        shape = (depth, num_heads, 2 * grid[0] - 1, 2 * grid[1] - 1)
        self.table = nn.Parameter(table.view(shape))

    def forward(self, grid: tuple[int, int]) -> tuple[Tensor, ...]:
        """Bias of each layer on a whole grid, row by row behind the prefix: L of (1, H, N, N)."""
        rows, columns = grid
        table = resize_offsets(self.table, grid)
        # Window (a, b) of the table holds the offsets from a - (rows - 1), b - (columns - 1) on:
        # all that query (rows - 1 - a, columns - 1 - b) meets. No index, so a quick backward pass.
        windows = table.unfold(2, rows, 1).unfold(3, columns, 1).flip(2, 3)
        bias = windows.flatten(4, 5).flatten(2, 3)
        bias = F.pad(bias, (self.num_prefix, 0, self.num_prefix, 0))
        return bias.unsqueeze(1).unbind(0)


def resize_offsets(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """Biases of offsets for a grid of another size: offsets beyond their own take the farthest.

    Args:
        table: (L, H, 2 rows - 1, 2 columns - 1).
        grid: (rows, columns) wanted.

    Returns:
        The same for the grid; the table itself where it fits.
    """
    more = [new - (side + 1) // 2 for new, side in zip(grid, table.shape[2:], strict=True)]
    pad = (max(more[1], 0),) * 2 + (max(more[0], 0),) * 2
    table = F.pad(table, pad, mode="replicate") if any(pad) else table
    for axis, extra in zip((2, 3), more, strict=True):
        if extra < 0:
            table = table.narrow(axis, -extra, table.shape[axis] + 2 * extra)
    return table


def alibi_slopes(num_heads: int) -> Tensor:
    """Slope of each head, float32 (H,): powers of 2^(-8/H) where H is a power of two; else those of
    the power below, then every second one of the power above.
    """
    below = 1 << (num_heads.bit_length() - 1)
    exponents = [8 * (i + 1) / below for i in range(below)]
    exponents += [4 * (i + 1) / below for i in range(0, 2 * below, 2)]
    return torch.tensor([2.0**-e for e in exponents[:num_heads]])


def relative_positions(
    num_queries: int, num_keys: int | None = None, *, device: torch.device | str | None = None
) -> Tensor:
    """Place of the key minus place of the query, int64 (N, M), aligned at the end."""
    num_keys = num_queries if num_keys is None else num_keys
    query = torch.arange(num_keys - num_queries, num_keys, device=device)
    return torch.arange(num_keys, device=device)[None, :] - query[:, None]


def geometric_frequencies(count: int, base: float) -> Tensor:
    """base^(-i / count) for i = 0 ... count - 1: float64 (count,)."""
    return base ** (-torch.arange(count, dtype=torch.float64) / count)
