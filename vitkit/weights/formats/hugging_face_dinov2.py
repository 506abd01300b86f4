"""Hugging Face's DINOv2, with and without registers, with either MLP.

Source: huggingface/transformers, models ``dinov2`` and ``dinov2_with_registers``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vitkit.weights.formats.dinov2 import folded_registers
from vitkit.weights.formats.hugging_face import EMBEDDINGS, NO_ANTIALIAS, without_prefix
from vitkit.weights.formats.layout import (
    IMAGENET,
    Format,
    Names,
    Shapes,
    Translated,
    join_parts,
    left_out,
)

__all__ = ["DINOV2", "DINOV2_NAMES", "DINOV2_REGISTERS"]

_BLOCK = (
    ("norm1", "norm1"),
    ("attention.attention.query", "attn.q"),
    ("attention.attention.key", "attn.k"),
    ("attention.attention.value", "attn.v"),
    ("attention.output.dense", "attn.proj"),
    ("layer_scale1.lambda1", "ls1.gamma"),
    ("norm2", "norm2"),
    ("mlp.fc1", "mlp.fc1"),
    ("mlp.fc2", "mlp.fc2"),
    ("mlp.weights_in", "mlp.packed"),
    ("mlp.weights_out", "mlp.fc2"),
    ("layer_scale2.lambda1", "ls2.gamma"),
)
# As the modules are called in memory.
_IN_MEMORY = (
    ("attention.q_proj", "attn.q"),
    ("attention.k_proj", "attn.k"),
    ("attention.v_proj", "attn.v"),
    ("attention.o_proj", "attn.proj"),
    ("mlp.gate_proj", "mlp.gate"),
    ("mlp.up_proj", "mlp.up"),
    ("mlp.down_proj", "mlp.fc2"),
)
DINOV2_NAMES = Names(
    [
        *EMBEDDINGS,
        *((f"encoder.layer.{{i}}.{a}", f"blocks.{{i}}.{b}") for a, b in (*_BLOCK, *_IN_MEMORY)),
        ("layernorm", "norm"),
        ("classifier", "head"),
    ]
)
_MASK = {r"embeddings\.mask_token": "the mask token of pre-training"}


def _has(shapes: Shapes, ending: str) -> bool:
    return any(name.endswith(ending) for name in shapes)


def _is_dinov2(shapes: Shapes) -> bool:
    return _has(shapes, "encoder.layer.0.layer_scale1.lambda1")


def _has_registers(shapes: Shapes) -> bool:
    return _is_dinov2(shapes) and _has(shapes, "embeddings.register_tokens")


def _translate(tensors: Mapping[str, Tensor]) -> Translated:
    kept, left = left_out(without_prefix(tensors), _MASK)
    named = DINOV2_NAMES.translate(kept)
    named = {name.replace(".mlp.packed.", ".mlp.fc1."): t for name, t in named.items()}
    named = join_parts(named, ("q", "k", "v"), "qkv")
    named = folded_registers(join_parts(named, ("gate", "up"), "fc1"))
    return Translated(named, left, _narrow_head(named))


def _narrow_head(named: dict[str, Tensor]) -> dict[str, Any]:
    """A head that reads the class token beside the mean of the patches: where one of them counts
    for nothing, the other's half of it, in place.

    Returns:
        What the model must pool for that half; nothing for a head that reads both.
    """
    weight = named.get("head.weight")
    width = named["norm.weight"].shape[0] if "norm.weight" in named else 0
    if weight is None or weight.shape[1] != 2 * width:
        return {}
    of_class, of_patches = weight.split(width, dim=1)
    if not of_patches.any():
        named["head.weight"] = of_class
        return {"global_pool": "token"}
    if not of_class.any():
        named["head.weight"] = of_patches
        return {"global_pool": "avg", "fc_norm": False}
    return {}


_ARGUMENTS = {"norm_eps": 1e-6}

DINOV2 = Format(
    "Hugging Face DINOv2",
    _is_dinov2,
    _translate,
    arguments=_ARGUMENTS,
    preprocessing=IMAGENET,
    resampling=NO_ANTIALIAS,
)
DINOV2_REGISTERS = Format(
    "Hugging Face DINOv2 with registers",
    _has_registers,
    _translate,
    arguments=_ARGUMENTS,
    preprocessing=IMAGENET,
)
