"""The standard suite: accuracy, likelihood and calibration, each with how far to trust it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vitkit.evaluation.calibration import (
    NEGLIGIBLE,
    Reliability,
    adaptive_class_error,
    adaptive_edges,
    classwise_error,
    equal_width_edges,
    fit_temperature,
    reliability,
    retained_accuracy,
)
from vitkit.evaluation.classification import Predictions
from vitkit.evaluation.scores import (
    ImageScores,
    class_scores,
    confusion_matrix,
    image_scores,
    require_finite,
)
from vitkit.evaluation.uncertainty import bootstrap_means, percentile_interval, wilson_interval

__all__ = ["Measured", "standard_suite"]

Column = list[str] | list[int] | list[float]


@dataclass
class Measured:
    """What a suite found.

    Attributes:
        metrics: name -> number.
        tables: name -> columns of one length, for pictures.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    tables: dict[str, dict[str, Column]] = field(default_factory=dict)

    def add(self, other: Measured) -> None:
        """Take in what another part found."""
        self.metrics |= other.metrics
        self.tables |= other.tables


def standard_suite(
    predictions: Predictions,
    class_names: Sequence[str],
    *,
    validation: Predictions | None = None,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Measured:
    """All numbers about predictions of one split.

    ``loss`` (negative log-likelihood, nats an image), ``acc``, ``acc5``; ``precision``, ``recall``,
    ``f1`` (means over classes); ``brier`` (summed over classes, 0 to 2); ``ece`` (15 bins of equal
    width), ``ece_adaptive`` (15 of equally many images), ``ece_rms``, ``ece_max``,
    ``ece_classwise``; ``ace`` and ``tace``, of all classes' probabilities and of those above 0.01
    (see :func:`~vitkit.evaluation.calibration.adaptive_class_error`); ``aurra`` (accuracy over how
    many images are answered); bootstrap intervals as ``*_low``, ``*_high``, for accuracy also
    Wilson's; with ``validation`` the ``temperature`` fitted on it and ``*_scaled`` what the numbers
    are then.

    Args:
        predictions: of the split that is reported.
        class_names: by class index.
        validation: of images to fit the temperature on; None: it is not fitted.
        resamples, seed: of the bootstrap.
        confidence: of the intervals.

    Raises:
        EvaluationError: no images, or logits that are not finite.
    """
    require_finite(predictions.logits)
    scores = image_scores(predictions.logits, predictions.targets)
    measured = Measured(predictions.metrics())
    measured.add(_by_class(scores, predictions, class_names))
    measured.metrics["brier"] = float(scores.squared_error.mean())
    measured.metrics["aurra"] = retained_accuracy(scores.confidence, scores.right)
    bins = _calibration(scores, predictions, measured, 1.0, "")
    samples = _resampled(scores, bins, resamples, seed)
    for name, values in samples.items():
        low, high = percentile_interval(values, confidence)
        measured.metrics |= {f"{name}_low": low, f"{name}_high": high}
    right, count = int(scores.right.sum()), len(scores.right)
    low, high = wilson_interval(right, count, confidence)
    measured.metrics |= {"acc_wilson_low": low, "acc_wilson_high": high}
    if validation is not None:
        require_finite(validation.logits)
        temperature = fit_temperature(validation.logits, validation.targets)
        scaled = image_scores(predictions.logits, predictions.targets, temperature)
        measured.metrics["temperature"] = temperature
        measured.metrics["loss_scaled"] = float(scaled.nll.mean())
        measured.metrics["brier_scaled"] = float(scaled.squared_error.mean())
        _calibration(scaled, predictions, measured, temperature, "_scaled")
    return measured


def _by_class(
    scores: ImageScores, predictions: Predictions, class_names: Sequence[str]
) -> Measured:
    classes = predictions.logits.shape[1]
    found = class_scores(confusion_matrix(scores.predicted, predictions.targets, classes))
    table: dict[str, Column] = {
        "class": list(class_names),
        "images": found.support.tolist(),
        "precision": found.precision.tolist(),
        "recall": found.recall.tolist(),
        "f1": found.f1.tolist(),
    }
    return Measured(found.macro(), {"classes": table})


def _calibration(
    scores: ImageScores,
    predictions: Predictions,
    measured: Measured,
    temperature: float,
    suffix: str,
) -> Reliability:
    """Both kinds of bins into metrics and tables; returns those of equal width."""
    equal = reliability(scores.confidence, scores.right, equal_width_edges())
    adaptive = reliability(scores.confidence, scores.right, adaptive_edges(scores.confidence))
    measured.metrics[f"ece{suffix}"] = equal.expected_error
    measured.metrics[f"ece_adaptive{suffix}"] = adaptive.expected_error
    measured.metrics[f"ece_rms{suffix}"] = equal.rms_error
    measured.metrics[f"ece_max{suffix}"] = equal.largest_error
    measured.metrics[f"ece_classwise{suffix}"] = classwise_error(
        predictions.logits, predictions.targets, equal.edges, temperature
    )
    for name, above in (("ace", 0.0), ("tace", NEGLIGIBLE)):
        measured.metrics[f"{name}{suffix}"] = adaptive_class_error(
            predictions.logits, predictions.targets, above=above, temperature=temperature
        )
    measured.tables[f"reliability{suffix}"] = _columns(equal)
    measured.tables[f"reliability_adaptive{suffix}"] = _columns(adaptive)
    return equal


def _columns(bins: Reliability) -> dict[str, Column]:
    return {
        "low": bins.edges[:-1].tolist(),
        "high": bins.edges[1:].tolist(),
        "images": bins.count.long().tolist(),
        "confidence": bins.confidence.tolist(),
        "accuracy": bins.accuracy.tolist(),
    }


def _resampled(
    scores: ImageScores, bins: Reliability, resamples: int, seed: int
) -> dict[str, Tensor]:
    """Bootstrap values of accuracy, likelihood, Brier score and calibration error."""
    right = scores.right.to(torch.float64)
    # The error is a sum over bins of |sum of (right - confidence)| / N: a mean in each column.
    gaps = torch.zeros(len(right), len(bins.count), dtype=torch.float64)
    gaps.scatter_(1, bins.bins[:, None], (right - scores.confidence)[:, None])
    columns = torch.cat([torch.stack([right, scores.nll, scores.squared_error], 1), gaps], 1)
    means = bootstrap_means(columns, resamples, seed)
    return {
        "acc": means[:, 0],
        "loss": means[:, 1],
        "brier": means[:, 2],
        "ece": means[:, 3:].abs().sum(1),
    }
