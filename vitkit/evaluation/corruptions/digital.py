"""What happens after the sensor: contrast, colour, stretching, fewer pixels, compression."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vitkit.evaluation.corruptions import filters
from vitkit.evaluation.corruptions.constants import Row
from vitkit.evaluation.corruptions.randomness import Draws

__all__ = [
    "brightness",
    "contrast",
    "elastic_transform",
    "jpeg_compression",
    "pixelate",
    "saturate",
]


def brightness(x: Tensor, c: Row, draws: Draws) -> Tensor:
    """The value of hue, saturation, value grows by c0."""
    value = x.amax(1, keepdim=True)
    brighter = (value + c[0]).clamp(0, 1)
    # Hue and saturation stay, so the channels grow in proportion; black becomes grey.
    return torch.where(value > 0, x / value.clamp(min=1e-6) * brighter, brighter)


def saturate(x: Tensor, c: Row, draws: Draws) -> Tensor:
    """The saturation of hue, saturation, value becomes c0 times itself plus c1."""
    value, lowest = x.amax(1, keepdim=True), x.amin(1, keepdim=True)
    span = value - lowest
    saturation = span / value.clamp(min=1e-6)
    wanted = (saturation * c[0] + c[1]).clamp(0, 1)
    # How far each channel is below the value, as a share of the lowest one's distance. Grey has no
    # hue, which the formulas take for red.
    grey = torch.tensor([0.0, 1.0, 1.0], device=x.device, dtype=x.dtype)[:, None, None]
    below = torch.where(span > 0, (value - x) / span.clamp(min=1e-6), grey)
    return value * (1 - below * wanted)


def contrast(x: Tensor, c: Row, draws: Draws) -> Tensor:
    """(x - mean) c0 + mean, the mean being that of a channel of the image."""
    levels = (x * 255).round().long()
    # Whole numbers add up to the same in any order.
    pixels = levels.shape[-1] * levels.shape[-2]
    mean = (levels.sum((2, 3), keepdim=True).double() / (255 * pixels)).to(x.dtype)
    return (x - mean) * c[0] + mean


def elastic_transform(x: Tensor, c: Row, draws: Draws) -> Tensor:
    """Three points moved by up to c2 and the rest along with them, then each pixel by a random
    field of strength c0 that varies over c1 pixels.
    """
    height, width = x.shape[-2:]
    rows, columns = _affine_places(draws, c[2], height, width)
    moved = filters.sample(x, rows, columns, "mirror")
    if not c[0]:
        return moved
    fields = draws.uniform(1, 2, height, width, low=-1.0, high=1.0)
    fields = filters.gaussian_blur(fields, c[1], mode="symmetric", truncate=3.0) * c[0]
    down = torch.arange(height, device=x.device)[:, None] + fields[:, 1]
    right = torch.arange(width, device=x.device) + fields[:, 0]
    return filters.sample(moved, down, right, "symmetric")


def _affine_places(draws: Draws, jitter: float, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Where each pixel of the result comes from, rows and columns float64 (B, H, W)."""
    device = draws.indices.device
    reach, right, down = min(height, width) // 3, width // 2, height // 2
    points = torch.tensor(
        [
            [right + reach, down + reach],
            [right + reach, down - reach],
            [right - reach, down - reach],
        ],
        dtype=torch.float64,
        device=device,
    )
    moved = points + draws.uniform(0, 3, 2, low=-jitter, high=jitter).double()
    ones = torch.ones(len(moved), 3, 1, dtype=torch.float64, device=device)
    back = torch.linalg.solve(torch.cat([moved, ones], 2), points.expand(len(moved), -1, -1))
    # (B, 3, 2): column and row of the source, each from column, row and 1.
    x, y = torch.arange(width, device=device), torch.arange(height, device=device)[:, None]
    columns, rows = (
        back[:, 0, i, None, None] * x + back[:, 1, i, None, None] * y + back[:, 2, i, None, None]
        for i in (0, 1)
    )
    return rows, columns


def pixelate(x: Tensor, c: Row, draws: Draws) -> Tensor:
    """Box-filtered to a share c0 of the pixels, and back, as Pillow does."""
    height, width = x.shape[-2:]
    few = (int(height * c[0]), int(width * c[0]))
    small = _resized(x * 255, few)
    return _resized(small, (height, width)) / 255


def _resized(levels: Tensor, size: tuple[int, int]) -> Tensor:
    """Pillow's order: along the rows, rounded to whole levels, then along the columns."""
    height, width = levels.shape[-2:]
    same = torch.eye(height, dtype=torch.float64)
    wide = filters.apply_axes(levels, same, filters.box_matrix(width, size[1]))
    wide = (wide + 0.5).floor()
    same = torch.eye(size[1], dtype=torch.float64)
    return (filters.apply_axes(wide, filters.box_matrix(height, size[0]), same) + 0.5).floor()


def jpeg_compression(x: Tensor, c: Row, draws: Draws) -> Tensor:
    """Written as JPEG of quality c0 by Pillow and read back; on the CPU, an image at a time."""
    levels = (x * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()
    out = np.empty_like(levels)
    for index, pixels in enumerate(levels):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=int(c[0]))
        with Image.open(file) as picture:
            out[index] = np.asarray(picture)
    return torch.from_numpy(out).permute(0, 3, 1, 2).to(x.device, x.dtype) / 255
