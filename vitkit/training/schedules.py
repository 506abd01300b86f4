"""Learning-rate schedules as functions of how far the training is: nothing to save, no drift."""

from __future__ import annotations

import math

__all__ = ["learning_rate_factor"]

ONE_CYCLE_START = 1 / 25
"""First factor of ``one_cycle``, as in Smith and Topin, arXiv 1708.07120."""


def learning_rate_factor(
    progress: float, *, kind: str, warmup: float = 0.0, decay: float = 0.2, floor: float = 0.0
) -> float:
    """Factor of the base learning rate.

    Args:
        progress: share of the training that is done, 0 to 1, in steps or in time.
        kind: ``cosine``, ``linear``, ``trapezoid``, ``one_cycle``, ``inverse_sqrt`` (that of
            Vaswani et al., arXiv 1706.03762, with its peak as the base rate) or ``constant``.
        warmup: share of the training in which it rises linearly from 0 to 1; ``one_cycle`` rises
            along half a cosine. Of ``inverse_sqrt`` it also sets the fall, and is above 0.
        decay: ``trapezoid``: share of the training in which it falls linearly.
        floor: the last factor of every kind that falls; the smallest of ``inverse_sqrt``.
    """
    if progress < warmup:
        rise = progress / warmup
        if kind == "one_cycle":
            return ONE_CYCLE_START + (1.0 - ONE_CYCLE_START) * 0.5 * (
                1.0 - math.cos(math.pi * rise)
            )
        return rise
    if kind == "constant":
        return 1.0
    if kind == "inverse_sqrt":
        return max(floor, math.sqrt(warmup / progress))
    start = max(warmup, 1.0 - decay) if kind == "trapezoid" else warmup
    done = min(1.0, max(0.0, (progress - start) / max(1.0 - start, 1e-9)))
    straight = kind in ("linear", "trapezoid")
    falling = 1.0 - done if straight else 0.5 * (1.0 + math.cos(math.pi * done))
    return floor + (1.0 - floor) * falling
