"""Where a token is: sin-cos tables, resizing of learned ones, rotary angles, biases of distances.

A learned table is a parameter of the model that owns it (timm's ``pos_embed``); what can be
computed about it is here. A new scheme is a new small class that yields a :class:`Rotation`
(turns q and k) or a float mask (added to the scores).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "Alibi",
    "RelativeBias",
    "RelativeBias2d",
    "Rotary1d",
    "Rotary2d",
    "Rotation",
    "alibi_slopes",
    "grid_positions",
    "relative_positions",
    "resize_offsets",
    "resize_position_grid",
    "sincos_1d",
    "sincos_2d",
]

Pairing = Literal["interleaved", "half", "axial"]


def sincos_1d(length: int, embed_dim: int, *, base: float = 10000.0, offset: int = 0) -> Tensor:
    """Sine in even channels, cosine in odd ones, wavelengths from 2 pi to 2 pi base.

    Returns:
        float32 (length, embed_dim) for positions offset, offset + 1, ...

    Source: arXiv 1706.03762, section 3.5.
    """
    if embed_dim % 2:
        raise ValueError(f"sin-cos positions need an even width, given {embed_dim}")
    positions = torch.arange(offset, offset + length, dtype=torch.float64)
    angles = positions[:, None] * _frequencies(embed_dim // 2, base)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1).float()


def sincos_2d(grid: tuple[int, int], embed_dim: int, *, base: float = 10000.0) -> Tensor:
    """Fixed table of a grid: a quarter of the channels each for sin y, cos y, sin x, cos x.

    Returns:
        float32 (rows * columns, embed_dim), row by row.

    Source: Beyer et al., "Better plain ViT baselines", arXiv 2205.01580 (the order of the quarters
    is ours).
    """
    if embed_dim % 4:
        raise ValueError(f"2-D sin-cos positions need a width divisible by 4, given {embed_dim}")
    angles = grid_positions(grid)[:, :, None] * _frequencies(embed_dim // 4, base)
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


@dataclass(frozen=True)
class Rotation:
    """Turns pairs of channels of q or k by the angles of their tokens' positions.

    Attributes:
        cos, sin: (N, R) or broadcastable to (B, H, N, R); R may be less than the head width D,
            then the first R channels turn.
        pairing: which channels form a pair: ``interleaved`` (0, 1), (2, 3), ...; ``half``
            (i, i + R/2); ``axial`` half-split within each half of the channels.
    """

    cos: Tensor
    sin: Tensor
    pairing: Pairing = "interleaved"

    def __call__(self, x: Tensor) -> Tensor:
        """(B, H, N, D) -> the same, turned in float32 and cast back."""
        width = self.cos.shape[-1]
        turning = x if width == x.shape[-1] else x[..., :width]
        turned = (turning * self.cos + _rotate_half(turning, self.pairing) * self.sin).to(x.dtype)
        return turned if width == x.shape[-1] else torch.cat([turned, x[..., width:]], dim=-1)

    def __getitem__(self, tokens: slice) -> Rotation:
        """The rotation of some of the tokens."""
        return Rotation(self.cos[..., tokens, :], self.sin[..., tokens, :], self.pairing)

    def with_prefix(self, count: int) -> Rotation:
        """The same behind ``count`` tokens that do not turn (class token, registers)."""
        if count == 0:
            return self
        shape = (*self.cos.shape[:-2], count, self.cos.shape[-1])
        cos = torch.cat([self.cos.new_ones(shape), self.cos], dim=-2)
        return Rotation(cos, torch.cat([self.sin.new_zeros(shape), self.sin], -2), self.pairing)


class Rotary1d(nn.Module):
    """Rotary positions along a sequence.

    Args:
        head_dim: D, even.
        base: wavelengths run from 2 pi to 2 pi base.
        pairing: ``interleaved`` (RoFormer, timm) or ``half`` (Hugging Face's LLaMA).

    Source: Su et al., "RoFormer", arXiv 2104.09864.
    """

    def __init__(
        self, head_dim: int, *, base: float = 10000.0, pairing: Pairing = "interleaved"
    ) -> None:
        super().__init__()
        if head_dim % 2:
            raise ValueError(f"rotary positions need an even head width, given {head_dim}")
        self.head_dim, self.base, self.pairing = head_dim, base, pairing

    def forward(self, positions: Tensor) -> Rotation:
        """Rotation of tokens at ``positions``, int or float (N,) or (B, 1, N)."""
        angles = _angles(positions, _frequencies(self.head_dim // 2, self.base))
        return _rotation(angles, self.pairing)


class Rotary2d(nn.Module):
    """Rotary positions on a grid: half of the pairs turn by the row, half by the column.

    Args:
        head_dim: D, a multiple of 4.
        base: 10000 in EVA-02 and timm, 100 in CroCo and DUSt3R.
        pairing: ``interleaved`` (EVA-02, timm), ``half`` (DINOv3) or ``axial`` (CroCo, DUSt3R).
        ref_grid: positions are rescaled to this grid, so that a model keeps its angles at another
            image size; None keeps plain indices.

    Source: the 2-D form of arXiv 2104.09864 as used in EVA-02 (arXiv 2303.11331) and CroCo v2
    (arXiv 2211.10408).
    """

    def __init__(
        self,
        head_dim: int,
        *,
        base: float = 10000.0,
        pairing: Pairing = "interleaved",
        ref_grid: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        if head_dim % 4:
            raise ValueError(f"2-D rotary positions need a head width in 4s, given {head_dim}")
        self.head_dim, self.base, self.pairing, self.ref_grid = head_dim, base, pairing, ref_grid

    def forward(
        self, grid: tuple[int, int], *, device: torch.device | str | None = None
    ) -> Rotation:
        """Rotation of a whole grid, row by row."""
        positions = grid_positions(grid)
        if self.ref_grid is not None:
            positions = positions * torch.tensor(
                [ref / now for ref, now in zip(self.ref_grid, grid, strict=True)]
            )
        return self.at(positions.to(device, _widest(device), non_blocking=True))

    def at(self, positions: Tensor) -> Rotation:
        """Rotation of tokens at (row, column) ``positions``, (..., N, 2)."""
        angles = _angles(positions, _frequencies(self.head_dim // 4, self.base))
        if self.pairing == "axial":
            angles = torch.cat([angles, angles], dim=-1).flatten(-2)
            return Rotation(angles.cos().float(), angles.sin().float(), "axial")
        return _rotation(angles.flatten(-2), self.pairing)


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


def _frequencies(count: int, base: float) -> Tensor:
    """base^(-i / count) for i = 0 ... count - 1, float64."""
    return base ** (-torch.arange(count, dtype=torch.float64) / count)


def _widest(device: torch.device | str | None) -> torch.dtype:
    """The longest float of a device: Apple's has no float64."""
    name = device.type if isinstance(device, torch.device) else str(device)
    return torch.float32 if name.startswith("mps") else torch.float64


def _angles(positions: Tensor, frequencies: Tensor) -> Tensor:
    """(...) and (F,) -> (..., F), where the positions are."""
    dtype = _widest(positions.device)
    frequencies = frequencies.to(positions.device, dtype, non_blocking=True)
    return positions.to(dtype)[..., None] * frequencies


def _rotation(angles: Tensor, pairing: Pairing) -> Rotation:
    """Angles (..., N, D / 2), one per pair, spread over both channels of each pair."""
    if pairing == "interleaved":
        angles = angles.repeat_interleave(2, dim=-1)
    else:
        angles = torch.cat([angles, angles], dim=-1)
    return Rotation(angles.cos().float(), angles.sin().float(), pairing)


def _rotate_half(x: Tensor, pairing: Pairing) -> Tensor:
    """(a, b) -> (-b, a) in every pair of channels."""
    if pairing == "interleaved":
        return torch.stack([-x[..., 1::2], x[..., 0::2]], dim=-1).flatten(-2)
    halves = 2 if pairing == "half" else 4
    parts = x.chunk(halves, dim=-1)
    turned = [p for a, b in zip(parts[0::2], parts[1::2], strict=True) for p in (-b, a)]
    return torch.cat(turned, dim=-1)
