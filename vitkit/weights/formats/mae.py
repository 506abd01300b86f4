"""Masked autoencoders: the encoder of a pre-training, and a fine-tuned classifier.

Source: facebookresearch/mae; He et al., arXiv 2111.06377.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from vitkit.weights.formats.layout import (
    IMAGENET,
    Format,
    Resampling,
    Shapes,
    Translated,
    left_out,
)

__all__ = ["MAE", "MAE_FINETUNED"]

_DECODER = {r"decoder_.*|mask_token": "the decoder of pre-training"}


def _is_encoder(shapes: Shapes) -> bool:
    return "patch_embed.proj.weight" in shapes and (
        len(shapes.get("mask_token", ())) == 3
        or any(name.startswith("decoder_blocks.") for name in shapes)
    )


def _is_finetuned(shapes: Shapes) -> bool:
    own = {"patch_embed.proj.weight", "cls_token", "fc_norm.weight"} <= set(shapes)
    return own and "norm.weight" not in shapes


def _translate(tensors: Mapping[str, Tensor]) -> Translated:
    return Translated(*left_out(tensors, _DECODER))


MAE = Format(
    "MAE, pre-trained",
    _is_encoder,
    _translate,
    preprocessing=IMAGENET,
    resampling=Resampling(antialias=False),
)
# Its names are those of timm's mean pooling, and so is the way to another size.
MAE_FINETUNED = Format("MAE, fine-tuned", _is_finetuned, _translate, preprocessing=IMAGENET)
