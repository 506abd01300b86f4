"""Grad-CAM against its formula by loops on tokens that autograd watches, and where it is known."""

from __future__ import annotations

from typing import Any

import numpy as np
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
from vitkit.explain import grad_cam
from vitkit.models import create_model


def by_loops(model: Any, images: Tensor, targets: Tensor, prefix: int, layer: int) -> Tensor:
    """Each channel's mean gradient times the channel, summed, and its positive part."""
    seen: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
        output.retain_grad()
        seen.append(output)

    handle = model.blocks[layer].norm1.register_forward_hook(keep)
    logits = model.forward_head(model.forward_features(images.clone().requires_grad_()))
    handle.remove()
    for index, target in enumerate(targets.tolist()):
        logits[index, target].backward(retain_graph=True)
    (tokens,) = seen
    assert tokens.grad is not None
    slopes = tokens.grad[:, prefix:].double().numpy()
    values = tokens[:, prefix:].detach().double().numpy()
    model.zero_grad(set_to_none=True)
    out = np.zeros(values.shape[:2])
    for image, (slope, value) in enumerate(zip(slopes, values, strict=True)):
        for channel in range(value.shape[1]):
            out[image] += slope[:, channel].mean() * value[:, channel]
    return torch.from_numpy(np.maximum(out, 0)).float().unflatten(1, GRID)


@pytest.mark.parametrize("layer", [-1, 0])
@pytest.mark.parametrize("name", MODELS)
def test_grad_cam_is_its_formula(name: str, layer: int) -> None:
    model, images = build(name), pictures()
    targets = torch.tensor([3, 0])
    expected = by_loops(model, images, targets, PREFIX.get(name, 0), layer)
    found = grad_cam(model, images, targets, layer=layer)
    assert found.shape == (2, *GRID) and found.dtype == torch.float32
    assert not found.requires_grad and (found >= 0).all()
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max().clamp(min=1e-6)


def test_of_no_class_in_particular_it_is_the_predicted_ones_and_nothing_is_disturbed() -> None:
    model, images = build("token"), pictures()
    with torch.no_grad():
        predicted = model(images).argmax(1)
    expected = grad_cam(model, images, predicted)
    assert expected.any()
    model.train().requires_grad_(False)
    hooks = count_hooks(model)
    assert torch.equal(grad_cam(model, images), expected)
    with torch.inference_mode():
        assert torch.equal(grad_cam(model, images * 1.0, predicted * 1), expected)
    assert model.training and count_hooks(model) == hooks
    assert not images.requires_grad and all(p.grad is None for p in model.parameters())
    alone = grad_cam(model, images[1:], predicted[1:])
    torch.testing.assert_close(alone, expected[1:], rtol=1e-4, atol=1e-6)
    assert not torch.allclose(grad_cam(model, images, (predicted + 1) % CLASSES), expected)


def test_blocks_without_attention_may_lie_between() -> None:
    hybrid = create_model("nb03_2mixer_vit", img_size=16, patch_size=4, embed_dim=16, num_classes=5)
    assert grad_cam(hybrid.eval(), torch.randn(1, 3, 16, 16)).shape == (1, 4, 4)


def test_what_cannot_be() -> None:
    model, images = build("token"), pictures()
    with pytest.raises(ConfigError, match=f"layer {DEPTH} does not exist"):
        grad_cam(model, images, layer=DEPTH)
    with pytest.raises(ConfigError, match=rf"class {CLASSES} does not exist; allowed: 0 to 4"):
        grad_cam(model, images, torch.tensor([0, CLASSES]))
    bare = create_model("vit_mini_patch4_32", **{**SHAPE, **TOKEN, "num_classes": 0}).eval()
    hooks = count_hooks(bare)
    with pytest.raises(EvaluationError, match="Grad-CAM asks what speaks for a class"):
        grad_cam(bare, images)
    assert count_hooks(bare) == hooks
    mixer = create_model("nb02_mixer", img_size=16, patch_size=4, embed_dim=16)
    with pytest.raises(EvaluationError, match="no attention that can be read"):
        grad_cam(mixer, torch.randn(1, 3, 16, 16))
