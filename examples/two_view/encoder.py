"""Images to tokens: the ViT without a class token that all of these systems share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from examples.two_view.sizes import Sizes
from vitkit.errors import DataError
from vitkit.nn import (
    BlockContext,
    Rotary2d,
    Rotation,
    encoder_blocks,
    grid_positions,
    make_norm,
    sincos_2d,
)

__all__ = ["Encoder", "Grid", "Places", "cosine_table"]

Grid = tuple[int, int]


class PatchEmbed(nn.Module):
    """Patches to tokens by one strided convolution.

    Args:
        embed_dim: C.
        patch_size: side of a patch in pixels.
    """

    def __init__(self, embed_dim: int, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(3, embed_dim, patch_size, patch_size)

    def forward(self, images: Tensor) -> tuple[Tensor, Grid]:
        """(B, 3, height, width) -> tokens (B, N, C), row by row, and their (rows, columns).

        Raises:
            DataError: a side that is no multiple of the patch size.
        """
        height, width = images.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise DataError(
                f"images of {height} x {width}; allowed: sides that are multiples of "
                f"{self.patch_size}, so crop or resize them"
            )
        x = self.proj(images)
        return x.flatten(2).mT, (x.shape[2], x.shape[3])


class Places(nn.Module):
    """Rotary angles of the tokens of a grid for one head width; without a base there are none.

    Args:
        head_dim: D.
        base: of the wavelengths; None where positions are added as a table.
    """

    def __init__(self, head_dim: int, base: float | None) -> None:
        super().__init__()
        self.rotary = None if base is None else Rotary2d(head_dim, base=base, pairing="axial")

    def forward(
        self, grid: Grid, device: torch.device, kept: Tensor | None = None
    ) -> Rotation | None:
        """Rotation of a grid; with ``kept``, int (B, n), of those tokens of each image alone."""
        if self.rotary is None:
            return None
        places = grid_positions(grid).to(device)
        return self.rotary.at(places if kept is None else places[kept][:, None])


class Encoder(nn.Module):
    """Patches, self-attention blocks with 2-D rotary positions, a last norm.

    Args:
        sizes: widths, depths and the scheme of positions.

    Source: Weinzaepfel et al., "CroCo v2", arXiv 2211.10408.
    """

    enc_pos_embed: Tensor | None

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        dim, norm = sizes.enc_embed_dim, make_norm(eps=1e-6)
        self.patch_embed = PatchEmbed(dim, sizes.patch_size)
        self.enc_blocks = encoder_blocks(sizes.enc_depth, dim, sizes.enc_num_heads, norm_layer=norm)
        self.enc_norm = norm(dim)
        self.enc_places = Places(dim // sizes.enc_num_heads, sizes.rotary_base)
        self.register_buffer("enc_pos_embed", cosine_table(sizes, dim))

    def encode(self, images: Tensor, kept: Tensor | None = None) -> tuple[Tensor, Grid]:
        """Tokens of images (B, 3, height, width).

        Args:
            images: normalised, sides multiples of the patch size.
            kept: int (B, n), the patches that are seen; all unless given.

        Returns:
            (B, N, C), or (B, n, C) where patches were chosen, and (rows, columns) of the whole.
        """
        x, grid = self.patch_embed(images)
        if self.enc_pos_embed is not None:
            x = x + self.enc_pos_embed
        if kept is not None:
            x = x.gather(1, kept[..., None].expand(-1, -1, x.shape[-1]))
        ctx = BlockContext(grid=grid, rotary=self.enc_places(grid, x.device, kept))
        return self.enc_norm(self.enc_blocks(x, ctx)), grid


def cosine_table(sizes: Sizes, embed_dim: int) -> Tensor | None:
    """CroCo's first scheme: a fixed table (N, C), the column's half before the row's half.

    None where positions are rotary.
    """
    if sizes.rotary_base is not None:
        return None
    grid = (sizes.img_size[0] // sizes.patch_size, sizes.img_size[1] // sizes.patch_size)
    rows, columns = sincos_2d(grid, embed_dim).chunk(2, dim=1)
    return torch.cat([columns, rows], dim=1)
