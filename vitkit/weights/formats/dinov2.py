"""DINOv2 as its authors publish it: hub files, and dumps of a training with chunks of blocks.

Source: facebookresearch/dinov2; Oquab et al., arXiv 2304.07193; registers: arXiv 2309.16588.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from vitkit.weights.formats.layout import (
    IMAGENET,
    Format,
    Names,
    Resampling,
    Shapes,
    Translated,
    left_out,
)

__all__ = ["DINOV2", "DINOV2_REGISTERS", "folded_registers"]

_NAMES = Names(
    [
        ("register_tokens", "reg_token"),
        ("blocks.{i}.mlp.w12", "blocks.{i}.mlp.fc1"),
        ("blocks.{i}.mlp.w3", "blocks.{i}.mlp.fc2"),
    ]
)
_CHUNK = re.compile(r"blocks\.\d+\.(\d+)\.")


def folded_registers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Registers carry no position; ours carry all or none. So the class token takes its own in,
    and the table keeps the patches alone: the same sums.
    """
    out = dict(tensors)
    if "reg_token" in out and {"cls_token", "pos_embed"} <= set(out):
        table = out["pos_embed"]
        out["cls_token"] = out["cls_token"] + table[:, :1]
        out["pos_embed"] = table[:, 1:]
    return out


def _is_dinov2(shapes: Shapes) -> bool:
    # DINOv3 has no table of positions.
    return len(shapes.get("mask_token", ())) == 2 and "pos_embed" in shapes


def _has_registers(shapes: Shapes) -> bool:
    return _is_dinov2(shapes) and "register_tokens" in shapes


def _translate(tensors: Mapping[str, Tensor]) -> Translated:
    # Inside a chunk the block already has its number in the whole.
    whole = {_CHUNK.sub(r"blocks.\1.", name, count=1): t for name, t in tensors.items()}
    kept, left = left_out(whole, {"mask_token": "the mask token of pre-training"})
    return Translated(folded_registers(_NAMES.translate(kept)), left)


DINOV2 = Format(
    "DINOv2",
    _is_dinov2,
    _translate,
    preprocessing=IMAGENET,
    resampling=Resampling(antialias=False, offset=0.1),
)
DINOV2_REGISTERS = Format(
    "DINOv2 with registers", _has_registers, _translate, preprocessing=IMAGENET
)
