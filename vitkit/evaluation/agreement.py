"""Whether one model is better than another, or was lucky: with these images, or with its seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.special import stdtr, stdtrit
from torch import Tensor

from vitkit.evaluation.uncertainty import bootstrap_means, percentile_interval

__all__ = ["MeanDifference", "Paired", "compare_means", "compare_paired", "mcnemar"]

EXACT_BELOW = 25


@dataclass(frozen=True)
class Paired:
    """Two models on the same images.

    Attributes:
        difference: accuracy of the first less that of the second.
        low, high: bootstrap interval of the difference.
        bootstrap_p: two-sided, by the paired bootstrap; at least 1 / (resamples + 1).
        mcnemar_p: two-sided, by McNemar's test.
        only_first, only_second: images that only this one has right.
    """

    difference: float
    low: float
    high: float
    bootstrap_p: float
    mcnemar_p: float
    only_first: int
    only_second: int


def compare_paired(
    first: Tensor, second: Tensor, *, resamples: int = 1000, confidence: float = 0.95, seed: int = 0
) -> Paired:
    """Compare two models by which images they have right.

    Args:
        first, second: bool (N,), of the same images in the same order.
        resamples: bootstrap samples; both models are resampled together.
        confidence: of the interval.
        seed: of the samples.

    Raises:
        ValueError: not the same number of images.
    """
    if first.shape != second.shape:
        raise ValueError(f"{len(first)} and {len(second)} images cannot be compared in pairs")
    gain = first.to(torch.float64) - second.to(torch.float64)
    samples = bootstrap_means(gain[:, None], resamples, seed)[:, 0]
    low, high = percentile_interval(samples, confidence)
    below, above = float((samples <= 0).sum()), float((samples >= 0).sum())
    share = min(below, above) / resamples
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    return Paired(
        difference=float(gain.mean()),
        low=low,
        high=high,
        bootstrap_p=min(1.0, max(2 * share, 1 / (resamples + 1))),
        mcnemar_p=mcnemar(only_first, only_second),
        only_first=only_first,
        only_second=only_second,
    )


@dataclass(frozen=True)
class MeanDifference:
    """Two recipes over seeds of their own.

    Attributes:
        difference: mean of the first less that of the second.
        low, high: interval of the difference.
        p: two-sided, that the means are the same. NaN, as the interval, where all seeds of each
            recipe gave the same.
    """

    difference: float
    low: float
    high: float
    p: float


def compare_means(
    first: Sequence[float], second: Sequence[float], confidence: float = 0.95
) -> MeanDifference:
    """Compare two recipes by what their seeds gave, by Welch's test: their spreads may differ.

    Args:
        first, second: a value a seed.
        confidence: of the interval.

    Raises:
        ValueError: fewer than two seeds of either.

    Source: B. L. Welch, Biometrika 34, 1947.
    """
    if min(len(first), len(second)) < 2:
        raise ValueError("means are compared over two seeds or more of each recipe")
    difference = statistics.fmean(first) - statistics.fmean(second)
    a, b = (statistics.variance(values) / len(values) for values in (first, second))
    if a + b == 0.0:  # ties say nothing of how seeds scatter
        return MeanDifference(difference, math.nan, math.nan, math.nan)
    freedom = (a + b) ** 2 / (a**2 / (len(first) - 1) + b**2 / (len(second) - 1))
    error = math.sqrt(a + b)
    reach = error * float(stdtrit(freedom, 0.5 + confidence / 2))
    p = 2 * float(stdtr(freedom, -abs(difference) / error))
    return MeanDifference(difference, difference - reach, difference + reach, p)


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided p that two models err equally often, from the images where they differ.

    Exact (binomial) below 25 such images, else the chi-squared approximation with Edwards'
    correction; 1 where they never differ.

    Source: Q. McNemar, Psychometrika 12, 1947; A. L. Edwards, Psychometrika 13, 1948.
    """
    total = only_first + only_second
    if total == 0:
        return 1.0
    if total < EXACT_BELOW:
        fewer = min(only_first, only_second)
        ways = sum(math.comb(total, k) for k in range(fewer + 1))
        return min(1.0, 2 * ways / 2**total)
    statistic = max(abs(only_first - only_second) - 1, 0) ** 2 / total
    return math.erfc(math.sqrt(statistic / 2))
