"""The 19 corruptions by name, and the one function that applies them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vitkit.evaluation.corruptions import blurs, digital, noise, weather
from vitkit.evaluation.corruptions.constants import Row, constants_for
from vitkit.evaluation.corruptions.randomness import Draws

__all__ = [
    "CORRUPTIONS",
    "EXTRA_CORRUPTIONS",
    "SEVERITIES",
    "SMALLEST",
    "TEST_CORRUPTIONS",
    "corrupt",
]

Corruption = Callable[[Tensor, Row, Draws], Tensor]

SEVERITIES = (1, 2, 3, 4, 5)
SMALLEST = 32
"""Shortest side in pixels that the corruptions are defined for."""

TEST_CORRUPTIONS: dict[str, Corruption] = {
    "gaussian_noise": noise.gaussian_noise,
    "shot_noise": noise.shot_noise,
    "impulse_noise": noise.impulse_noise,
    "defocus_blur": blurs.defocus_blur,
    "glass_blur": blurs.glass_blur,
    "motion_blur": blurs.motion_blur,
    "zoom_blur": blurs.zoom_blur,
    "snow": weather.snow,
    "frost": weather.frost,
    "fog": weather.fog,
    "brightness": digital.brightness,
    "contrast": digital.contrast,
    "elastic_transform": digital.elastic_transform,
    "pixelate": digital.pixelate,
    "jpeg_compression": digital.jpeg_compression,
}
"""The 15 over which a mean is taken."""

EXTRA_CORRUPTIONS: dict[str, Corruption] = {
    "speckle_noise": noise.speckle_noise,
    "gaussian_blur": blurs.gaussian_blur,
    "spatter": weather.spatter,
    "saturate": digital.saturate,
}
"""Four more, meant for choices made on the way."""

CORRUPTIONS: dict[str, Corruption] = TEST_CORRUPTIONS | EXTRA_CORRUPTIONS


def corrupt(images: Tensor, name: str, severity: int, *, indices: Tensor, seed: int = 0) -> Tensor:
    """Images under a corruption; the same for an image whatever batch it comes in.

    CIFAR-10-C's constants hold for a shorter side of 32 pixels, ImageNet-C's for longer ones. Grey
    images are taken for coloured ones and made grey again, except under noise and blur.

    Args:
        images: uint8 (B, channels, height, width), 1 or 3 channels, 32 pixels or more a side.
        name: one of :data:`CORRUPTIONS`.
        severity: from 1 to 5.
        indices: int64 (B,): the images' places in their split, which set their random numbers.
        seed: of the random numbers.

    Returns:
        uint8, as ``images``.

    Raises:
        ValueError: another name, severity, type or size.

    Source: D. Hendrycks and T. Dietterich, arXiv 1903.12261.
    """
    if name not in CORRUPTIONS:
        raise ValueError(f"unknown corruption {name!r}; allowed: {', '.join(CORRUPTIONS)}")
    if severity not in SEVERITIES:
        raise ValueError(f"severity: given {severity}, allowed: 1 to 5")
    channels, height, width = images.shape[1:]
    if images.dtype != torch.uint8 or channels not in (1, 3) or min(height, width) < SMALLEST:
        raise ValueError(
            f"images: given {images.dtype} {tuple(images.shape)}, allowed: uint8 with 1 or 3 "
            f"channels and {SMALLEST} pixels or more a side"
        )
    draws = Draws(seed, indices.to(images.device), name, severity)
    x = images.to(torch.float32) / 255
    colour = channels == 1 and CORRUPTIONS[name].__module__ in (weather.__name__, digital.__name__)
    if colour:
        x = x.expand(-1, 3, -1, -1)
    out = CORRUPTIONS[name](x, constants_for(name, severity, (height, width)), draws)
    if colour:
        out = weather.luma(out.clamp(0, 1))
    # Cut off as in the published files, but not for what is short of a level by rounding alone.
    return (out.clamp(0, 1) * 255 + 2.0**-10).floor().to(torch.uint8)
