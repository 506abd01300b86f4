"""CroCo: fill in the hidden patches of one view from the other view."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from examples.two_view.decoder import EncoderDecoder
from examples.two_view.sizes import Sizes

__all__ = ["CroCo", "completion_loss", "hide_patches", "patches_of"]


class CroCo(EncoderDecoder):
    """Cross-view completion: the decoder reads the second view to complete the first.

    Args:
        sizes: widths, depths and the scheme of positions.

    Source: Weinzaepfel et al., "CroCo", arXiv 2210.10716, and "CroCo v2", arXiv 2211.10408.
    """

    def __init__(self, sizes: Sizes | None = None) -> None:
        sizes = Sizes() if sizes is None else sizes
        super().__init__(sizes)
        self.prediction_head = nn.Linear(sizes.dec_embed_dim, 3 * sizes.patch_size**2)

    def forward(self, first: Tensor, second: Tensor, hidden: Tensor) -> Tensor:
        """Pixels of every patch of the first view.

        Args:
            first: (B, 3, height, width), seen where not hidden.
            second: (B, 3, height', width'), seen whole.
            hidden: bool (B, N), True = hidden; as many in every row.

        Returns:
            (B, N, 3 x patch_size^2), in the order of :func:`patches_of`.
        """
        kept = (~hidden).nonzero()[:, 1].view(len(first), -1)
        seen, grid = self.encode(first, kept)
        other, other_grid = self.encode(second)
        tokens = self.decoder_embed(seen)
        x = self.mask_token.expand(*hidden.shape, -1).to(tokens.dtype)
        x = x.scatter(1, kept[..., None].expand(-1, -1, tokens.shape[-1]), tokens)
        x, other = self.placed(x), self.placed(self.decoder_embed(other))
        turn = self.dec_places(grid, x.device)
        other_turn = self.dec_places(other_grid, x.device)
        for block in self.dec_blocks:
            x = block(x, other, turn, other_turn)
        return self.prediction_head(self.dec_norm(x))


def hide_patches(
    batch: int, count: int, share: float = 0.9, *, generator: torch.Generator | None = None
) -> Tensor:
    """Hide ``share`` of ``count`` patches of each image: bool (batch, count), True = hidden."""
    order = torch.rand(batch, count, generator=generator).argsort(dim=1)
    return order < int(share * count)


def patches_of(images: Tensor, patch_size: int) -> Tensor:
    """(B, 3, height, width) -> (B, N, patch_size^2 x 3): within a patch row, column, channel."""
    batch = len(images)
    x = images.unfold(2, patch_size, patch_size).unfold(3, patch_size, patch_size)
    return x.permute(0, 2, 3, 4, 5, 1).reshape(batch, -1, 3 * patch_size**2)


def completion_loss(predicted: Tensor, images: Tensor, hidden: Tensor, patch_size: int) -> Tensor:
    """Mean squared error of the hidden patches, each normalised by its own mean and deviation.

    Args:
        predicted: (B, N, 3 x patch_size^2).
        images: (B, 3, height, width).
        hidden: bool (B, N).
        patch_size: side of a patch in pixels.
    """
    target = patches_of(images, patch_size)
    variance, mean = torch.var_mean(target, dim=-1, keepdim=True)
    target = (target - mean) / (variance + 1e-6).sqrt()
    return (predicted - target).square().mean(dim=-1)[hidden].mean()
