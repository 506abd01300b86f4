"""How far a number from this many images can be trusted."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence

import torch
from scipy.special import stdtrit
from torch import Tensor

__all__ = ["bootstrap_means", "mean_interval", "percentile_interval", "wilson_interval"]

CHUNK = 1_000_000
"""Draws held at a time."""


def wilson_interval(right: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a share, of which ``right`` of ``count`` were seen.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
    1927.
    """
    z = float(torch.special.ndtri(torch.tensor(0.5 + confidence / 2, dtype=torch.float64)))
    share, z2 = right / count, z * z
    middle = share + z2 / (2 * count)
    reach = z * math.sqrt(share * (1 - share) / count + z2 / (4 * count * count))
    whole = 1 + z2 / count
    # None and all are the ends exactly, whatever rounding makes of them.
    low = (middle - reach) / whole if right else 0.0
    return low, (middle + reach) / whole if right < count else 1.0


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Interval of the mean of all that values were drawn from, such as a recipe's seeds.

    Args:
        values: two or more.
        confidence: of the interval.

    Source: Student, "The probable error of a mean", Biometrika 6, 1908.
    """
    mean, error = statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values))
    reach = error * float(stdtrit(len(values) - 1, 0.5 + confidence / 2))
    return mean - reach, mean + reach


def bootstrap_means(values: Tensor, resamples: int, seed: int = 0) -> Tensor:
    """Column means of bootstrap samples: the rows drawn anew with replacement, together.

    Args:
        values: (N, columns) on the CPU, what is averaged for each image.
        resamples: how many samples.
        seed: the same seed and N give the same samples, so that two models are compared in pairs.

    Returns:
        float64 (resamples, columns).

    Source: B. Efron and R. Tibshirani, "An introduction to the bootstrap", 1993.
    """
    values = values.to(torch.float64)
    parts = [counts @ values for counts in _counts(len(values), resamples, seed)]
    return torch.cat(parts) / len(values)


def percentile_interval(samples: Tensor, confidence: float = 0.95) -> tuple[float, float]:
    """The interval that holds the middle share of bootstrap values (R,).

    Errors of calibration are larger in a resample than in the whole: their interval is no claim
    about bias.
    """
    tail = (1 - confidence) / 2
    low, high = torch.quantile(
        samples, torch.tensor([tail, 1 - tail], dtype=samples.dtype, device=samples.device)
    ).tolist()
    return low, high


def _counts(size: int, resamples: int, seed: int) -> Iterator[Tensor]:
    """How often each row is drawn in each sample, float64 (samples, size), a chunk at a time."""
    generator = torch.Generator().manual_seed(seed)
    together = max(1, CHUNK // size)
    for start in range(0, resamples, together):
        count = min(together, resamples - start)
        drawn = torch.randint(size, (count, size), generator=generator)
        drawn += torch.arange(count)[:, None] * size
        flat = torch.bincount(drawn.flatten(), minlength=count * size)
        yield flat.view(count, size).to(torch.float64)
