"""The Vision Transformer: patches in, the shared trunk, pooling, a head.

Arguments and parameter names are timm's, so its weights load without a map.
Source: Dosovitskiy et al., "An image is worth 16x16 words", arXiv 2010.11929.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vitkit.models.first_weights import init_vit_weights, make_head
from vitkit.models.options import check_option
from vitkit.models.patches import PatchEmbed, kept_patches
from vitkit.models.pooling import AttentionPoolLatent
from vitkit.models.stem import ConvStem
from vitkit.nn import (
    BlockContext,
    CentredRotary2d,
    Dropout,
    GradientCheckpointing,
    RelativeBias2d,
    Rotary2d,
    Rotation,
    encoder_blocks,
    is_hooked,
    make_norm,
    resize_position_grid,
    sincos_2d,
)

__all__ = ["VisionTransformer"]

POOLS = ("", "token", "avg", "max", "map", "token_avg")
POSITIONS = ("learn", "sincos2d", "rotary", "rotary_centred", "relative", "none", "")


class VisionTransformer(GradientCheckpointing):
    """A ViT with timm's options.

    Args:
        img_size: (height, width) in pixels, or one number.
        patch_size: pixels a side of a patch, or a pair.
        conv_stem: layers of a convolutional stem in place of patches, see
            :class:`vitkit.models.stem.ConvStem`; ``patch_size`` then means nothing.
        whiten_stem: do not train the stem's first convolution; :meth:`init_from_images` sets it.
        whiten_patches: :meth:`init_from_images` sets the patch embedding that training begins with.
        in_chans: channels of the pictures.
        num_classes: classes of the head; 0 leaves it out.
        global_pool: ``token`` (class token), ``avg``, ``max``, ``map`` (attention), ``token_avg``
            (class token and mean of the patches side by side, as DINOv2's classifiers read them:
            2 C), ``''`` (none).
        embed_dim, depth, num_heads, mlp_ratio: C, number of blocks, H, MLP width over C.
        head_dim: D; embed_dim / num_heads unless given.
        qkv_bias, qk_norm: see :class:`vitkit.nn.Attention`.
        proj_bias: bias of attention's output projection and, as in timm, of the MLP.
        init_values: LayerScale's first value; None leaves it out.
        class_token: prepend a learned token.
        reg_tokens: register tokens behind the class token (arXiv 2309.16588).
        pos_embed: ``learn``, ``sincos2d`` (fixed), ``rotary`` (2-D axial), ``rotary_centred`` (by
            patch centres in [-1, 1], see :class:`vitkit.nn.CentredRotary2d`), ``relative`` (a bias
            of each layer, see :class:`vitkit.nn.RelativeBias2d`) or ``none``.
        rope_base: base of the rotary wavelengths.
        rope_ref_grid: (rows, columns) that ``rotary`` positions are rescaled to; None: plain
            indices.
        rel_pos_locality: how steeply first relative biases fall around each head's neighbour.
        no_embed_class: learned positions for the patches only, not for class and registers.
        pre_norm: norm before the blocks; the patch projection then has no bias.
        final_norm: norm after the blocks.
        fc_norm: put the final norm behind the pooling; None: for ``avg`` and ``max``.
        dynamic_img_size: accept any multiple of the patch; positions are resampled.
        drop_rate: dropout before the head.
        pos_drop_rate, patch_drop_rate: after the positions; share of patch tokens left out.
        proj_drop_rate, attn_drop_rate, drop_path_rate: see :func:`vitkit.nn.encoder_blocks`.
        norm_layer, norm_eps: ``layernorm`` or ``rmsnorm``, and its epsilon.
        norm_first: pre-norm blocks (True) or post-norm.
        mlp_layer, act_layer: ``mlp`` or ``swiglu``; ``gelu``, ``gelu_tanh``, ``quick_gelu``,
            ``relu``, ``silu``.

    Attributes:
        wants_images: whether :meth:`init_from_images` should be called before a training from
            scratch.

    Raises:
        ValueError: options that contradict each other, or a size the patch does not divide.
    """

    num_head_tokens = 1
    """Tokens that the head reads with ``token`` pooling; they come first."""

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int | tuple[int, int] = 16,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "token",
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        *,
        conv_stem: Sequence[Mapping[str, int | bool]] | None = None,
        whiten_stem: bool = False,
        whiten_patches: bool = False,
        head_dim: int | None = None,
        qkv_bias: bool = True,
        qk_norm: bool = False,
        proj_bias: bool = True,
        init_values: float | None = None,
        class_token: bool = True,
        pos_embed: str = "learn",
        rope_base: float = 100.0,
        rope_ref_grid: tuple[int, int] | None = None,
        rel_pos_locality: float = 1.0,
        no_embed_class: bool = False,
        reg_tokens: int = 0,
        pre_norm: bool = False,
        final_norm: bool = True,
        fc_norm: bool | None = None,
        dynamic_img_size: bool = False,
        drop_rate: float = 0.0,
        pos_drop_rate: float = 0.0,
        patch_drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        norm_layer: str = "layernorm",
        norm_eps: float = 1e-6,
        norm_first: bool = True,
        mlp_layer: str = "mlp",
        act_layer: str = "gelu",
    ) -> None:
        super().__init__()
        _check_options(global_pool, pos_embed, class_token)
        norm = make_norm(norm_layer, norm_eps)
        self.num_classes, self.in_chans, self.embed_dim = num_classes, in_chans, embed_dim
        self._set_pool(global_pool)
        self.has_class_token = class_token
        self.num_prefix_tokens = self.num_head_tokens * class_token + reg_tokens
        self.no_embed_class = no_embed_class
        self.patch_drop_rate = patch_drop_rate
        self._make_pool = partial(
            AttentionPoolLatent,
            embed_dim,
            num_heads,
            mlp_ratio=mlp_ratio,
            norm_layer=norm,
            act_layer=act_layer,
        )

        if whiten_stem and conv_stem is None:
            raise ValueError("whiten_stem needs a conv_stem; for patches it is whiten_patches")
        if whiten_patches and conv_stem is not None:
            raise ValueError("whiten_patches goes without a conv_stem; with it, whiten_stem")
        self.wants_images = whiten_patches or whiten_stem
        self.patch_embed: PatchEmbed | ConvStem
        if conv_stem is None:
            self.patch_embed = PatchEmbed(
                img_size,
                patch_size,
                in_chans=in_chans,
                embed_dim=embed_dim,
                bias=not pre_norm,
                dynamic_img_size=dynamic_img_size,
            )
        else:
            self.patch_embed = ConvStem(
                img_size,
                conv_stem,
                in_chans=in_chans,
                embed_dim=embed_dim,
                act_layer=act_layer,
                dynamic_img_size=dynamic_img_size,
                whiten=whiten_stem,
            )
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim)) if class_token else None
        self.reg_token = nn.Parameter(torch.zeros(1, reg_tokens, embed_dim)) if reg_tokens else None
        self.pos_embed: nn.Parameter | Tensor | None
        self._make_positions(pos_embed)
        head_width = head_dim or embed_dim // num_heads
        self.rotary: Rotary2d | None = None
        if pos_embed == "rotary":
            self.rotary = Rotary2d(head_width, base=rope_base, ref_grid=rope_ref_grid)
        elif pos_embed == "rotary_centred":
            self.rotary = CentredRotary2d(head_width, base=rope_base)
        self.rel_pos = (
            RelativeBias2d(
                depth,
                num_heads,
                self.patch_embed.grid_size,
                num_prefix=self.num_prefix_tokens,
                locality=rel_pos_locality,
            )
            if pos_embed == "relative"
            else None
        )
        self.pos_drop = Dropout(pos_drop_rate)
        self.norm_pre = norm(embed_dim) if pre_norm else nn.Identity()
        self.blocks = encoder_blocks(
            depth,
            embed_dim,
            num_heads,
            mlp_ratio=mlp_ratio,
            head_dim=head_dim,
            qkv_bias=qkv_bias,
            proj_bias=proj_bias,
            mlp_bias=proj_bias,
            qk_norm=qk_norm,
            init_values=init_values,
            norm_layer=norm,
            norm_first=norm_first,
            mlp_layer=mlp_layer,
            act_layer=act_layer,
            attn_drop_rate=attn_drop_rate,
            proj_drop_rate=proj_drop_rate,
            drop_path_rate=drop_path_rate,
        )
        after_pool = global_pool in ("avg", "max") if fc_norm is None else fc_norm
        _check_norm(global_pool, after_pool)
        self.norm = norm(embed_dim) if final_norm and not after_pool else nn.Identity()
        self.attn_pool = self._make_pool() if global_pool == "map" else None
        self.fc_norm = norm(embed_dim) if final_norm and after_pool else nn.Identity()
        self.head_drop = Dropout(drop_rate)
        self.head = make_head(self.num_features, num_classes)
        self.init_weights()

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, channels, height, width) -> logits (B, num_classes).

        With ``global_pool=''`` the head reads every token: (B, N, num_classes).
        """
        norm: Any = self._modules["norm"]  # direct_calls may have put a function before it
        if self.global_pool == "token" and not (is_hooked(self.blocks) or is_hooked(norm)):
            # The last block computes no other tokens than the head reads.
            tokens, ctx = self._embed(images)
            tokens = self.blocks(tokens, ctx, read=self.num_head_tokens)
            return self.forward_head(self.norm(tokens))
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Tensor) -> Tensor:
        """All tokens after the last block and norm: (B, prefix + patches, C)."""
        tokens, ctx = self._embed(images)
        features: Tensor = self.norm(self.blocks(tokens, ctx))
        return features

    def forward_head(self, tokens: Tensor, pre_logits: bool = False) -> Tensor:
        """Tokens (B, N, C) -> logits (B, num_classes), or what the classifier would read."""
        x = self.head_drop(self.fc_norm(self.pool(tokens)))
        return x if pre_logits else self.head(x)

    def pool(self, tokens: Tensor) -> Tensor:
        """Tokens (B, N, C) -> one vector an image, (B, C), or (B, 2 C) with ``token_avg``;
        unchanged where there is no pooling.
        """
        patches = tokens[:, self.num_prefix_tokens :]
        if self.attn_pool is not None:
            return self.attn_pool.pool(patches)
        if self.global_pool == "token":
            return tokens[:, 0]
        if self.global_pool == "avg":
            return patches.mean(dim=1)
        if self.global_pool == "max":
            return patches.amax(dim=1)
        if self.global_pool == "token_avg":
            return torch.cat([tokens[:, 0], patches.mean(dim=1)], dim=1)
        return tokens

    def get_intermediate_layers(
        self,
        images: Tensor,
        n: int | Sequence[int] = 1,
        *,
        reshape: bool = False,
        return_prefix_tokens: bool = False,
        norm: bool = False,
    ) -> list[Tensor] | list[tuple[Tensor, Tensor]]:
        """Patch tokens after some of the blocks.

        Args:
            images: (B, channels, height, width).
            n: the last ``n`` blocks, or a list of block indices.
            reshape: (B, C, rows, columns) instead of (B, rows * columns, C).
            return_prefix_tokens: pairs with the prefix tokens (B, prefix, C).
            norm: apply the norm after the blocks; where the final norm lies behind the pooling
                (``fc_norm``) there is none, and nothing changes.

        Raises:
            ValueError: a block that does not exist, or a grid where patches are left out.
        """
        tokens, ctx = self._embed(images)
        depth = len(self.blocks)
        if isinstance(n, int) and not 1 <= n <= depth:
            raise ValueError(f"the last {n} blocks; allowed: 1 to {depth}")
        indices = range(depth - n, depth) if isinstance(n, int) else n
        outputs = self.blocks.intermediates(tokens, ctx, indices=indices)
        if norm:
            outputs = [self.norm(out) for out in outputs]
        prefixes = [out[:, : self.num_prefix_tokens] for out in outputs]
        patches = [out[:, self.num_prefix_tokens :] for out in outputs]
        if reshape:
            if ctx.grid is None:
                raise ValueError(
                    "patch_drop_rate leaves out patches in training, so they make no grid; call "
                    "eval() first, or leave reshape out"
                )
            patches = [out.transpose(1, 2).unflatten(2, ctx.grid) for out in patches]
        return list(zip(patches, prefixes, strict=True)) if return_prefix_tokens else patches

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A fresh head for another number of classes, and another pooling if given.

        Raises:
            ValueError: an unknown pooling, one that reads the class token without such a token, or
                ``token_avg`` before a norm.
        """
        fresh: list[nn.Module] = []
        if global_pool is not None and global_pool != self.global_pool:
            _check_options(global_pool, "learn", self.has_class_token)
            _check_norm(global_pool, not isinstance(self.fc_norm, nn.Identity))
            self._set_pool(global_pool)
            self.attn_pool = self._make_pool() if global_pool == "map" else None
            fresh += [] if self.attn_pool is None else [self.attn_pool]
        self.num_classes = num_classes
        self.head = make_head(self.num_features, num_classes)
        like = self.patch_embed.proj.weight
        for part in (*fresh, self.head):
            part.to(like.device, like.dtype).apply(init_vit_weights)

    def get_classifier(self) -> nn.Module:
        """The last layer, from what :meth:`pool` gives to num_classes."""
        return self.head

    def init_from_images(self, images: Tensor) -> None:
        """Whiten the first layer from normalised images (N, channels, height, width)."""
        if isinstance(self.patch_embed, ConvStem):
            self.patch_embed.whiten_first(images)
        else:
            self.patch_embed.whiten(images)

    def no_weight_decay(self) -> set[str]:
        """Parameters that weight decay leaves alone, besides biases and norms."""
        return {"pos_embed", "rel_pos.table", "cls_token", "reg_token", "attn_pool.latent"}

    def init_weights(self) -> None:
        """timm's scheme: truncated normal 0.02, zero biases, class and registers near zero."""
        self.apply(init_vit_weights)
        for token in (self.cls_token, self.reg_token):
            if token is not None:
                nn.init.normal_(token, std=1e-6)
        if isinstance(self.pos_embed, nn.Parameter):
            nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def _set_pool(self, kind: str) -> None:
        """The pooling, and the width of what it gives."""
        self.global_pool = kind
        self.num_features = self.embed_dim * (2 if kind == "token_avg" else 1)

    def _prefix(self) -> list[Tensor]:
        """Tokens before the patches' (1, n, C)."""
        return [token for token in (self.cls_token, self.reg_token) if token is not None]

    def _make_positions(self, kind: str) -> None:
        rows, columns = self.patch_embed.grid_size
        prefix = 0 if self.no_embed_class else self.num_prefix_tokens
        if kind == "learn":
            shape = (1, prefix + rows * columns, self.embed_dim)
            self.pos_embed = nn.Parameter(torch.zeros(shape))
        elif kind == "sincos2d":
            self.no_embed_class = True
            table = sincos_2d((rows, columns), self.embed_dim)[None]
            self.register_buffer("pos_embed", table, persistent=False)
        else:
            self.no_embed_class = True
            self.pos_embed = None

    def _embed(self, images: Tensor) -> tuple[Tensor, BlockContext]:
        """Tokens with positions and prefix, and what they know."""
        x, grid = self.patch_embed(images)
        prefix = [token.expand(x.shape[0], -1, -1) for token in self._prefix()]
        positions = self._positions(grid)
        if positions is not None and self.no_embed_class:
            x = x + positions
        # A convolution leaves the tokens of a channel side by side; were they not copied, every
        # addition and norm behind it would go through memory crosswise.
        x = torch.cat([*prefix, x], dim=1) if prefix else x.contiguous()
        if positions is not None and not self.no_embed_class:
            x = x + positions
        x = self.pos_drop(x)
        ctx = BlockContext(
            grid,
            self.num_prefix_tokens,
            rotary=self._rotation(grid, x.device),
            biases=None if self.rel_pos is None else self.rel_pos(grid),
        )
        if self.patch_drop_rate > 0.0 and self.training:
            x, ctx = self._drop_patches(x, ctx)
        return self.norm_pre(x), ctx

    def _positions(self, grid: tuple[int, int]) -> Tensor | None:
        if self.pos_embed is None:
            return None
        prefix = 0 if self.no_embed_class else self.num_prefix_tokens
        own = self.patch_embed.grid_size
        return resize_position_grid(self.pos_embed, own, grid, num_prefix=prefix)

    def _rotation(self, grid: tuple[int, int], device: torch.device) -> Rotation | None:
        if self.rotary is None:
            return None
        return self.rotary(grid, device=device).with_prefix(self.num_prefix_tokens)

    def _drop_patches(self, x: Tensor, ctx: BlockContext) -> tuple[Tensor, BlockContext]:
        """A random share of each image's patches leaves; the prefix stays (arXiv 2208.07220)."""
        batch, prefix = x.shape[0], self.num_prefix_tokens
        count = x.shape[1] - prefix
        keep = kept_patches(count, self.patch_drop_rate)
        chosen = torch.rand(batch, count, device=x.device).argsort(dim=1)[:, :keep]
        return self._select(x, ctx, chosen)

    def _select(self, x: Tensor, ctx: BlockContext, patches: Tensor) -> tuple[Tensor, BlockContext]:
        """The prefix and each image's ``patches``, int64 (B, kept), and their context."""
        batch, prefix = x.shape[0], self.num_prefix_tokens
        first = torch.arange(prefix, device=x.device).expand(batch, -1)
        kept = torch.cat([first, patches + prefix], dim=1)
        x = x.gather(1, kept[:, :, None].expand(-1, -1, x.shape[2]))
        rotary = ctx.rotary
        if rotary is not None:
            cos, sin = (table[kept][:, None] for table in (rotary.cos, rotary.sin))
            rotary = Rotation(cos, sin, rotary.pairing)
        biases = ctx.biases
        if biases is not None:
            queries, keys = kept[:, :, None], kept[:, None, :]
            biases = tuple(bias[0][:, queries, keys].transpose(0, 1) for bias in biases)
        return x, dataclasses.replace(ctx, rotary=rotary, biases=biases, grid=None)


def _check_options(global_pool: str, pos_embed: str, class_token: bool) -> None:
    check_option("global_pool", global_pool, POOLS)
    check_option("pos_embed", pos_embed, POSITIONS)
    if global_pool in ("token", "token_avg") and not class_token:
        raise ValueError(
            f"global_pool {global_pool!r} reads the class token; class_token must be True"
        )


def _check_norm(global_pool: str, after_pool: bool) -> None:
    """Refuse a norm of C channels behind a pooling that gives twice as many."""
    if global_pool == "token_avg" and after_pool:
        raise ValueError("global_pool 'token_avg' pools normed tokens; fc_norm must be False")
