"""Linear filters and resampling, each image by itself whatever batch it is in.

A filter along an axis is a small matrix, applied in float64: what is left of the order of summation
is then far below one step of eight bits.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Literal

import torch
from torch import Tensor

__all__ = [
    "apply_axes",
    "border",
    "box_matrix",
    "correlate",
    "disk_kernel",
    "gaussian_blur",
    "motion_blur",
    "pick",
    "sample",
    "shifted",
    "zoom",
]

Border = Literal["edge", "mirror", "symmetric"]
"""How an image goes on outside: its last pixel; mirrored at that pixel (b | a b); or between it and
its copy (a | a b)."""

NEGLIGIBLE = 1e-5
"""Share of a motion blur's weight that its far end may hold and be left out: 0.003 grey levels."""


def apply_axes(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Filter (..., H, W) along both axes.

    Args:
        x: any float type.
        rows: float64 (H', H).
        columns: float64 (W', W).

    Returns:
        (..., H', W') in the type of ``x``.
    """
    wide = x.to(torch.float64) @ columns.to(x.device).T
    tall = (wide.transpose(-1, -2) @ rows.to(x.device).T).transpose(-1, -2)
    return tall.to(x.dtype).contiguous()


def border(positions: Tensor, size: int, mode: Border) -> Tensor:
    """Where positions, inside or outside, are found among 0 ... ``size`` - 1."""
    if mode == "edge":
        return positions.clamp(0, size - 1)
    if mode == "mirror":
        period = 2 * (size - 1)
        place = positions.remainder(period)
        return torch.minimum(place, period - place)
    period = 2 * size
    place = positions.remainder(period)
    return torch.minimum(place, period - 1 - place)


def gaussian_blur(
    x: Tensor, sigma: float, *, mode: Border = "edge", truncate: float = 4.0
) -> Tensor:
    """Gaussian filter of (..., H, W).

    Args:
        x: images.
        sigma: in pixels; 0 changes nothing.
        mode: border.
        truncate: standard deviations up to which the filter reaches.
    """
    height, width = x.shape[-2:]
    rows = _gaussian_matrix(height, sigma, mode, truncate)
    return apply_axes(x, rows, _gaussian_matrix(width, sigma, mode, truncate))


@cache
def _gaussian_matrix(size: int, sigma: float, mode: Border, truncate: float) -> Tensor:
    radius = int(truncate * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1)
    weights = torch.ones(1, dtype=torch.float64)
    if radius:
        weights = torch.exp(-0.5 * (offsets.to(torch.float64) / sigma) ** 2)
    places = border(torch.arange(size)[:, None] + offsets, size, mode)
    matrix = torch.zeros(size, size, dtype=torch.float64)
    return matrix.scatter_add_(1, places, (weights / weights.sum()).expand(size, -1))


def zoom(x: Tensor, factor: float) -> Tensor:
    """The middle of (..., H, W), enlarged by ``factor`` >= 1 to the same size, bilinearly."""
    height, width = x.shape[-2:]
    return apply_axes(x, _zoom_matrix(height, factor), _zoom_matrix(width, factor))


@cache
def _zoom_matrix(size: int, factor: float) -> Tensor:
    """Cut ceil(size / factor) out of the middle, enlarge corner to corner, cut back to size."""
    part = math.ceil(size / factor)
    larger = round(part * factor)
    start, trim = (size - part) // 2, (larger - size) // 2
    step = (part - 1) / (larger - 1)
    places = (torch.arange(size, dtype=torch.float64) + trim) * step
    low = places.floor().clamp(max=max(part - 2, 0))
    share = places - low
    matrix = torch.zeros(size, size, dtype=torch.float64)
    at = (low.long() + start)[:, None]
    matrix.scatter_add_(1, at, (1 - share)[:, None])
    return matrix.scatter_add_(1, (at + 1).clamp(max=size - 1), share[:, None])


@cache
def box_matrix(size: int, out: int) -> Tensor:
    """Pillow's box filter from ``size`` pixels to ``out``: the mean of those whose centre is under
    a pixel of the result, all of one weight. float64 (out, size).
    """
    scale = size / out
    support = 0.5 * max(scale, 1.0)
    centres = (torch.arange(out, dtype=torch.float64) + 0.5) * scale
    low = (centres - support + 0.5).floor().clamp(min=0)
    high = (centres + support + 0.5).floor().clamp(max=size)
    place = torch.arange(size, dtype=torch.float64)
    distance = (place - centres[:, None] + 0.5) / max(scale, 1.0)
    inside = (place >= low[:, None]) & (place < high[:, None])
    weights = (inside & (distance > -0.5) & (distance <= 0.5)).to(torch.float64)
    return weights / weights.sum(1, keepdim=True)


@cache
def disk_kernel(radius: float, alias: float) -> Tensor:
    """A disk of a lens out of focus with its rim smoothed, float64 (n, n), n odd, cut to what is
    not zero.

    Args:
        radius: in pixels.
        alias: standard deviation of the smoothing, over 3 pixels up to radius 8, else over 5.
    """
    side, reach = (8, 1) if radius <= 8 else (int(radius), 2)
    line = torch.arange(-side, side + 1, dtype=torch.float64)
    disk = (line[:, None] ** 2 + line**2 <= radius**2).to(torch.float64)
    taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=torch.float64) / alias) ** 2)
    taps = taps / taps.sum()
    offsets = torch.arange(-reach, reach + 1)
    places = border(torch.arange(len(line))[:, None] + offsets, len(line), "mirror")
    smooth = torch.zeros(len(line), len(line), dtype=torch.float64)
    smooth.scatter_add_(1, places, taps.expand(len(line), -1))
    kernel = smooth @ (disk / disk.sum()) @ smooth.T
    used = (kernel.abs() > 1e-12).any(0).nonzero().flatten()
    first, last = int(used[0]), int(used[-1]) + 1
    return kernel[first:last, first:last]


def correlate(x: Tensor, kernel: Tensor, *, mode: Border = "mirror") -> Tensor:
    """Correlate (B, C, H, W) with a small kernel (n, m), n and m odd."""
    height, width = x.shape[-2:]
    up, left = kernel.shape[0] // 2, kernel.shape[1] // 2
    rows = border(torch.arange(-up, height + up, device=x.device), height, mode)
    columns = border(torch.arange(-left, width + left, device=x.device), width, mode)
    padded = x.index_select(-2, rows).index_select(-1, columns)
    out = torch.zeros_like(x)
    for i, row in enumerate(kernel.tolist()):
        for j, weight in enumerate(row):
            if weight:
                # A product and a sum: a fused one would round otherwise at a vector's end.
                out = out + padded[..., i : i + height, j : j + width] * weight
    return out


def motion_blur(x: Tensor, radius: float, sigma: float, angles: Tensor) -> Tensor:
    """Blur along a line, as ImageMagick does: half a Gaussian of 2 radius + 1 pixels.

    Args:
        x: (B, C, H, W).
        radius, sigma: in pixels.
        angles: float64 (B,), in degrees, clockwise from the right.
    """
    width = 2 * math.ceil(radius) + 1
    weights = [math.exp(-(i * i) / (2 * sigma * sigma)) for i in range(width)]
    total = sum(weights)
    weights = [weight / total for weight in weights]
    weights = [weight for weight in weights if weight > NEGLIGIBLE]
    total = sum(weights)
    turn = torch.deg2rad(angles.to(torch.float64))
    cosine, sine = turn.cos(), turn.sin()
    out = torch.zeros_like(x)
    for i, weight in enumerate(weights):
        right, down = (torch.ceil(i * part - 0.5).long() for part in (cosine, sine))
        out = out + shifted(x, down, right) * (weight / total)
    return out


def shifted(x: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Each image's pixels from ``down`` and ``right`` of where they are put, its edge repeated.

    Args:
        x: (B, C, H, W).
        down, right: int64 (B,).
    """
    height, width = x.shape[-2:]
    rows = border(torch.arange(height, device=x.device) + down[:, None], height, "edge")
    columns = border(torch.arange(width, device=x.device) + right[:, None], width, "edge")
    return pick(x, rows[:, :, None] * width + columns[:, None, :])


def sample(x: Tensor, rows: Tensor, columns: Tensor, mode: Border) -> Tensor:
    """Values of (B, C, H, W) at places between pixels, bilinearly.

    Args:
        x: images.
        rows, columns: float (B, H', W'), in pixels.
        mode: border.

    Returns:
        (B, C, H', W').
    """
    height, width = x.shape[-2:]
    top, left = rows.floor(), columns.floor()
    down, right = (rows - top).to(x.dtype)[:, None], (columns - left).to(x.dtype)[:, None]
    r0, r1 = (border(top.long() + i, height, mode) for i in (0, 1))
    c0, c1 = (border(left.long() + i, width, mode) for i in (0, 1))
    upper = pick(x, r0 * width + c0) * (1 - right) + pick(x, r0 * width + c1) * right
    lower = pick(x, r1 * width + c0) * (1 - right) + pick(x, r1 * width + c1) * right
    return upper * (1 - down) + lower * down


def pick(x: Tensor, places: Tensor) -> Tensor:
    """Pixels of (B, C, H, W) by their flat places, int64 (B, H', W') -> (B, C, H', W')."""
    flat = places.flatten(1)[:, None].expand(-1, x.shape[1], -1)
    return x.flatten(2).gather(2, flat).unflatten(2, places.shape[1:])
