"""An image as a text: one token a pixel, read by the text Transformer."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitkit.models.options import check_option
from vitkit.models.patches import as_pair, check_size
from vitkit.models.text import TextTransformer
from vitkit.nn import GradientCheckpointing

__all__ = ["PixelTextClassifier"]

COLORS: dict[str, tuple[int, int]] = {"grey": (256, 1), "rgb": (768, 3), "palette": (256, 1)}
"""Colour scheme -> number of tokens, tokens a pixel."""
LUMA = (0.2989, 0.587, 0.114)


class PixelTextClassifier(GradientCheckpointing):
    """A text Transformer that reads an image pixel by pixel, row by row, as tokens.

    Args:
        img_size: (height, width) in pixels, or one number.
        in_chans: 1 or 3 channels.
        num_classes: classes of the head; 0 leaves it out.
        color: ``grey`` (256 levels, one token a pixel), ``rgb`` (three tokens a pixel, 256 levels
            for each colour) or ``palette`` (256 colours of 8 x 8 x 4 levels, one token a pixel).
        pixel_pool: average squares of this side into one pixel first; divides ``img_size``.
        text: the other arguments of :class:`vitkit.models.text.TextTransformer`.

    Attributes:
        unit_pixels: True: wants pixels in [0, 1], so mean 0 and standard deviation 1.

    Raises:
        ValueError: channels that the colour scheme cannot read, or a size that ``pixel_pool`` does
            not divide.

    Source: the Image task of Long Range Arena, arXiv 2011.04006. Unlike its code, no pixel value
    counts as padding.
    """

    unit_pixels: ClassVar[bool] = True

    def __init__(
        self,
        img_size: int | tuple[int, int] = 32,
        in_chans: int = 3,
        num_classes: int = 10,
        *,
        color: str = "grey",
        pixel_pool: int = 1,
        **text: Any,
    ) -> None:
        super().__init__()
        self.img_size, self.in_chans = as_pair(img_size), in_chans
        self.color, self.pixel_pool = color, pixel_pool
        self._check_pixels()
        vocab_size, words_a_pixel = COLORS[color]
        height, width = (side // pixel_pool for side in self.img_size)
        self.text = TextTransformer(vocab_size, height * width * words_a_pixel, num_classes, **text)
        self.embed_dim, self.num_features = self.text.embed_dim, self.text.num_features

    @property
    def num_classes(self) -> int:
        """Classes of the head."""
        return self.text.num_classes

    def forward(self, images: Tensor) -> Tensor:
        """Images float (B, channels, height, width) in [0, 1] -> logits (B, num_classes)."""
        logits: Tensor = self.text(self.words_of(images))
        return logits

    def words_of(self, images: Tensor) -> Tensor:
        """Images float (B, channels, height, width) in [0, 1] -> ids int64 (B, N)."""
        check_size(images, self.img_size)
        if self.pixel_pool > 1:
            images = F.avg_pool2d(images, self.pixel_pool)
        if self.color == "grey":
            if self.in_chans == 3:
                # A sum, not a product of matrices: that would be in bfloat16 under autocast, which
                # cannot tell neighbouring levels apart.
                images = (images.float() * _luma(images.device)).sum(dim=1)
            return _levels(images, 256).flatten(1)
        if self.color == "rgb":
            first_word = 256 * torch.arange(3, device=images.device)
            return (_levels(images, 256).permute(0, 2, 3, 1) + first_word).flatten(1)
        red, green, blue = images.unbind(dim=1)
        return (_levels(red, 8) * 32 + _levels(green, 8) * 4 + _levels(blue, 4)).flatten(1)

    def forward_features(self, images: Tensor) -> Tensor:
        """All tokens after the last block and norm: (B, prefix + N, C)."""
        return self.text.forward_features(self.words_of(images))

    def forward_head(self, tokens: Tensor, pre_logits: bool = False) -> Tensor:
        """Tokens (B, prefix + N, C) -> logits (B, num_classes), or what the classifier reads."""
        return self.text.forward_head(tokens, pre_logits=pre_logits)

    def reset_classifier(self, num_classes: int) -> None:
        """A fresh last layer for another number of classes; 0 leaves it out."""
        self.text.reset_classifier(num_classes)

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.text.get_classifier()

    def no_weight_decay(self) -> set[str]:
        """Parameters that weight decay leaves alone, besides biases and norms."""
        return {f"text.{name}" for name in self.text.no_weight_decay()}

    def _check_pixels(self) -> None:
        check_option("color", self.color, COLORS)
        allowed = (1, 3) if self.color == "grey" else (3,)
        if self.in_chans not in allowed:
            raise ValueError(
                f"color {self.color!r} cannot read {self.in_chans} channels; "
                f"allowed: {' or '.join(map(str, allowed))}"
            )
        if any(side % self.pixel_pool for side in self.img_size):
            raise ValueError(
                f"image size {self.img_size[0]} x {self.img_size[1]} is not a multiple of "
                f"pixel_pool {self.pixel_pool}"
            )


def _luma(device: torch.device) -> Tensor:
    """Shares of the channels in a grey level, float32 (3, 1, 1).

    Filled in where they are needed: a list of numbers would be sent from the CPU, and waited for.
    """
    return torch.cat([torch.full((1, 1, 1), share, device=device) for share in LUMA])


def _levels(values: Tensor, count: int) -> Tensor:
    """[0, 1] -> the nearest of ``count`` even levels, int64."""
    return (values * (count - 1)).round().clamp(0, count - 1).long()
