"""Maps of a data set: PCA against scikit-learn's, the others by what they must keep."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn

from tests.explain.subjects import CLASSES, build, pictures
from vitkit.errors import ConfigError, EvaluationError
from vitkit.explain import embedding_map, pooled_features


def clusters(count: int = 30, width: int = 6) -> tuple[Tensor, Tensor]:
    """Two clouds ten standard deviations apart."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 2
    return torch.randn(count, width, generator=draw) + 10.0 * labels[:, None], labels


def test_pca_is_scikit_learns() -> None:
    features, _ = clusters()
    found = embedding_map(features)
    expected = PCA(2).fit_transform(features.numpy().astype(np.float64))
    for axis in range(2):
        sign = np.sign(found[:, axis].numpy() @ expected[:, axis])
        np.testing.assert_allclose(found[:, axis].numpy(), sign * expected[:, axis], atol=1e-3)
    assert embedding_map(features[:, :1]).shape == (30, 2)


def test_tsne_keeps_neighbours_and_is_reproducible() -> None:
    features, labels = clusters()
    found = embedding_map(features, "tsne", seed=3)
    assert found.shape == (30, 2) and found.dtype == torch.float32
    assert torch.equal(embedding_map(features, "tsne", seed=3), found)
    distances = torch.cdist(found, found).fill_diagonal_(float("inf"))
    assert torch.equal(labels[distances.argmin(1)], labels)
    torch.testing.assert_close(found.mean(0), torch.zeros(2), rtol=0, atol=1e-3)


def test_umap_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    features, _ = clusters()
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(ConfigError, match=r"pip install 'vitkit\[umap\]'") as told:
        embedding_map(features, "umap")
    assert "\n" not in str(told.value)

    class FirstTwo:
        def __init__(self, **given: Any) -> None:
            assert given == {"n_neighbors": 15, "random_state": 7, "n_jobs": 1}

        def fit_transform(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            return rows[:, :2]

    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=FirstTwo))
    expected = features[:, :2] - features[:, :2].mean(0)
    torch.testing.assert_close(embedding_map(features, "umap", seed=7), expected)


def test_what_cannot_be_laid_out() -> None:
    features, _ = clusters()
    with pytest.raises(ConfigError, match="embedding 'mds'; allowed: pca, tsne, umap"):
        embedding_map(features, "mds")
    with pytest.raises(EvaluationError, match="3 images or more"):
        embedding_map(features[:2])
    features[3, 3] = float("nan")
    with pytest.raises(EvaluationError, match="finite features"):
        embedding_map(features)


def test_features_are_what_the_classifier_reads() -> None:
    for name in ("token", "average", "cct", "timm"):
        model, images = build(name), pictures()
        features = pooled_features(model.train(), images)
        assert model.training and not features.requires_grad
        with torch.no_grad():
            logits = model.head(features)
            torch.testing.assert_close(logits, model.eval()(images), rtol=1e-4, atol=1e-5)
        assert logits.shape == (2, CLASSES)
    with pytest.raises(EvaluationError, match="Linear cannot be asked for features"):
        pooled_features(nn.Linear(2, 2), pictures())
