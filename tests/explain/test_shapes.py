"""Shapes as the papers state them, without computing anything."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.explain.subjects import DEPTH, GRID, MODELS, PREFIX, WIDTH, build, count_hooks, pictures
from vitkit.explain import token_shapes
from vitkit.models import create_model


def flow(name: str, size: int = 224, **more: Any) -> list[tuple[str, tuple[int, ...]]]:
    with torch.device("meta"):
        model = create_model(name, **more)
        images = torch.empty(1, 3, size, size)
    steps = token_shapes(model, images)
    assert steps[0].given == (size, size, 3)
    return [(step.name, step.made) for step in steps]


def test_vit_b_16() -> None:
    blocks = [(f"blocks.{index}", (197, 768)) for index in range(12)]
    assert flow("vit_base_patch16_224") == [
        ("patch_embed", (196, 768)),
        ("+ class token, positions", (197, 768)),
        *blocks,
        ("norm", (197, 768)),
        ("pooling: token", (768,)),
        ("head", (1000,)),
    ]


def test_registers_distillation_and_mean() -> None:
    assert flow("vit_small_patch16_224", reg_tokens=4)[1] == (
        "+ class token, 4 registers, positions",
        (201, 384),
    )
    distilled = flow("deit_tiny_distilled_patch16_224")
    assert distilled[1] == ("+ class token, distillation token, positions", (198, 192))
    assert distilled[-2:] == [("head", (1000,)), ("head_dist", (1000,))]
    mean = flow("vit_mini_patch4_32", 32)
    assert mean[0] == ("patch_embed", (64, 128))
    assert mean[1] == ("blocks.0", (64, 128))  # nothing is prepended
    assert [name for name, _ in mean[-3:]] == ["pooling: avg", "fc_norm", "head"]


def test_cct_and_resnet() -> None:
    cct = flow("cct_7_3x1_32", 32)
    assert cct[0] == ("tokenizer", (256, 256))
    assert cct[-2:] == [("seq_pool", (256,)), ("head", (10,))]
    resnet = create_model("resnet20_32", depth=8, embed_dim=16).eval()
    steps = token_shapes(resnet, torch.zeros(1, 3, 32, 32))
    assert steps[0].given == (32, 32, 3) and steps[-1].made == (10,)


@pytest.mark.parametrize("name", MODELS)
def test_every_step_begins_where_one_has_ended(name: str) -> None:
    model, images = build(name), pictures(3)
    hooks = count_hooks(model)
    steps = token_shapes(model.train(), images)
    assert model.training and count_hooks(model) == hooks
    known = {(16, 24, 3)}
    for step in steps:
        assert step.given in known, step
        known |= {step.made, step.given}
    blocks = [step for step in steps if step.name.startswith("blocks.")]
    count = GRID[0] * GRID[1] + PREFIX.get(name, 0)
    assert [step.made for step in blocks] == [(count, WIDTH)] * DEPTH
    assert steps[-1].made == (5,)
    if name == "timm_dynamic":
        assert steps[0].made == (*GRID, WIDTH)
