"""Attention entropy against scipy's, and where it is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from tests.explain.subjects import MODELS, build, pictures
from vitkit.errors import EvaluationError
from vitkit.explain import attention_entropy, attention_maps, mean_attention_entropy
from vitkit.models import create_model


def test_one_token_all_tokens_and_half_of_them() -> None:
    count = 8
    half = torch.zeros(count, count)
    half[:, :4] = 1 / 4
    maps = torch.stack([torch.eye(count), torch.full((count, count), 1 / count), half])
    found = attention_entropy(maps)
    torch.testing.assert_close(found, torch.tensor([0.0, math.log(8), math.log(4)]))
    mixed = torch.cat([torch.eye(count)[:4], half[4:]])
    torch.testing.assert_close(attention_entropy(mixed), torch.tensor(math.log(4) / 2))


@pytest.mark.parametrize("name", MODELS)
def test_of_every_family_it_is_scipys(name: str) -> None:
    model, images = build(name), pictures()
    found = mean_attention_entropy(model, images)
    maps = attention_maps(model, images)
    assert found.shape == maps.shape[:3] and found.dtype == torch.float32
    expected = stats.entropy(maps.double().numpy(), axis=-1).mean(-1)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-6)
    assert (found > 0).all() and (found < math.log(maps.shape[-1])).all()


def test_a_model_without_attention_has_none() -> None:
    mixer = create_model("nb02_mixer", img_size=16, patch_size=4, embed_dim=16)
    with pytest.raises(EvaluationError, match="no attention that can be read"):
        mean_attention_entropy(mixer, torch.randn(1, 3, 16, 16))
