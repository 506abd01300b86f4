"""Pooling that learns where to look: a query of its own attends to all tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vitkit.nn import Attention, Mlp
from vitkit.nn.attention import NormLayer

__all__ = ["AttentionPoolLatent"]


class AttentionPoolLatent(Attention):
    """A learned query attends to all tokens, then an MLP (timm's ``global_pool='map'``).

    Args:
        embed_dim: C.
        num_heads: H.
        mlp_ratio: hidden width of the MLP over C.
        norm_layer: makes the norm before the MLP.
        act_layer: activation of the MLP.

    Source: Lee et al., "Set Transformer", arXiv 1810.00825; the head of arXiv 2106.04560.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        *,
        mlp_ratio: float,
        norm_layer: NormLayer,
        act_layer: str = "gelu",
    ) -> None:
        super().__init__(embed_dim, num_heads, context_dim=embed_dim, qkv_bias=True)
        self.latent = nn.Parameter(torch.zeros(1, 1, embed_dim))
        nn.init.trunc_normal_(self.latent, std=embed_dim**-0.5)
        self.norm = norm_layer(embed_dim)
        self.mlp = Mlp(embed_dim, int(embed_dim * mlp_ratio), act_layer=act_layer)

    def pool(self, tokens: Tensor) -> Tensor:
        """(B, N, C) -> (B, C)."""
        x = self(self.latent.expand(tokens.shape[0], -1, -1), tokens)
        x = x + self.mlp(self.norm(x))
        return x[:, 0]
