"""The operations by name, and a batch in which each image gets the one it drew.

No step goes through the images one by one, and everything runs where the images are. Pixels are
those of ``torchvision.transforms.v2.functional`` (tests/data/test_ops.py says how exactly).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from vitkit.data import colors
from vitkit.data.colors import Amounts, Kinds, send
from vitkit.data.geometry import warp

__all__ = ["CODES", "OPERATIONS", "operate"]

GEOMETRIC = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")

FAMILIES: tuple[tuple[tuple[str, ...], Callable[..., Tensor]], ...] = (
    (("none",), lambda images, kinds, amounts: images),
    (GEOMETRIC, warp),
    (("invert", "posterize", "solarize", "solarize_add"), colors.change_levels),
    (("brightness", "contrast", "saturation"), colors.blend),
    (("autocontrast",), colors.autocontrast),
    (("equalize",), colors.equalize),
    (("sharpness",), colors.sharpen),
    (("blur",), colors.blur),
    (("hue",), colors.turn_hue),
)
"""Names of operations and the function that applies them, all of a family at once."""

PIECE = 1 << 19
"""Pixels, times channels, that one call on a CPU works on: more than a batch of CIFAR's images."""

OPERATIONS = tuple(name for names, _ in FAMILIES for name in names)
"""Names of operations by code; 0 is none."""

CODES = {name: code for code, name in enumerate(OPERATIONS)}
"""Name -> code."""


def operate(
    images: Tensor,
    codes: Kinds,
    amounts: Amounts,
    *,
    fill: Sequence[int] = (0,),
    bilinear: bool = False,
) -> Tensor:
    """Apply to each image the operation that it drew. Each family runs once, on its share.

    Args:
        images: uint8 (B, 1 or 3 channels, H, W).
        codes: int64 (B,), indices into :data:`OPERATIONS`.
        amounts: float64 (B,): shear as a slope, translation in pixels, rotation in degrees,
            posterize in bits, solarize as a threshold, solarize_add in levels, brightness,
            contrast, saturation and sharpness as factors, blur as a sigma in pixels, hue as a
            share of the circle. Saturation 0 is greyscale.
        fill: value of each channel, or of all, where geometry shows what is outside.
        bilinear: how geometry reads between pixels; else the nearest one.

    Returns:
        uint8 (B, channels, H, W).
    """
    order = np.argsort(codes, kind="stable")
    codes, amounts = codes[order], amounts[order]
    # Where each code's images begin, and after the last code the end.
    starts = np.searchsorted(codes, np.arange(len(OPERATIONS) + 1))
    if starts[1] == len(codes):
        return images
    ordered = images.index_select(0, send(order, images.device))
    # Intermediate values of a piece stay in the processor's cache; a GPU wants all work at once.
    piece = PIECE // images[0].numel() + 1 if images.device.type == "cpu" else len(codes)
    done, first = [], 0
    for names, family in FAMILIES:
        last = first + len(names)
        if names is GEOMETRIC:
            family = partial(family, fill=fill, bilinear=bilinear)
        for start in range(starts[first], starts[last], piece):
            part = slice(start, min(start + piece, starts[last]))
            done.append(family(ordered[part], codes[part] - first, amounts[part]))
        first = last
    return torch.cat(done).index_select(0, send(np.argsort(order), images.device))
