"""Operations on the values of pixels, for batches of uint8 images with an amount each.

Every function takes images (B, 1 or 3 channels, H, W), and for each the place of its operation
among those that the function knows, int64 (B,), and its amount, float64 (B,).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

__all__ = [
    "autocontrast",
    "blend",
    "blur",
    "change_levels",
    "equalize",
    "send",
    "sharpen",
    "to_bytes",
    "turn_hue",
]

Kinds = NDArray[np.int64]
Amounts = NDArray[np.float64]

BLUR_RADIUS = 6
"""Pixels on either side that a blur reaches: three times the largest sigma in use, 2."""


def change_levels(images: Tensor, kinds: Kinds, amounts: Amounts) -> Tensor:
    """Invert, posterize, solarize or solarize_add: all by one table of 256 values for each image.

    Amounts: none; bits that are kept, 0 (black) to 8; values from here on are inverted; what is
    added to values below 128.
    """
    numbers = np.empty((3, len(images), 1), dtype=np.int16)
    numbers[0, :, 0] = np.where(kinds == 0, 0, np.where(kinds == 2, np.ceil(amounts), 256))
    numbers[1, :, 0] = np.where(kinds == 1, 256 - np.exp2(8 - amounts), 255)
    numbers[2, :, 0] = np.where(kinds == 3, amounts, 0)
    threshold, mask, more = send(numbers, images.device)
    ramp = torch.arange(256, dtype=torch.int16, device=images.device)
    ramp = (ramp + more * (ramp < 128)).clamp_(max=255)
    return _look_up(images, torch.where(ramp >= threshold, 255 - ramp, ramp) & mask)


def blend(images: Tensor, kinds: Kinds, amounts: Amounts) -> Tensor:
    """Brightness, contrast or saturation: away from (above 1) or towards (below 1) black, the mean
    grey, or each pixel's grey.
    """
    if images.shape[1] == 1:
        amounts = np.where(kinds == 2, 1.0, amounts)
    numbers = np.stack((kinds == 1, kinds == 2, amounts, 1.0 - amounts)).astype(np.float32)
    contrast, saturation, factor, rest = send(numbers[..., None, None, None], images.device)
    grey = _greys(images)
    mean = grey.mean(dim=(1, 2, 3), keepdim=True)
    towards = grey.mul_(saturation).add_(mean.mul_(contrast))
    return to_bytes(torch.addcmul(images * factor, towards, rest))


def autocontrast(images: Tensor, kinds: Kinds, amounts: Amounts) -> Tensor:
    """Each channel stretched to the whole range."""
    least = images.amin(dim=(2, 3), keepdim=True).to(torch.float32)
    most = images.amax(dim=(2, 3), keepdim=True).to(torch.float32)
    flat = most == least
    scale = torch.where(flat, 1.0, (most - least) * (1.0 / 255))
    return to_bytes((images - torch.where(flat, 0.0, least)).div_(scale))


def equalize(images: Tensor, kinds: Kinds, amounts: Amounts) -> Tensor:
    """Each channel's histogram made even, in Pillow's whole numbers."""
    batch, channels, height, width = images.shape
    pixels = images.reshape(batch * channels, height * width).to(torch.int64)
    counts = torch.zeros(batch * channels, 256, dtype=torch.int32, device=images.device)
    one = torch.ones(1, dtype=torch.int32, device=images.device)
    counts.scatter_add_(1, pixels, one.expand_as(pixels))
    # The pixels of the brightest level do not count towards the step between two levels.
    brightest = counts.gather(1, pixels.amax(1, keepdim=True))
    step = (height * width - brightest) // 255
    below = counts.cumsum(1, dtype=torch.int32) - counts
    table = ((below + step // 2) // step.clamp(min=1)).clamp_(max=255)
    ramp = torch.arange(256, dtype=torch.int32, device=images.device)
    table = torch.where(step == 0, ramp, table).to(torch.uint8)
    return table.gather(1, pixels).view_as(images)


def sharpen(images: Tensor, kinds: Kinds, amounts: Amounts) -> Tensor:
    """Away from (factors above 1) or towards a small blur; the border stays."""
    height, width = images.shape[-2:]
    if min(height, width) < 3:
        return images
    # Rows laid end to end: neighbours lie a step and a row away, and sums run over long rows of
    # memory. What is summed around a corner falls on the border, which is put back.
    values = images.flatten(2).to(torch.int16)
    size = height * width
    rows = values[..., : size - 2 * width] + values[..., width : size - width]
    rows += values[..., 2 * width :]
    sums = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    inner = values[..., width + 1 : size - width - 1]
    blurred = sums.add_(inner, alpha=4).to(torch.float32).mul_(1.0 / 13).round_()
    inner = inner.to(torch.float32)
    mixed = torch.addcmul(inner, blurred.sub_(inner), _column(1.0 - amounts, images)[..., 0])
    sharp = images.clone()
    sharp.view(values.shape)[..., width + 1 : size - width - 1] = to_bytes(mixed)
    sharp[..., 0], sharp[..., -1] = images[..., 0], images[..., -1]
    return sharp


def blur(images: Tensor, kinds: Kinds, amounts: Amounts) -> Tensor:
    """Gaussian, along the rows and then along the columns, mirrored at the border.

    Amounts: sigma in pixels, above 0 and up to 2.
    """
    radius = min(BLUR_RADIUS, *(side - 1 for side in images.shape[-2:]))
    offsets = torch.arange(radius + 1, device=images.device)
    weights = torch.exp(-0.5 * (offsets / _column(amounts, images)) ** 2)
    weights = (weights / (2.0 * weights.sum(-1, keepdim=True) - 1.0))[..., None]
    values = F.pad(images.to(torch.float32), (radius,) * 4, mode="reflect")
    for dim, size in ((3, images.shape[3]), (2, images.shape[2])):
        taps = [values.narrow(dim, start, size) for start in range(2 * radius + 1)]
        mixed = taps[radius] * weights[..., 0, :]
        for i in range(1, radius + 1):
            mixed.addcmul_(taps[radius - i] + taps[radius + i], weights[..., i, :])
        values = mixed
    return to_bytes(values.round_())


def turn_hue(images: Tensor, kinds: Kinds, amounts: Amounts) -> Tensor:
    """Turn the hue; the largest and the smallest of a pixel's three values stay.

    Amounts: share of the circle.
    """
    if images.shape[1] == 1:
        return images
    values = images.to(torch.float32)
    red, green, blue = values.unbind(1)
    most = values.amax(1)
    chroma = most - values.amin(1)
    over = chroma.clamp(min=1.0)
    hue = torch.where(most == green, (blue - red) / over + 2.0, (red - green) / over + 4.0)
    hue = torch.where(most == red, (green - blue) / over, hue)
    hue = hue + _column(6.0 * amounts, images)[:, 0]
    turned = [
        most - chroma * torch.minimum(k, 4.0 - k).clamp_(0.0, 1.0)
        for k in ((hue + n).remainder_(6.0) for n in (5.0, 3.0, 1.0))
    ]
    # torchvision goes from [0, 1] back to bytes by this factor.
    return to_bytes(torch.stack(turned, 1).mul_(255.999 / 255))


def to_bytes(values: Tensor) -> Tensor:
    """float32 -> uint8, cut to 0 ... 255 and rounded down. Overwrites ``values``."""
    # By way of int16, for which processors have an instruction: three times as fast.
    return values.clamp_(0, 255).to(torch.int16).to(torch.uint8)


def _look_up(images: Tensor, tables: Tensor) -> Tensor:
    """Each pixel's entry in its image's table of 256 values, (B, 256)."""
    pixels = images.flatten(1).to(torch.int64)
    return tables.to(torch.uint8).gather(1, pixels).view_as(images)


def _greys(images: Tensor) -> Tensor:
    """Brightness of each pixel, rounded down: float32 (B, 1, H, W), of 1 or 3 channels."""
    if images.shape[1] == 1:
        return images.to(torch.float32)
    red, green, blue = images.split(1, dim=1)
    return (red * 0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114).floor_()


def send(numbers: NDArray[Any], device: torch.device) -> Tensor:
    """To where the images are, without waiting for what is queued there."""
    return torch.from_numpy(numbers).to(device, non_blocking=True)


def _column(numbers: NDArray[Any], images: Tensor) -> Tensor:
    """A number for each image, float32 (B, 1, 1, 1) where the images are."""
    return send(numbers.astype(np.float32).reshape(-1, 1, 1, 1), images.device)
