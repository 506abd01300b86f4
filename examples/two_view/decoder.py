"""Blocks that read the other view, and the two ways of running them: alone and as twins."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from examples.two_view.encoder import Encoder, Places, cosine_table
from examples.two_view.sizes import Sizes
from vitkit.nn import Attention, Mlp, Rotation, make_norm

__all__ = ["CrossBlock", "EncoderDecoder", "cross_blocks", "exchange"]


class CrossBlock(nn.Module):
    """Self attention, attention to the other view, channel mixer; pre-norm.

    The other view's tokens have a norm of their own, and each side turns by its own positions.

    Args:
        embed_dim: C.
        num_heads: H.

    Source: Weinzaepfel et al., "CroCo v2", arXiv 2211.10408.
    """

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        norm = make_norm(eps=1e-6)
        self.norm1 = norm(embed_dim)
        self.attn = Attention(embed_dim, num_heads, qkv_bias=True)
        self.norm2, self.norm_y = norm(embed_dim), norm(embed_dim)
        self.cross_attn = Attention(embed_dim, num_heads, context_dim=embed_dim, qkv_bias=True)
        self.norm3 = norm(embed_dim)
        self.mlp = Mlp(embed_dim, 4 * embed_dim)

    def forward(
        self, x: Tensor, other: Tensor, turn: Rotation | None, other_turn: Rotation | None
    ) -> Tensor:
        """(B, N, C) tokens that read (B, M, C) others -> (B, N, C)."""
        pair = None if turn is None or other_turn is None else (turn, other_turn)
        x = x + self.attn(self.norm1(x), rotary=turn)
        x = x + self.cross_attn(self.norm2(x), self.norm_y(other), rotary=pair)
        return x + self.mlp(self.norm3(x))


def cross_blocks(sizes: Sizes) -> nn.ModuleList:
    """The blocks of one decoder."""
    dim, heads = sizes.dec_embed_dim, sizes.dec_num_heads
    return nn.ModuleList(CrossBlock(dim, heads) for _ in range(sizes.dec_depth))


class EncoderDecoder(Encoder):
    """The encoder, the way from its width to the decoder's, and one decoder.

    Args:
        sizes: widths, depths and the scheme of positions.
    """

    dec_pos_embed: Tensor | None

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes)
        dim = sizes.dec_embed_dim
        self.mask_token = nn.Parameter(torch.empty(1, 1, dim).normal_(std=0.02))
        self.decoder_embed = nn.Linear(sizes.enc_embed_dim, dim)
        self.dec_blocks = cross_blocks(sizes)
        self.dec_norm = make_norm(eps=1e-6)(dim)
        self.dec_places = Places(dim // sizes.dec_num_heads, sizes.rotary_base)
        self.register_buffer("dec_pos_embed", cosine_table(sizes, dim))

    def placed(self, x: Tensor) -> Tensor:
        """Decoder tokens (B, N, C) with their places added, where places are a table."""
        return x if self.dec_pos_embed is None else x + self.dec_pos_embed


def exchange(
    pairs: Iterable[tuple[nn.Module, nn.Module]],
    views: tuple[Tensor, Tensor],
    turns: tuple[Rotation | None, Rotation | None],
) -> tuple[list[Tensor], list[Tensor]]:
    """Run twin decoders side by side: in each layer, each reads what the other *came in* with.

    Args:
        pairs: the twins' blocks, layer by layer.
        views: their tokens, (B, N, C) and (B, M, C).
        turns: their rotations.

    Returns:
        Each twin's outputs, one a layer.

    Source: Wang et al., "DUSt3R", arXiv 2312.14132, section 3.1.
    """
    (x, y), (turn_x, turn_y) = views, turns
    first, second = [], []
    for block, twin in pairs:
        x, y = block(x, y, turn_x, turn_y), twin(y, x, turn_y, turn_x)
        first.append(x)
        second.append(y)
    return first, second
