"""Fast3R: any number of views at once, fused by plain self attention over all their tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from examples.two_view.encoder import Encoder, Grid
from examples.two_view.heads import DptHead, PointMap
from examples.two_view.sizes import Sizes
from vitkit.errors import DataError
from vitkit.nn import Attention, Block, Mlp, Trunk, make_norm, sincos_1d

__all__ = ["EVAL_SCALE", "FUSION_LARGE", "Fast3R", "Fusion", "FusionAttention", "View"]

EVAL_SCALE = math.sqrt(math.log(137) / math.log(20))
"""Further factor of the fusion's scores in evaluation: it was trained on fewer views."""

MAX_VIEWS = 1000
FUSION_LARGE = Sizes(dec_embed_dim=1024, dec_depth=24, dec_num_heads=16)


@dataclass(frozen=True)
class View:
    """One view's points twice.

    Attributes:
        shared: in the first camera's frame.
        own: in the view's own camera's frame.
    """

    shared: PointMap
    own: PointMap


class FusionAttention(Attention):
    """Attention whose scores are sharper in evaluation by :data:`EVAL_SCALE`."""

    def project(self, *inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
        """As :class:`Attention`; a factor of the queries is a factor of the scores."""
        q, k, v = super().project(*inputs)
        return q if self.training else q * EVAL_SCALE, k, v


class Fusion(nn.Module):
    """All views' tokens in one sequence; a token knows its view by a row of a fixed table.

    Args:
        sizes: widths and depths.
    """

    view_table: Tensor

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        dim, heads, norm = sizes.dec_embed_dim, sizes.dec_num_heads, make_norm(eps=1e-5)
        self.decoder_embed = nn.Linear(sizes.enc_embed_dim, dim)
        self.dec_blocks = Trunk(
            Block(
                dim,
                FusionAttention(dim, heads, qkv_bias=True),
                Mlp(dim, 4 * dim),
                norm_layer=norm,
            )
            for _ in range(sizes.dec_depth)
        )
        self.dec_norm = make_norm(eps=1e-6)(dim)
        sines = sincos_1d(MAX_VIEWS, dim)
        table = torch.cat([sines[:, 0::2], sines[:, 1::2]], dim=1)  # the sine half, the cosine half
        self.register_buffer("view_table", table, persistent=False)

    def forward(self, tokens: Sequence[Tensor], indices: Tensor) -> list[list[Tensor]]:
        """Fuse views.

        Args:
            tokens: of each view, (B, N, C); N may differ.
            indices: rows of the table, int (B, views).

        Returns:
            For each view, its tokens as they came in and behind each block.
        """
        lengths = [x.shape[1] for x in tokens]
        names = self.view_table[indices].repeat_interleave(
            torch.tensor(lengths, device=indices.device), dim=1
        )
        x = self.decoder_embed(torch.cat(list(tokens), dim=1)) + names
        outputs = self.dec_blocks.intermediates(x, indices=range(len(self.dec_blocks)))
        outputs[-1] = self.dec_norm(outputs[-1])
        layers = [list(tokens), *(x.split(lengths, dim=1) for x in outputs)]
        return [list(view) for view in zip(*layers, strict=True)]


class Fast3R(nn.Module):
    """A shared encoder, the fusion, and two dense heads: in the first camera's frame, in its own.

    Args:
        sizes: widths and depths; the published long training has :data:`FUSION_LARGE`.

    Source: Yang et al., "Fast3R", arXiv 2501.13928.
    """

    def __init__(self, sizes: Sizes = FUSION_LARGE) -> None:
        super().__init__()
        self.encoder = Encoder(sizes)
        self.decoder = Fusion(sizes)
        self.downstream_head = DptHead(sizes)
        self.downstream_head_local = DptHead(sizes)

    def forward(
        self,
        views: Sequence[Tensor],
        indices: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> list[View]:
        """Points of all views.

        Args:
            views: (B, 3, height, width) each; the first one's camera is the common frame.
            indices: names of the views, int (B, views) below 1000; drawn unless given: 0 for the
                first, others different and random, in evaluation too.
            generator: to draw from.

        Raises:
            DataError: no view, or more than there are names for.
        """
        if not 1 <= len(views) <= MAX_VIEWS:
            raise DataError(f"{len(views)} views; allowed: 1 to {MAX_VIEWS}, so leave some out")
        if indices is None:
            indices = draw_indices(len(views[0]), len(views), generator)
        encoded = [self.encoder.encode(view) for view in views]
        fused = self.decoder([x for x, _ in encoded], indices.to(views[0].device))
        grids: list[Grid] = [grid for _, grid in encoded]
        return [
            View(self.downstream_head(layers, grid), self.downstream_head_local(layers, grid))
            for layers, grid in zip(fused, grids, strict=True)
        ]


def draw_indices(batch: int, views: int, generator: torch.Generator | None = None) -> Tensor:
    """0 for each example's first view, different random numbers for the others: (batch, views)."""
    rows = [torch.randperm(MAX_VIEWS - 1, generator=generator)[: views - 1] for _ in range(batch)]
    return torch.cat([torch.zeros(batch, 1, dtype=torch.long), torch.stack(rows) + 1], dim=1)
