"""How far a few labelled examples a class go.

By nearest centroids of normalised features (Y. Wang et al., "SimpleShot", arXiv 1911.04623, its
L2-normalised kind), and by least squares on standardised ones, as the ViT paper reports its few
shots (Dosovitskiy et al., arXiv 2010.11929, section 4.1; constants as in its authors' code).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "RIDGE_L2",
    "RIDGE_SHOTS",
    "SHOTS",
    "FewShot",
    "Labelled",
    "by_centroids",
    "by_ridge",
    "centroids",
    "draw_shots",
    "few_shot",
    "nearest_centroid",
]

SHOTS = (1, 5, 10)

RIDGE_SHOTS = (1, 5, 10, 25)
RIDGE_L2 = 2.0**10
RIDGE_BIAS = 100.0
"""A constant feature: so large that its weight, the bias, is hardly held back."""

Labelled = tuple[Tensor, Tensor]
"""Features (N, C) and targets (N,)."""


@dataclass(frozen=True)
class FewShot:
    """Accuracies over several draws of the examples.

    Attributes:
        accuracies: one a draw, as fractions.
    """

    accuracies: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Their mean."""
        return sum(self.accuracies) / len(self.accuracies)

    @property
    def deviation(self) -> float:
        """Their standard deviation, of the draws as a sample; 0 of a single one."""
        if len(self.accuracies) < 2:
            return 0.0
        return float(torch.tensor(self.accuracies, dtype=torch.float64).std())


def draw_shots(targets: Tensor, shots: int, seed: int) -> Tensor:
    """Places of ``shots`` examples of each class that occurs, class by class.

    Args:
        targets: int64 (N,).
        shots: examples a class, no more than the smallest class has.
        seed: of the draw.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = []
    for label in targets.unique(sorted=True):
        members = (targets == label).nonzero().flatten()
        chosen.append(members[torch.randperm(len(members), generator=generator)[:shots]])
    return torch.cat(chosen)


def centroids(features: Tensor, targets: Tensor, num_classes: int) -> Tensor:
    """Mean feature of each class, (classes, C); infinitely far off where a class has none."""
    sums = features.new_zeros(num_classes, features.shape[1]).index_add_(0, targets, features)
    counts = torch.bincount(targets, minlength=num_classes)[:, None]
    return torch.where(counts > 0, sums / counts.clamp(min=1), torch.inf)


def nearest_centroid(points: Tensor, centres: Tensor) -> Tensor:
    """Which of the centres (classes, C) is nearest to each point (N, C), int64 (N,)."""
    # Infinities less infinities are not numbers: a class that has no centre is put last by hand.
    there = centres.isfinite().all(1)
    return torch.cdist(points, centres).where(there, torch.inf).argmin(1)


def by_centroids(examples: Labelled, points: Tensor, num_classes: int) -> Tensor:
    """The class whose normalised examples' mean is nearest, int64 (N,).

    Args:
        examples: of each class.
        points: features (N, C) to be classified.
        num_classes: of both.
    """
    centres = centroids(F.normalize(examples[0], dim=1), examples[1], num_classes)
    return nearest_centroid(F.normalize(points, dim=1), centres)


def by_ridge(examples: Labelled, points: Tensor, num_classes: int) -> Tensor:
    """The class with the largest output of a linear map that is fitted to +1 and -1 by least
    squares, its weights held back by :data:`RIDGE_L2`; int64 (N,). Args as of
    :func:`by_centroids`.
    """
    # Some accelerators have no float64.
    exact = torch.float32 if points.device.type == "mps" else torch.float64
    own = examples[0].to(exact)
    mean, std = own.mean(0), own.std(0, correction=0) + 1e-5

    def standardised(features: Tensor) -> Tensor:
        return F.pad((features.to(exact) - mean) / std, (0, 1), value=RIDGE_BIAS)

    x = standardised(own)
    goal = 2.0 * F.one_hot(examples[1], num_classes).to(exact) - 1.0
    # There are fewer examples than features, mostly: then the smaller system is theirs.
    if len(x) < x.shape[1]:
        held = x @ x.T + RIDGE_L2 * torch.eye(len(x), dtype=x.dtype, device=x.device)
        weights = x.T @ torch.linalg.solve(held, goal)
    else:
        held = x.T @ x + RIDGE_L2 * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        weights = torch.linalg.solve(held, x.T @ goal)
    return (standardised(points) @ weights).argmax(1)


def few_shot(
    bank: Labelled,
    queries: Labelled,
    num_classes: int,
    *,
    classifier: Callable[[Labelled, Tensor, int], Tensor] = by_centroids,
    shots: Sequence[int] = SHOTS,
    draws: int = 10,
    seed: int = 0,
) -> dict[int, FewShot]:
    """Accuracy by examples a class; numbers larger than the smallest class are left out.

    Args:
        bank: that examples are drawn from.
        queries: what is classified.
        num_classes: of both.
        classifier: :func:`by_centroids`, :func:`by_ridge` or another one like them.
        shots: examples a class.
        draws: how often they are drawn.
        seed: of the draws; draw d has the seed ``seed * draws + d``, for every number of shots.
    """
    features, targets = bank[0], bank[1].cpu()
    counts = torch.bincount(targets)
    smallest = int(counts[counts > 0].min())
    found = {}
    for count in shots:
        if count > smallest:
            continue
        accuracies = []
        for draw in range(draws):
            chosen = draw_shots(targets, count, seed * draws + draw).to(features.device)
            examples = features[chosen], bank[1][chosen]
            right = classifier(examples, queries[0], num_classes) == queries[1]
            accuracies.append(int(right.sum()) / len(right))
        found[count] = FewShot(tuple(accuracies))
    return found
