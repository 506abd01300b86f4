"""Hugging Face's ViT, DeiT and ViT-MAE.

Names are those on disk; transformers 5 calls the modules otherwise in memory, and both are read.
Source: huggingface/transformers, models ``vit``, ``deit``, ``vit_mae``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from vitkit.weights.formats.layout import (
    HALF,
    IMAGENET,
    Format,
    Names,
    Resampling,
    Shapes,
    Translated,
    join_parts,
    left_out,
)

__all__ = ["DEIT", "EMBEDDINGS", "MAE", "NO_ANTIALIAS", "VIT", "VIT_NAMES", "without_prefix"]

NO_ANTIALIAS = Resampling(antialias=False)
EMBEDDINGS = (
    ("embeddings.cls_token", "cls_token"),
    ("embeddings.distillation_token", "dist_token"),
    ("embeddings.register_tokens", "reg_token"),
    ("embeddings.position_embeddings", "pos_embed"),
    ("embeddings.patch_embeddings.projection", "patch_embed.proj"),
)
_BLOCK = (
    ("layernorm_before", "norm1"),
    ("attention.attention.query", "attn.q"),
    ("attention.attention.key", "attn.k"),
    ("attention.attention.value", "attn.v"),
    ("attention.output.dense", "attn.proj"),
    ("layernorm_after", "norm2"),
    ("intermediate.dense", "mlp.fc1"),
    ("output.dense", "mlp.fc2"),
)
_IN_MEMORY = (
    ("layernorm_before", "norm1"),
    ("attention.q_proj", "attn.q"),
    ("attention.k_proj", "attn.k"),
    ("attention.v_proj", "attn.v"),
    ("attention.o_proj", "attn.proj"),
    ("layernorm_after", "norm2"),
    ("mlp.fc1", "mlp.fc1"),
    ("mlp.fc2", "mlp.fc2"),
)
VIT_NAMES = Names(
    [
        *EMBEDDINGS,
        *((f"encoder.layer.{{i}}.{a}", f"blocks.{{i}}.{b}") for a, b in _BLOCK),
        *((f"layers.{{i}}.{a}", f"blocks.{{i}}.{b}") for a, b in _IN_MEMORY),
        ("layernorm", "norm"),
        ("classifier", "head"),
        ("cls_classifier", "head"),
        ("distillation_classifier", "head_dist"),
    ]
)
_PREFIX = re.compile(r"(vit|deit|dinov2|dinov2_with_registers)\.")
_LEFT = {
    r"pooler\.dense\..*": "the pooler, which the classifier does not read",
    r"embeddings\.mask_token": "the mask token of pre-training",
    r"decoder\..*": "the decoder of pre-training",
}


def without_prefix(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names as the bare model has them: head models put ``vit.`` and the like in front."""
    return {_PREFIX.sub("", name, count=1): tensor for name, tensor in tensors.items()}


def _bare(shapes: Shapes) -> set[str]:
    return {_PREFIX.sub("", name, count=1) for name in shapes}


def _is_vit(shapes: Shapes) -> bool:
    names = _bare(shapes)
    blocks = ("encoder.layer.0.layernorm_before.weight", "layers.0.layernorm_before.weight")
    return "embeddings.patch_embeddings.projection.weight" in names and any(
        block in names for block in blocks
    )


def _is_deit(shapes: Shapes) -> bool:
    return _is_vit(shapes) and "embeddings.distillation_token" in _bare(shapes)


def _is_mae(shapes: Shapes) -> bool:
    return _is_vit(shapes) and any(name.startswith("decoder.decoder_pred") for name in shapes)


def _translate(tensors: Mapping[str, Tensor]) -> Translated:
    kept, left = left_out(without_prefix(tensors), _LEFT)
    named = VIT_NAMES.translate(kept)
    return Translated(join_parts(named, ("q", "k", "v"), "qkv"), left)


# The classes' default epsilon; a config.json says otherwise.
_ARGUMENTS = {"norm_eps": 1e-12}

VIT = Format(
    "Hugging Face ViT",
    _is_vit,
    _translate,
    arguments=_ARGUMENTS,
    preprocessing={**HALF, "interpolation": "bilinear", "crop_pct": 1.0, "crop_mode": "squash"},
    resampling=NO_ANTIALIAS,
)
DEIT = Format(
    "Hugging Face DeiT, distilled",
    _is_deit,
    _translate,
    arguments=_ARGUMENTS,
    preprocessing={**HALF, "crop_pct": 0.875, "crop_mode": "squash"},
    resampling=NO_ANTIALIAS,
)
MAE = Format(
    "Hugging Face ViT-MAE",
    _is_mae,
    _translate,
    arguments=_ARGUMENTS,
    preprocessing=IMAGENET,
    resampling=NO_ANTIALIAS,
)
