"""How fast a model answers: one image at a time, and as many as the machine likes best."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

__all__ = ["Speed", "measure_speed", "synchronize"]

WARM_UP = 2
FEWEST = 3
WORSE = 0.9
"""A batch this much slower for each image than the best so far ends the search."""


@dataclass(frozen=True)
class Speed:
    """Medians of repeated calls.

    Attributes:
        latency: seconds of a batch of one image.
        images_per_second: at the fastest batch.
        best_batch: images of that batch.
        rates: images a second at each batch that was tried.
    """

    latency: float
    images_per_second: float
    best_batch: int
    rates: dict[int, float]


def measure_speed(
    run: Callable[[Tensor], object],
    batch_of: Callable[[int], Tensor],
    *,
    seconds: float = 1.0,
    max_batch: int = 256,
) -> Speed:
    """Time batches of 1, 2, 4, ... images, up to the largest that fits and still pays.

    Args:
        run: the model, called without gradients.
        batch_of: a batch of so many images, on the device that the model is on.
        seconds: length of each measurement; at least three calls, after two that do not count.
        max_batch: largest batch that is tried.
    """
    times: dict[int, float] = {}
    batch = 1
    while batch <= max_batch:
        try:
            times[batch] = _seconds_of(run, batch_of(batch), seconds)
        except torch.OutOfMemoryError:
            if batch == 1:
                raise
            break
        fastest = min(time_ / size for size, time_ in times.items())
        if times[batch] / batch > fastest / WORSE:
            break
        batch *= 2
    rates = {size: size / time_ for size, time_ in times.items()}
    best = max(rates, key=lambda size: rates[size])
    return Speed(times[1], rates[best], best, rates)


def _seconds_of(run: Callable[[Tensor], object], images: Tensor, seconds: float) -> float:
    """Median time of a call."""
    with torch.inference_mode():
        for _ in range(WARM_UP):
            run(images)
        synchronize(images.device)
        taken: list[float] = []
        while len(taken) < FEWEST or sum(taken) < seconds:
            started = time.perf_counter()
            run(images)
            synchronize(images.device)
            taken.append(time.perf_counter() - started)
    return median(taken)


def synchronize(device: torch.device | str) -> None:
    """Wait for the work that is queued on a device; a CPU queues none."""
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
