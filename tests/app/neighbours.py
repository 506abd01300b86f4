"""What scikit-learn's nearest neighbours make of features."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.neighbors import KNeighborsClassifier

__all__ = ["accuracy_of_neighbours"]


def accuracy_of_neighbours(count: int, known: tuple[Any, Any], asked: tuple[Any, Any]) -> float:
    """Accuracy of a vote of the nearest, each of a cosine similarity s with exp(s / 0.07).

    Args:
        count: of the neighbours.
        known, asked: features (N, C) and targets (N,) of those that vote, and of those to be told.
    """
    nearest = KNeighborsClassifier(
        count, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / 0.07)
    )
    nearest.fit(*map(np.asarray, known))
    return float(nearest.score(*map(np.asarray, asked)))
