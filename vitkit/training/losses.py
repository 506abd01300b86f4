"""Losses as pure functions: tensors in, one number out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["balanced_class_weights", "classification_loss"]


def classification_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Cross-entropy in float32.

    Args:
        logits: (B, classes).
        targets: int64 (B,), or probabilities (B, classes) after mixing.
        label_smoothing: share of the target spread evenly over all classes.
        class_weights: (classes,); each image's loss is scaled by its class's.
    """
    return F.cross_entropy(
        logits.float(), targets, weight=class_weights, label_smoothing=label_smoothing
    )


def balanced_class_weights(counts: tuple[int, ...]) -> Tensor:
    """Weights inverse to the class counts, with mean one over the images; absent classes get 0."""
    seen = torch.tensor(counts, dtype=torch.float64)
    present = (seen > 0).sum()
    weights = torch.where(seen > 0, seen.sum() / (present * seen.clamp(min=1)), 0.0)
    return weights.float()
