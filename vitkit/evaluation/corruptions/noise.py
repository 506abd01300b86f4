"""Noise: what a sensor adds in the dark, and what a wire loses."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from vitkit.evaluation.corruptions.constants import Row
from vitkit.evaluation.corruptions.randomness import Draws

__all__ = ["gaussian_noise", "impulse_noise", "shot_noise", "speckle_noise"]

SALT_SHARE = 0.5


def gaussian_noise(x: Tensor, c: Row, draws: Draws) -> Tensor:
    """x + N(0, c0)."""
    return x + draws.normal(0, *x.shape[1:]) * c[0]


def speckle_noise(x: Tensor, c: Row, draws: Draws) -> Tensor:
    """x + x N(0, c0): the brighter, the noisier."""
    return x + x * (draws.normal(0, *x.shape[1:]) * c[0])


def shot_noise(x: Tensor, c: Row, draws: Draws) -> Tensor:
    """Poisson(x c0) / c0: as many photons as a sensor that counts c0 in white would see."""
    levels = (x * 255).round().long()
    unit = (draws.bits(0, *x.shape[1:]).to(torch.float64) + 0.5) * 2.0**-32
    table, width = _poisson_table(c[0], x.device)
    # One look-up for all rates: the distribution of level i lies between i and i + 1.
    counts = torch.searchsorted(table, levels + unit, right=True) - levels * width
    return counts.to(x.dtype) / c[0]


def impulse_noise(x: Tensor, c: Row, draws: Draws) -> Tensor:
    """A share c0 of the values, each channel by itself, becomes 0 or 1."""
    hit = draws.uniform(0, *x.shape[1:]) < c[0]
    salt = (draws.uniform(1, *x.shape[1:]) < SALT_SHARE).to(x.dtype)
    return torch.where(hit, salt, x)


@cache
def _poisson_table(rate: float, device: torch.device) -> tuple[Tensor, int]:
    """Distribution functions of Poisson(i / 255 ``rate``), i added, i = 0 ... 255, one after the
    other, float64 (256 n,), and n.
    """
    width = math.ceil(rate + 10 * math.sqrt(rate)) + 20
    rates = torch.arange(256, dtype=torch.float64)[:, None] / 255 * rate
    up_to = torch.arange(1, width + 1, dtype=torch.float64)
    table = torch.special.gammaincc(up_to.expand(256, -1).contiguous(), rates.expand(-1, width))
    table[:, -1] = 1.0
    return (table + torch.arange(256)[:, None]).flatten().to(device), width
