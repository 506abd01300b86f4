"""Operations on the places of pixels, for batches of images with parameters each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vitkit.data.colors import Amounts, Kinds, send, to_bytes

__all__ = ["erase", "pick", "resized_crop", "warp"]


Boxes = NDArray[np.int64]


def warp(
    images: Tensor, kinds: Kinds, amounts: Amounts, *, fill: Sequence[int], bilinear: bool
) -> Tensor:
    """Shear or translate along x or y, or rotate about the centre: all by one grid.

    Args:
        images: uint8 (B, channels, H, W).
        kinds: int64 (B,): 0 shear_x, 1 shear_y, 2 translate_x, 3 translate_y, 4 rotate.
        amounts: float64 (B,): slope, slope, pixels, pixels, degrees.
        fill: value of each channel, or of all, of what lies outside.
        bilinear: how to read between pixels; else the nearest one.
    """
    device, (height, width) = images.device, images.shape[-2:]
    maps = send(_affine_maps(kinds, amounts, height, width), device)
    x, y = _pixel_places(height, width, device)
    a, b, c = maps[..., None].unbind(2)
    places = torch.addcmul(a * x, b, y).add_(c)
    grid = places.view(-1, 2, height, width).permute(0, 2, 3, 1)
    # What lies outside is zero to grid_sample: any other fill is made zero for its sake.
    outside = send(np.array(fill, dtype=np.float32).reshape(1, -1, 1, 1), device)
    floats = images - outside if any(fill) else images.to(torch.float32)
    mode = "bilinear" if bilinear else "nearest"
    read = F.grid_sample(floats, grid, mode, padding_mode="zeros", align_corners=False)
    if any(fill):
        read += outside
    return to_bytes(read.round_() if bilinear else read)


def pick(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Pixel (rows[b, i], columns[b, j]) of image b at (i, j): a crop, a flip, or both.

    Args:
        images: (B, channels, height, width), any type.
        rows, columns: int64 (B, new height) and (B, new width).
    """
    batch, channels, height, width = images.shape
    pixels = rows[:, :, None] * width + columns[:, None, :]
    index = pixels.view(batch, 1, -1).expand(-1, channels, -1)
    picked = images.reshape(batch, channels, height * width).gather(2, index)
    return picked.view(batch, channels, rows.shape[1], columns.shape[1])


def resized_crop(images: Tensor, boxes: Boxes) -> Tensor:
    """Cut out a box of each image and enlarge it, bilinear, to the image's size.

    Rounded in the same whole numbers as the kernel that torchvision calls for uint8 on a CPU. A box
    lies within its image, so nothing is ever reduced, and antialiasing would change nothing.

    Args:
        images: uint8 (B, channels, H, W).
        boxes: int64 (B, 4): top, left, height, width.
    """
    top, left, height, width = send(boxes, images.device).unbind(1)
    batch, channels, rows, columns = images.shape
    low, high, weight_low, weight_high = _taps(left, width, columns)

    def beside(index: Tensor) -> Tensor:
        return images.gather(3, index[:, None, None, :].expand(images.shape)).to(torch.float32)

    across = beside(low) * weight_low[:, None, None, :]
    across = _rounded(across.addcmul_(beside(high), weight_high[:, None, None, :]))
    low, high, weight_low, weight_high = _taps(top, height, rows)
    planes = torch.arange(batch * channels, device=images.device).view(batch, channels, 1) * rows

    def below(index: Tensor) -> Tensor:
        chosen = (planes + index[:, None, :]).view(-1)
        return across.view(-1, columns).index_select(0, chosen).view(images.shape)

    down = below(low) * weight_low[:, None, :, None]
    return to_bytes(_rounded(down.addcmul_(below(high), weight_high[:, None, :, None])))


def erase(
    images: Tensor, boxes: Boxes, noise: Callable[[Tensor, Tensor], Tensor] | None = None
) -> Tensor:
    """Set a box of each image to zero, or to noise.

    Args:
        images: (B, channels, H, W), any type.
        boxes: int64 (B, 4): top, left, height, width; height or width 0 erases nothing.
        noise: (image, element) -> value, of int64 (count, 1) and (count, channels); elements count
            through an image's channels, rows and columns.
    """
    _, channels, height, width = images.shape
    if noise is None and images.device.type != "cpu":
        return images.masked_fill(_inside(send(boxes, images.device), height, width), 0)
    (chosen,) = np.nonzero(boxes[:, 2] * boxes[:, 3])
    top, left, rows, columns = boxes[chosen].T[:, :, None]
    y, x = np.arange(height), np.arange(width)
    in_rows = ((y >= top) & (y < top + rows))[:, :, None]
    in_columns = ((x >= left) & (x < left + columns))[:, None, :]
    which, pixel = np.divmod(np.flatnonzero(in_rows & in_columns), height * width)
    image, places = send(np.stack((chosen[which], pixel))[:, :, None], images.device)
    elements = places + torch.arange(channels, device=images.device) * (height * width)
    values = elements.new_zeros(()) if noise is None else noise(image, elements)
    index = (image * (channels * height * width) + elements).view(-1)
    flat = values.to(images.dtype).expand_as(elements).reshape(-1)
    return images.reshape(-1).index_copy(0, index, flat).view_as(images)


def _inside(boxes: Tensor, height: int, width: int) -> Tensor:
    """Which pixels lie in boxes (B, 4), where these are: bool (B, 1, height, width)."""
    top, left, rows, columns = boxes.T[:, :, None]
    y = torch.arange(height, device=boxes.device)
    x = torch.arange(width, device=boxes.device)
    in_rows, in_columns = (y >= top) & (y < top + rows), (x >= left) & (x < left + columns)
    return (in_rows[:, :, None] & in_columns[:, None, :])[:, None]


@lru_cache(maxsize=4)
def _pixel_places(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Both coordinates of every pixel from the centre: sums along one long row of memory."""
    x = torch.arange(width, device=device) - (width - 1) / 2
    y = torch.arange(height, device=device) - (height - 1) / 2
    return x.repeat(height), y.repeat_interleave(width)


def _affine_maps(kinds: Kinds, amounts: Amounts, height: int, width: int) -> NDArray[np.float32]:
    """Maps from new places to old ones, (B, 2, 3).

    New places are pixels from the centre, old ones grid_sample's, which run from -1 to 1.
    """
    slope_x, slope_y, right, down, degrees = (kinds == np.arange(5)[:, None]) * amounts
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    x = np.stack((cos, slope_x - sin, slope_x * (height / 2) - right), 1)
    y = np.stack((slope_y + sin, cos, slope_y * (width / 2) - down), 1)
    half = np.array([[width / 2], [height / 2]], dtype=np.float32)
    return np.stack((x, y), 1).astype(np.float32) / half


def _taps(start: Tensor, length: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The two pixels that each of ``size`` new ones lies between, and their weights in 2^-14."""
    # The place of new pixel i is ((2 i + 1) length - size) / (2 size): a fraction, kept exact.
    places = (2 * torch.arange(size, device=start.device) + 1) * length[:, None] - size
    before = places.div(2 * size, rounding_mode="floor")
    rest = places - before * (2 * size)

    def weight(numerator: Tensor) -> Tensor:
        return ((numerator * 2**15 + 2 * size) // (4 * size)).to(torch.float32)

    last = length[:, None] - 1
    low, high = before.clamp(min=0), torch.minimum(before + 1, last)
    offset = start[:, None]
    return low + offset, high + offset, weight(2 * size - rest), weight(rest)


def _rounded(values: Tensor) -> Tensor:
    """Sums of pixels by weights back to whole pixels: below 2^24, where float32 is exact."""
    return values.add_(2.0**13).mul_(2.0**-14).floor_()
