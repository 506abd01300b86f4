"""Filters against scikit-learn's PCA, positions against its cosine and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.metrics.pairwise import cosine_similarity
from torch import nn

from tests.explain.subjects import GRID, MODELS, build
from vitkit.errors import EvaluationError
from vitkit.explain import patch_filters, position_similarity, principal_components
from vitkit.models import create_model


@pytest.mark.parametrize(("count", "width"), [(40, 7), (5, 12)])
def test_principal_components_are_scikit_learns(count: int, width: int) -> None:
    draw = torch.Generator().manual_seed(0)
    rows = torch.randn(count, width, generator=draw) * torch.arange(1, width + 1) + 3.0
    components, shares = principal_components(rows)
    theirs = PCA().fit(rows.numpy().astype(np.float64))
    usable = min(count - 1, width)  # the rest has no variance, and any direction
    for index in range(usable):
        cosine = float(components[index].numpy() @ theirs.components_[index])
        assert abs(cosine) == pytest.approx(1.0, abs=1e-4)
    expected = theirs.explained_variance_ratio_[:usable]
    np.testing.assert_allclose(shares[:usable].numpy(), expected, rtol=1e-4, atol=1e-6)
    largest = components.gather(1, components.abs().argmax(1, keepdim=True))
    assert (largest > 0).all()


def test_components_of_nothing() -> None:
    components, shares = principal_components(torch.ones(4, 3))
    assert components.isfinite().all() and shares.eq(0).all()


@pytest.mark.parametrize("name", MODELS)
def test_filters_of_every_family(name: str) -> None:
    model = build(name)
    filters = patch_filters(model, 5)
    first = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
    assert filters.components.shape == (5, 3, *first.kernel_size)
    flat = filters.components.flatten(1)
    torch.testing.assert_close(flat @ flat.T, torch.eye(5), rtol=0, atol=1e-5)
    kernels = first.weight.detach().flatten(1).numpy()
    centred = kernels - kernels.mean(0)
    values = np.linalg.svd(centred.astype(np.float64), compute_uv=False) ** 2
    np.testing.assert_allclose(filters.shares.numpy(), (values / values.sum())[:5], rtol=1e-4)
    spread = (centred @ flat.numpy().T).var(0)  # what lies along each component
    np.testing.assert_allclose(spread, values[:5] / len(kernels), rtol=1e-3)


def test_filters_of_a_model_without_convolution() -> None:
    with pytest.raises(EvaluationError, match="Linear has no convolution over pixels"):
        patch_filters(nn.Linear(2, 2))


@pytest.mark.parametrize("name", MODELS)
def test_positions_of_every_family(name: str) -> None:
    model = build(name)
    alike = position_similarity(model)
    assert alike.shape == (*GRID, *GRID)
    count = GRID[0] * GRID[1]
    square = alike.reshape(count, count)
    torch.testing.assert_close(square, square.T)
    torch.testing.assert_close(square.diagonal(), torch.ones(count))
    if name != "rotary":
        table = model.pos_embed.detach()[0, -count:].numpy()
        np.testing.assert_allclose(square.numpy(), cosine_similarity(table), atol=1e-5)


def test_rotary_positions_by_their_angles() -> None:
    alike = position_similarity(build("rotary"))
    # Head width 8: two wavelengths for rows and two for columns, of base 100.
    turns = [100.0 ** (-i / 2) for i in range(2)]
    for one in ((0, 0), (3, 5), (2, 1)):
        for other in ((0, 0), (1, 4), (3, 0)):
            away = [a - b for a, b in zip(one, other, strict=True)]
            expected = sum(math.cos(d * f) for d in away for f in turns) / 4
            assert alike[one][other].item() == pytest.approx(expected, abs=1e-5)


def test_no_positions() -> None:
    model = create_model("vit_mini_patch4_32", depth=1, embed_dim=16, pos_embed="none")
    with pytest.raises(EvaluationError, match="VisionTransformer has no position embedding"):
        position_similarity(model)
    with pytest.raises(EvaluationError, match="not built of patches and blocks"):
        position_similarity(create_model("resnet20_32", depth=8, embed_dim=16))
