"""DeiT with its distillation token, and DeiT III.

Source: facebookresearch/deit; Touvron et al., arXiv 2012.12877 and 2204.07118.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from vitkit.weights.formats.layout import (
    IMAGENET,
    Format,
    Names,
    Resampling,
    Shapes,
    Translated,
)

__all__ = ["DEIT", "DEIT3"]

_NAMES = Names(
    [
        ("blocks.{i}.gamma_1", "blocks.{i}.ls1.gamma"),
        ("blocks.{i}.gamma_2", "blocks.{i}.ls2.gamma"),
    ]
)


def _is_distilled(shapes: Shapes) -> bool:
    return "dist_token" in shapes and "patch_embed.proj.weight" in shapes


def _is_deit3(shapes: Shapes) -> bool:
    # EVA and BEiT call their factors so too, but part q's bias from v's.
    own = "blocks.0.gamma_1" in shapes and "blocks.0.attn.qkv.weight" in shapes
    return own and "blocks.0.attn.q_bias" not in shapes


def _translate(tensors: Mapping[str, Tensor]) -> Translated:
    return Translated(_NAMES.translate(tensors))


_RESAMPLING = Resampling(antialias=False)

DEIT = Format(
    "DeiT, distilled", _is_distilled, _translate, preprocessing=IMAGENET, resampling=_RESAMPLING
)
DEIT3 = Format(
    "DeiT III",
    _is_deit3,
    _translate,
    preprocessing={**IMAGENET, "crop_pct": 1.0},
    resampling=_RESAMPLING,
    of_imagenet=True,
)
