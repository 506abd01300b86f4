"""What a classifier got right and wrong, class by class, and how well its probabilities did.

All of them take logits (N, classes) on any device and give numbers in float64. Argmax gives ties to
the lower class index.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vitkit.errors import EvaluationError
from vitkit.evaluation.classification import HELD
from vitkit.evaluation.sums import NO_IMAGE

__all__ = [
    "ClassScores",
    "ImageScores",
    "class_scores",
    "confusion_matrix",
    "image_scores",
    "require_finite",
    "soft_nll",
    "squared_errors",
]


def require_finite(logits: Tensor, part: str = "") -> None:
    """Numbers about NaN would mislead.

    Args:
        logits: (N, classes).
        part: what the images are, where they are not all of the split: ``of a batch``.

    Raises:
        EvaluationError: a logit is not finite, or there are none.
    """
    if not logits.numel():
        raise EvaluationError(NO_IMAGE)
    bad = ~logits.isfinite().all(dim=1)
    count = int(bad.sum())
    if count:
        first = int(bad.nonzero()[0])
        images = f"images {part}".rstrip()
        raise EvaluationError(
            f"the model gives NaN or infinite logits for {count:,} of {len(logits):,} {images} "
            f"(image {first} is the first); its weights are damaged or its number format overflows"
        )


def soft_nll(logits: Tensor, shares: Tensor) -> float:
    """Cross-entropy in nats an image with a distribution over classes for each, such as people's.

    Args:
        logits: (N, classes).
        shares: (N, classes), rows that sum to one.

    Source: Peterson et al., "Human uncertainty makes classification more robust", arXiv 1908.07086.
    """
    log_p = logits.to(torch.float64).log_softmax(1)
    return -float((shares.to(torch.float64) * log_p).sum(1).mean())


def squared_errors(probabilities: Tensor, targets: Tensor) -> Tensor:
    """Each image's sum over classes of (p - 1[right])^2, float64 (N,), from 0 to 2; their mean is
    the Brier score.

    Source: G. W. Brier, "Verification of forecasts expressed in terms of probability", 1950.
    """
    p = probabilities.to(torch.float64)
    own = p.gather(1, targets[:, None])[:, 0]
    return (p * p).sum(1) - 2 * own + 1


def confusion_matrix(predicted: Tensor, targets: Tensor, num_classes: int) -> Tensor:
    """int64 (classes, classes): row the right class, column the predicted one."""
    flat = targets * num_classes + predicted
    return torch.bincount(flat, minlength=num_classes**2).view(num_classes, num_classes)


@dataclass(frozen=True)
class ClassScores:
    """Per class, float64 (classes,) each; 0 where there is nothing to divide by.

    Attributes:
        precision: right ones among those predicted as the class.
        recall: right ones among those of the class.
        f1: harmonic mean of both.
        support: int64, images of the class.
        present: bool, whether the class occurs among targets or predictions.
    """

    precision: Tensor
    recall: Tensor
    f1: Tensor
    support: Tensor
    present: Tensor

    def macro(self) -> dict[str, float]:
        """Unweighted means over the classes that occur among targets or predictions."""
        parts = {"precision": self.precision, "recall": self.recall, "f1": self.f1}
        return {name: float(values[self.present].mean()) for name, values in parts.items()}


def class_scores(confusion: Tensor) -> ClassScores:
    """Precision, recall and F1 of each class.

    Args:
        confusion: as of :func:`confusion_matrix`.
    """
    right = confusion.diagonal().to(torch.float64)
    predicted, support = confusion.sum(0), confusion.sum(1)
    return ClassScores(
        precision=right / predicted.clamp(min=1),
        recall=right / support.clamp(min=1),
        f1=2 * right / (predicted + support).clamp(min=1),
        support=support,
        present=(predicted + support) > 0,
    )


@dataclass(frozen=True)
class ImageScores:
    """What the model says about each image, (N,) each.

    Attributes:
        predicted: int64, the class with the largest logit.
        right: bool.
        confidence: float64, the largest probability.
        nll: float64, negative log-probability of the right class, in nats.
        squared_error: float64, as of :func:`squared_errors`.
    """

    predicted: Tensor
    right: Tensor
    confidence: Tensor
    nll: Tensor
    squared_error: Tensor


def image_scores(logits: Tensor, targets: Tensor, temperature: float = 1.0) -> ImageScores:
    """Each image's scores, of softmax(logits / temperature), a chunk of images at a time."""
    rows = max(1, HELD // logits.shape[1])
    chunks = zip(logits.split(rows), targets.split(rows), strict=True)
    # In float64: rounding to float32 could make a tie of two logits, and another prediction.
    parts = [_scores_of(some.to(torch.float64) / temperature, right) for some, right in chunks]
    return ImageScores(*(torch.cat(part) for part in zip(*parts, strict=True)))


def _scores_of(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    log_p = logits.log_softmax(1)
    p = log_p.exp()
    predicted = logits.argmax(1)
    own = log_p.gather(1, targets[:, None])[:, 0]
    confidence = p.amax(1)
    return predicted, predicted == targets, confidence, -own, squared_errors(p, targets)
