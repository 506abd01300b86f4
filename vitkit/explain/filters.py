"""What a model looks for first: the principal components of its patch-embedding filters.

Source: Dosovitskiy et al., "An image is worth 16x16 words", arXiv 2010.11929, figure 7 (left).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitkit.errors import EvaluationError

__all__ = ["PatchFilters", "patch_filters", "principal_components"]


@dataclass(frozen=True)
class PatchFilters:
    """Principal components of the filters that a model begins with.

    Attributes:
        components: float32 (K, channels, height, width), of length one, by falling variance; of
            each the value farthest from zero is positive.
        shares: float32 (K,): share of the filters' variance along each.
    """

    components: Tensor
    shares: Tensor


@torch.no_grad()
def patch_filters(model: nn.Module, count: int = 28) -> PatchFilters:
    """Principal components of the first convolution's kernels.

    For a plain ViT that convolution is the patch embedding; with a stem it is the stem's first
    layer.

    Args:
        model: any with a convolution over pixels.
        count: K at most.

    Raises:
        EvaluationError: it has no convolution.
    """
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    if first is None:
        raise EvaluationError(f"{type(model).__name__} has no convolution over pixels")
    kernels = first.weight.float()
    components, shares = principal_components(kernels.flatten(1))
    return PatchFilters(components[:count].unflatten(1, kernels.shape[1:]), shares[:count])


def principal_components(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Principal component analysis.

    Args:
        rows: float (n, d), observations.

    Returns:
        Components (k, d) with k = min(n, d), of length one, by falling variance, each signed so
        that its value farthest from zero is positive; share of the variance along each, (k,).
    """
    centred = rows - rows.mean(dim=0)
    _, lengths, components = torch.linalg.svd(centred, full_matrices=False)
    farthest = components.abs().argmax(dim=1, keepdim=True)
    components = components * components.gather(1, farthest).sign()
    variances = lengths.square()
    return components, variances / variances.sum().clamp(min=torch.finfo(variances.dtype).tiny)
