"""Points against points: distances that know no unit, weighted by the model's own confidence."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from examples.two_view.heads import PointMap

__all__ = ["confidence_loss", "point_error", "scale_free_distances"]


def scale_free_distances(predicted: Sequence[Tensor], true: Sequence[Tensor]) -> list[Tensor]:
    """Distance of each predicted point, each side divided by its mean distance from the origin.

    Args:
        predicted: points of each view, (B, height, width, 3).
        true: the same.

    Returns:
        (B, height, width) for each view; the mean distance of all true points is 1.
    """
    scale, true_scale = _mean_norm(predicted), _mean_norm(true)
    pairs = zip(predicted, true, strict=True)
    return [(p / scale - t / true_scale).norm(dim=-1) for p, t in pairs]


def confidence_loss(
    predicted: Sequence[PointMap], true: Sequence[Tensor], *, alpha: float = 0.2
) -> Tensor:
    """Mean over views and pixels of confidence x distance - alpha x log confidence.

    Args:
        predicted: of each view.
        true: points of each view, (B, height, width, 3).
        alpha: what being sure is worth.

    Source: Wang et al., "DUSt3R", arXiv 2312.14132, equations 2 to 4.
    """
    distances = scale_free_distances([view.points for view in predicted], true)
    losses = [
        (view.confidence * distance - alpha * view.confidence.log()).mean()
        for view, distance in zip(predicted, distances, strict=True)
    ]
    return torch.stack(losses).mean()


def point_error(predicted: Sequence[Tensor], true: Sequence[Tensor]) -> Tensor:
    """Mean distance of each example's points, as a share of their mean distance: (B,)."""
    distances = scale_free_distances(predicted, true)
    return torch.stack([d.flatten(1).mean(dim=1) for d in distances]).mean(dim=0)


def _mean_norm(views: Sequence[Tensor]) -> Tensor:
    """Of all points of all views of an example: (B, 1, 1, 1)."""
    norms = torch.cat([points.norm(dim=-1).flatten(1) for points in views], dim=1)
    return norms.mean(dim=1).clamp(min=1e-8)[:, None, None, None]
