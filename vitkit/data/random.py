"""Randomness as a function of where an image is, never of what was drawn before.

The same (seed, epoch, position, draw) gives the same number on every device and for every number
of processes, so a resumed run draws what an uninterrupted one would have drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = [
    "balanced_epoch",
    "epoch_order",
    "epoch_permutation",
    "position_index",
    "position_noise",
    "position_uniform",
    "position_uniforms",
    "uniform_table",
]

MASK = (1 << 32) - 1


def epoch_permutation(size: int, seed: int, epoch: int) -> Tensor:
    """The order of an epoch's images, int64 (size,) on the CPU."""
    generator = torch.Generator().manual_seed(_place(seed, epoch, 0x5EED))
    return torch.randperm(size, generator=generator)


def balanced_epoch(targets: Tensor, seed: int, epoch: int) -> Tensor:
    """An epoch in which all classes are alike frequent, int64 (N,) on the CPU: of a rare class each
    image comes several times, of a frequent one some come, others in other epochs.

    Args:
        targets: class of each image, int64 (N,), N above 0.
        seed: of the run.
        epoch: from 0.
    """
    size = len(targets)
    generator = torch.Generator().manual_seed(_place(seed, epoch, 0xBA1A))
    mixed = torch.randperm(size, generator=generator)
    by_class = mixed[targets[mixed].argsort(stable=True)]
    _, counts = targets.unique(return_counts=True)
    quotas = torch.full_like(counts, size // len(counts))
    # What is left over goes to some classes, to others in other epochs.
    quotas[torch.randperm(len(counts), generator=generator)[: size % len(counts)]] += 1
    which = torch.arange(len(counts)).repeat_interleave(quotas)
    turn = torch.arange(size) - (quotas.cumsum(0) - quotas)[which]
    chosen = by_class[(counts.cumsum(0) - counts)[which] + turn % counts[which]]
    return chosen[torch.randperm(size, generator=generator)]


def epoch_order(
    size: int, seed: int, epoch: int, repeats: int = 1, *, balanced: Tensor | None = None
) -> Tensor:
    """The image at each place of an epoch, int64 (size * repeats,) on the CPU.

    The copies of an image lie side by side (Hoffer et al., arXiv 1901.09335).

    Args:
        size: images.
        seed: of the run.
        epoch: from 0.
        repeats: places of each image that the epoch has.
        balanced: classes of the images, of which each is to come alike often; see
            :func:`balanced_epoch`.
    """
    if balanced is None:
        once = epoch_permutation(size, seed, epoch)
    else:
        once = balanced_epoch(balanced, seed, epoch)
    return once.repeat_interleave(repeats)


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
    # 24 bits: what float32 holds exactly, so that 1.0 is never reached by rounding.
    return (_bits(positions, _place(seed, epoch, draw)) >> 8).to(torch.float32) * 2.0**-24


def position_uniforms(seed: int, epoch: int, positions: Tensor, draw: int, count: int) -> Tensor:
    """Several uniform numbers in [0, 1) for each image, such as one for each of its patches.

    Args:
        seed, epoch, positions, draw: as in :func:`position_uniform`.
        count: how many, below 2^32.

    Returns:
        float32 (B, count) on the device of ``positions``.
    """
    start = _bits(positions, _place(seed, epoch, draw))[:, None]
    elements = torch.arange(count, device=positions.device)
    bits = _mix((start + _multiply(elements, 0x9E3779B9)) & MASK)
    return (bits >> 8).to(torch.float32) * 2.0**-24


def position_index(seed: int, epoch: int, positions: Tensor, draw: int, count: int) -> Tensor:
    """One whole number from 0 to ``count`` - 1 for each position, all alike likely.

    Args:
        seed, epoch, positions, draw: as in :func:`position_uniform`.
        count: up to 2^31; the finer its share of 2^32, the more alike the chances.

    Returns:
        int64 (B,) on the device of ``positions``.
    """
    return (_bits(positions, _place(seed, epoch, draw)) * count) >> 32


def uniform_table(
    seed: int, epoch: int, positions: NDArray[np.int64], draws: Sequence[int]
) -> NDArray[np.float64]:
    """:func:`position_uniform` of several draws at once, (draws, B): faster on the CPU."""
    keys = [_place(seed, epoch, draw) for draw in draws]
    low = np.array([key & MASK for key in keys], dtype=np.uint32)[:, None]
    high = np.array([key >> 32 for key in keys], dtype=np.uint32)[:, None]
    x = _mix_words(positions.astype(np.uint32) ^ low)
    x = _mix_words(x + high)
    return (x >> np.uint32(8)).astype(np.float64) * 2.0**-24


def position_noise(
    seed: int, epoch: int, positions: Tensor, image: Tensor, element: Tensor, draw: int
) -> Tensor:
    """Normal numbers with mean 0 and variance 1, for single elements of images.

    Args:
        seed, epoch, positions, draw: as in :func:`position_uniform`.
        image: int64, which of ``positions`` an element belongs to.
        element: int64, as broadcast with ``image``: which of the image's elements.

    Returns:
        float32, of the two shapes broadcast.
    """
    start = _bits(positions, _place(seed, epoch, draw))[image]
    bits = _mix((start + _multiply(element & MASK, 0x9E3779B9)) & MASK)
    # Box and Muller's transform, of two uniform numbers of 16 bits each: up to 4.8 deviations.
    radius = ((bits >> 16) + 0.5).mul_(2.0**-16).log_().mul_(-2.0).sqrt_()
    return radius.mul_((bits & 0xFFFF).mul(2.0 * math.pi / 2**16).cos_())


def _bits(positions: Tensor, key: int) -> Tensor:
    """32 random bits for each position, held in int64."""
    x = _mix((positions & MASK) ^ (key & MASK))
    return _mix((x + (key >> 32)) & MASK)


def _mix(x: Tensor) -> Tensor:
    """A bijection of 32-bit integers held in int64 (the lowbias32 finaliser of hash-prospector)."""
    x = x ^ (x >> 16)
    x = _multiply(x, 0x7FEB352D)
    x = x ^ (x >> 15)
    x = _multiply(x, 0x846CA68B)
    return x ^ (x >> 16)


def _mix_words(x: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """:func:`_mix` in 32-bit arithmetic. Overwrites ``x``."""
    x ^= x >> np.uint32(16)
    x *= np.uint32(0x7FEB352D)
    x ^= x >> np.uint32(15)
    x *= np.uint32(0x846CA68B)
    x ^= x >> np.uint32(16)
    return x


def _multiply(x: Tensor, factor: int) -> Tensor:
    """x * factor modulo 2^32, both below 2^32."""
    # A factor of 2^31 or more is taken less 2^32, so that the product stays within int64.
    return (x * (factor - ((factor >> 31) << 32))) & MASK


def _place(seed: int, epoch: int, draw: int) -> int:
    """A 63-bit key from (seed, epoch, draw), by the splitmix64 finaliser over each in turn."""
    key = 0
    for part in (seed, epoch, draw):
        key = (key + part + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        key = ((key ^ (key >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        key = ((key ^ (key >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        key ^= key >> 31
    return key >> 1
