"""Rollout against plain loops in numpy (largest difference seen: 1.5e-7), and its head's view."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.explain.subjects import GRID, MODELS, PREFIX, build, pictures
from vitkit.errors import ConfigError, EvaluationError
from vitkit.explain import attention_maps, attention_rollout, rollout
from vitkit.models import create_model


def by_loops(
    maps: np.ndarray[Any, Any], fusion: str, discard: float, class_token: bool = True
) -> np.ndarray[Any, Any]:
    """One image: (L, H, N, N) -> (N, N)."""
    count = maps.shape[-1]
    out = np.eye(count)
    for heads in maps.astype(np.float64):
        fused = {"mean": np.mean, "max": np.max, "min": np.min}[fusion](heads, axis=0)
        order = np.argsort(fused, axis=None, kind="stable")
        for flat in order[: int(discard * count * count)]:
            if flat == 0 and class_token:
                continue
            fused[flat // count, flat % count] = 0.0
        mixed = np.zeros((count, count))
        for i in range(count):
            row = [fused[i, j] + (i == j) for j in range(count)]
            for j in range(count):
                mixed[i, j] = row[j] / sum(row)
        out = mixed @ out
    return out


def random_maps(batch: int = 2, layers: int = 3, heads: int = 2, count: int = 7) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    return (2 * torch.randn(batch, layers, heads, count, count, generator=draw)).softmax(-1)


@pytest.mark.parametrize("fusion", ["mean", "max", "min"])
@pytest.mark.parametrize("discard", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("class_token", [True, False])
def test_rollout_by_loops(fusion: str, discard: float, class_token: bool) -> None:
    maps = random_maps()
    found = rollout(maps, fusion=fusion, discard=discard, class_token=class_token)
    for one, own in zip(found, maps, strict=True):
        loops = by_loops(own.numpy(), fusion, discard, class_token)
        expected = torch.from_numpy(loops).float()
        torch.testing.assert_close(one, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.sum(-1), torch.ones(2, 7))


def test_what_a_class_token_keeps_of_itself_is_not_discarded() -> None:
    """Seven of nine entries go, 0.7 and 0.6 stay, and with a class token its own 0.1."""
    maps = torch.tensor([[0.1, 0.2, 0.7], [0.3, 0.6, 0.1], [0.4, 0.35, 0.25]])[None, None, None]
    for class_token, own in ((True, 1.1), (False, 1.0)):
        found = rollout(maps, discard=0.78, class_token=class_token)[0]
        first = torch.tensor([own, 0.0, 0.7]) / (own + 0.7)
        torch.testing.assert_close(found, torch.stack([first, *torch.eye(3)[1:]]))


@pytest.mark.parametrize("name", ["token", "average"])
def test_only_a_model_with_a_class_token_keeps_it(name: str) -> None:
    model, images = build(name), pictures()
    maps = attention_maps(model, images)
    whole = rollout(maps, discard=0.9, class_token=name == "token")
    rows = whole[:, 0, 1:] if name == "token" else whole.mean(1)
    found = attention_rollout(model, images, discard=0.9)
    torch.testing.assert_close(found.flatten(1), rows, rtol=1e-4, atol=1e-6)


def test_an_image_does_not_depend_on_its_neighbours() -> None:
    maps = random_maps()
    alone = rollout(maps[1:], discard=0.5)
    torch.testing.assert_close(rollout(maps, discard=0.5)[1:], alone)


def test_plain_cases() -> None:
    eye = torch.eye(5).expand(1, 4, 2, 5, 5)
    assert torch.equal(rollout(eye)[0], torch.eye(5))
    uniform = torch.full((1, 1, 1, 4, 4), 0.25)
    expected = torch.full((4, 4), 0.125) + 0.5 * torch.eye(4)
    torch.testing.assert_close(rollout(uniform)[0], expected)


@pytest.mark.parametrize("name", MODELS)
def test_the_rows_that_the_head_reads(name: str) -> None:
    model, images = build(name), pictures()
    found = attention_rollout(model, images)
    assert found.shape == (2, *GRID) and found.dtype == torch.float32
    prefix = PREFIX.get(name, 0)
    whole = rollout(attention_maps(model, images))
    with torch.no_grad():
        tokens = model.forward_features(images)
    if name in ("cct", "cvt"):
        weights = torch.softmax(tokens @ model.seq_pool.score.weight[0], dim=1)
        rows = torch.einsum("bn,bnm->bm", weights, whole)
    elif name == "map":
        pool = model.attn_pool
        query = (pool.q(pool.latent[0]) * 8**-0.5).view(1, 3, 8)
        key = pool.kv(tokens)[..., :24].view(2, -1, 3, 8)
        scores = torch.einsum("qhd,bnhd->bhn", query, key)
        rows = torch.einsum("bn,bnm->bm", scores.softmax(-1).mean(1), whole)
    elif name in ("distilled", "timm_distilled"):
        rows = whole[:, :2].mean(1)
    elif prefix and name != "average_of_normed":
        rows = whole[:, 0]
    else:
        rows = whole[:, prefix:].mean(1)
    torch.testing.assert_close(found.flatten(1), rows[:, prefix:], rtol=1e-4, atol=1e-6)
    assert (found >= 0).all()


def test_what_cannot_be_rolled_out() -> None:
    maps = random_maps()
    with pytest.raises(ConfigError, match="fusion 'sum'; allowed: mean, max, min"):
        rollout(maps, fusion="sum")
    for share in (-0.1, 1.0):
        with pytest.raises(ConfigError, match="allowed: a share"):
            rollout(maps, discard=share)
    hybrid = create_model("nb03_2mixer_vit", img_size=16, patch_size=4, embed_dim=16, num_classes=5)
    said = r"rollout follows tokens .* 2 of 3 blocks .* \(MixerBlock\); look at its attention maps"
    with pytest.raises(EvaluationError, match=said):
        attention_rollout(hybrid, torch.randn(1, 3, 16, 16))
