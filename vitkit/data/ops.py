"""Operations on batches of uint8 images, each image with its own operation and strength.

No step goes through the images one by one, and everything runs where the images are. Pixels are
those of ``torchvision.transforms.v2.functional`` (tests/data/test_ops.py says how exactly).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vitkit.data.tables import TABLES, greys, look_up, to_bytes

__all__ = ["CODES", "OPERATIONS", "erase", "operate", "pick", "resized_crop"]

BLUR_RADIUS = 6
"""Pixels on either side that a blur reaches: three times the largest sigma in use, 2."""


class _Group(NamedTuple):
    """Images that drew operations of one family, sorted by code."""

    images: Tensor
    codes: Tensor
    amounts: Tensor
    fill: Tensor
    bilinear: bool

    def column(self, offset: float = 0.0, sign: float = 1.0) -> Tensor:
        """``offset + sign * amount`` of each image, float32 (B, 1, 1, 1)."""
        column = (offset + sign * self.amounts).to(torch.float32)[:, None, None, None]
        return column.to(self.images.device)


def operate(
    images: Tensor,
    codes: Tensor,
    amounts: Tensor,
    *,
    fill: Sequence[int] = (0,),
    bilinear: bool = False,
) -> Tensor:
    """Apply to each image the operation that it drew. Each operation runs once, on its share.

    Args:
        images: uint8 (B, 1 or 3 channels, H, W).
        codes: int64 (B,), indices into :data:`OPERATIONS`. They say which work there is to do, so
            they are read on the CPU: elsewhere that waits for the device.
        amounts: float64 (B,): shear as a slope, translation in pixels, rotation in degrees,
            posterize in bits, solarize as a threshold, solarize_add in levels, brightness,
            contrast, saturation and sharpness as factors, blur as a sigma in pixels, hue as a
            share of the circle. Saturation 0 is greyscale.
        fill: value of each channel, or of all, where geometry shows what is outside.
        bilinear: how geometry reads between pixels; else the nearest one.

    Returns:
        uint8 (B, channels, H, W).
    """
    codes, amounts = codes.cpu(), amounts.cpu()
    counts = codes.bincount(minlength=len(OPERATIONS)).tolist()
    if counts[0] == len(codes):
        return images
    order = codes.argsort(stable=True)
    images = images.index_select(0, order.to(images.device))
    codes, amounts = codes[order], amounts[order]
    outside = torch.tensor(fill, dtype=torch.float32, device=images.device).view(1, -1, 1, 1)
    done, start, code = [], 0, 0
    for names, family in FAMILIES:
        count = sum(counts[code : code + len(names)])
        share = slice(start, start + count)
        if count:
            group = _Group(images[share], codes[share], amounts[share], outside, bilinear)
            done.append(family(group))
        start, code = start + count, code + len(names)
    return torch.cat(done).index_select(0, order.argsort().to(images.device))


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


def resized_crop(images: Tensor, boxes: Tensor) -> Tensor:
    """Cut out a box of each image and enlarge it, bilinear, to the image's size.

    In whole numbers, as the kernel that torchvision calls for uint8 on a CPU. A box lies within
    its image, so nothing is ever reduced, and antialiasing would change nothing.

    Args:
        images: uint8 (B, channels, H, W).
        boxes: int64 (B, 4): top, left, height, width.
    """
    top, left, height, width = boxes.to(images.device).unbind(1)
    (low, high, weight_low, weight_high) = _taps(left, width, images.shape[3])
    shape = images.shape

    def columns(index: Tensor) -> Tensor:
        return images.gather(3, index[:, None, None, :].expand(shape)).to(torch.int32)

    across = columns(low) * weight_low[:, None, None, :]
    across = _rounded(across.addcmul_(columns(high), weight_high[:, None, None, :]))
    (low, high, weight_low, weight_high) = _taps(top, height, images.shape[2])

    def rows(index: Tensor) -> Tensor:
        return across.gather(2, index[:, None, :, None].expand(shape))

    down = rows(low) * weight_low[:, None, :, None]
    return _rounded(down.addcmul_(rows(high), weight_high[:, None, :, None])).to(torch.uint8)


def erase(
    images: Tensor, boxes: Tensor, noise: Callable[[Tensor, Tensor], Tensor] | None = None
) -> Tensor:
    """Set a box of each image to zero, or to noise.

    Args:
        images: (B, channels, H, W), any type.
        boxes: int64 (B, 4) on the CPU: top, left, height, width; height or width 0 erases nothing.
        noise: (image, element) -> value, both int64 (count, channels); elements count through an
            image's channels, rows and columns.
    """
    _, channels, height, width = images.shape
    chosen = (boxes[:, 2] * boxes[:, 3]).nonzero()
    top, left, rows, columns = boxes[chosen].unbind(2)
    y, x = torch.arange(height), torch.arange(width)
    in_rows = ((y >= top) & (y < top + rows))[:, :, None]
    in_columns = ((x >= left) & (x < left + columns))[:, None, :]
    which, pixel = (in_rows & in_columns).flatten(1).nonzero().unbind(1)
    image, pixel = chosen[which].to(images.device), pixel[:, None].to(images.device)
    elements = pixel + torch.arange(channels, device=images.device) * (height * width)
    values = elements.new_zeros(()) if noise is None else noise(image, elements)
    index = (image * (channels * height * width) + elements).view(-1)
    flat = values.to(images.dtype).expand_as(elements).reshape(-1)
    return images.reshape(-1).index_copy(0, index, flat).view_as(images)


def _taps(start: Tensor, length: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The two pixels that each of ``size`` new ones lies between, and their weights in 2^-14."""
    # The place of new pixel i is ((2 i + 1) length - size) / (2 size): a fraction, kept exact.
    places = (2 * torch.arange(size, device=start.device) + 1) * length[:, None] - size
    before = places.div(2 * size, rounding_mode="floor")
    rest = places - before * (2 * size)

    def weight(numerator: Tensor) -> Tensor:
        return ((numerator * 2**15 + 2 * size) // (4 * size)).to(torch.int32)

    last = length[:, None] - 1
    low, high = before.clamp(min=0), torch.minimum(before + 1, last)
    offset = start[:, None]
    return low + offset, high + offset, weight(2 * size - rest), weight(rest)


def _rounded(values: Tensor) -> Tensor:
    return values.add_(1 << 13).bitwise_right_shift_(14)


def _unchanged(group: _Group) -> Tensor:
    return group.images


def _geometric(group: _Group) -> Tensor:
    """All of them by one grid: each new pixel reads the image at an affine map of its place."""
    images = group.images
    height, width = images.shape[-2:]
    maps = _affine_maps(group.codes, group.amounts, height, width).to(images.device)
    x = torch.arange(width, device=images.device) - (width - 1) / 2
    y = (torch.arange(height, device=images.device) - (height - 1) / 2)[:, None]
    a, b, c = maps[..., None, None].unbind(2)
    places = torch.addcmul(a * x, b, y).add_(c)
    grid = places.permute(0, 2, 3, 1)
    mode = "bilinear" if group.bilinear else "nearest"
    # What lies outside is zero to grid_sample: the fill is made zero for its sake.
    floats = images - group.fill
    read = F.grid_sample(floats, grid, mode, padding_mode="zeros", align_corners=False)
    return to_bytes(read.add_(group.fill).round_())


def _affine_maps(codes: Tensor, amounts: Tensor, height: int, width: int) -> Tensor:
    """Maps from new places to old ones, float32 (B, 2, 3).

    New places are pixels from the centre, old ones grid_sample's, which run from -1 to 1.
    """

    def amount(name: str) -> Tensor:
        return torch.where(codes == CODES[name], amounts, 0.0)

    angle = torch.deg2rad(amount("rotate"))
    cos, sin, slope_x, slope_y = angle.cos(), angle.sin(), amount("shear_x"), amount("shear_y")
    x = torch.stack((cos, slope_x - sin, slope_x * (height / 2) - amount("translate_x")), 1)
    y = torch.stack((slope_y + sin, cos, slope_y * (width / 2) - amount("translate_y")), 1)
    return torch.stack((x.float() / (width / 2), y.float() / (height / 2)), 1)


def _pointwise(group: _Group) -> Tensor:
    """All of them by one look-up."""
    images = group.images
    channels = images.shape[1]
    first = CODES[next(iter(TABLES))]
    counts = (group.codes - first).bincount(minlength=len(TABLES)).tolist()
    shares = zip(
        TABLES.values(),
        images.split(counts),
        group.amounts.to(images.device, torch.float32).split(counts),
        strict=True,
    )
    tables = [make(part, a).expand(-1, channels, -1) for make, part, a in shares if len(part)]
    return look_up(images, torch.cat(tables))


def _saturation(group: _Group) -> Tensor:
    images = group.images
    if images.shape[1] == 1:
        return images
    return to_bytes(torch.addcmul(images * group.column(), greys(images), group.column(1.0, -1.0)))


def _sharpness(group: _Group) -> Tensor:
    """Away from (factors above 1) or towards a small blur; the border stays."""
    images = group.images
    if min(images.shape[-2:]) < 3:
        return images
    values = images.to(torch.int16)
    rows = values[..., :-2, :] + values[..., 1:-1, :] + values[..., 2:, :]
    sums = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    inner = values[..., 1:-1, 1:-1]
    blurred = sums.add_(inner, alpha=4).to(torch.float32).mul_(1.0 / 13).round_()
    inner = inner.to(torch.float32)
    sharp = images.clone()
    mixed = torch.addcmul(inner, blurred.sub_(inner), group.column(1.0, -1.0))
    sharp[..., 1:-1, 1:-1] = to_bytes(mixed)
    return sharp


def _blur(group: _Group) -> Tensor:
    """Gaussian, along the rows and then along the columns; mirrored at the border."""
    images = group.images
    radius = min(BLUR_RADIUS, *(side - 1 for side in images.shape[-2:]))
    offsets = torch.arange(radius + 1, device=images.device)
    weights = torch.exp(-0.5 * (offsets / group.column()) ** 2)
    weights = (weights / (2.0 * weights.sum(-1, keepdim=True) - 1.0))[..., None]
    values = F.pad(images.to(torch.float32), (radius,) * 4, mode="reflect")
    for dim, size in ((3, images.shape[3]), (2, images.shape[2])):
        taps = [values.narrow(dim, start, size) for start in range(2 * radius + 1)]
        mixed = taps[radius] * weights[..., 0, :]
        for i in range(1, radius + 1):
            mixed.addcmul_(taps[radius - i] + taps[radius + i], weights[..., i, :])
        values = mixed
    return to_bytes(values.round_())


def _hue(group: _Group) -> Tensor:
    """Turn the hue; the largest and the smallest of a pixel's three values stay."""
    images = group.images
    if images.shape[1] == 1:
        return images
    values = images.to(torch.float32)
    red, green, blue = values.unbind(1)
    most = values.amax(1)
    chroma = most - values.amin(1)
    over = chroma.clamp(min=1.0)
    hue = torch.where(most == green, (blue - red) / over + 2.0, (red - green) / over + 4.0)
    hue = torch.where(most == red, (green - blue) / over, hue)
    hue = hue + group.column()[:, 0] * 6.0
    turned = [
        most - chroma * torch.minimum(k, 4.0 - k).clamp_(0.0, 1.0)
        for k in ((hue + n).remainder_(6.0) for n in (5.0, 3.0, 1.0))
    ]
    # torchvision goes from [0, 1] back to bytes by this factor.
    return to_bytes(torch.stack(turned, 1).mul_(255.999 / 255))


Family = Callable[[_Group], Tensor]

FAMILIES: tuple[tuple[tuple[str, ...], Family], ...] = (
    (("none",), _unchanged),
    (("shear_x", "shear_y", "translate_x", "translate_y", "rotate"), _geometric),
    (tuple(TABLES), _pointwise),
    (("saturation",), _saturation),
    (("sharpness",), _sharpness),
    (("blur",), _blur),
    (("hue",), _hue),
)
"""Names of operations and the function that applies them, all of a family at once."""

OPERATIONS = tuple(name for names, _ in FAMILIES for name in names)
"""Names of operations by code; 0 is none."""

CODES = {name: code for code, name in enumerate(OPERATIONS)}
"""Name -> code."""
