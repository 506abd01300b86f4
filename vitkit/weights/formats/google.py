"""Google's ``.npz``: the original ViT, AugReg, and big_vision's later spelling of both.

Source: google-research/vision_transformer and google-research/big_vision.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from vitkit.weights.formats.layout import (
    BEHIND_REPRESENTATION,
    HALF,
    Format,
    Resampling,
    Shapes,
    Translated,
    join_parts,
)

__all__ = ["GOOGLE"]

_PREFIX = re.compile(r"(opt/target/|params/img/|params/)")
_ROOT = {
    "cls": "cls_token",
    "pos_embedding": "pos_embed",
    "Transformer/posembed_input/pos_embedding": "pos_embed",
    "embedding/kernel": "patch_embed.proj.weight",
    "embedding/bias": "patch_embed.proj.bias",
    "Transformer/encoder_norm/scale": "norm.weight",
    "Transformer/encoder_norm/bias": "norm.bias",
    "head/kernel": "head.weight",
    "head/bias": "head.bias",
}
_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}
_BLOCK = re.compile(r"Transformer/encoderblock_?(\d*)/(.+)/(kernel|scale|bias)")
_PARTS = {
    r"LayerNorm_0": "norm1",
    r"LayerNorm_[12]": "norm2",
    r"MultiHeadDotProductAttention_[01]/query": "attn.q",
    r"MultiHeadDotProductAttention_[01]/key": "attn.k",
    r"MultiHeadDotProductAttention_[01]/value": "attn.v",
    r"MultiHeadDotProductAttention_[01]/out": "attn.proj",
    r"MlpBlock_[03]/Dense_0": "mlp.fc1",
    r"MlpBlock_[03]/Dense_1": "mlp.fc2",
}
_QKV = ("attn.q", "attn.k", "attn.v")


def _is_google(shapes: Shapes) -> bool:
    return any("Transformer/encoderblock" in name for name in shapes)


def _translate(tensors: Mapping[str, Tensor]) -> Translated:
    out: dict[str, Tensor] = {}
    left: dict[str, str] = {}
    heads = 0
    bare = {_PREFIX.sub("", name, count=1): tensor for name, tensor in tensors.items()}
    has_representation = "pre_logits/kernel" in bare
    for name, tensor in bare.items():
        if has_representation and name.startswith(("pre_logits/", "head/")):
            left[name] = BEHIND_REPRESENTATION
        elif name in _ROOT:
            out[_ROOT[name]] = _torch_order(tensor) if name.endswith("kernel") else tensor
        elif match := _BLOCK.fullmatch(name):
            part, leaf = _part(match[2]), _LEAVES[match[3]]
            for index, value in _layers(match[1], tensor):
                if part == "attn.q" and leaf == "bias":
                    heads = value.shape[0]
                out[f"blocks.{index}.{part}.{leaf}"] = _flat(value, part, leaf)
        else:
            out[name] = tensor  # told as unknown
    joined = join_parts(out, ("q", "k", "v"), "qkv")
    return Translated(joined, left, {"num_heads": heads} if heads else {})


def _layers(index: str, tensor: Tensor) -> list[tuple[int, Tensor]]:
    """(block, its array); big_vision may stack all blocks along a first axis."""
    return [(int(index), tensor)] if index else list(enumerate(tensor))


def _part(name: str) -> str:
    return next((ours for fit, ours in _PARTS.items() if re.fullmatch(fit, name)), name)


def _flat(tensor: Tensor, part: str, leaf: str) -> Tensor:
    """An array of flax as torch's: kernels are (in, out), and heads are an axis of their own."""
    if leaf == "bias" or tensor.ndim == 1:
        return tensor.flatten()
    if part in _QKV:
        return tensor.flatten(1).T
    return tensor.flatten(0, -2).T


def _torch_order(kernel: Tensor) -> Tensor:
    """(height, width, in, out) -> (out, in, height, width); (in, out) -> (out, in)."""
    return kernel.permute(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T


GOOGLE = Format(
    "Google's ViT (.npz)",
    _is_google,
    _translate,
    preprocessing=HALF,
    resampling=Resampling(mode="bilinear", antialias=False),
    of_imagenet=True,
)
