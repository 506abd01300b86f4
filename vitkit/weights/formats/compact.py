"""CCT, CVT and ViT-Lite as their authors publish them.

Source: SHI-Labs/Compact-Transformers; Hassani et al., arXiv 2104.05704.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from vitkit.weights.formats.layout import CIFAR, Format, Names, Resampling, Shapes, Translated

__all__ = ["COMPACT"]

_BLOCK = (
    ("pre_norm", "norm1"),
    ("self_attn.qkv", "attn.qkv"),
    ("self_attn.proj", "attn.proj"),
    ("norm1", "norm2"),
    ("linear1", "mlp.fc1"),
    ("linear2", "mlp.fc2"),
)
_NAMES = Names(
    [
        ("classifier.class_emb", "cls_token"),
        ("classifier.positional_emb", "pos_embed"),
        *((f"classifier.blocks.{{i}}.{a}", f"blocks.{{i}}.{b}") for a, b in _BLOCK),
        ("classifier.norm", "norm"),
        ("classifier.attention_pool", "seq_pool.score"),
        ("classifier.fc", "head"),
    ]
)
_CONV = re.compile(r"tokenizer\.conv_layers\.(\d+)\.0\.(weight|bias)")


def _is_compact(shapes: Shapes) -> bool:
    return "classifier.blocks.0.self_attn.qkv.weight" in shapes


def _translate(tensors: Mapping[str, Tensor]) -> Translated:
    is_patch = "tokenizer.conv_layers.0.0.bias" in tensors

    def ours(name: str) -> str:
        if match := _CONV.fullmatch(name):
            # Convolution, activation and pooling are three modules of one list here.
            return f"tokenizer.{'proj' if is_patch else f'layers.{3 * int(match[1])}'}.{match[2]}"
        return _NAMES.to_ours(name) or name

    return Translated({ours(name): tensor for name, tensor in tensors.items()})


COMPACT = Format(
    "Compact-Transformers (CCT, CVT, ViT-Lite)",
    _is_compact,
    _translate,
    preprocessing=CIFAR,
    resampling=Resampling(mode="bilinear", antialias=False),
)
