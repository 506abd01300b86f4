"""DUSt3R and MASt3R: both views' points in the first camera's frame."""

from __future__ import annotations

import torch
from torch import Tensor

from examples.two_view.decoder import EncoderDecoder, cross_blocks, exchange
from examples.two_view.encoder import Grid
from examples.two_view.heads import PointMap, make_head
from examples.two_view.sizes import Sizes

__all__ = ["TwoView"]


class TwoView(EncoderDecoder):
    """One encoder for both views, twin decoders that read each other, a head each.

    Args:
        head_type: ``linear`` or ``dpt`` (DUSt3R), ``catmlp+dpt`` (MASt3R).
        sizes: widths, depths and the scheme of positions.

    Raises:
        ConfigError: no such head.

    Source: Wang et al., "DUSt3R", arXiv 2312.14132; Leroy et al., MASt3R, arXiv 2406.09756.
    """

    def __init__(self, head_type: str = "dpt", sizes: Sizes | None = None) -> None:
        sizes = Sizes() if sizes is None else sizes
        super().__init__(sizes)
        self.dec_blocks2 = cross_blocks(sizes)
        self.downstream_head1 = make_head(head_type, sizes)
        self.downstream_head2 = make_head(head_type, sizes)

    def forward(self, first: Tensor, second: Tensor) -> tuple[PointMap, PointMap]:
        """Points of both views in the first camera's frame.

        Args:
            first: (B, 3, height, width), sides multiples of the patch size.
            second: (B, 3, height', width').
        """
        (x, grid), (y, other) = self._encode_both(first, second)
        turns = self.dec_places(grid, x.device), self.dec_places(other, y.device)
        views = self.placed(self.decoder_embed(x)), self.placed(self.decoder_embed(y))
        pairs = zip(self.dec_blocks, self.dec_blocks2, strict=True)
        ours, theirs = exchange(pairs, views, turns)
        ours[-1], theirs[-1] = self.dec_norm(ours[-1]), self.dec_norm(theirs[-1])
        return self.downstream_head1([x, *ours], grid), self.downstream_head2([y, *theirs], other)

    def _encode_both(
        self, first: Tensor, second: Tensor
    ) -> tuple[tuple[Tensor, Grid], tuple[Tensor, Grid]]:
        if first.shape != second.shape:
            return self.encode(first), self.encode(second)
        tokens, grid = self.encode(torch.cat([first, second]))  # at once where they fit
        x, y = tokens.chunk(2)
        return (x, grid), (y, grid)
