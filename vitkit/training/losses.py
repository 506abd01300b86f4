"""Losses as pure functions: tensors in, one number out."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["balanced_class_weights", "classification_loss", "token_loss"]

LARGE = 2**20
"""Logits from which on the loss is computed in place; below, torch's fewer calls are quicker."""
CHUNK = 2**18
"""Logits that are taken at a time, 1 MB: they stay in the cache."""


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
        targets: int64 (B,), or probabilities (B, classes) after mixing, not smoothed yet.
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

    Where a gradient is wanted of many logits on a CPU, it takes the place of the logits, in their
    format: read them before.

    Args:
        logits: (B, N, vocab_size).
        targets: int64 (B, N), -100 where there is none.
        label_smoothing: share of each target spread evenly over all tokens, the right one included.
    """
    flat = logits.flatten(0, 1)
    if flat.is_cpu and flat.requires_grad and not logits.is_leaf and flat.numel() > LARGE:
        loss: Tensor = _LossInPlace.apply(flat, targets.flatten(), label_smoothing)  # type: ignore[no-untyped-call]
        return loss
    return F.cross_entropy(flat.float(), targets.flatten(), label_smoothing=label_smoothing)


class _LossInPlace(torch.autograd.Function):
    """Cross-entropy in pieces of a few rows, which overwrites the logits with their gradient.

    A translator's logits are the largest tensor of its step. torch reads or writes five of that
    size beyond the head's matrix products; here each row is in the cache from its logits to its
    gradient: half of head and loss together, at 3,920 tokens, 10,000 different ones, width 128.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
        """Logits (tokens, vocab_size), contiguous; targets (tokens,)."""
        gradient = logits.detach()  # will be one
        real = targets >= 0
        share = (real.float() / real.sum())[:, None]
        right, total = targets.clamp(min=0)[:, None], share.new_zeros(())
        rows = max(1, CHUNK // logits.shape[1])
        for own, t, w in zip(*(x.split(rows) for x in (gradient, right, share)), strict=True):
            z = own.float()  # themselves, where they are
            chosen, mean = z.gather(1, t), z.mean(dim=1, keepdim=True)
            top = z.amax(dim=1, keepdim=True)
            norm = z.sub_(top).exp_().sum(dim=1, keepdim=True)
            wanted = (1 - smoothing) * chosen + smoothing * mean
            total += (w * (top + norm.log() - wanted)).sum()
            z.mul_(w / norm).sub_(w * (smoothing / z.shape[1]))
            z.scatter_add_(1, t, (smoothing - 1) * w)
            if z is not own:
                own.copy_(z)
        ctx.gradient = gradient
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        """Of the logits alone."""
        return ctx.gradient if grad == 1 else ctx.gradient.mul_(grad), None, None


def balanced_class_weights(counts: tuple[int, ...]) -> Tensor:
    """Weights inverse to the class counts, with mean one over the images; absent classes get 0."""
    seen = torch.tensor(counts, dtype=torch.float64)
    present = (seen > 0).sum()
    weights = torch.where(seen > 0, seen.sum() / (present * seen.clamp(min=1)), 0.0)
    return weights.float()
