"""How far a few labelled examples a class go: nearest centroids of normalised features.

Source: Y. Wang et al., "SimpleShot: revisiting nearest-neighbor classification for few-shot
learning" (arXiv 1911.04623), its L2-normalised kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["SHOTS", "FewShot", "centroids", "draw_shots", "few_shot", "nearest_centroid"]

SHOTS = (1, 5, 10)


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


def few_shot(
    bank: tuple[Tensor, Tensor],
    queries: tuple[Tensor, Tensor],
    num_classes: int,
    *,
    shots: Sequence[int] = SHOTS,
    draws: int = 10,
    seed: int = 0,
) -> dict[int, FewShot]:
    """Accuracy by examples a class; numbers larger than the smallest class are left out.

    Args:
        bank: features (N, C) and targets (N,) that examples are drawn from.
        queries: the same, of what is classified.
        num_classes: of both.
        shots: examples a class.
        draws: how often they are drawn.
        seed: of the draws; draw d has the seed ``seed * draws + d``, for every number of shots.
    """
    features, targets = F.normalize(bank[0], dim=1), bank[1].cpu()
    points = F.normalize(queries[0], dim=1)
    counts = torch.bincount(targets)
    smallest = int(counts[counts > 0].min())
    found = {}
    for count in shots:
        if count > smallest:
            continue
        accuracies = []
        for draw in range(draws):
            chosen = draw_shots(targets, count, seed * draws + draw).to(features.device)
            centres = centroids(features[chosen], bank[1][chosen], num_classes)
            right = nearest_centroid(points, centres) == queries[1]
            accuracies.append(int(right.sum()) / len(right))
        found[count] = FewShot(tuple(accuracies))
    return found
