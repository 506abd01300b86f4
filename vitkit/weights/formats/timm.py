"""timm's plain ViT, whose names are ours; and our compact models, which no one else spells so.

Source: huggingface/pytorch-image-models, ``timm/models/vision_transformer.py``.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from vitkit.weights.formats.layout import (
    BEHIND_REPRESENTATION,
    CIFAR,
    HALF,
    Format,
    Shapes,
    Translated,
    left_out,
)

__all__ = ["OWN_COMPACT", "TIMM"]

_REQUIRED = {"patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "blocks.0.mlp.fc1.weight"}
_FOREIGN = ("q_bias", "relative_position_bias_table", "bias_mask")


def _is_timm(shapes: Shapes) -> bool:
    foreign = (f"blocks.0.attn.{name}" for name in _FOREIGN)
    return set(shapes) >= _REQUIRED and not any(name in shapes for name in foreign)


def _is_own_compact(shapes: Shapes) -> bool:
    tokenizers = ("tokenizer.layers.0.weight", "tokenizer.proj.weight")
    return "blocks.0.attn.qkv.weight" in shapes and any(name in shapes for name in tokenizers)


def _translate(tensors: Mapping[str, Tensor]) -> Translated:
    reasons = {}
    if any(name.startswith("pre_logits.fc.") for name in tensors):
        reasons[r"pre_logits\..*|head\..*"] = BEHIND_REPRESENTATION
    return Translated(*left_out(tensors, reasons))


TIMM = Format("timm ViT", _is_timm, _translate, preprocessing=HALF)
OWN_COMPACT = Format("vitkit CCT, CVT, ViT-Lite", _is_own_compact, _translate, preprocessing=CIFAR)
