"""Classes by a vote of the nearest features, with nothing to fit.

Source: M. Caron et al., "Emerging properties in self-supervised vision transformers"
(arXiv 2104.14294): cosine similarity s, each neighbour's vote weighs exp(s / T), T = 0.07.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["NEIGHBOURS", "TEMPERATURE", "nearest", "neighbour_accuracies", "votes"]

NEIGHBOURS = (10, 20, 100, 200)
TEMPERATURE = 0.07
HELD = 2**24
"""Similarities held at a time, however many pictures there are."""


def nearest(bank: Tensor, queries: Tensor, k: int, *, held: int = HELD) -> tuple[Tensor, Tensor]:
    """Cosine similarities (M, k), falling, of each query to its nearest in the bank, and their
    places (M, k).

    Args:
        bank: (N, C).
        queries: (M, C).
        k: up to N.
        held: similarities in memory at a time.
    """
    known = F.normalize(bank, dim=1).T
    asked = F.normalize(queries, dim=1)
    parts = [(part @ known).topk(k, dim=1) for part in asked.split(max(1, held // len(bank)))]
    return torch.cat([p.values for p in parts]), torch.cat([p.indices for p in parts])


def votes(
    similarities: Tensor, labels: Tensor, num_classes: int, temperature: float = TEMPERATURE
) -> Tensor:
    """What each class gets of the neighbours' votes, up to a factor a query: (M, classes).

    Args:
        similarities: (M, k), the largest first.
        labels: int64 (M, k), the neighbours' classes.
        num_classes: of the result.
        temperature: what similarities are divided by.
    """
    # Less the largest, which changes no order and keeps the exponential small.
    weights = ((similarities - similarities[:, :1]) / temperature).exp()
    out = weights.new_zeros(len(weights), num_classes)
    return out.scatter_add_(1, labels, weights)


def neighbour_accuracies(
    bank: tuple[Tensor, Tensor],
    queries: tuple[Tensor, Tensor],
    num_classes: int,
    *,
    ks: Sequence[int] = NEIGHBOURS,
    temperature: float = TEMPERATURE,
) -> dict[int, float]:
    """Accuracy by number of neighbours; numbers larger than the bank are left out.

    Args:
        bank, queries: features (N, C) and targets (N,).
        num_classes: of both.
        ks: numbers of neighbours.
        temperature: see :func:`votes`.
    """
    fit = [k for k in ks if k <= len(bank[1])]
    if not fit:
        return {}
    similarities, places = nearest(bank[0], queries[0], max(fit))
    labels = bank[1][places]
    found = {}
    for k in fit:
        said = votes(similarities[:, :k], labels[:, :k], num_classes, temperature).argmax(1)
        found[k] = int((said == queries[1]).sum()) / len(said)
    return found
