"""From tokens to points: a linear head, a dense one, and one with descriptors for matching."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from examples.two_view.dpt import Dpt
from examples.two_view.encoder import Grid
from examples.two_view.sizes import Sizes
from vitkit.errors import ConfigError

__all__ = [
    "HEADS",
    "DescriptorHead",
    "DptHead",
    "LinearHead",
    "PointMap",
    "make_head",
    "points_and_confidence",
]

DESCRIPTOR_DIM = 24


@dataclass(frozen=True)
class PointMap:
    """What is known about each pixel of one view.

    Attributes:
        points: (B, height, width, 3), x to the right, y down, z ahead, in the first camera's frame.
        confidence: (B, height, width), above 1.
        descriptors: (B, height, width, 24) of length 1, from a head that has them.
        match_confidence: (B, height, width), above 0: how much a descriptor is worth.
    """

    points: Tensor
    confidence: Tensor
    descriptors: Tensor | None = None
    match_confidence: Tensor | None = None


def points_and_confidence(raw: Tensor) -> PointMap:
    """(B, 4, height, width) -> points x expm1(|x|) / |x| and confidence 1 + exp.

    Source: Wang et al., "DUSt3R", arXiv 2312.14132, and its published code's parametrisation.
    """
    x, confidence = raw.permute(0, 2, 3, 1).split([3, 1], dim=-1)
    length = x.norm(dim=-1, keepdim=True)
    points = x / length.clamp(min=1e-8) * length.expm1()
    return PointMap(points, 1 + confidence.squeeze(-1).exp())


class LinearHead(nn.Module):
    """One linear layer from the last tokens to the pixels of their patches.

    Args:
        sizes: of the model below.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.patch_size = sizes.patch_size
        self.proj = nn.Linear(sizes.dec_embed_dim, 4 * sizes.patch_size**2)

    def forward(self, features: Sequence[Tensor], grid: Grid) -> PointMap:
        """Outputs of encoder and decoder blocks, (B, N, C) each -> the view's points."""
        return points_and_confidence(_to_pixels(self.proj(features[-1]), grid, self.patch_size))


class DptHead(nn.Module):
    """A dense head on the encoder's output and the decoder's at a half, three quarters, the end.

    Args:
        sizes: of the model below.

    Raises:
        ConfigError: a patch size other than 16.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        if sizes.patch_size != 16:
            raise ConfigError(
                f"patch_size {sizes.patch_size}; the dense head enlarges by 16, so it allows only "
                "16; the linear head takes any"
            )
        depth, dim = sizes.dec_depth, sizes.dec_embed_dim
        self.hooks = (0, depth // 2, depth * 3 // 4, depth)
        self.dpt = Dpt((sizes.enc_embed_dim, dim, dim, dim), num_channels=4)

    def forward(self, features: Sequence[Tensor], grid: Grid) -> PointMap:
        """Outputs of encoder and decoder blocks, (B, N, C) each -> the view's points."""
        return points_and_confidence(self.dpt([features[i] for i in self.hooks], grid))


class DescriptorHead(DptHead):
    """The dense head, and a perceptron from first and last tokens to descriptors for matching.

    Args:
        sizes: of the model below.

    Source: Leroy et al., "Grounding image matching in 3D with MASt3R", arXiv 2406.09756.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes)
        self.patch_size = sizes.patch_size
        dim = sizes.enc_embed_dim + sizes.dec_embed_dim
        out = (DESCRIPTOR_DIM + 1) * sizes.patch_size**2
        layers = [("fc1", nn.Linear(dim, 4 * dim)), ("act", nn.GELU())]
        self.head_local_features = nn.Sequential(
            OrderedDict([*layers, ("fc2", nn.Linear(4 * dim, out))])
        )

    def forward(self, features: Sequence[Tensor], grid: Grid) -> PointMap:
        """Outputs of encoder and decoder blocks, (B, N, C) each -> points and descriptors."""
        known = super().forward(features, grid)
        tokens = self.head_local_features(torch.cat([features[0], features[-1]], dim=-1))
        pixels = _to_pixels(tokens, grid, self.patch_size).permute(0, 2, 3, 1)
        descriptors, confidence = pixels.split([DESCRIPTOR_DIM, 1], dim=-1)
        return PointMap(
            known.points,
            known.confidence,
            F.normalize(descriptors, dim=-1),
            confidence.squeeze(-1).exp(),
        )


HEADS: dict[str, Callable[[Sizes], nn.Module]] = {
    "linear": LinearHead,
    "dpt": DptHead,
    "catmlp+dpt": DescriptorHead,
}
"""By the names that published files use."""


def make_head(name: str, sizes: Sizes) -> nn.Module:
    """A head by its name.

    Raises:
        ConfigError: no such head.
    """
    if name not in HEADS:
        raise ConfigError(f"unknown head {name!r}; allowed: {', '.join(HEADS)}")
    return HEADS[name](sizes)


def _to_pixels(tokens: Tensor, grid: Grid, patch_size: int) -> Tensor:
    """(B, N, channels x patch_size^2) -> (B, channels, height, width)."""
    return F.pixel_shuffle(tokens.mT.unflatten(2, grid), patch_size)
