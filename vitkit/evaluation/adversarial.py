"""Images changed so that the model errs: each value by no more than epsilon, or all of an image's
values together, as the Euclidean length of the change.

Pixels are scaled to [0, 1] and normalisation belongs to the model, so that epsilon is a share of
the distance from black to white.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from vitkit.evaluation.corruptions.randomness import Draws

__all__ = ["STEP_SHARE", "fgsm", "pgd", "pgd_l2"]

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
    return (images + epsilon * _input_gradient(predict, images, targets).sign()).clamp(0, 1)


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
        found = found + step * _input_gradient(predict, found, targets).sign()
        found = torch.minimum(torch.maximum(found, low), high)
    return found


def pgd_l2(
    predict: Predict,
    images: Tensor,
    targets: Tensor,
    epsilon: float,
    *,
    steps: int = 20,
    indices: Tensor | None,
    seed: int = 0,
) -> Tensor:
    """Projected gradient descent where the whole change of an image is no longer than epsilon.

    Each step goes 2.5 epsilon / ``steps`` along the gradient, whose length does not count; what is
    then too long is shortened to epsilon, and values outside [0, 1] are cut off, which only
    shortens it further.

    Args:
        predict, images, targets: as of :func:`fgsm`.
        epsilon: largest Euclidean length of the change, over all values of an image: 0.5 is usual
            for CIFAR's 32 pixels.
        steps: how many.
        indices: int64 (B,): the images' places in their split, which set their start, evenly
            spread over the ball; None: from the images themselves.
        seed: of the start.

    Returns:
        images in [0, 1].

    Source: Madry et al., arXiv 1706.06083; the step's length of Engstrom et al.'s robustness
    library.
    """
    found = images
    if indices is not None:
        start = _in_ball(Draws(seed, indices.to(images.device), "attack l2"), images.shape[1:])
        found = (images + epsilon * start).clamp(0, 1)
    step = STEP_SHARE * epsilon / steps
    for _ in range(steps):
        gradient = _input_gradient(predict, found, targets)
        change = found + step * gradient / _lengths(gradient) - images
        change = change * (epsilon / _lengths(change)).clamp(max=1)
        found = (images + change).clamp(0, 1)
    return found


def _in_ball(draws: Draws, shape: torch.Size) -> Tensor:
    """Points evenly spread over the ball of radius 1, float32 (B, *shape)."""
    ways = draws.normal(0, *shape)
    far = draws.uniform(1) ** (1 / shape.numel())
    return ways / _lengths(ways) * far.view(-1, *[1] * len(shape))


def _lengths(x: Tensor) -> Tensor:
    """Each image's Euclidean length, (B, 1, 1, 1); never 0, so that one may divide by it."""
    flat, tiny = x.flatten(1), torch.finfo(x.dtype).tiny
    # By the largest value first: the squares of a sure model's gradient may vanish.
    largest = flat.abs().amax(1, keepdim=True).clamp(min=tiny)
    lengths = largest * torch.linalg.vector_norm(flat / largest, dim=1, keepdim=True)
    return lengths.clamp(min=tiny).view(-1, *[1] * (x.ndim - 1))


def _input_gradient(predict: Predict, images: Tensor, targets: Tensor) -> Tensor:
    """The gradient of each image's own loss."""
    with torch.enable_grad():
        given = images.detach().clone().requires_grad_(True)
        # A sum, so that no image's gradient depends on how many there are.
        loss = F.cross_entropy(predict(given).float(), targets, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, given)
    return gradient
