"""Maps against what timm's own explicit kernel applies, and with nothing disturbed.

The largest difference seen is 1.2e-7 for our layers and for timm's.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.explain.subjects import (
    DEPTH,
    GRID,
    HEADS,
    MODELS,
    PREFIX,
    build,
    count_hooks,
    pictures,
    timms,
)
from vitkit.errors import ConfigError, EvaluationError
from vitkit.explain import attention_maps
from vitkit.models import create_model
from vitkit.models.vit import VisionTransformer
from vitkit.nn import Attention, Rotation, attention_weights

LIMIT = 1e-6


@pytest.mark.parametrize("name", MODELS)
def test_maps_of_every_family_and_nothing_is_disturbed(name: str) -> None:
    model, images = build(name), pictures()
    model.train()
    first = next(iter(model.children()))
    first.eval()  # a part that was frozen so stays so
    training = [m.training for m in model.modules()]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    hooks = count_hooks(model)
    maps = attention_maps(model, images)
    assert [m.training for m in model.modules()] == training
    assert count_hooks(model) == hooks
    assert all(m.recorder is None for m in model.modules() if isinstance(m, Attention))
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())

    count = GRID[0] * GRID[1] + PREFIX.get(name, 0)
    assert maps.shape == (2, DEPTH, HEADS, count, count)
    assert maps.dtype == torch.float32 and not maps.requires_grad
    torch.testing.assert_close(maps.sum(-1), torch.ones(maps.shape[:-1]), rtol=0, atol=LIMIT)
    some = attention_maps(model, images, [-1, 0])
    assert torch.equal(some, maps[:, [DEPTH - 1, 0]])


@pytest.mark.parametrize("name", [name for name in MODELS if not name.startswith("timm")])
def test_ours_are_the_weights_of_the_layer(name: str) -> None:
    model, images = build(name), pictures()
    given: list[tuple[Tensor, Rotation | None]] = []
    layers = [m for m in model.blocks.modules() if isinstance(m, Attention)]

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given.append((args[0], kwargs["rotary"]))

    handles = [m.register_forward_pre_hook(note, with_kwargs=True) for m in layers]
    with torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()
    maps = attention_maps(model, images)
    with torch.no_grad():
        for index, (layer, (x, rotary)) in enumerate(zip(layers, given, strict=True)):
            q, k, _ = layer.project(x, None, rotary, None)
            torch.testing.assert_close(
                maps[:, index], attention_weights(q, k, scale=layer.scale), rtol=0, atol=LIMIT
            )
            scores = q.double() @ k.double().transpose(-2, -1) / layer.head_dim**0.5
            by_hand = scores.softmax(-1).float()
            torch.testing.assert_close(maps[:, index], by_hand, rtol=0, atol=LIMIT)


def explicit_weights(model: Any, images: Tensor) -> Tensor:
    """What timm's explicit kernel applies: (B, L, H, N, N)."""
    seen: list[Tensor] = []
    handles = []
    for block in model.blocks:
        block.attn.fused_attn = False
        handles.append(
            block.attn.attn_drop.register_forward_hook(lambda m, i, out: seen.append(out))
        )
    with torch.no_grad():
        model(images)
    for handle, block in zip(handles, model.blocks, strict=True):
        handle.remove()
        block.attn.fused_attn = True
    return torch.stack(seen, dim=1)


@pytest.mark.parametrize("name", [name for name in MODELS if name.startswith("timm")])
def test_timms_are_what_its_explicit_kernel_applies(name: str) -> None:
    model, images = build(name), pictures()
    maps, plain = attention_maps(model, images), explicit_weights(model, images)
    torch.testing.assert_close(maps, plain, rtol=0, atol=LIMIT)


def test_ours_with_timms_weights_are_what_its_explicit_kernel_applies() -> None:
    theirs, images = build("timm_registers"), pictures()
    model = VisionTransformer(
        (16, 24), 4, 3, 5, "token", 24, 3, 3, reg_tokens=2, no_embed_class=True, qk_norm=True
    ).eval()
    model.load_state_dict(theirs.state_dict())
    maps = attention_maps(model, images)
    torch.testing.assert_close(maps, explicit_weights(theirs, images), rtol=1e-4, atol=1e-5)


def test_the_output_is_the_same_to_the_bit() -> None:
    for name in ("token", "distilled", "timm"):
        model, images = build(name), pictures()
        plain = model(images)
        attention_maps(model, images)
        assert torch.equal(model(images), plain)


def test_another_image_size() -> None:
    wide = torch.randn(1, 3, 24, 16)
    for model in (
        create_model("vit_mini_patch4_32", depth=2, embed_dim=16, dynamic_img_size=True),
        timms(dynamic_img_size=True)(),
    ):
        maps = attention_maps(model, wide)
        assert maps.shape[-1] - int(model.num_prefix_tokens) == 24  # type: ignore[arg-type]


def test_layers_and_models_that_cannot_be() -> None:
    model, images = build("token"), pictures()
    for layer in (DEPTH, -DEPTH - 1):
        with pytest.raises(ConfigError, match=f"layer {layer} does not exist; allowed: 0 to 2"):
            attention_maps(model, images, [layer])
    for kind in ("mixer", "conv"):
        other = create_model(
            "nb01_vit", img_size=16, patch_size=4, embed_dim=16, blocks=(kind,), depth=2
        )
        with pytest.raises(EvaluationError, match="HybridClassifier has no attention"):
            attention_maps(other, torch.randn(1, 3, 16, 16))
    resnet = create_model("resnet20_32", depth=8, embed_dim=16)
    with pytest.raises(EvaluationError, match="CifarResNet is not built of patches and blocks"):
        attention_maps(resnet, torch.randn(1, 3, 32, 32))
    for timm_name in ("resnet18", "mixer_s32_224"):
        theirs = create_model(f"timm/{timm_name}", num_classes=3)
        with pytest.raises(EvaluationError, match="timm's VisionTransformer and DeiT"):
            attention_maps(theirs, torch.randn(1, 3, 224, 224))


def test_a_hybrid_shows_the_attention_it_has() -> None:
    model = create_model(
        "nb03_2mixer_vit", img_size=16, patch_size=4, embed_dim=16, num_classes=5
    ).eval()
    maps = attention_maps(model, torch.randn(2, 3, 16, 16))
    assert maps.shape == (2, 1, 4, 16, 16)
    torch.testing.assert_close(maps.sum(-1), torch.ones(2, 1, 4, 16))
