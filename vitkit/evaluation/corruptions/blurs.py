"""Blur: a lens out of focus, frosted glass, a camera that moves."""

from __future__ import annotations

import torch
from torch import Tensor

from vitkit.evaluation.corruptions import filters
from vitkit.evaluation.corruptions.constants import Row
from vitkit.evaluation.corruptions.randomness import Draws

__all__ = ["defocus_blur", "gaussian_blur", "glass_blur", "motion_blur", "zoom_blur"]

QUARTER_TURN = 45.0


def gaussian_blur(x: Tensor, c: Row, draws: Draws) -> Tensor:
    """A Gaussian of standard deviation c0 pixels."""
    return filters.gaussian_blur(x, c[0])


def defocus_blur(x: Tensor, c: Row, draws: Draws) -> Tensor:
    """The mean over a disk of radius c0, its rim smoothed by c1."""
    return filters.correlate(x, filters.disk_kernel(c[0], c[1]))


def motion_blur(x: Tensor, c: Row, draws: Draws) -> Tensor:
    """Radius c0, standard deviation c1, at up to 45 degrees from the horizontal."""
    angles = draws.uniform(0, low=-QUARTER_TURN, high=QUARTER_TURN)
    return filters.motion_blur(x, c[0], c[1], angles)


def zoom_blur(x: Tensor, c: Row, draws: Draws) -> Tensor:
    """The mean of the image and of its middle enlarged by each of the factors ``c``."""
    total = x.to(torch.float64)
    for factor in c:
        total = total + filters.zoom(x, factor)
    return (total / (len(c) + 1)).to(x.dtype)


def glass_blur(x: Tensor, c: Row, draws: Draws) -> Tensor:
    """Blurred by c0, c2 times each pixel taken from up to c1 away, blurred again.

    In the code that made the published files a pixel takes the value of another, which does not
    take its own: what looks like an exchange there works on views of one array. So here.
    """
    sigma, reach, rounds = c[0], int(c[1]), int(c[2])
    height, width = x.shape[-2:]
    blurred = (filters.gaussian_blur(x, sigma).clamp(0, 1) * 255 + 2.0**-10).floor() / 255
    for turn in range(rounds):
        places = _scattered(draws, turn, reach, height, width)
        blurred = filters.pick(blurred, places)
    return filters.gaussian_blur(blurred, sigma)


def _scattered(draws: Draws, turn: int, reach: int, height: int, width: int) -> Tensor:
    """Where each pixel's value comes from, flat places int64 (B, H, W).

    Pixels are visited from the lower right to the upper left, and one visited before has its new
    value already. So every pixel points at the new or the old value of another; following the
    pointers in doubling steps finds them all at once.
    """
    device = draws.indices.device
    down = draws.choice(2 * turn, 2 * reach, height, width) - reach
    right = draws.choice(2 * turn + 1, 2 * reach, height, width) - reach
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    visited = ((rows > reach) & (rows <= height - reach))[:, None] & (
        (columns > reach) & (columns <= width - reach)
    )
    own = torch.arange(height * width, device=device)
    aim = (own.view(height, width) + torch.where(visited, down * width + right, 0)).flatten(1)
    seen = visited.flatten()
    # Places 0 ... n - 1 are new values, n ... 2 n - 1 the old ones, which point at themselves.
    count = height * width
    newer = seen[aim] & (aim > own) & seen
    pointers = torch.cat([torch.where(newer, aim, aim + count), (own + count).expand_as(aim)], 1)
    for _ in range(count.bit_length()):
        further = pointers.gather(1, pointers)
        if torch.equal(further, pointers):
            break
        pointers = further
    return (pointers[:, :count] - count).unflatten(1, (height, width))
