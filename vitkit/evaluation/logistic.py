"""A linear probe: multinomial logistic regression on features that stay as they are.

Source: A. Radford et al., "Learning transferable visual models from natural language supervision"
(arXiv 2103.00020), appendix A.3, for L-BFGS, the range that is swept and how.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["L2Choice", "LinearProbe", "choose_l2", "fit_linear_probe"]

COARSE = (6.0, 4.0, 2.0, 0.0, -2.0, -4.0, -6.0)
"""log10 of the penalties that are tried first; the strongest first, for it is fitted soonest."""

FINER = (1.0, 0.5, 0.25, 0.125)
"""Distances, in log10, at which the neighbours of the best are tried in turn."""

HISTORY = 10
"""Steps that L-BFGS remembers, as in SciPy."""

CONSTANT = 1e-6
"""Standard deviation below which a feature says nothing."""


@dataclass(frozen=True)
class LinearProbe:
    """A linear classifier of standardised features.

    Attributes:
        weight: (C, classes).
        bias: (classes,).
        mean, std: (C,), of the features that it was fitted to.
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor
    std: Tensor

    def logits(self, features: Tensor) -> Tensor:
        """Features (N, C) -> logits (N, classes)."""
        return torch.addmm(self.bias, (features - self.mean) / self.std, self.weight)

    def layer(self) -> tuple[Tensor, Tensor]:
        """Weight (classes, C) and bias (classes,) of the same classifier of raw features."""
        weight = (self.weight / self.std[:, None]).T
        return weight, self.bias - weight @ self.mean

    def accuracy(self, features: Tensor, targets: Tensor) -> float:
        """Share of the features (N, C) whose class (N,) is the likeliest."""
        right = self.logits(features).argmax(1) == targets
        return int(right.sum()) / len(targets)

    def loss(self, features: Tensor, targets: Tensor) -> float:
        """Mean cross-entropy of features (N, C) and their classes (N,), in nats."""
        return float(F.cross_entropy(self.logits(features), targets))


@dataclass(frozen=True)
class L2Choice:
    """What a sweep found.

    Attributes:
        l2: the penalty with the best accuracy on validation; of equals that of the smallest loss.
        accuracies: of every penalty that was tried, by rising penalty.
        probe: fitted with ``l2`` to the training features alone.
    """

    l2: float
    accuracies: dict[float, float]
    probe: LinearProbe = field(repr=False)


def fit_linear_probe(
    features: Tensor,
    targets: Tensor,
    num_classes: int,
    l2: float,
    *,
    start: LinearProbe | None = None,
    max_iter: int = 1000,
    tolerance: float = 1e-5,
) -> LinearProbe:
    """Minimise the summed cross-entropy and ``l2 / 2`` times the squared weights, by L-BFGS.

    Features are standardised first; the bias is not penalised. ``l2`` is 1 / C of scikit-learn.

    Args:
        features: floating point (N, C); everything is computed in their dtype.
        targets: int64 (N,).
        num_classes: also those that no target is of.
        l2: penalty, above 0.
        start: where to begin; zeros by default.
        max_iter: L-BFGS iterations.
        tolerance: largest entry of the gradient, of the mean over features, that is close enough.
    """
    mean, std = features.mean(0), features.std(0, correction=0)
    std = torch.where(std < CONSTANT, 1.0, std)
    scaled = (features - mean) / std
    shape = (features.shape[1], num_classes)
    weight = features.new_zeros(shape) if start is None else start.weight.clone()
    bias = features.new_zeros(num_classes) if start is None else start.bias.clone()
    for parameter in (weight, bias):
        parameter.requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=max_iter,
        history_size=HISTORY,
        tolerance_grad=tolerance,
        tolerance_change=torch.finfo(features.dtype).eps,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        fit = F.cross_entropy(torch.addmm(bias, scaled, weight), targets)
        value = fit + l2 / (2 * len(targets)) * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        optimizer.step(loss)  # type: ignore[arg-type]
    return LinearProbe(weight.detach(), bias.detach(), mean, std)


def choose_l2(
    train: tuple[Tensor, Tensor],
    val: tuple[Tensor, Tensor],
    num_classes: int,
    *,
    on_fit: Callable[[int, int], None] | None = None,
) -> L2Choice:
    """The penalty whose probe of the training features is most accurate on validation.

    From 1e-6 to 1e6 in steps of a hundred, then around the best in ever smaller ones, down to eight
    a decade and never beyond the ends. Each fit begins where its nearest neighbour ended.

    Args:
        train, val: features (N, C) and targets (N,).
        num_classes: of both.
        on_fit: told (fits done, fits in all; near an end of the range they are fewer).
    """
    fits = len(COARSE) + 2 * len(FINER)
    probes: dict[float, LinearProbe] = {}
    scores: dict[float, tuple[float, float]] = {}

    def attempt(exponent: float) -> None:
        if exponent in probes or abs(exponent) > COARSE[0]:
            return
        near = min(probes, key=lambda tried: abs(tried - exponent), default=None)
        start = None if near is None else probes[near]
        probes[exponent] = fit_linear_probe(*train, num_classes, 10.0**exponent, start=start)
        scores[exponent] = probes[exponent].accuracy(*val), -probes[exponent].loss(*val)
        if on_fit is not None:
            on_fit(len(probes), fits)

    for exponent in COARSE:
        attempt(exponent)
    for step in FINER:
        middle = max(scores, key=lambda exponent: scores[exponent])
        attempt(middle + step)
        attempt(middle - step)
    chosen = max(scores, key=lambda exponent: scores[exponent])
    found = {10.0**exponent: scores[exponent][0] for exponent in sorted(scores)}
    return L2Choice(10.0**chosen, found, probes[chosen])
