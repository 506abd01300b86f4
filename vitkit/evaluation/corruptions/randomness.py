"""Random numbers that depend on (seed, image, corruption, severity) alone.

A generator would give an image other numbers in another batch; a hash of where a number stands does
not. The arithmetic is whole numbers and table look-ups, so that the size of a batch cannot show
through the rounding of a vectorised logarithm either.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

__all__ = ["Draws"]

MASK = (1 << 32) - 1
GOLDEN = 0x9E3779B9
NORMAL_BITS = 16


@dataclass(frozen=True)
class Draws:
    """The random numbers of a batch under one corruption.

    Attributes:
        seed: of the whole evaluation.
        indices: int64 (B,): the images' places in their split.
        what: the corruption, or whatever else draws.
        severity: from 1 to 5, or another number that sets draws of one kind apart.
    """

    seed: int
    indices: Tensor
    what: str
    severity: int = 0

    def bits(self, draw: int, *shape: int) -> Tensor:
        """32 random bits each, held in int64 (B, *shape).

        Args:
            draw: which of the corruption's fields of numbers; different ones are independent.
            shape: of an image's field.
        """
        key = _key(self.seed, zlib.crc32(self.what.encode()), self.severity, draw)
        start = _mix((self.indices & MASK) ^ (key & MASK))
        start = _mix((start + (key >> 32)) & MASK)
        count = torch.Size(shape).numel()
        steps = (torch.arange(count, device=start.device) * GOLDEN) & MASK
        return _mix((start[:, None] + steps) & MASK).reshape(-1, *shape)

    def uniform(self, draw: int, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """float32 (B, *shape), evenly spread over [low, high)."""
        unit = (self.bits(draw, *shape) >> 8).to(torch.float32) * 2.0**-24
        return unit * (high - low) + low

    def normal(self, draw: int, *shape: int) -> Tensor:
        """float32 (B, *shape), mean 0 and variance 1, in 65,536 steps of equal probability.

        The largest is 4.3, which one normal number in 50,000 exceeds.
        """
        bits = self.bits(draw, *shape)
        return _normal_table(bits.device)[bits >> (32 - NORMAL_BITS)]

    def choice(self, draw: int, count: int, *shape: int) -> Tensor:
        """int64 (B, *shape), evenly from 0 to ``count`` - 1."""
        return (self.bits(draw, *shape) * count) >> 32

    def order(self, draw: int, count: int) -> Tensor:
        """A random permutation of ``count`` things for each image, int64 (B, count)."""
        return self.bits(draw, count).argsort(dim=1, stable=True)


@cache
def _normal_table(device: torch.device) -> Tensor:
    """The middle of each of the equally probable steps, float32."""
    steps = 1 << NORMAL_BITS
    levels = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps
    return torch.special.ndtri(levels).to(torch.float32).to(device)


def _mix(x: Tensor) -> Tensor:
    """A bijection of 32-bit numbers held in int64 (the lowbias32 finaliser of hash-prospector)."""
    x = x ^ (x >> 16)
    x = (x * 0x7FEB352D) & MASK
    x = x ^ (x >> 15)
    # Less 2^32, which changes none of the lower 32 bits and keeps the product within int64.
    x = (x * (0x846CA68B - (1 << 32))) & MASK
    return x ^ (x >> 16)


def _key(*parts: int) -> int:
    """63 bits from several numbers, by the splitmix64 finaliser over each in turn."""
    key = 0
    for part in parts:
        key = (key + part + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        key = ((key ^ (key >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        key = ((key ^ (key >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        key ^= key >> 31
    return key >> 1
