"""Losses as pure functions: tensors in, one number out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["balanced_class_weights", "classification_loss", "token_loss"]


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
    if class_weights is None:
        return F.cross_entropy(logits.float(), targets, label_smoothing=label_smoothing)
    # torch's own weights scale the smoothed part class by class, which pulls the images of a
    # common class to the rare ones.
    each = F.cross_entropy(
        logits.float(), targets, label_smoothing=label_smoothing, reduction="none"
    )
    hard = targets.ndim == 1
    scale = class_weights[targets] if hard else (targets * class_weights).sum(dim=1)
    return (each * scale).mean()


def token_loss(logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy over all tokens, in float32.

    Args:
        logits: (B, N, vocab_size).
        targets: int64 (B, N), -100 where there is none.
        label_smoothing: share of each target spread evenly over all tokens, the right one included.
    """
    return F.cross_entropy(
        logits.flatten(0, 1).float(), targets.flatten(), label_smoothing=label_smoothing
    )


def balanced_class_weights(counts: tuple[int, ...]) -> Tensor:
    """Weights inverse to the class counts, with mean one over the images; absent classes get 0."""
    seen = torch.tensor(counts, dtype=torch.float64)
    present = (seen > 0).sum()
    weights = torch.where(seen > 0, seen.sum() / (present * seen.clamp(min=1)), 0.0)
    return weights.float()
