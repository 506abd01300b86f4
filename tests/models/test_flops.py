"""The closed forms against torch's own counting of what a forward pass multiplies."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vitkit.models import create_model
from vitkit.models.flops import block_flops, forward_flops, training_flops
from vitkit.nn import attention_kernel, blocks

STEM = [{"dim": 8, "kernel_size": 2, "norm": False}, {"dim": 16, "pool": 2}, {"dim": 24, "pool": 2}]
SMALL = {"embed_dim": 24, "num_heads": 2, "depth": 3}
SECTIONS: list[dict[str, Any]] = [
    {"name": "vit_tiny_patch4_32"},
    {"name": "vit_mini_patch4_32"},
    {"name": "vit_mini_patch4_32", "conv_stem": STEM},
    {"name": "vit_mini_patch4_32", "head_dim": 16, "mlp_ratio": 1.5, **SMALL},
    {"name": "vit_tiny_patch16_224", "img_size": [64, 96], "reg_tokens": 3, **SMALL},
    {"name": "cct_2_3x2_32"},
    {"name": "cct_7_3x1_32"},
    {"name": "cct_7_7x2_224", "depth": 1},
    {"name": "vit_lite_7_patch4_32"},
    {"name": "cvt_6_4_32"},
]


class AllTokens(nn.Module):
    """The model without the short way through its last block."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model.forward_head(self.model.forward_features(images))
        return logits


def counted(section: dict[str, Any], *, all_tokens: bool, backward: bool = False) -> int:
    """What torch counts for one image.

    Its counter hooks every module to know where it is, which alone would bring the full pass.
    """
    given = {"num_classes": 10, "in_chans": 3, **section}
    model = create_model(given.pop("name"), **given).eval()
    part = model.get_submodule("tokenizer" if hasattr(model, "tokenizer") else "patch_embed")
    images = torch.zeros(1, 3, *cast("tuple[int, int]", part.img_size))
    network = AllTokens(model) if all_tokens else model
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "globally_hooked", lambda: False)
        with attention_kernel("explicit"), FlopCounterMode(display=False) as counter:
            logits = network(images)
            if backward:
                logits.sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section["name"])
def test_the_closed_form_is_what_torch_counts(section: dict[str, Any]) -> None:
    section = {"num_classes": 10, **section}
    assert forward_flops(section) == counted(section, all_tokens=True)
    assert forward_flops(section, executed=True) == counted(section, all_tokens=False)


def test_the_class_token_alone_costs_less() -> None:
    whole = forward_flops({"name": "vit_tiny_patch4_32"})
    executed = forward_flops({"name": "vit_tiny_patch4_32"}, executed=True)
    assert 0.92 < executed / whole < 0.95
    average = {"name": "vit_mini_patch4_32"}
    assert forward_flops(average) == forward_flops(average, executed=True)


def test_a_training_step_is_three_forward_passes() -> None:
    section = {"name": "vit_tiny_patch4_32"}
    seen = counted(section, all_tokens=True, backward=True)
    due = training_flops(section)
    assert due == 3 * forward_flops(section)
    # The first layer's input needs no gradient: 2 x 64 patches x 48 values x 192.
    assert due - seen == 2 * 64 * 48 * 192


def test_patches_that_are_left_out_of_a_training_cost_nothing() -> None:
    section = {"name": "vit_tiny_patch4_32", "patch_drop_rate": 0.5}
    assert forward_flops(section) == forward_flops({"name": "vit_tiny_patch4_32"})
    embed = 2 * 64 * 48 * 192
    halved = embed + 12 * block_flops(33, 192, 768) + 2 * 192 * 10
    assert training_flops(section) == 3 * halved


def test_published_sizes() -> None:
    """Pairs of a multiplication and an addition as papers give them for DeiT, in 10^9."""
    for size, published in (("tiny", 1.3), ("small", 4.6), ("base", 17.6)):
        count = forward_flops({"name": f"vit_{size}_patch16_224", "num_classes": 1000})
        assert round(count / 2e9, 1) == published


def test_a_block_by_hand() -> None:
    # 3 tokens of width 2, hidden 4: queries, keys, values; scores and sum; projection; MLP.
    assert block_flops(3, 2, 4) == 2 * (36 + 36 + 12 + 48)
    assert block_flops(3, 2, 4, queries=1) == 2 * (4 + 24 + 12 + 4 + 16)


def test_other_families_have_none() -> None:
    with pytest.raises(ValueError, match="no closed form for mixer_s16_224"):
        forward_flops({"name": "mixer_s16_224"})
    with pytest.raises(ValueError, match="another MLP"):
        forward_flops({"name": "vit_tiny_patch4_32", "mlp_layer": "swiglu"})
