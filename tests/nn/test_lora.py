"""LoRA: begins as the plain layer, adds the product it promises, merges without a trace."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.layers import SwiGLUPacked
from torch import nn

from vitkit.models import create_model
from vitkit.nn import (
    LORA_TARGETS,
    Attention,
    LoraLinear,
    add_lora,
    encoder_blocks,
    merge_lora,
    merge_lora_state,
)

SMALL: dict[str, Any] = {"img_size": 8, "patch_size": 2, "embed_dim": 16, "depth": 2}
SMALL |= {"num_heads": 2, "num_classes": 3}


def small(**more: Any) -> nn.Module:
    torch.manual_seed(0)
    return create_model("vit_tiny_patch4_32", **{**SMALL, **more}).double()


def stir(model: nn.Module) -> None:
    """Adapters as after a training."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn_like(parameter))


@pytest.mark.parametrize("targets", [("q", "v"), ("k",), ("proj", "fc2"), LORA_TARGETS])
@pytest.mark.parametrize("mlp_layer", ["mlp", "swiglu"])
def test_begins_as_the_plain_model_and_merges_into_it(
    targets: tuple[str, ...], mlp_layer: str
) -> None:
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    model = small(mlp_layer=mlp_layer).eval()
    names = set(model.state_dict())
    plain = model(images)
    add_lora(model, rank=2, targets=targets)
    torch.testing.assert_close(model(images), plain, rtol=1e-12, atol=1e-12)
    stir(model)
    adapted = model(images)
    assert (adapted - plain).abs().max() > 1e-3
    merge_lora(model)
    torch.testing.assert_close(model(images), adapted, rtol=1e-10, atol=1e-10)
    assert set(model.state_dict()) == names
    assert not any(isinstance(module, LoraLinear) for module in model.modules())


def test_a_layer_is_its_weight_plus_the_scaled_product() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(6, 9).double()
    lora = LoraLinear(layer, rank=2, alpha=3.0, parts=[(0, 3), (6, 3)])
    stir(lora)
    x = torch.randn(4, 6, dtype=torch.float64)
    expected = F.linear(x, layer.weight, layer.bias)
    for part, (first, rows) in enumerate(lora.parts):
        more = x @ lora.lora_a[part].T @ lora.lora_b[part].T * 1.5
        expected[:, first : first + rows] += more
    torch.testing.assert_close(lora(x), expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(lora(x)[:, 3:6], F.linear(x, layer.weight, layer.bias)[:, 3:6])


def test_only_adapters_get_gradients_and_few_numbers_are_trained() -> None:
    model = add_lora(small(), rank=2)
    model(torch.randn(2, 3, 8, 8, dtype=torch.float64)).sum().backward()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained and all("lora_" in name for name in trained)
    with_gradient = {name for name, p in model.named_parameters() if p.grad is not None}
    assert with_gradient == trained
    # Two layers, q and v: 2 x 16 down and 16 x 2 up each.
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 2 * 2 * (32 + 32)


def test_plain_weights_load_into_an_adapted_model() -> None:
    state = small().state_dict()
    model = add_lora(small(), rank=2)
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and all("lora_" in name for name in missing)


def test_cross_attention_and_grouped_queries() -> None:
    torch.manual_seed(0)
    for attn in (
        Attention(16, 4, num_kv_heads=2),
        Attention(16, 4, context_dim=8, num_kv_heads=1),
    ):
        attn = attn.double().eval()
        x, context = torch.randn(2, 5, 16).double(), torch.randn(2, 7, 8).double()
        given = (x, context) if attn.is_cross else (x,)
        plain = attn(*given)
        add_lora(attn, rank=2, targets=("q", "k", "v"))
        torch.testing.assert_close(attn(*given), plain)
        stir(attn)
        adapted = attn(*given)
        # A self attention that reads others' keys and values is adapted too.
        beside = (x, torch.randn(2, 7, 8 if attn.is_cross else 16).double())
        adapted_beside = attn(*beside)
        merged = merge_lora(attn)
        torch.testing.assert_close(merged(*given), adapted)
        torch.testing.assert_close(merged(*beside), adapted_beside)


@pytest.mark.parametrize("targets", [("q", "v"), ("k",), ("proj", "fc1"), LORA_TARGETS])
@pytest.mark.parametrize("gated", [False, True])
def test_a_vit_of_timm(targets: tuple[str, ...], gated: bool) -> None:
    torch.manual_seed(0)
    more: dict[str, Any] = {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU} if gated else {}
    sizes = {**SMALL, "img_size": 8, "patch_size": 4}
    model = timm.models.VisionTransformer(**sizes, **more).double().eval()
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    plain, names = model(images), set(model.state_dict())
    add_lora(model, rank=2, targets=targets)
    torch.testing.assert_close(model(images), plain, rtol=1e-12, atol=1e-12)
    stir(model)
    adapted = model(images)
    assert (adapted - plain).abs().max() > 1e-3
    adapters = {name: p for name, p in model.named_parameters() if "lora_" in name}
    adapted.sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in adapters.values())
    state = merge_lora_state(model.state_dict(), alpha=16.0, targets=targets)
    merge_lora(model)
    torch.testing.assert_close(model(images), adapted, rtol=1e-10, atol=1e-10)
    assert set(state) == set(model.state_dict()) == names
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(state[name], tensor, rtol=1e-10, atol=1e-10)


def test_what_cannot_be_adapted_is_refused() -> None:
    with pytest.raises(ValueError, match=r"LoRA targets \['qkv'\]; allowed: some of q, k, v"):
        add_lora(small(), targets=("qkv",))
    with pytest.raises(ValueError, match="has no layer for LoRA"):
        add_lora(nn.Sequential(nn.Linear(3, 3)))


@pytest.mark.parametrize(
    "targets", [("q", "v"), ("k",), ("q", "k", "v"), ("v", "proj", "fc1", "fc2"), ("proj",)]
)
@pytest.mark.parametrize("num_kv_heads", [1, 4])
def test_a_merged_state_is_that_of_the_merged_model(
    targets: tuple[str, ...], num_kv_heads: int
) -> None:
    torch.manual_seed(0)
    blocks = encoder_blocks(2, 16, 4, num_kv_heads=num_kv_heads)
    cross = Attention(16, 4, context_dim=8, num_kv_heads=num_kv_heads)
    model = nn.ModuleDict({"blocks": blocks, "cross": cross}).double()
    names = list(model.state_dict())
    add_lora(model, rank=2, alpha=3.0, targets=targets)
    stir(model)
    state = merge_lora_state(model.state_dict(), alpha=3.0, targets=targets)
    expected = merge_lora(model).state_dict()
    assert sorted(state) == sorted(expected) == sorted(names)
    for name, tensor in expected.items():
        torch.testing.assert_close(state[name], tensor, rtol=1e-12, atol=1e-12)


def test_adapters_are_not_laid_on_adapters() -> None:
    model = add_lora(encoder_blocks(1, 16, 4), rank=2)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    for targets in (("q", "v"), ("fc1",)):
        with pytest.raises(ValueError, match="qkv has an adapter already"):
            add_lora(model, rank=2, targets=targets)
    assert [name for name, p in model.named_parameters() if p.requires_grad] == trained


def test_a_refusal_leaves_the_model_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(3, 3))
    for settings in ({}, {"rank": 0}, {"targets": ("x",)}):
        with pytest.raises(ValueError, match="LoRA"):
            add_lora(model, **settings)
    assert all(p.requires_grad for p in model.parameters())
