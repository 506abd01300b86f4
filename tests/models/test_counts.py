"""Published sizes, counted without memory."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from vitkit.models import create_model
from vitkit.models.presets import PRESETS

# Compact: SHI-Labs/Compact-Transformers, 10 classes. Image text: google-research/long-range-arena.
# GPT-2: the published checkpoints. Transformers: the paper's layers at 37,000 words, see
# test_seq2seq.py. LSTM: the lab's layers as torch counts them. The rest: timm's constructors, 1000
# classes, or 10 at 32 px.
PUBLISHED = {
    "vit_tiny_patch4_32": 5_362_762,
    "vit_small_patch4_32": 21_342_346,
    "vit_tiny_patch16_224": 5_717_416,
    "vit_small_patch32_224": 22_878_952,
    "vit_small_patch16_224": 22_050_664,
    "vit_small_patch8_224": 22_055_272,
    "vit_base_patch32_224": 88_224_232,
    "vit_base_patch16_224": 86_567_656,
    "vit_base_patch8_224": 86_576_872,
    "vit_large_patch32_224": 306_535_400,
    "vit_large_patch16_224": 304_326_632,
    "vit_large_patch14_224": 304_203_752,
    "vit_huge_patch14_224": 632_045_800,
    "vit_giant_patch14_224": 1_012_611_432,
    "vit_gigantic_patch14_224": 1_844_440_680,
    "deit_tiny_patch16_224": 5_717_416,
    "deit_small_patch16_224": 22_050_664,
    "deit_base_patch16_224": 86_567_656,
    "deit_tiny_distilled_patch16_224": 5_910_800,
    "deit_small_distilled_patch16_224": 22_436_432,
    "deit_base_distilled_patch16_224": 87_338_192,
    "resnet20_32": 269_722,
    "resnet56_32": 853_018,
    "vit_lite_6_patch4_32": 3_190_538,
    "vit_lite_7_patch4_32": 3_716_874,
    "cvt_6_4_32": 3_190_283,
    "cvt_7_4_32": 3_716_619,
    "cct_2_3x2_32": 283_723,
    "cct_4_3x2_32": 482_123,
    "cct_6_3x1_32": 3_233_803,
    "cct_6_3x2_32": 3_326_923,
    "cct_7_3x1_32": 3_760_139,
    "cct_7_3x2_32": 3_853_259,
    "text_pixels_lra_32": 248_458,
    "transformer_base": 63_082_496,
    "transformer_big": 214_245_376,
    "lstm_music": 5_357_395,
    "gpt2": 124_439_808,
    "gpt2_medium": 354_823_168,
    "gpt2_large": 774_030_080,
    "gpt2_xl": 1_557_611_200,
}
# Printed in millions: 22.36 M and 22.51 M.
PRINTED = {"cct_14_7x2_224": 22.36, "cct_14_7x2_384": 22.51}
# DINOv3's have other names there: tests/weights/test_dinov3.py.
TIMMS = sorted(
    name
    for name in PRESETS
    if name.startswith(("vit_", "deit")) and timm.is_model(name) and "dinov3" not in name
)


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts(name: str) -> None:
    with torch.device("meta"):
        assert count(create_model(name)) == PUBLISHED[name]


@pytest.mark.parametrize("name", PRINTED)
def test_printed_counts(name: str) -> None:
    with torch.device("meta"):
        assert count(create_model(name)) / 1e6 == pytest.approx(PRINTED[name], abs=0.01)


def test_no_positions_as_printed() -> None:
    with torch.device("meta"):
        assert count(create_model("cct_6_3x1_32", positional_embedding="none")) == 3_168_267


@pytest.mark.parametrize("name", TIMMS)
def test_names_mean_what_they_mean_in_timm(name: str) -> None:
    with torch.device("meta"):
        ours, theirs = (
            create_model(name).state_dict(),
            timm.create_model(name, num_classes=1000).state_dict(),
        )
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


def test_timms_224_and_384_names_are_all_here() -> None:
    assert len(TIMMS) > 25
