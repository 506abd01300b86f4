"""Scores of single images and classes, and the standard suite; other libraries are the judges."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from sklearn.metrics import (
    brier_score_loss,
    confusion_matrix,
    log_loss,
    precision_recall_fscore_support,
)
from torchmetrics.functional.classification import (
    binary_calibration_error,
    multiclass_calibration_error,
)

from vitkit.errors import EvaluationError
from vitkit.evaluation import scores
from vitkit.evaluation.calibration import adaptive_class_error, fit_temperature
from vitkit.evaluation.classification import Predictions
from vitkit.evaluation.standard import standard_suite


def _case(kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(200, 6, generator=generator) * 2
    targets = torch.randint(0, 6, (200,), generator=generator)
    best = logits.argmax(1)
    if kind == "one class missing":
        targets = torch.where(targets == 4, 5, targets)
        logits[:, 4] = -30.0
    elif kind == "all wrong":
        targets = (best + 1) % 6
    elif kind == "all sure":
        logits = logits * 1e4
    elif kind == "all right and sure":
        logits, targets = logits * 1e4, best
    elif kind == "ties":
        logits = logits.round() / 2
    return logits, targets


KINDS = ["random", "one class missing", "all wrong", "all sure", "all right and sure", "ties"]


@pytest.mark.parametrize("kind", KINDS)
def test_scores_equal_scikit_learn(kind: str) -> None:
    logits, targets = _case(kind)
    found = scores.image_scores(logits, targets)
    p = logits.double().softmax(1).numpy()
    predicted = logits.numpy().argmax(1)  # numpy's gives ties to the lower index
    assert found.predicted.tolist() == predicted.tolist()
    matrix = scores.confusion_matrix(found.predicted, targets, 6)
    assert matrix.tolist() == confusion_matrix(targets, predicted, labels=range(6)).tolist()
    classes = scores.class_scores(matrix)
    want = precision_recall_fscore_support(targets, predicted, labels=range(6), zero_division=0)
    mine = (classes.precision, classes.recall, classes.f1, classes.support)
    for ours, theirs in zip(mine, want, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-12)
    macro = precision_recall_fscore_support(targets, predicted, average="macro", zero_division=0)
    np.testing.assert_allclose(list(classes.macro().values()), macro[:3], rtol=1e-12)
    if "sure" not in kind:  # scikit-learn clips probabilities of 0
        assert float(found.nll.mean()) == pytest.approx(log_loss(targets, p, labels=range(6)))
    one_hot = np.eye(6)[targets]
    brier = float(scores.squared_errors(logits.double().softmax(1), targets).mean())
    assert brier == pytest.approx(((p - one_hot) ** 2).sum(1).mean(), abs=1e-12)
    assert float(found.squared_error.mean()) == pytest.approx(brier, abs=1e-12)
    assert brier == pytest.approx(
        brier_score_loss(targets, p, labels=np.arange(6), scale_by_half=False), abs=1e-12
    )


def test_scores_by_hand() -> None:
    p = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]], dtype=torch.float64)
    targets = torch.tensor([0, 1])
    assert float(scores.squared_errors(p, targets).mean()) == pytest.approx(0.5)
    found = scores.image_scores(p.log(), targets)
    assert float(found.nll.mean()) == pytest.approx(0.780324, abs=1e-6)
    assert found.right.tolist() == [True, False]


def test_a_shifted_row_is_the_same_row_and_chunks_do_not_show(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logits, targets = _case("random")
    whole = scores.image_scores(logits, targets)
    monkeypatch.setattr(scores, "HELD", 70)
    for name, values in vars(scores.image_scores(logits, targets)).items():
        assert torch.equal(values, getattr(whole, name)), name
    shifted = scores.image_scores(logits.double() + 50.0, targets)
    for name, values in vars(whole).items():
        torch.testing.assert_close(getattr(shifted, name), values, rtol=1e-9, atol=1e-12)


def test_likelihood_of_what_people_say() -> None:
    logits, targets = _case("random")
    one_hot = torch.eye(6)[targets]
    usual = float(scores.image_scores(logits, targets).nll.mean())
    assert scores.soft_nll(logits, one_hot) == pytest.approx(usual, rel=1e-12)
    shares = torch.rand(200, 6, dtype=torch.float64)
    shares = shares / shares.sum(1, keepdim=True)
    at_best = scores.soft_nll(shares.log(), shares)
    assert at_best == pytest.approx(float(-(shares * shares.log()).sum(1).mean()))
    assert scores.soft_nll(logits, shares) > at_best


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_are_refused(bad: float) -> None:
    logits, targets = _case("random")
    logits[7, 2] = logits[9, 0] = bad
    with pytest.raises(EvaluationError, match=r"for 2 of 200 images \(image 7 is the first\)"):
        standard_suite(Predictions(logits, targets, torch.arange(200)), list("abcdef"))
    with pytest.raises(EvaluationError, match="empty"):
        scores.require_finite(torch.zeros(0, 6))


@pytest.mark.parametrize("kind", KINDS)
def test_the_standard_suite_holds_together(kind: str) -> None:
    logits, targets = _case(kind)
    predictions = Predictions(logits, targets, torch.arange(200))
    measured = standard_suite(
        predictions, list("abcdef"), validation=predictions, resamples=200, seed=1
    )
    found = measured.metrics
    assert all(math.isfinite(value) for value in found.values())
    assert found["loss"] == pytest.approx(float(scores.image_scores(logits, targets).nll.mean()))
    for name in ("acc", "loss", "brier"):
        assert found[f"{name}_low"] <= found[name] <= found[f"{name}_high"], name
    assert found["acc_wilson_low"] <= found["acc"] <= found["acc_wilson_high"] + 1e-12
    assert found["loss_scaled"] <= found["loss"] + 1e-9  # fitted on the same images
    for ending, temperature in (("", 1.0), ("_scaled", found["temperature"])):
        for name, above in (("ace", 0.0), ("tace", 0.01)):
            want = adaptive_class_error(logits, targets, above=above, temperature=temperature)
            assert found[f"{name}{ending}"] == want, name
    for name, table in measured.tables.items():
        lengths = {len(column) for column in table.values()}
        assert lengths == {6 if name == "classes" else 15}, name
        if name != "classes":
            assert sum(table["images"]) == 200  # type: ignore[arg-type]
    again = standard_suite(
        predictions, list("abcdef"), validation=predictions, resamples=200, seed=1
    )
    assert again == measured
    plain = standard_suite(predictions, list("abcdef"), resamples=200)
    assert "temperature" not in plain.metrics


def _calibration_of_others(p: torch.Tensor, targets: torch.Tensor) -> dict[str, float]:
    """By torchmetrics, which sums in float32, and with numpy's quantiles."""
    norms = {"ece": "l1", "ece_rms": "l2", "ece_max": "max"}
    found = {
        name: float(multiclass_calibration_error(p, targets, 6, n_bins=15, norm=norm))
        for name, norm in norms.items()
    }
    found["ece_classwise"] = sum(
        float(binary_calibration_error(p[:, k].contiguous(), (targets == k).long(), n_bins=15)) / 6
        for k in range(6)
    )
    (sure, best), count = p.max(1), len(p)
    edges = np.interp(np.linspace(0, count, 16), np.arange(count), np.sort(sure.numpy()))
    place = np.clip(np.searchsorted(edges, sure.numpy()) - 1, 0, 14)
    gaps = np.bincount(place, ((best == targets).double() - sure).numpy())
    return {**found, "ece_adaptive": float(np.abs(gaps).sum() / count)}


def _drawn(count: int, scale: float, temperature: float) -> Predictions:
    """Logits, and targets drawn from what they say at a temperature."""
    logits = scale * torch.randn(count, 6)
    targets = torch.distributions.Categorical(logits=logits / temperature).sample()
    return Predictions(logits, targets, torch.arange(count))


def test_the_standard_suite_says_what_other_libraries_say() -> None:
    shown, held = _drawn(200, 2.0, 1.3), _drawn(300, 3.0, 2.0)
    found = standard_suite(shown, list("abcdef"), validation=held, resamples=10).metrics
    assert 1.5 < found["temperature"] < 2.5
    theirs = {}
    for ending, temperature in (("", 1.0), ("_scaled", found["temperature"])):
        p = (shown.logits.double() / temperature).softmax(1)
        for name, value in _calibration_of_others(p, shown.targets).items():
            theirs[f"{name}{ending}"] = value
    assert len({round(value, 4) for value in theirs.values()}) == 10  # none stands for another
    for name, value in theirs.items():
        assert found[name] == pytest.approx(value, abs=1e-6), name
    predicted = shown.logits.argmax(1)
    macro = precision_recall_fscore_support(shown.targets, predicted, average="macro")
    assert [found[name] for name in ("precision", "recall", "f1")] == pytest.approx(macro[:3])


def test_the_intervals_of_the_standard_suite_are_as_wide_as_asked() -> None:
    shown = _drawn(200, 2.0, 1.3)
    rows = scores.image_scores(shown.logits, shown.targets)
    means = {"acc": rows.right.double(), "loss": rows.nll, "brier": rows.squared_error}
    widths = []
    for confidence in (0.95, 0.5):
        found = standard_suite(shown, list("abcdef"), confidence=confidence).metrics
        exact = stats.binomtest(int(rows.right.sum()), 200)
        wilson = exact.proportion_ci(confidence, method="wilson")
        assert found["acc_wilson_low"] == pytest.approx(wilson.low, abs=1e-9)
        assert found["acc_wilson_high"] == pytest.approx(wilson.high, abs=1e-9)
        for name, values in means.items():  # nearly as of a normal mean
            reach = stats.norm.ppf(0.5 + confidence / 2) * float(values.std()) / 200**0.5
            for end, sign in (("low", -1), ("high", 1)):
                want = float(values.mean()) + sign * reach
                assert found[f"{name}_{end}"] == pytest.approx(want, abs=0.3 * reach), name
        names = (*means, "ece")
        widths.append([found[f"{name}_high"] - found[f"{name}_low"] for name in names])
    for wide, narrow in zip(*widths, strict=True):
        assert 0.2 * wide < narrow < 0.5 * wide


def test_the_temperature_is_that_of_the_validation_images_alone() -> None:
    """Targets drawn from what the logits say at a temperature: 1 of those reported, 3 of others."""
    torch.manual_seed(5)
    logits, held = torch.randn(400, 6) * 2, torch.randn(400, 6) * 3
    targets, known = (
        torch.distributions.Categorical(logits=said / temperature).sample()
        for said, temperature in ((logits, 1.0), (held, 3.0))
    )
    everywhere = torch.arange(400)
    found = standard_suite(
        Predictions(logits, targets, everywhere),
        list("abcdef"),
        validation=Predictions(held, known, everywhere),
        resamples=10,
    ).metrics
    assert found["temperature"] == fit_temperature(held, known)
    assert found["temperature"] > 1.5 * fit_temperature(logits, targets)
    cooled = logits.double() / found["temperature"]
    assert found["loss_scaled"] == pytest.approx(float(F.cross_entropy(cooled, targets)))
    squares = (cooled.softmax(1) - F.one_hot(targets, 6)).square().sum(1)
    assert found["brier_scaled"] == pytest.approx(float(squares.mean()))
    assert found["loss"] == pytest.approx(float(F.cross_entropy(logits.double(), targets)))
