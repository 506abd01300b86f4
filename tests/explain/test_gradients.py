"""Relevance against autograd through explicit attention, and on a model that reads one patch.

The largest difference seen from autograd, over the reference's largest value, is 2e-6.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.explain.subjects import (
    CLASSES,
    DEPTH,
    GRID,
    MODELS,
    PREFIX,
    SHAPE,
    TOKEN,
    build,
    count_hooks,
    pictures,
)
from vitkit.errors import ConfigError, EvaluationError
from vitkit.explain import relevance
from vitkit.models import create_model

LIMIT = 1e-4


@contextmanager
def explicit_attention(model: Any) -> Iterator[list[Tensor]]:
    """Attention as a product, a softmax and a product; the softmaxes keep their gradients."""
    seen: list[Tensor] = []

    def attention(q: Tensor, k: Tensor, v: Tensor, **more: Any) -> Tensor:
        scale = more.get("scale") or q.shape[-1] ** -0.5
        weights = torch.softmax(q @ k.transpose(-2, -1) * scale, dim=-1)
        if q.shape[2] == k.shape[2]:  # not attention pooling
            seen.append(weights)
            weights.retain_grad()
        return weights @ v

    def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
        output.retain_grad()
        seen.append(output)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["vitkit.nn.attention"], "attention", attention)
        handles = []
        for module in model.modules():
            if hasattr(module, "fused_attn"):
                patch.setattr(module, "fused_attn", False)
                handles.append(module.attn_drop.register_forward_hook(keep))
        yield seen
        for handle in handles:
            handle.remove()


def by_autograd(model: Any, images: Tensor, targets: Tensor, prefix: int, read: int) -> Tensor:
    """R of the source, whole, then the rows that the head reads."""
    with explicit_attention(model) as seen:
        tokens = model.forward_features(images.clone().requires_grad_())
        tokens.retain_grad()
        logits = model.forward_head(tokens)
    for index, target in enumerate(targets.tolist()):
        logits[index, target].backward(retain_graph=True)
    count = tokens.shape[1]
    out = torch.eye(count).expand(len(images), count, count)
    maps = [weights for weights in seen if weights.grad is not None]
    assert len(maps) == DEPTH
    for weights in maps:
        assert weights.grad is not None
        out = out + (weights.grad * weights).clamp(min=0).mean(1) @ out
    if read:
        rows = out[:, :read].mean(1)
    else:
        said = (tokens.grad * tokens).sum(-1)[:, prefix:]
        said = (said - said.mean(1, keepdim=True)).clamp(min=0)
        rows = torch.einsum("bn,bnm->bm", said / said.sum(1, keepdim=True), out[:, prefix:])
    model.zero_grad(set_to_none=True)
    return rows[:, prefix:].unflatten(1, GRID).detach()


READS = {"distilled": 2, "timm_distilled": 2}
READS |= dict.fromkeys(("token", "registers", "rotary", "sincos", "vit_lite"), 1)
READS |= dict.fromkeys(("timm", "timm_registers", "timm_dynamic"), 1)


@pytest.mark.parametrize("name", MODELS)
def test_relevance_is_autograds_through_explicit_attention(name: str) -> None:
    model, images = build(name), pictures()
    targets = torch.tensor([3, 0])
    expected = by_autograd(model, images, targets, PREFIX.get(name, 0), READS.get(name, 0))
    found = relevance(model, images, targets)
    assert found.shape == (2, *GRID) and found.dtype == torch.float32
    assert not found.requires_grad and (found >= 0).all()
    worst = (found - expected).abs().max() / expected.abs().max()
    assert worst <= LIMIT
    other = relevance(model, images, torch.tensor([1, 2]))
    assert not torch.allclose(other, found)


def test_nothing_is_disturbed_and_any_mode_will_do() -> None:
    model, images = build("token"), pictures()
    with torch.no_grad():
        predicted = model(images).argmax(1)
    expected = relevance(model, images, predicted)
    model.train().requires_grad_(False)
    hooks = count_hooks(model)
    assert torch.equal(relevance(model, images), expected)  # the predicted class, frozen weights
    with torch.no_grad():
        assert torch.equal(relevance(model, images, predicted), expected)
    with torch.inference_mode():
        assert torch.equal(relevance(model, images * 1.0, predicted * 1), expected)
    assert model.training and count_hooks(model) == hooks
    assert not images.requires_grad and all(p.grad is None for p in model.parameters())
    alone = relevance(model, images[1:], predicted[1:])
    torch.testing.assert_close(alone, expected[1:], rtol=1e-4, atol=1e-6)


def test_shared_key_and_value_heads() -> None:
    """Two query heads on one key/value head are two heads with the same keys and values."""
    from vitkit.nn import Attention

    shared, plain = build("token"), build("token")
    for one, other in zip(shared.blocks, plain.blocks, strict=True):
        one.attn = Attention(24, 3, num_kv_heads=1, qkv_bias=True)
        q, k, v = one.attn.qkv.weight.detach().split([24, 8, 8])
        bq, bk, bv = one.attn.qkv.bias.detach().split([24, 8, 8])
        with torch.no_grad():
            other.attn.qkv.weight.copy_(torch.cat([q, k, k, k, v, v, v]))
            other.attn.qkv.bias.copy_(torch.cat([bq, bk, bk, bk, bv, bv, bv]))
            other.attn.proj.load_state_dict(one.attn.proj.state_dict())
    targets = torch.tensor([1, 4])
    found = relevance(shared.eval(), pictures(), targets)
    torch.testing.assert_close(found, relevance(plain, pictures(), targets), rtol=1e-4, atol=1e-6)


def test_classes_and_models_that_cannot_be() -> None:
    model, images = build("token"), pictures()
    for bad in (-1, CLASSES):
        with pytest.raises(ConfigError, match=rf"class {bad} does not exist; allowed: 0 to 4"):
            relevance(model, images, torch.tensor([0, bad]))
    for targets in (torch.tensor([0]), torch.tensor([0.0, 1.0])):
        with pytest.raises(ConfigError, match=r"one whole number an image, \(2,\)"):
            relevance(model, images, targets)
    hybrid = create_model("nb03_2mixer_vit", img_size=16, patch_size=4, embed_dim=16, num_classes=5)
    with pytest.raises(EvaluationError, match="relevance follows tokens through attention"):
        relevance(hybrid, torch.randn(1, 3, 16, 16))


@pytest.mark.parametrize(
    ("more", "shape"),
    [
        ({"num_classes": 0}, r"\(2, 24\)"),
        ({"global_pool": ""}, r"\(2, 25, 5\)"),
    ],
)
def test_what_gives_no_classes_is_refused(more: dict[str, Any], shape: str) -> None:
    model = create_model("vit_mini_patch4_32", **{**SHAPE, **TOKEN, **more}).eval()
    with pytest.raises(EvaluationError, match=rf"gives {shape}, not \(images, classes\)"):
        relevance(model, pictures())


def planted(count: int, seed: int, noise: float) -> tuple[Tensor, Tensor, Tensor]:
    """Noise with one patch of a 4 x 4 grid whose colour is the class: images, classes, patches."""
    draw = torch.Generator().manual_seed(seed)
    colors = torch.tensor([[2.0, -2.0, 0.0], [-2.0, 2.0, 0.0], [0.0, -2.0, 2.0], [2.0, 0.0, 2.0]])
    images = noise * torch.randn(count, 3, 16, 16, generator=draw)
    classes = torch.randint(0, 4, (count,), generator=draw)
    patches = torch.randint(0, 16, (count,), generator=draw)
    for image, label, patch in zip(images, classes.tolist(), patches.tolist(), strict=True):
        row, column = 4 * (patch // 4), 4 * (patch % 4)
        image[:, row : row + 4, column : column + 4] += colors[label][:, None, None]
    return images, classes, patches


LEARNERS: list[tuple[str, dict[str, Any], float, int]] = [
    ("vit_mini_patch4_32", {"class_token": True, "global_pool": "token"}, 1.5, 250),
    ("vit_mini_distilled_patch4_32", {}, 1.5, 250),
    ("vit_mini_patch4_32", {"class_token": False, "global_pool": "avg"}, 0.5, 150),
]
"""A model of each way to read tokens: its name and settings, the noise, the steps it learns in."""


def test_relevance_points_at_the_patch_that_decides() -> None:
    hits = [_share_of_hits(*learner) for learner in LEARNERS]
    # Chance is 1 in 16. Seen over six seeds, with two libraries of products: 0.72 to 0.87 in the
    # mean, 0.5 to 0.98 for one model, which may know a class by the absence of the others.
    assert sum(hits) / len(hits) > 0.6 and min(hits) > 0.4, hits


def _share_of_hits(name: str, more: dict[str, Any], noise: float, steps: int) -> float:
    """How often the most relevant patch decides, for a model that has learned to see it."""
    torch.manual_seed(0)
    shape = {"img_size": 16, "num_classes": 4, "embed_dim": 32, "depth": 2, "num_heads": 2}
    model = create_model(name, **shape, **more)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(steps):
        images, classes, _ = planted(64, step, noise)
        loss = nn.functional.cross_entropy(model(images), classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    images, classes, patches = planted(200, 10_000, noise)
    model.eval()
    with torch.no_grad():
        assert (model(images).argmax(1) == classes).float().mean() > 0.95
    found = relevance(model, images, classes).flatten(1).argmax(1)
    return (found == patches).float().mean().item()
