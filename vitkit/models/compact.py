"""Compact Transformers for small sets: CCT, CVT and ViT-Lite.

CCT cuts tokens with small convolutions and pools over the whole sequence; CVT keeps that pooling
on plain patches; ViT-Lite has patches and a class token. All three share CCT's block.

Source: Hassani et al., "Escaping the big data paradigm with compact Transformers",
arXiv 2104.05704, and SHI-Labs/Compact-Transformers.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from vitkit.models.first_weights import init_vit_weights, make_head
from vitkit.models.options import check_option
from vitkit.models.patches import PatchEmbed, as_pair, check_size
from vitkit.nn import (
    BlockContext,
    CompactBlock,
    Dropout,
    GradientCheckpointing,
    encoder_blocks,
    sincos_1d,
)

__all__ = ["CompactTransformer", "ConvTokenizer", "SequencePool"]

POOLS = ("seq", "token")
POSITIONS = ("learnable", "sine", "none")
TOKENIZERS = ("conv", "patch")


class ConvTokenizer(nn.Module):
    """Pictures to tokens by convolutions: (convolution, ReLU, 3 x 3 maximum of stride 2) x n.

    Args:
        img_size: (height, width) in pixels, or one number.
        in_chans: channels of the picture.
        embed_dim: C, channels of the last convolution.
        kernel_size: side of the kernels; the stride is max(1, kernel_size // 2 - 1).
        num_conv_layers: number of convolutions.
        conv_dim: channels between convolutions.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int],
        *,
        in_chans: int = 3,
        embed_dim: int = 256,
        kernel_size: int = 3,
        num_conv_layers: int = 1,
        conv_dim: int = 64,
    ) -> None:
        super().__init__()
        self.img_size = as_pair(img_size)
        stride, padding = max(1, kernel_size // 2 - 1), max(1, kernel_size // 2)
        widths = [in_chans, *[conv_dim] * (num_conv_layers - 1), embed_dim]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            conv = nn.Conv2d(before, after, kernel_size, stride, padding, bias=False)
            nn.init.kaiming_normal_(conv.weight)
            layers += [conv, nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
        self.layers = nn.Sequential(*layers)
        self._conv = (num_conv_layers, kernel_size, stride, padding)
        self.grid_size = self.grid_of(*self.img_size)
        self.num_patches = self.grid_size[0] * self.grid_size[1]

    def grid_of(self, height: int, width: int) -> tuple[int, int]:
        """(rows, columns) of tokens of a picture."""
        count, kernel, stride, padding = self._conv
        for _ in range(count):
            height, width = (
                (side + 2 * padding - kernel) // stride // 2 + 1 for side in (height, width)
            )
        return height, width

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """(B, channels, height, width) -> tokens (B, N, C), row by row, and their grid."""
        check_size(images, self.img_size)
        x = self.layers(images)
        return x.flatten(2).transpose(1, 2), self.grid_size


class SequencePool(nn.Module):
    """A learned weighting of all tokens: softmax over them of one linear score each.

    Args:
        embed_dim: C.
    """

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.score = nn.Linear(embed_dim, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, C) -> (B, C)."""
        weights = self.score(tokens).softmax(dim=1)
        return (weights.transpose(1, 2) @ tokens).squeeze(1)


class CompactTransformer(GradientCheckpointing):
    """CCT, CVT or ViT-Lite.

    Args:
        img_size: (height, width) in pixels, or one number.
        in_chans: channels of the pictures.
        num_classes: classes of the head; 0 leaves it out.
        embed_dim, depth, num_heads, mlp_ratio: C, number of blocks, H, MLP width over C.
        tokenizer: ``conv`` (CCT) or ``patch`` (CVT, ViT-Lite).
        kernel_size, num_conv_layers, conv_dim: of the ``conv`` tokenizer.
        patch_size: of the ``patch`` tokenizer.
        global_pool: ``seq`` (sequence pooling) or ``token`` (class token, ViT-Lite).
        positional_embedding: ``learnable``, ``sine`` (fixed) or ``none``.
        drop_rate: dropout before the head.
        pos_drop_rate: dropout after the positions.
        proj_drop_rate: dropout after attention and in the MLP.
        attn_drop_rate: dropout of the attention weights.
        drop_path_rate: stochastic depth of the last block.

    Raises:
        ValueError: an unknown option, or a size that the patch does not divide.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 32,
        in_chans: int = 3,
        num_classes: int = 10,
        embed_dim: int = 256,
        depth: int = 7,
        num_heads: int = 4,
        mlp_ratio: float = 2.0,
        *,
        tokenizer: str = "conv",
        kernel_size: int = 3,
        num_conv_layers: int = 1,
        conv_dim: int = 64,
        patch_size: int | tuple[int, int] = 4,
        global_pool: str = "seq",
        positional_embedding: str = "learnable",
        drop_rate: float = 0.0,
        pos_drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        attn_drop_rate: float = 0.1,
        drop_path_rate: float = 0.1,
    ) -> None:
        super().__init__()
        check_option("tokenizer", tokenizer, TOKENIZERS)
        check_option("global_pool", global_pool, POOLS)
        check_option("positional_embedding", positional_embedding, POSITIONS)
        self.num_classes, self.in_chans, self.embed_dim = num_classes, in_chans, embed_dim
        self.num_features = embed_dim
        self.global_pool = global_pool
        self.num_prefix_tokens = int(global_pool == "token")
        self.tokenizer: ConvTokenizer | PatchEmbed
        if tokenizer == "conv":
            self.tokenizer = ConvTokenizer(
                img_size,
                in_chans=in_chans,
                embed_dim=embed_dim,
                kernel_size=kernel_size,
                num_conv_layers=num_conv_layers,
                conv_dim=conv_dim,
            )
        else:
            self.tokenizer = PatchEmbed(
                img_size, patch_size, in_chans=in_chans, embed_dim=embed_dim
            )
            nn.init.kaiming_normal_(self.tokenizer.proj.weight)
        self.cls_token = (
            nn.Parameter(torch.zeros(1, 1, embed_dim)) if global_pool == "token" else None
        )
        self.pos_embed: nn.Parameter | Tensor | None
        self._make_positions(positional_embedding)
        self.pos_drop = Dropout(pos_drop_rate)
        self.blocks = encoder_blocks(
            depth,
            embed_dim,
            num_heads,
            block_type=CompactBlock,
            mlp_ratio=mlp_ratio,
            qkv_bias=False,
            attn_drop_rate=attn_drop_rate,
            proj_drop_rate=proj_drop_rate,
            drop_path_rate=drop_path_rate,
        )
        self.norm = nn.LayerNorm(embed_dim)
        self.seq_pool = SequencePool(embed_dim) if global_pool == "seq" else None
        self.head_drop = Dropout(drop_rate)
        self.head = make_head(embed_dim, num_classes)
        self.apply(init_vit_weights)

    @property
    def patch_embed(self) -> ConvTokenizer | PatchEmbed:
        """The tokenizer, by timm's name for what makes tokens of pictures."""
        return self.tokenizer

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, channels, height, width) -> logits (B, num_classes)."""
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Tensor) -> Tensor:
        """All tokens after the last block and norm: (B, prefix + N, C)."""
        x, grid = self.tokenizer(images)
        if self.cls_token is not None:
            x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        if self.pos_embed is not None:
            x = x + self.pos_embed
        x = self.blocks(self.pos_drop(x), BlockContext(grid, self.num_prefix_tokens))
        features: Tensor = self.norm(x)
        return features

    def forward_head(self, tokens: Tensor, pre_logits: bool = False) -> Tensor:
        """Tokens (B, N, C) -> logits (B, num_classes), or what the classifier would read."""
        x = self.head_drop(self.pool(tokens))
        return x if pre_logits else self.head(x)

    def pool(self, tokens: Tensor) -> Tensor:
        """Tokens (B, N, C) -> one vector an image (B, C)."""
        return tokens[:, 0] if self.seq_pool is None else self.seq_pool(tokens)

    def reset_classifier(self, num_classes: int) -> None:
        """A fresh head for another number of classes; 0 leaves it out."""
        self.num_classes = num_classes
        like, head = self.norm.weight, make_head(self.embed_dim, num_classes)
        init_vit_weights(head)
        self.head = head.to(like.device, like.dtype)

    def get_classifier(self) -> nn.Module:
        """The last layer, from C to num_classes."""
        return self.head

    def no_weight_decay(self) -> set[str]:
        """Parameters that weight decay leaves alone, besides biases and norms."""
        return {"pos_embed", "cls_token"}

    def _make_positions(self, kind: str) -> None:
        count = self.num_prefix_tokens + self.tokenizer.num_patches
        if kind == "learnable":
            self.pos_embed = nn.Parameter(torch.zeros(1, count, self.embed_dim))
            # Ten times timm's: the published value, and part of why CCT learns small sets well.
            nn.init.trunc_normal_(self.pos_embed, std=0.2)
        elif kind == "sine":
            table = sincos_1d(count, self.embed_dim)[None]
            self.register_buffer("pos_embed", table, persistent=False)
        else:
            self.pos_embed = None
