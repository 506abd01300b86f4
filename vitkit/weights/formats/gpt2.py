"""GPT-2 of Hugging Face: a language model whose linear layers hold their weights as (in, out).

Source: transformers, ``GPT2Model`` and ``GPT2LMHeadModel``; Radford et al., "Language models are
unsupervised multitask learners", 2019.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from vitkit.weights.formats.layout import Format, Names, Shapes, Translated, left_out

__all__ = ["GPT2"]

_PREFIX = "transformer."
_HEAD, _WORDS = "lm_head.weight", "wte.weight"
_NAMES = Names(
    [
        (_WORDS, "words.tokens.weight"),
        ("wpe.weight", "words.pos_embed"),
        ("h.{i}.ln_1", "blocks.{i}.norm1"),
        ("h.{i}.attn.c_attn", "blocks.{i}.attn.qkv"),
        ("h.{i}.attn.c_proj", "blocks.{i}.attn.proj"),
        ("h.{i}.ln_2", "blocks.{i}.norm2"),
        ("h.{i}.mlp.c_fc", "blocks.{i}.mlp.fc1"),
        ("h.{i}.mlp.c_proj", "blocks.{i}.mlp.fc2"),
        ("ln_f", "norm"),
        (_HEAD, "head.weight"),
    ]
)
_BUFFERS = {r"h\.\d+\.attn\.(masked_)?bias": "the causal mask, which is computed here"}
_TURNED = re.compile(r"h\.\d+\.(attn|mlp)\.c_\w+\.weight")


def _recognise(shapes: Shapes) -> bool:
    names = {name.removeprefix(_PREFIX) for name in shapes}
    return {_WORDS, "wpe.weight", "h.0.attn.c_attn.weight"} <= names


def _translate(tensors: Mapping[str, Tensor]) -> Translated:
    bare = {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items()}
    kept, left = left_out(bare, _BUFFERS)
    if _HEAD in kept and torch.equal(kept[_HEAD], kept[_WORDS]):
        del kept[_HEAD]
        left[_HEAD] = "the embedding once more"
    kept["wpe.weight"] = kept["wpe.weight"][None]
    turned = {n: t.T.contiguous() if _TURNED.fullmatch(n) else t for n, t in kept.items()}
    return Translated(_NAMES.translate(turned), left)


GPT2 = Format("GPT-2", _recognise, _translate, reads_words=True)
