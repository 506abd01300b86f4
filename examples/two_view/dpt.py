"""The dense head: features of four depths, at four sizes, fused from coarse to fine."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from examples.two_view.encoder import Grid

__all__ = ["Dpt"]

Widths = tuple[int, int, int, int]


class ResidualConvUnit(nn.Module):
    """Two convolutions on a residual branch, each behind a ReLU."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, features, rows, columns) -> the same."""
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


class FeatureFusion(nn.Module):
    """Add a finer map to what came from the coarser ones, refine, double the size."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.out_conv = nn.Conv2d(features, features, 1)
        # The coarsest fusion has nothing to add; published files hold its unit all the same.
        self.resConfUnit1 = ResidualConvUnit(features)
        self.resConfUnit2 = ResidualConvUnit(features)

    def forward(self, x: Tensor, finer: Tensor | None = None) -> Tensor:
        """(B, features, rows, columns) -> (B, features, 2 rows, 2 columns)."""
        if finer is not None:
            x = x + self.resConfUnit1(finer)
        return self.out_conv(_doubled(self.resConfUnit2(x)))


class Scratch(nn.Module):
    """What is learned from scratch: one width for all four maps, and their fusion."""

    def __init__(self, widths: Widths, features: int) -> None:
        super().__init__()
        self.layer_rn = nn.ModuleList(
            nn.Conv2d(width, features, 3, padding=1, bias=False) for width in widths
        )
        self.refinenet1 = FeatureFusion(features)
        self.refinenet2 = FeatureFusion(features)
        self.refinenet3 = FeatureFusion(features)
        self.refinenet4 = FeatureFusion(features)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Four maps, each half the size of the one before -> one of twice the first's size."""
        first, second, third, fourth = (
            conv(x) for conv, x in zip(self.layer_rn, maps, strict=True)
        )
        rows, columns = third.shape[2:]
        x = self.refinenet4(fourth)[:, :, :rows, :columns]  # odd grids were rounded up
        x = self.refinenet3(x, third)
        return self.refinenet1(self.refinenet2(x, second), first)


class Doubling(nn.Module):
    """Bilinear, to twice the size."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, rows, columns) -> (B, C, 2 rows, 2 columns)."""
        return _doubled(x)


class Dpt(nn.Module):
    """Tokens of four depths to one value a pixel and channel.

    Args:
        embed_dims: widths of the tokens of the four depths, the earliest first.
        num_channels: of the result.
        features: width of the fusion.
        widths: of the four maps before it.

    Source: Ranftl et al., "Vision Transformers for dense prediction", arXiv 2103.13413.
    """

    def __init__(
        self,
        embed_dims: Widths,
        num_channels: int,
        *,
        features: int = 256,
        widths: Widths = (96, 192, 384, 768),
    ) -> None:
        super().__init__()
        narrow = [nn.Conv2d(c, w, 1) for c, w in zip(embed_dims, widths, strict=True)]
        a, b, _, d = widths
        self.act_postprocess = nn.ModuleList(
            [
                nn.Sequential(narrow[0], nn.ConvTranspose2d(a, a, 4, stride=4)),
                nn.Sequential(narrow[1], nn.ConvTranspose2d(b, b, 2, stride=2)),
                nn.Sequential(narrow[2]),
                nn.Sequential(narrow[3], nn.Conv2d(d, d, 3, stride=2, padding=1)),
            ]
        )
        self.scratch = Scratch(widths, features)
        half = features // 2
        self.head = nn.Sequential(
            nn.Conv2d(features, half, 3, padding=1),
            Doubling(),
            nn.Conv2d(half, half, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(half, num_channels, 1),
        )

    def forward(self, tokens: Sequence[Tensor], grid: Grid) -> Tensor:
        """Four of (B, N, C) -> (B, num_channels, 16 rows, 16 columns)."""
        maps = [
            act(x.mT.unflatten(2, grid))
            for act, x in zip(self.act_postprocess, tokens, strict=True)
        ]
        return self.head(self.scratch(maps))


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
