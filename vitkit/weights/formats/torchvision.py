"""torchvision's ``vit_b_16`` and its siblings.

Source: pytorch/vision, ``torchvision/models/vision_transformer.py``.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from vitkit.weights.formats.layout import (
    BEHIND_REPRESENTATION,
    IMAGENET,
    Format,
    Names,
    Resampling,
    Shapes,
    Translated,
    left_out,
)

__all__ = ["TORCHVISION"]

_BLOCK = (
    ("ln_1", "norm1"),
    ("self_attention.in_proj_weight", "attn.qkv.weight"),
    ("self_attention.in_proj_bias", "attn.qkv.bias"),
    ("self_attention.out_proj", "attn.proj"),
    ("ln_2", "norm2"),
    ("mlp.0", "mlp.fc1"),
    ("mlp.3", "mlp.fc2"),
    # Files from before torchvision 0.13.
    ("mlp.linear_1", "mlp.fc1"),
    ("mlp.linear_2", "mlp.fc2"),
)
_NAMES = Names(
    [
        ("class_token", "cls_token"),
        ("conv_proj", "patch_embed.proj"),
        ("encoder.pos_embedding", "pos_embed"),
        *((f"encoder.layers.encoder_layer_{{i}}.{a}", f"blocks.{{i}}.{b}") for a, b in _BLOCK),
        ("encoder.ln", "norm"),
        ("heads.head", "head"),
    ]
)


def _is_torchvision(shapes: Shapes) -> bool:
    return any(name.startswith("encoder.layers.encoder_layer_0.") for name in shapes)


def _translate(tensors: Mapping[str, Tensor]) -> Translated:
    reasons = {}
    if any(name.startswith("heads.pre_logits.") for name in tensors):
        reasons[r"heads\..*"] = BEHIND_REPRESENTATION
    kept, left = left_out(tensors, reasons)
    return Translated(_NAMES.translate(kept), left)


TORCHVISION = Format(
    "torchvision ViT",
    _is_torchvision,
    _translate,
    preprocessing={**IMAGENET, "interpolation": "bilinear"},
    resampling=Resampling(antialias=False, align_corners=True),
)
