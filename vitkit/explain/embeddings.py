"""A data set as a map: the vector that the classifier reads of each image, in two dimensions.

Sources: van der Maaten & Hinton, "Visualizing data using t-SNE", JMLR 9 (2008); McInnes et al.,
"UMAP", arXiv 1802.03426.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from sklearn.manifold import TSNE
from torch import Tensor, nn

from vitkit.errors import ConfigError, EvaluationError
from vitkit.explain.filters import principal_components
from vitkit.nn import evaluating
from vitkit.nn import pooled_features as nn_pooled_features

__all__ = ["METHODS", "embedding_map", "pooled_features"]

PERPLEXITY = 30.0
NEIGHBORS = 15


@torch.no_grad()
def pooled_features(model: nn.Module, images: Tensor) -> Tensor:
    """What the classifier reads of each image.

    Args:
        model: one with ``forward_features`` and ``forward_head``, as vitkit's and timm's have.
        images: its input, float (B, channels, height, width).

    Returns:
        float32 (B, features), in evaluation.

    Raises:
        EvaluationError: another kind of model.
    """
    if not hasattr(model, "forward_features") or not hasattr(model, "forward_head"):
        raise EvaluationError(
            f"{type(model).__name__} cannot be asked for features: it has no forward_features and "
            "forward_head"
        )
    with evaluating(model):
        return nn_pooled_features(model, images).float()


def embedding_map(features: Tensor, method: str = "pca", *, seed: int = 0) -> Tensor:
    """Lay points of many dimensions out in two.

    Args:
        features: float (n, d).
        method: ``pca``; ``tsne`` (scikit-learn's, started from the principal components);
            ``umap`` (needs the extra ``umap``).
        seed: of what is random in t-SNE and UMAP.

    Returns:
        float32 (n, 2), centred. Distances mean something in ``pca`` only; in the others,
        neighbourhoods do.

    Raises:
        ConfigError: another method, or its library is not installed.
        EvaluationError: too few points, or values that are not finite.
    """
    if method not in METHODS:
        raise ConfigError(f"embedding {method!r}; allowed: {', '.join(METHODS)}")
    if len(features) < 3 or not features.isfinite().all():
        raise EvaluationError(
            f"an embedding map needs 3 images or more with finite features, given {len(features)}"
        )
    placed = METHODS[method](features.detach().float().cpu(), seed)
    return placed - placed.mean(dim=0)


def _pca(features: Tensor, seed: int) -> Tensor:
    centred = features - features.mean(dim=0)
    components, _ = principal_components(features)
    placed = centred @ components[:2].T
    missing = 2 - placed.shape[1]  # features of one dimension lie on a line
    return torch.cat([placed, placed.new_zeros(len(placed), missing)], dim=1)


def _tsne(features: Tensor, seed: int) -> Tensor:
    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    start = "pca" if features.shape[1] > 1 else "random"
    method = TSNE(perplexity=perplexity, init=start, random_state=seed, n_jobs=1)
    return torch.from_numpy(np.asarray(method.fit_transform(features.numpy()), dtype=np.float32))


def _umap(features: Tensor, seed: int) -> Tensor:
    try:
        from umap import UMAP  # an extra
    except ImportError as error:
        raise ConfigError(
            "embedding 'umap' needs umap-learn: pip install 'vitkit[umap]'; or take pca or tsne"
        ) from error
    neighbours = min(NEIGHBORS, len(features) - 1)
    method = UMAP(n_neighbors=neighbours, random_state=seed, n_jobs=1)
    return torch.from_numpy(np.asarray(method.fit_transform(features.numpy()), dtype=np.float32))


METHODS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "pca": _pca,
    "tsne": _tsne,
    "umap": _umap,
}
"""Name of a method -> function of (features, seed)."""
