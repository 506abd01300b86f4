"""Random fields that look like clouds and like ice."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from vitkit.evaluation.corruptions.randomness import Draws

__all__ = ["frost_textures", "plasma"]

FROSTS = 5
ICE = (0.84, 0.92, 1.0)


def plasma(draws: Draws, draw: int, size: int, decay: float) -> Tensor:
    """A cloud by the diamond-square method, periodic, float32 (B, size, size) from 0 to 1.

    Args:
        draws: of the images.
        draw: the first of the fields of numbers that it uses, three a level.
        size: a power of two.
        decay: by which the changes shrink from one level to the next; small is rough.
    """
    count = len(draws.indices)
    field = torch.zeros(count, size, size, device=draws.indices.device)
    step, change = size, 100.0
    while step >= 2:
        half = step // 2
        cells = size // step
        reach = change * change
        shakes = [draws.uniform(draw + i, cells, cells, low=-reach, high=reach) for i in range(3)]
        corners = field[:, ::step, ::step].clone()
        beside, below = corners.roll(-1, 2), corners.roll(-1, 1)
        centres = (corners + beside + below + below.roll(-1, 2)) / 4 + shakes[0]
        field[:, half::step, half::step] = centres
        field[:, ::step, half::step] = (
            corners + beside + centres + centres.roll(1, 1)
        ) / 4 + shakes[1]
        field[:, half::step, ::step] = (
            corners + below + centres + centres.roll(1, 2)
        ) / 4 + shakes[2]
        step, change, draw = half, change / decay, draw + 3
    low = field.amin((1, 2), keepdim=True)
    field = field - low
    return field / field.amax((1, 2), keepdim=True).clamp(min=1e-12)


@cache
def frost_textures(size: int, device: torch.device) -> Tensor:
    """Five sheets of ice, made and not photographed, float32 (5, 3, size, size) from 0 to 1.

    Bright crystals along the middle heights of a cloud, over a milky ground.

    Args:
        size: a power of two.
        device: where they are wanted.
    """
    draws = Draws(0, torch.arange(FROSTS), "frost texture")
    coarse, fine = plasma(draws, 0, size, 1.9), plasma(draws, 1000, size, 1.3)
    crystals = (1 - (2 * coarse - 1).abs()) ** 3
    grey = (0.25 + 0.45 * crystals + 0.35 * fine * crystals + 0.15 * fine).clamp(0, 1)
    return (grey[:, None] * torch.tensor(ICE)[:, None, None]).to(device)
