"""CLIP's image tower, as OpenAI and OpenCLIP publish it and as Hugging Face holds it.

What projects the class token to the space that images and texts share is our head, as in timm.
Source: openai/CLIP, ``clip/model.py``; huggingface/transformers, model ``clip``; Radford et al.,
arXiv 2103.00020.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from vitkit.weights.formats.layout import (
    Format,
    Names,
    Resampling,
    Shapes,
    Translated,
    join_parts,
    left_out,
)

__all__ = ["CLIP", "HUGGING_FACE_CLIP"]

_VISUAL = "visual."
_BLOCK = (
    ("ln_1", "norm1"),
    ("attn.in_proj_weight", "attn.qkv.weight"),
    ("attn.in_proj_bias", "attn.qkv.bias"),
    ("attn.out_proj", "attn.proj"),
    ("ln_2", "norm2"),
    ("mlp.c_fc", "mlp.fc1"),
    ("mlp.c_proj", "mlp.fc2"),
)
_NAMES = Names(
    [
        ("class_embedding", "cls_token"),
        ("positional_embedding", "pos_embed"),
        ("conv1", "patch_embed.proj"),
        ("ln_pre", "norm_pre"),
        *((f"transformer.resblocks.{{i}}.{a}", f"blocks.{{i}}.{b}") for a, b in _BLOCK),
        ("ln_post", "norm"),
    ]
)
_PROJECTION = "proj"
_HF_BLOCK = (
    ("layer_norm1", "norm1"),
    ("self_attn.q_proj", "attn.q"),
    ("self_attn.k_proj", "attn.k"),
    ("self_attn.v_proj", "attn.v"),
    ("self_attn.out_proj", "attn.proj"),
    ("layer_norm2", "norm2"),
    ("mlp.fc1", "mlp.fc1"),
    ("mlp.fc2", "mlp.fc2"),
)
_HF_NAMES = Names(
    [
        ("embeddings.class_embedding", "cls_token"),
        ("embeddings.position_embedding.weight", "pos_embed"),
        ("embeddings.patch_embedding", "patch_embed.proj"),
        ("pre_layrnorm", "norm_pre"),  # spelled so
        *((f"encoder.layers.{{i}}.{a}", f"blocks.{{i}}.{b}") for a, b in _HF_BLOCK),
        ("post_layernorm", "norm"),
    ]
)
_HF_PREFIX = re.compile(r"^(vision_model\.)+")
_HF_PROJECTION = "visual_projection.weight"
_TEXT = "of the text tower, which no model here is"
_HF_LEFT = {
    r"text_model\..*|text_projection\..*|logit_scale|logit_bias": _TEXT,
    r"embeddings\.position_ids": "the numbers of the positions",
    r"classifier\..*": "a head that reads the mean of the patches before the last norm",
}
EMBEDS = (
    "the weights' head makes embeddings of images, to be compared with those of texts, and no "
    "scores of classes"
)


def _is_clip(shapes: Shapes) -> bool:
    # Without the text tower the prefix may be gone.
    return any(
        f"{prefix}class_embedding" in shapes
        and f"{prefix}transformer.resblocks.0.attn.in_proj_weight" in shapes
        for prefix in (_VISUAL, "")
    )


def _is_hugging_face(shapes: Shapes) -> bool:
    bare = {_HF_PREFIX.sub("", name, count=1) for name in shapes}
    return {"embeddings.class_embedding", "pre_layrnorm.weight"} <= bare


def _translate(tensors: Mapping[str, Tensor]) -> Translated:
    left: dict[str, str] = {}
    own = dict(tensors)
    if f"{_VISUAL}class_embedding" in tensors:
        own = {
            name.removeprefix(_VISUAL): tensor
            for name, tensor in tensors.items()
            if name.startswith(_VISUAL)
        }
        left = {name: _TEXT for name in tensors if not name.startswith(_VISUAL)}
    projection = own.pop(_PROJECTION, None)
    out = Translated(_with_axes(_NAMES.translate(own)), left)
    return out if projection is None else _with_head(out, projection.T)


def _translate_hugging_face(tensors: Mapping[str, Tensor]) -> Translated:
    bare = {_HF_PREFIX.sub("", name, count=1): tensor for name, tensor in tensors.items()}
    own, left = left_out(bare, _HF_LEFT)
    projection = own.pop(_HF_PROJECTION, None)
    named = join_parts(_HF_NAMES.translate(own), ("q", "k", "v"), "qkv")
    out = Translated(_with_axes(named), left)
    return out if projection is None else _with_head(out, projection)


def _with_axes(named: dict[str, Tensor]) -> dict[str, Tensor]:
    """The class token (C) and the positions (N + 1, C) as ours, of a batch of one."""
    flat = ("cls_token", "pos_embed")
    return {n: t.reshape(1, -1, t.shape[-1]) if n in flat else t for n, t in named.items()}


def _with_head(out: Translated, weight: Tensor) -> Translated:
    """With the projection (E, C), which has no bias, as the head."""
    out.tensors["head.weight"] = weight
    out.tensors["head.bias"] = weight.new_zeros(weight.shape[0])
    out.notes.append(EMBEDS)
    out.embeds = True
    return out


_PREPROCESSING = {
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
    "interpolation": "bicubic",
    "crop_pct": 1.0,
}
# OpenAI's own; retrained towers may have the exact GELU under the same names.
_ARGUMENTS = {"norm_eps": 1e-5, "act_layer": "quick_gelu"}

CLIP = Format("CLIP", _is_clip, _translate, arguments=_ARGUMENTS, preprocessing=_PREPROCESSING)
HUGGING_FACE_CLIP = Format(
    "Hugging Face CLIP",
    _is_hugging_face,
    _translate_hugging_face,
    arguments=_ARGUMENTS,
    preprocessing=_PREPROCESSING,
    resampling=Resampling(antialias=False),
)
