"""DINOv3 as its authors publish it, and as timm holds it.

timm's class also holds other models of the same make (EUPE, LingBot-Vision), which are read alike.
Source: facebookresearch/dinov3; Siméoni et al., arXiv 2508.10104; ``timm/models/eva.py``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vitkit.errors import WeightsError
from vitkit.weights.formats.layout import (
    IMAGENET,
    Format,
    Names,
    Shapes,
    Translated,
    join_parts,
    left_out,
)

__all__ = ["DINOV3", "DINOV3_ARGUMENTS", "DINOV3_PICTURES", "DINOV3_TIMM", "with_all_biases"]

DINOV3_ARGUMENTS: dict[str, Any] = {
    "pos_embed": "rotary_centred",
    "norm_eps": 1e-5,
    "dynamic_img_size": True,
}
"""What every layout of DINOv3 means and no name shows."""
DINOV3_PICTURES: dict[str, Any] = {
    **IMAGENET,
    "interpolation": "bilinear",
    "crop_pct": 1.0,
    "crop_mode": "squash",
}
"""ImageNet's statistics; the picture resized to the input whatever its proportions."""

_NAMES = Names([("storage_tokens", "reg_token"), ("blocks.{i}.mlp.w3", "blocks.{i}.mlp.fc2")])
_TIMM_NAMES = Names(
    [
        ("blocks.{i}.gamma_1", "blocks.{i}.ls1.gamma"),
        ("blocks.{i}.gamma_2", "blocks.{i}.ls2.gamma"),
        ("blocks.{i}.attn.q_bias", "blocks.{i}.attn.q.bias"),
        ("blocks.{i}.attn.v_bias", "blocks.{i}.attn.v.bias"),
    ]
)
_PERIODS = "rope_embed.periods"
_LEFT = {
    r"rope_embed\.periods": "wavelengths of the rotary positions, which are computed here",
    r"blocks\.\d+\.attn\.qkv\.bias_mask": "the mask of the keys' biases, which are zero here",
    r"mask_token": "the mask token of pre-training",
    r"local_cls_norm\..*": "the norm of pre-training's small crops",
    r"projectors\..*": "the projections of a distillation",
}
_TRUNK = {"patch_embed.proj.weight", "cls_token", "blocks.0.attn.qkv.weight"}
_ROUNDING = 0.01
"""Relative: the periods are published in bfloat16."""
_USUAL_BASE = 100.0
_GRID = 16
"""Rows and columns of patches of the size, 256 pixels, that its authors evaluate most at."""


def _is_dinov3(shapes: Shapes) -> bool:
    own = "storage_tokens" in shapes or _PERIODS in shapes
    return own and set(shapes) >= _TRUNK


def _is_timms(shapes: Shapes) -> bool:
    # Its other models of this class have a table of positions, frequencies of their own, no class
    # token, or no registers.
    own = {*_TRUNK, "reg_token", "norm.weight", "blocks.0.gamma_1", "blocks.0.gamma_2"}
    others = ("pos_embed", "rope.freqs", "blocks.0.attn.qkv.bias")
    return set(shapes) >= own and not any(name in shapes for name in others)


def _translate(tensors: Mapping[str, Tensor]) -> Translated:
    kept, left = left_out(_without_masked_biases(tensors), _LEFT)
    named = join_parts(_NAMES.translate(kept), ("w1", "w2"), "fc1")
    patch = kept["patch_embed.proj.weight"].shape[2:]
    arguments: dict[str, Any] = {"img_size": [_GRID * int(side) for side in patch]}
    if _PERIODS in tensors:
        width = int(kept["patch_embed.proj.weight"].shape[0])
        arguments |= _of_periods(tensors[_PERIODS], width)
    return Translated(named, left, arguments)


def _translate_timm(tensors: Mapping[str, Tensor]) -> Translated:
    # The weight of q, k and v is one already, their biases are not.
    named = join_parts(with_all_biases(_TIMM_NAMES.translate(tensors)), ("q", "k", "v"), "qkv")
    return Translated(join_parts(named, ("fc1_g", "fc1_x"), "fc1"))


def with_all_biases(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Zeros for the biases of those of q, k and v that have none where others do: here all three
    have biases or none, and keys are published without.

    Args:
        tensors: by our names, q, k and v apart.
    """
    out = dict(tensors)
    for name, tensor in tensors.items():
        if match := re.fullmatch(r"(.*\.)[qkv]\.bias", name):
            for part in "qkv":
                out.setdefault(f"{match[1]}{part}.bias", torch.zeros_like(tensor))
    return out


def _without_masked_biases(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The keys' third of the biases at zero where there is a mask, whose values an untrained file
    leaves undefined.
    """
    out = dict(tensors)
    for name in tensors:
        bias = name.removesuffix("_mask")
        if name.endswith(".attn.qkv.bias_mask") and bias in out:
            q, k, v = out[bias].chunk(3)
            out[bias] = torch.cat([q, torch.zeros_like(k), v])
    return out


def _of_periods(periods: Tensor, width: int) -> dict[str, Any]:
    """Heads, of whose D channels there is a period for each four, and the base of the periods.

    Raises:
        WeightsError: periods that are no powers of one base.
    """
    given = periods.double()
    count = len(given)
    powers = torch.arange(count, dtype=torch.float64) / count
    base = float(given[-1] ** (count / (count - 1))) if count > 1 else _USUAL_BASE
    for likely in (_USUAL_BASE, base):
        if ((given - likely**powers).abs() <= _ROUNDING * given).all():
            return {"num_heads": width // (4 * count), "rope_base": likely}
    raise WeightsError(
        f"{_PERIODS} runs from {float(given[0]):.4g} to {float(given[-1]):.4g} and is not base^"
        "(k / count), the only spacing that vitkit has"
    )


DINOV3 = Format(
    "DINOv3",
    _is_dinov3,
    _translate,
    arguments=DINOV3_ARGUMENTS,
    preprocessing=DINOV3_PICTURES,
)
DINOV3_TIMM = Format(
    "timm DINOv3",
    _is_timms,
    _translate_timm,
    arguments=DINOV3_ARGUMENTS,
    preprocessing={**IMAGENET, "crop_pct": 1.0},
)
