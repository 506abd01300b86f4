"""Weather: snow, frost, fog, and drops on the lens."""

from __future__ import annotations

import torch
from torch import Tensor

from vitkit.evaluation.corruptions import filters
from vitkit.evaluation.corruptions.constants import Row
from vitkit.evaluation.corruptions.randomness import Draws
from vitkit.evaluation.corruptions.textures import FROSTS, frost_textures, plasma

__all__ = ["fog", "frost", "luma", "snow", "spatter"]

LUMA = (0.299, 0.587, 0.114)
WATER = (175 / 255, 238 / 255, 238 / 255)
MUD = (63 / 255, 42 / 255, 20 / 255)
EDGE = 150.0
FARTHEST = 20.0
RELIEF = torch.tensor([[-2.0, -1.0, 0.0], [-1.0, 1.0, 1.0], [0.0, 1.0, 2.0]])
"""Light from one side on what the distance to a drop's rim shows as height."""
MEAN = torch.full((3, 3), 1 / 9)


def fog(x: Tensor, c: Row, draws: Draws) -> Tensor:
    """A cloud of strength c0 and roughness c1 is added, then the brightest is as bright as ever."""
    height, width = x.shape[-2:]
    size = _power_of_two(max(height, width))
    cloud = plasma(draws, 0, size, c[1])[:, None, :height, :width]
    brightest = x.amax((1, 2, 3), keepdim=True)
    return (x + cloud * c[0]) * (brightest / (brightest + c[0]))


def frost(x: Tensor, c: Row, draws: Draws) -> Tensor:
    """c0 x + c1 ice, a random cutting of one of five textures.

    The published sets use photographs; ours are made (see :func:`frost_textures`).
    """
    height, width = x.shape[-2:]
    size = 2 * _power_of_two(max(height, width))
    sheets = frost_textures(size, x.device)
    which = draws.choice(0, FROSTS)
    top, left = draws.choice(1, size - height), draws.choice(2, size - width)
    rows = top[:, None] + torch.arange(height, device=x.device)
    columns = left[:, None] + torch.arange(width, device=x.device)
    places = rows[:, :, None] * size + columns[:, None, :]
    channels = torch.arange(sheets.shape[1], device=x.device)[None, :, None, None]
    # Not sheets[which], which would copy a sheet for each image.
    ice = sheets.flatten(2)[which[:, None, None, None], channels, places[:, None]]
    return x * c[0] + ice * c[1]


def snow(x: Tensor, c: Row, draws: Draws) -> Tensor:
    """Flakes from N(c0, c1), enlarged c2 times, above c3 only, drawn out by the wind (c4, c5), over
    the image paled by 1 - c6.
    """
    height, width = x.shape[-2:]
    flakes = filters.zoom(draws.normal(0, 1, height, width) * c[1] + c[0], c[2])
    flakes = torch.where(flakes < c[3], 0.0, flakes)
    flakes = (flakes.clamp(0, 1) * 255 + 2.0**-10).floor() / 255
    flakes = filters.motion_blur(flakes, c[4], c[5], draws.uniform(1, low=-135.0, high=-45.0))
    pale = torch.maximum(x, luma(x) * 1.5 + 0.5)
    return x * c[6] + pale * (1 - c[6]) + flakes + flakes.flip(-1, -2)


def spatter(x: Tensor, c: Row, draws: Draws) -> Tensor:
    """Drops of water, or of mud where c5 is 1: N(c0, c1) blurred by c2, above c3 only; c4 is the
    strength of water or the softness of mud.

    The rims of water are found by the height of the gradient where it is largest across the rim;
    the published code's edge detector also joins weak edges to strong ones.
    """
    height, width = x.shape[-2:]
    liquid = filters.gaussian_blur(draws.normal(0, 1, height, width) * c[1] + c[0], c[2])
    liquid = torch.where(liquid < c[3], 0.0, liquid)
    if c[5]:
        mask = filters.gaussian_blur((liquid > c[3]).to(x.dtype), c[4])
        mask = torch.where(mask < 0.8, 0.0, mask)
        return x * (1 - mask) + mask * _colour(MUD, x)
    levels = (liquid.clamp(0, 1) * 255 + 2.0**-10).floor()
    lit = levels * _relief(levels)
    lit = lit / lit.amax((1, 2, 3), keepdim=True).clamp(min=1e-12)
    return x + lit * c[4] * _colour(WATER, x)


def _relief(levels: Tensor) -> Tensor:
    """How brightly each pixel of the drops shines, (B, 1, H, W), 0 to 255."""
    distance = _distance(_rims(levels)).clamp(max=FARTHEST)
    height = _equalized(filters.correlate(distance, MEAN).floor())
    lit = filters.correlate(height, RELIEF).round().clamp(0, 255)
    return filters.correlate(lit, MEAN).round()


def _rims(levels: Tensor) -> Tensor:
    """Whether a pixel is on an edge, bool (B, 1, H, W)."""
    side = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    right, down = filters.correlate(levels, side), filters.correlate(levels, side.T)
    steep = right.abs() + down.abs()
    across = right.abs() >= down.abs()
    largest = torch.ones_like(across)
    for axis, mine in ((-1, across), (-2, ~across)):
        around = torch.maximum(steep.roll(1, axis), steep.roll(-1, axis))
        largest = largest & (~mine | (steep >= around))
    return (steep > EDGE) & largest


def _distance(rims: Tensor) -> Tensor:
    """Distance to the next rim in pixels, by steps of 1 and 1.4, up to :data:`FARTHEST`."""
    distance = torch.where(rims, 0.0, FARTHEST)
    height, width = rims.shape[-2:]
    for _ in range(int(FARTHEST)):
        wide = torch.nn.functional.pad(distance, (1, 1, 1, 1), value=FARTHEST)
        best = distance
        for i in range(3):
            for j in range(3):
                step = (0.0, 1.0, 1.4)[abs(i - 1) + abs(j - 1)]
                best = torch.minimum(best, wide[..., i : i + height, j : j + width] + step)
        if torch.equal(best, distance):
            break
        distance = best
    return distance


def _equalized(levels: Tensor) -> Tensor:
    """Whole numbers from 0 to 255, (B, 1, H, W), spread so that each is about as frequent."""
    flat = levels.flatten(1).long()
    counts = torch.zeros(len(flat), 256, device=levels.device).scatter_add_(
        1, flat, torch.ones(flat.shape, device=levels.device)
    )
    below = counts.cumsum(1)
    first = below.gather(1, flat.amin(1, keepdim=True))
    spread = (below - first) * (255 / (flat.shape[1] - first).clamp(min=1))
    return spread.round().clamp(0, 255).gather(1, flat).view_as(levels)


def luma(x: Tensor) -> Tensor:
    """Brightness of colours, (B, 3, H, W) to (B, 1, H, W)."""
    red, green, blue = x.split(1, dim=1)
    return red * LUMA[0] + green * LUMA[1] + blue * LUMA[2]


def _colour(rgb: tuple[float, float, float], like: Tensor) -> Tensor:
    return like.new_tensor(rgb)[:, None, None]


def _power_of_two(size: int) -> int:
    """The smallest that is no smaller."""
    return 1 << (size - 1).bit_length()
