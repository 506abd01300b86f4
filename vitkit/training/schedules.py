"""Learning-rate schedules as functions of the step: nothing to save, nothing to drift on resume."""

from __future__ import annotations

import math

__all__ = ["learning_rate_factor"]


def learning_rate_factor(
    step: int, *, kind: str, total_steps: int, warmup: float = 0.0, floor: float = 0.0
) -> float:
    """Factor of the base learning rate at an optimiser step.

    Args:
        step: number of steps already taken, from 0.
        kind: ``cosine``, ``linear`` or ``constant`` after the warm-up.
        total_steps: of the whole training.
        warmup: share of the training in which it rises linearly to 1; the first step is not 0.
        floor: the last factor of ``cosine`` and ``linear``.
    """
    warmup_steps = round(total_steps * warmup)
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    if kind == "constant":
        return 1.0
    done = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    falling = 0.5 * (1.0 + math.cos(math.pi * done)) if kind == "cosine" else 1.0 - done
    return floor + (1.0 - floor) * falling
