"""Intervals and paired tests against scipy and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from vitkit.evaluation.agreement import compare_means, compare_paired, mcnemar
from vitkit.evaluation.uncertainty import (
    bootstrap_means,
    mean_interval,
    percentile_interval,
    wilson_interval,
)


@pytest.mark.parametrize(("right", "count"), [(90, 100), (0, 10), (10, 10), (1, 3)])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_wilsons_interval_is_scipys(right: int, count: int, confidence: float) -> None:
    theirs = stats.binomtest(right, count).proportion_ci(confidence, method="wilson")
    assert wilson_interval(right, count, confidence) == pytest.approx(
        (theirs.low, theirs.high), abs=1e-9
    )


SEEDS = ([0.9042, 0.9034, 0.9081], [0.9101, 0.9059, 0.9093, 0.9130], [1.5, 1.25])


@pytest.mark.parametrize("values", SEEDS)
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_the_interval_of_a_mean_is_scipys(values: list[float], confidence: float) -> None:
    theirs = stats.ttest_1samp(values, 0.0).confidence_interval(confidence)
    assert mean_interval(values, confidence) == pytest.approx((theirs.low, theirs.high))


@pytest.mark.parametrize("first", SEEDS)
@pytest.mark.parametrize("second", SEEDS)
def test_means_are_compared_as_by_scipy(first: list[float], second: list[float]) -> None:
    theirs = stats.ttest_ind(first, second, equal_var=False)
    interval = theirs.confidence_interval(0.9)
    found = compare_means(first, second, 0.9)
    assert found.difference == pytest.approx(np.mean(first) - np.mean(second))
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.p == pytest.approx(theirs.pvalue)


def test_means_without_spread_and_of_one_seed() -> None:
    for second, difference in (([0.5, 0.5], 0.0), ([0.25, 0.25, 0.25], 0.25)):
        found = compare_means([0.5, 0.5], second)
        assert found.difference == difference
        assert np.isnan([found.low, found.high, found.p]).all()
    with pytest.raises(ValueError, match="two seeds or more"):
        compare_means([0.5], [0.25, 0.5])


def test_bootstrap_means_spread_as_they_must(monkeypatch: pytest.MonkeyPatch) -> None:
    right = (torch.arange(400) < 300).double()
    samples = bootstrap_means(torch.stack([right, 2 * right], 1), 4000, seed=2)
    assert torch.equal(samples[:, 1], 2 * samples[:, 0])  # the same images for each column
    assert float(samples[:, 0].mean()) == pytest.approx(0.75, abs=0.002)
    assert float(samples[:, 0].std()) == pytest.approx((0.75 * 0.25 / 400) ** 0.5, rel=0.05)
    low, high = percentile_interval(samples[:, 0])
    exact = stats.binom(400, 0.75)
    assert low == pytest.approx(exact.ppf(0.025) / 400, abs=0.005)
    assert high == pytest.approx(exact.ppf(0.975) / 400, abs=0.005)
    assert torch.equal(
        bootstrap_means(right[:, None], 50, 7), bootstrap_means(right[:, None], 50, 7)
    )
    assert not torch.equal(
        bootstrap_means(right[:, None], 50, 7), bootstrap_means(right[:, None], 50, 8)
    )
    np.testing.assert_allclose(
        percentile_interval(samples[:, 0], 0.9), np.quantile(samples[:, 0].numpy(), [0.05, 0.95])
    )


@pytest.mark.parametrize(("b", "c"), [(10, 2), (3, 3), (1, 0), (0, 7), (12, 12)])
def test_mcnemar_is_exact_for_few(b: int, c: int) -> None:
    assert mcnemar(b, c) == pytest.approx(stats.binomtest(min(b, c), b + c).pvalue)
    assert mcnemar(b, c) == mcnemar(c, b)


@pytest.mark.parametrize(("b", "c"), [(30, 12), (25, 25), (400, 300)])
def test_mcnemar_is_chi_squared_for_many(b: int, c: int) -> None:
    statistic = max(abs(b - c) - 1, 0) ** 2 / (b + c)
    assert mcnemar(b, c) == pytest.approx(stats.chi2.sf(statistic, 1))


def test_mcnemar_by_hand() -> None:
    assert mcnemar(10, 2) == pytest.approx(0.038574, abs=1e-6)
    assert mcnemar(0, 0) == 1.0


def test_two_models_in_pairs() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.rand(2000, generator=generator) < 0.8
    b = a & (torch.rand(2000, generator=generator) < 0.95)
    found = compare_paired(a, b, resamples=500)
    assert found.difference == pytest.approx(float(a.double().mean() - b.double().mean()))
    assert 0 < found.low <= found.difference <= found.high
    assert found.only_second == 0 and found.only_first == int((a & ~b).sum())
    assert found.bootstrap_p == pytest.approx(1 / 501)
    assert found.mcnemar_p < 1e-6
    same = compare_paired(a, a, resamples=500)
    assert (same.difference, same.mcnemar_p, same.bootstrap_p) == (0.0, 1.0, 1.0)
    mirrored = compare_paired(b, a, resamples=500)
    assert mirrored.difference == -found.difference and mirrored.low == -found.high
    with pytest.raises(ValueError, match="in pairs"):
        compare_paired(a, b[:5])
