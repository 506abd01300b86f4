"""Randomness as a function of where an image is, never of what was drawn before.

The same (seed, epoch, position, draw) gives the same number on every device and for every number
of processes, so a resumed run draws what an uninterrupted one would have drawn.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["epoch_permutation", "position_uniform"]

MASK = (1 << 32) - 1


def epoch_permutation(size: int, seed: int, epoch: int) -> Tensor:
    """The order of an epoch's images, int64 (size,) on the CPU."""
    generator = torch.Generator().manual_seed(_place(seed, epoch, 0x5EED))
    return torch.randperm(size, generator=generator)


def position_uniform(seed: int, epoch: int, positions: Tensor, draw: int) -> Tensor:
    """One uniform number in [0, 1) for each image.

    Args:
        seed: of the run.
        epoch: from 0.
        positions: int64 (B,), places in the epoch's permutation, below 2^32.
        draw: which of the image's numbers; different draws are independent.

    Returns:
        float32 (B,) on the device of ``positions``.
    """
    key = _place(seed, epoch, draw)
    x = positions & MASK
    x = _mix(x ^ (key & MASK))
    x = _mix((x + (key >> 32)) & MASK)
    # 24 bits: what float32 holds exactly, so that 1.0 is never reached by rounding.
    return (x >> 8).to(torch.float32) * (1.0 / (1 << 24))


def _mix(x: Tensor) -> Tensor:
    """A bijection of 32-bit integers held in int64 (the lowbias32 finaliser of hash-prospector)."""
    x = x ^ (x >> 16)
    x = _multiply(x, 0x7FEB352D)
    x = x ^ (x >> 15)
    x = _multiply(x, 0x846CA68B)
    return x ^ (x >> 16)


def _multiply(x: Tensor, factor: int) -> Tensor:
    """x * factor modulo 2^32; in two halves, for the full product would overflow int64."""
    low, high = x & 0xFFFF, x >> 16
    return (low * factor + (((high * factor) & 0xFFFF) << 16)) & MASK


def _place(seed: int, epoch: int, draw: int) -> int:
    """A 63-bit key from (seed, epoch, draw), by the splitmix64 finaliser over each in turn."""
    key = 0
    for part in (seed, epoch, draw):
        key = (key + part + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        key = ((key ^ (key >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        key = ((key ^ (key >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        key ^= key >> 31
    return key >> 1
