"""Hugging Face's DINOv3 ViTs, with either MLP.

Names are those on disk; transformers 5 puts ``model.`` before the layers in memory, and both are
read. Source: huggingface/transformers, model ``dinov3_vit``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from vitkit.weights.formats.dinov3 import DINOV3_ARGUMENTS, DINOV3_PICTURES, with_all_biases
from vitkit.weights.formats.layout import (
    Format,
    Names,
    Shapes,
    Translated,
    join_parts,
    left_out,
)

__all__ = ["DINOV3"]

_BLOCK = (
    ("norm1", "norm1"),
    ("attention.q_proj", "attn.q"),
    ("attention.k_proj", "attn.k"),
    ("attention.v_proj", "attn.v"),
    ("attention.o_proj", "attn.proj"),
    ("layer_scale1.lambda1", "ls1.gamma"),
    ("norm2", "norm2"),
    ("mlp.gate_proj", "mlp.gate"),
    ("mlp.up_proj", "mlp.up"),
    ("mlp.down_proj", "mlp.fc2"),
    ("layer_scale2.lambda1", "ls2.gamma"),
)
_NAMES = Names(
    [
        ("embeddings.cls_token", "cls_token"),
        ("embeddings.register_tokens", "reg_token"),
        ("embeddings.patch_embeddings", "patch_embed.proj"),
        *((f"layer.{{i}}.{a}", f"blocks.{{i}}.{b}") for a, b in _BLOCK),
    ]
)
_MASK = {r"embeddings\.mask_token": "the mask token of pre-training"}
_PREFIX = re.compile(r"model\.(?=layer\.\d)")


def _recognise(shapes: Shapes) -> bool:
    names = {_PREFIX.sub("", name, count=1) for name in shapes}
    return {"embeddings.patch_embeddings.weight", "layer.0.attention.q_proj.weight"} <= names


def _translate(tensors: Mapping[str, Tensor]) -> Translated:
    bare = {_PREFIX.sub("", name, count=1): tensor for name, tensor in tensors.items()}
    kept, left = left_out(bare, _MASK)
    named = join_parts(with_all_biases(_NAMES.translate(kept)), ("q", "k", "v"), "qkv")
    if "reg_token" in named and not named["reg_token"].shape[1]:
        del named["reg_token"]  # a model without registers holds an empty tensor of them
    return Translated(_with_mlp(named), left)


def _with_mlp(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Gate and value as one layer; without a gate, ``up`` is the first layer by itself."""
    joined = join_parts(named, ("gate", "up"), "fc1")
    return {name.replace(".mlp.up.", ".mlp.fc1."): tensor for name, tensor in joined.items()}


DINOV3 = Format(
    "Hugging Face DINOv3",
    _recognise,
    _translate,
    arguments=DINOV3_ARGUMENTS,
    preprocessing=DINOV3_PICTURES,
)
