"""Whether one model is better than another, or was lucky with these images."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vitkit.evaluation.uncertainty import bootstrap_means, percentile_interval

__all__ = ["Paired", "compare_paired", "mcnemar"]

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
