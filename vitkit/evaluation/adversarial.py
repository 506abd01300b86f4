"""Images changed so that the model errs, each pixel by no more than epsilon.

Pixels are scaled to [0, 1] and normalisation belongs to the model, so that epsilon is a share of
the distance from black to white.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from vitkit.evaluation.corruptions.randomness import Draws

__all__ = ["STEP_SHARE", "fgsm", "pgd"]

STEP_SHARE = 2.5
"""Steps together reach this many times epsilon, as in MadryLab's code."""

Predict = Callable[[Tensor], Tensor]


def fgsm(predict: Predict, images: Tensor, targets: Tensor, epsilon: float) -> Tensor:
    """One step of epsilon along the sign of the loss's gradient.

    Args:
        predict: images (B, channels, height, width) in [0, 1] -> logits (B, classes),
            differentiable.
        images: float, in [0, 1].
        targets: int64 (B,).
        epsilon: largest change of a value.

    Returns:
        images in [0, 1].

    Source: Goodfellow et al., "Explaining and harnessing adversarial examples", arXiv 1412.6572.
    """
    return (images + epsilon * _sign(predict, images, targets)).clamp(0, 1)


def pgd(
    predict: Predict,
    images: Tensor,
    targets: Tensor,
    epsilon: float,
    *,
    steps: int = 20,
    indices: Tensor,
    seed: int = 0,
) -> Tensor:
    """Projected gradient descent from a random start, in steps of 2.5 epsilon / ``steps``.

    Args:
        predict, images, targets, epsilon: as of :func:`fgsm`.
        steps: how many.
        indices: int64 (B,): the images' places in their split, which set their start.
        seed: of the start.

    Source: Madry et al., "Towards deep learning models resistant to adversarial attacks",
    arXiv 1706.06083.
    """
    draws = Draws(seed, indices.to(images.device), "attack")
    start = draws.uniform(0, *images.shape[1:], low=-epsilon, high=epsilon)
    found = (images + start).clamp(0, 1)
    step = STEP_SHARE * epsilon / steps
    low, high = (images - epsilon).clamp(min=0), (images + epsilon).clamp(max=1)
    for _ in range(steps):
        found = found + step * _sign(predict, found, targets)
        found = torch.minimum(torch.maximum(found, low), high)
    return found


def _sign(predict: Predict, images: Tensor, targets: Tensor) -> Tensor:
    """Sign of the gradient of each image's own loss."""
    with torch.enable_grad():
        given = images.detach().clone().requires_grad_(True)
        # A sum, so that no image's gradient depends on how many there are.
        loss = F.cross_entropy(predict(given).float(), targets, reduction="sum")
        (slope,) = torch.autograd.grad(loss, given)
    return slope.sign()
