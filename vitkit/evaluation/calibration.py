"""Whether a model is right as often as it is sure.

Conventions: the confidence is the largest probability. Bins of equal width are half open, (low,
high], as in Guo et al.'s code (torchmetrics has [low, high)); a confidence of exactly 0 is in the
first. The mean confidence of a bin stands for it, not its middle; empty bins weigh nothing. There
are 15.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from vitkit.evaluation.classification import HELD

__all__ = [
    "BINS",
    "NEGLIGIBLE",
    "Reliability",
    "adaptive_class_error",
    "adaptive_edges",
    "classwise_error",
    "equal_width_edges",
    "fit_temperature",
    "reliability",
    "retained_accuracy",
]

BINS = 15
NEGLIGIBLE = 0.01
"""Probabilities up to here are left out of the thresholded error, as in Nixon et al.'s paper."""
COLDEST, HOTTEST = 0.01, 100.0
"""Temperatures that are tried: where every image is right, the best would be 0."""
STEPS = 100
CLOSE = 1e-10


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram's numbers, float64 (bins,) each; 0 where a bin is empty.

    Attributes:
        edges: (bins + 1,), ascending.
        count: images of each bin.
        confidence: their mean confidence.
        accuracy: the share of them that is right.
        bins: int64 (N,): the bin of each image.
    """

    edges: Tensor
    count: Tensor
    confidence: Tensor
    accuracy: Tensor
    bins: Tensor

    @property
    def expected_error(self) -> float:
        """Expected calibration error: the gaps' mean, each weighed by its bin's images."""
        gaps = (self.accuracy - self.confidence).abs()
        return float((self.count * gaps).sum() / self.count.sum())

    @property
    def rms_error(self) -> float:
        """The same of the gaps' squares, under a root: large gaps weigh more."""
        gaps = self.accuracy - self.confidence
        return float(((self.count * gaps**2).sum() / self.count.sum()).sqrt())

    @property
    def largest_error(self) -> float:
        """Maximum calibration error: the largest gap of a bin that is not empty."""
        return float((self.accuracy - self.confidence).abs().max())


def reliability(confidence: Tensor, right: Tensor, edges: Tensor) -> Reliability:
    """Sort images into bins by their confidence.

    Args:
        confidence: (N,), from 0 to 1.
        right: bool (N,).
        edges: float64 (bins + 1,), ascending; what lies outside goes to the nearest bin.

    Source: Naeini et al., "Obtaining well calibrated probabilities using Bayesian binning", AAAI
    2015; Guo et al., "On calibration of modern neural networks", arXiv 1706.04599.
    """
    confidence = confidence.to(torch.float64).contiguous()
    last = len(edges) - 2
    bins = torch.bucketize(confidence, edges.to(confidence.device)).sub(1).clamp(0, last)
    zeros = torch.zeros(last + 1, dtype=torch.float64, device=confidence.device)
    count = zeros.scatter_add(0, bins, torch.ones_like(confidence))
    some = count.clamp(min=1)
    mean = zeros.scatter_add(0, bins, confidence) / some
    accuracy = zeros.scatter_add(0, bins, right.to(torch.float64)) / some
    return Reliability(edges, count, mean, accuracy, bins)


def classwise_error(
    logits: Tensor, targets: Tensor, edges: Tensor, temperature: float = 1.0
) -> float:
    """Expected calibration error of each class's own probability, averaged over classes: it also
    sees the probabilities of classes that are not predicted.

    Args:
        logits: (N, classes).
        targets: int64 (N,).
        edges: of the bins.
        temperature: that the logits are divided by.

    Source: Kull et al., "Beyond temperature scaling", arXiv 1910.12656.
    """
    errors = [
        reliability(share, targets == label, edges).expected_error
        for label, share in enumerate(_class_shares(logits, temperature))
    ]
    return sum(errors) / len(errors)


def adaptive_class_error(
    logits: Tensor,
    targets: Tensor,
    *,
    ranges: int = BINS,
    above: float = 0.0,
    temperature: float = 1.0,
) -> float:
    """Adaptive calibration error (ACE): each class's own probabilities in ranges of equally many
    images, and the plain mean of the gaps over the ranges of all classes. Above a threshold the
    thresholded one (TACE): the tiny probabilities of the many classes that an image surely is not
    would hide the rest.

    Args:
        logits: (N, classes).
        targets: int64 (N,).
        ranges: of each class, between quantiles as of :func:`adaptive_edges`; those that ties leave
            empty do not count.
        above: probabilities that are no larger are left out before the ranges are made, and classes
            of which none is left do not count. 0: all are kept.
        temperature: that the logits are divided by.

    Source: Nixon et al., "Measuring calibration in deep learning", arXiv 1904.01685, section 3.
    """
    total, count = 0.0, 0
    for label, share in enumerate(_class_shares(logits, temperature)):
        kept = share > above if above > 0 else torch.ones_like(share, dtype=torch.bool)
        if kept.any():
            some = share[kept]
            found = reliability(some, (targets == label)[kept], adaptive_edges(some, ranges))
            total += float((found.accuracy - found.confidence).abs().sum())
            count += int((found.count > 0).sum())
    return total / max(count, 1)


def _class_shares(logits: Tensor, temperature: float) -> Iterator[Tensor]:
    """Each class's probability of all images, float64 (N,), one class after the other."""
    rows = logits.split(max(1, HELD // logits.shape[1]))
    total = torch.cat([(part.to(torch.float64) / temperature).logsumexp(1) for part in rows])
    for label in range(logits.shape[1]):
        yield (logits[:, label].to(torch.float64) / temperature - total).exp()


def retained_accuracy(confidence: Tensor, right: Tensor) -> float:
    """Accuracy on the images that are answered, averaged over how many are: the most confident
    first, from one of them to all. 1 where every mistake is less sure than every right answer.

    Args:
        confidence: (N,).
        right: bool (N,).

    Source: Hendrycks et al., "Natural adversarial examples", arXiv 1907.07174: the area under the
    response rate accuracy curve (AURRA).
    """
    ordered = right[confidence.argsort(descending=True, stable=True)].to(torch.float64)
    answered = torch.arange(1, len(ordered) + 1, dtype=torch.float64, device=ordered.device)
    return float((ordered.cumsum(0) / answered).mean())


def equal_width_edges(bins: int = BINS) -> Tensor:
    """Edges of bins of equal width over [0, 1], float64 (bins + 1,)."""
    return torch.arange(bins + 1, dtype=torch.float64) / bins


def adaptive_edges(confidence: Tensor, bins: int = BINS) -> Tensor:
    """Edges of bins that hold equally many images, float64 (bins + 1,): the quantiles.

    Ties may make them unequal, for equal confidences share a bin. The smallest confidence belongs
    to the first bin; reference code leaves it out.

    Source: Nguyen and O'Connor, arXiv 1508.05154; Nixon et al., arXiv 1904.01685.
    """
    ordered = confidence.to(torch.float64).sort().values
    count = len(ordered)
    places = torch.arange(bins + 1, dtype=torch.float64, device=ordered.device) * count / bins
    # Linear between the sorted values, and level beyond the last.
    low = places.floor().long().clamp(max=count - 1)
    high = (low + 1).clamp(max=count - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (places - low)


def fit_temperature(logits: Tensor, targets: Tensor) -> float:
    """The T > 0 for which softmax(logits / T) has the least negative log-likelihood.

    It is convex in 1 / T, so Newton's steps with bisection as a guard find the one minimum; between
    0.01 and 100. Which class is largest does not change.

    Args:
        logits: (N, classes), of images that are neither trained nor tested on.
        targets: int64 (N,).

    Source: Guo et al., arXiv 1706.04599, section 4.2.
    """
    own = float(logits.gather(1, targets[:, None]).to(torch.float64).mean())
    parts = logits.split(max(1, HELD // logits.shape[1]))

    def slopes(factor: float) -> tuple[float, float]:
        """First and second derivative of the likelihood's negative logarithm by 1 / T."""
        first = second = 0.0
        for part in parts:
            z = part.to(torch.float64)
            p = (z * factor).softmax(1)
            mean = (p * z).sum(1)
            first += float(mean.sum())
            second += float(((p * z * z).sum(1) - mean * mean).sum())
        return first / len(logits) - own, second / len(logits)

    low, high = 1 / HOTTEST, 1 / COLDEST
    if slopes(low)[0] >= 0:
        return HOTTEST
    if slopes(high)[0] <= 0:
        return COLDEST
    factor = 1.0
    for _ in range(STEPS):
        slope, curvature = slopes(factor)
        low, high = (factor, high) if slope < 0 else (low, factor)
        step = factor - slope / curvature if curvature > 0 else low
        new = step if low < step < high else (low * high) ** 0.5
        if abs(new - factor) <= CLOSE * factor:
            return 1 / new
        factor = new
    return 1 / factor
