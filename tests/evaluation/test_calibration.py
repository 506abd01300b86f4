"""Calibration against torchmetrics, numpy's own binning, and scipy's minimiser."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from torchmetrics.functional.classification import (
    binary_calibration_error,
    multiclass_calibration_error,
)

from vitkit.evaluation.calibration import (
    COLDEST,
    HOTTEST,
    adaptive_class_error,
    adaptive_edges,
    classwise_error,
    equal_width_edges,
    fit_temperature,
    reliability,
    retained_accuracy,
)


def _random(scale: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(500, 7, generator=generator, dtype=torch.float64) * scale
    return logits, torch.randint(0, 7, (500,), generator=generator)


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_errors_equal_torchmetrics(bins: int) -> None:
    logits, targets = _random()
    p = logits.softmax(1)
    confidence, predicted = p.max(1)
    found = reliability(confidence, predicted == targets, equal_width_edges(bins))
    errors = (("l1", found.expected_error), ("l2", found.rms_error), ("max", found.largest_error))
    for norm, ours in errors:
        theirs = multiclass_calibration_error(p, targets, num_classes=7, n_bins=bins, norm=norm)
        assert ours == pytest.approx(float(theirs), abs=1e-6)  # torchmetrics sums in float32


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_error_of_each_class_is_torchmetrics_of_two_classes(temperature: float) -> None:
    logits, targets = _random()
    p = (logits / temperature).softmax(1)
    theirs = [
        float(binary_calibration_error(p[:, k].contiguous(), (targets == k).long(), n_bins=15))
        for k in range(7)
    ]
    found = classwise_error(logits, targets, equal_width_edges(), temperature)
    assert found == pytest.approx(np.mean(theirs), abs=1e-6)
    assert found == pytest.approx(
        classwise_error(logits.float() + 100.0, targets, equal_width_edges(), temperature), abs=1e-4
    )


@pytest.mark.parametrize("above", [0.0, 0.01, 0.3])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_adaptive_error_of_all_classes_is_numpys(above: float, temperature: float) -> None:
    logits, targets = _random()
    p = (logits / temperature).softmax(1).numpy()
    gaps = []
    for k in range(7):
        kept = p[:, k] > above
        share, right = p[kept, k], (targets == k).numpy()[kept]
        n = len(share)
        edges = np.interp(np.linspace(0, n, 11), np.arange(n), np.sort(share))
        place = np.clip(np.searchsorted(edges, share, side="left") - 1, 0, 9)
        some = [place == r for r in range(10)]
        gaps += [abs(right[r].mean() - share[r].mean()) for r in some if r.any()]
    found = adaptive_class_error(logits, targets, ranges=10, above=above, temperature=temperature)
    assert len(gaps) > 50 and found == pytest.approx(np.mean(gaps), abs=1e-12)


def test_the_adaptive_error_of_all_classes_by_hand() -> None:
    """Of four images the third closes the first range of two."""
    share = torch.tensor([0.2, 0.4, 0.6, 0.8], dtype=torch.float64)
    logits = torch.stack([share, 1 - share], 1).log()
    targets = torch.tensor([1, 1, 1, 0])
    found = adaptive_class_error(logits, targets, ranges=2)
    # Class 0: none of .2, .4, .6 is right, and .8 is. Class 1: .4, .6 are right, and .8 is.
    assert found == pytest.approx((0.4 + 0.2 + (2 / 3 - 0.4) + 0.2) / 4)
    # One range each: of .6, .8 one is right in class 0, both are in class 1.
    found = adaptive_class_error(logits, targets, ranges=1, above=0.5)
    assert found == pytest.approx(((0.7 - 0.5) + (1 - 0.7)) / 2)
    assert adaptive_class_error(logits, targets, ranges=2, above=0.9) == 0.0
    sure = torch.tensor([[0.0, -1e4]]).expand(6, -1)
    none = torch.zeros(6, dtype=torch.int64)
    assert adaptive_class_error(sure, none) == 0.0
    assert adaptive_class_error(sure, none + 1) == 1.0  # each class has one range that is not empty


def test_accuracy_over_the_answered_by_hand() -> None:
    confidence = torch.tensor([0.9, 0.2, 0.5, 0.7])
    right = torch.tensor([True, False, True, False])
    # By falling confidence: right, wrong, right, wrong.
    assert retained_accuracy(confidence, right) == pytest.approx((1 + 1 / 2 + 2 / 3 + 2 / 4) / 4)
    assert retained_accuracy(confidence, confidence > 0) == 1.0
    sorted_out = confidence > 0.6
    assert retained_accuracy(confidence, sorted_out) == pytest.approx((1 + 1 + 2 / 3 + 2 / 4) / 4)


def test_bins_by_hand() -> None:
    confidence = torch.tensor([0.95, 0.9, 0.8, 0.6, 0.55, 0.3], dtype=torch.float64)
    right = torch.tensor([1, 1, 0, 1, 0, 0], dtype=torch.bool)
    found = reliability(confidence, right, equal_width_edges())
    assert found.expected_error == pytest.approx(0.233333, abs=1e-6)
    # (low, high]: 0.8 = 12 / 15 closes a bin, 1 belongs to the last and 0 to the first.
    edge = reliability(
        torch.tensor([0.8, 1.0, 0.0], dtype=torch.float64), torch.ones(3) > 0, equal_width_edges()
    )
    assert edge.bins.tolist() == [11, 14, 0]
    assert float(edge.count.sum()) == 3


def test_all_wrong_and_all_sure() -> None:
    sure = torch.ones(20, dtype=torch.float64)
    assert reliability(sure, sure < 0, equal_width_edges()).expected_error == 1.0
    assert reliability(sure, sure > 0, equal_width_edges()).expected_error == 0.0
    for right in (sure < 0, sure > 0):
        found = reliability(sure, right, adaptive_edges(sure))
        assert found.expected_error == float(not right[0])


def test_adaptive_bins_are_numpys() -> None:
    logits, targets = _random()
    confidence, predicted = logits.softmax(1).max(1)
    ordered = np.sort(confidence.numpy())
    n = len(ordered)
    edges = np.interp(np.linspace(0, n, 16), np.arange(n), ordered)
    np.testing.assert_allclose(adaptive_edges(confidence).numpy(), edges, rtol=1e-12)
    right = (predicted == targets).numpy()
    place = np.clip(np.searchsorted(edges, confidence.numpy(), side="left") - 1, 0, 14)
    want = sum(
        (place == b).mean() * abs(right[place == b].mean() - confidence.numpy()[place == b].mean())
        for b in range(15)
        if (place == b).any()
    )
    found = reliability(confidence, predicted == targets, adaptive_edges(confidence))
    assert found.expected_error == pytest.approx(want, abs=1e-12)
    assert found.count.max() - found.count.min() <= 2


@pytest.mark.parametrize("scale", [0.3, 2.0, 30.0])
def test_the_temperature_is_scipys_minimum(scale: float) -> None:
    logits, noise = _random(1.0)
    generator = torch.Generator().manual_seed(1)
    true = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    targets = torch.where(torch.arange(500) % 9 == 0, noise, true)
    logits = logits * scale

    def nll(log_t: float) -> float:
        scaled = logits / np.exp(log_t)
        return float(torch.nn.functional.cross_entropy(scaled, targets))

    want = minimize_scalar(nll, bounds=(-4.5, 4.5), method="bounded", options={"xatol": 1e-9})
    found = fit_temperature(logits, targets)
    assert nll(np.log(found)) <= want.fun + 1e-12
    assert found == pytest.approx(np.exp(want.x), rel=1e-4)
    assert torch.equal((logits / found).argmax(1), logits.argmax(1))


def test_a_temperature_without_a_minimum_stops_at_the_end() -> None:
    logits, _ = _random()
    assert fit_temperature(logits, logits.argmax(1)) == COLDEST
    assert fit_temperature(logits, logits.argmin(1)) == HOTTEST
    assert fit_temperature(torch.zeros(5, 3), torch.zeros(5, dtype=torch.int64)) == HOTTEST
