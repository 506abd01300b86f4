"""Masked autoencoding: the encoder sees some of the patches, a small decoder paints the others.

The encoder is the ViT itself, under the names that it has without the decoder; those of the decoder
are facebookresearch/mae's.
Source: He et al., "Masked autoencoders are scalable vision learners", arXiv 2111.06377.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from vitkit.models.first_weights import init_vit_weights
from vitkit.models.patches import PatchEmbed
from vitkit.models.vit import VisionTransformer
from vitkit.nn import (
    BlockContext,
    Linear,
    encoder_blocks,
    make_norm,
    resize_position_grid,
    sincos_2d,
)

__all__ = ["DECODER_NAMES", "MaskedAutoencoder", "Reconstruction", "count_visible"]

DECODER_NAMES = ("decoder_", "mask_token")
"""Beginnings of the names that the encoder alone does not have."""


@dataclass(frozen=True)
class Reconstruction:
    """What the decoder makes of the patches that the encoder saw.

    Attributes:
        prediction: (B, N, values of a patch), of all patches, in the units of the targets.
        mask: float (B, N): 1 where a patch was hidden, 0 where it was seen.
    """

    prediction: Tensor
    mask: Tensor


class MaskedAutoencoder(VisionTransformer):
    """A ViT that learns to paint the patches it was not shown.

    The order of an image's noise says which patches are seen: those with the least. Only they, and
    the tokens before them, pass through the encoder. What comes out of its last norm (of the norm
    behind the pooling, where the ViT has that one) goes to the decoder, with one learned token in
    the place of each hidden patch.

    Args:
        mask_ratio: share of the patches that are hidden.
        norm_pix: the targets are the pixels of each patch less their mean, over their deviation.
        decoder_embed_dim, decoder_depth, decoder_num_heads: width, blocks and heads of the decoder.
        encoder: arguments of :class:`VisionTransformer`, but ``num_classes``: there is no head.

    Raises:
        ValueError: a mask that hides all or nothing; parts of a ViT that mix or leave out patches
            before the mask does, or that nothing would train.
    """

    decoder_pos_embed: Tensor

    def __init__(
        self,
        *,
        mask_ratio: float = 0.75,
        norm_pix: bool = True,
        decoder_embed_dim: int = 512,
        decoder_depth: int = 8,
        decoder_num_heads: int = 16,
        **encoder: Any,
    ) -> None:
        _check_encoder(encoder)
        super().__init__(**{**encoder, "num_classes": 0})
        self.mask_ratio, self.norm_pix = mask_ratio, norm_pix
        _check_mask(self.patches.num_patches, mask_ratio)
        norm = make_norm(encoder.get("norm_layer", "layernorm"), encoder.get("norm_eps", 1e-6))
        rows, columns = self.patches.patch_size
        self.decoder_embed = Linear(self.embed_dim, decoder_embed_dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_embed_dim))
        table = sincos_2d(self.patches.grid_size, decoder_embed_dim)[None]
        before = table.new_zeros(1, self.num_prefix_tokens, decoder_embed_dim)
        self.register_buffer("decoder_pos_embed", torch.cat([before, table], dim=1))
        self.decoder_blocks = encoder_blocks(
            decoder_depth,
            decoder_embed_dim,
            decoder_num_heads,
            mlp_ratio=encoder.get("mlp_ratio", 4.0),
            norm_layer=norm,
            act_layer=encoder.get("act_layer", "gelu"),
        )
        self.decoder_norm = norm(decoder_embed_dim)
        self.decoder_pred = Linear(decoder_embed_dim, rows * columns * self.in_chans)
        for part in (self.decoder_embed, self.decoder_blocks, self.decoder_pred):
            part.apply(init_vit_weights)
        nn.init.normal_(self.mask_token, std=0.02)

    @property
    def patches(self) -> PatchEmbed:
        """What makes tokens of patches; a stem is refused."""
        assert isinstance(self.patch_embed, PatchEmbed)
        return self.patch_embed

    def forward(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Mean squared error of each image's hidden patches, float32 (B,).

        Args:
            images: normalised, (B, channels, height, width).
            noise: (B, N), whose order chooses the patches; drawn anew unless given.
        """
        found = self.reconstruct(images, noise)
        error = (found.prediction.float() - self.targets(images)).square().mean(dim=-1)
        return (error * found.mask).sum(dim=1) / found.mask.sum(dim=1)

    def reconstruct(self, images: Tensor, noise: Tensor | None = None) -> Reconstruction:
        """Hide patches, and predict all of them from the others. Args as of :meth:`forward`.

        Raises:
            ValueError: noise for another number of patches.
        """
        grid = self.patches.grid_of(*images.shape[-2:])
        count = grid[0] * grid[1]
        if noise is None:
            noise = torch.rand(len(images), count, device=images.device)
        if noise.shape != (len(images), count):
            raise ValueError(f"noise {tuple(noise.shape)}; allowed: {(len(images), count)}")
        order = noise.argsort(dim=1, stable=True)
        seen = order[:, : count_visible(count, self.mask_ratio)]
        prediction = self.decode(self.encode(images, seen), seen, grid)
        mask = torch.ones_like(noise, dtype=torch.float32).scatter(1, seen, 0.0)
        return Reconstruction(prediction, mask)

    def encode(self, images: Tensor, seen: Tensor) -> Tensor:
        """The tokens before the patches and some patches, after the last norm.

        Args:
            images: (B, channels, height, width).
            seen: int64 (B, kept), which patches.

        Returns:
            (B, prefix + kept, C).
        """
        tokens, ctx = self._select(*self._embed(images), seen)
        # One of the two norms is an identity: which one the ViT's pooling decides.
        latent: Tensor = self.fc_norm(self.norm(self.blocks(tokens, ctx)))
        return latent

    def decode(self, latent: Tensor, seen: Tensor, grid: tuple[int, int]) -> Tensor:
        """What the decoder paints, (B, N, values of a patch).

        Args:
            latent: as :meth:`encode` returns it.
            seen: which patches it has, in its order.
            grid: (rows, columns) of all patches.
        """
        x, prefix = self.decoder_embed(latent), self.num_prefix_tokens
        places = seen[:, :, None].expand(-1, -1, x.shape[2])
        hidden = self.mask_token.to(x.dtype).expand(len(x), grid[0] * grid[1], -1)
        x = torch.cat([x[:, :prefix], hidden.scatter(1, places, x[:, prefix:])], dim=1)
        own = self.patches.grid_size
        x = x + resize_position_grid(self.decoder_pos_embed, own, grid, num_prefix=prefix)
        x = self.decoder_norm(self.decoder_blocks(x, BlockContext(grid, prefix)))
        prediction: Tensor = self.decoder_pred(x[:, prefix:])
        return prediction

    def targets(self, images: Tensor) -> Tensor:
        """The patches' pixels, row by row with the channels innermost, (B, N, values of a patch).

        With ``norm_pix`` less the mean of the patch, over its deviation.
        """
        rows, columns = self.patches.patch_size
        pixels: Tensor = rearrange(images, "b c (h p) (w q) -> b (h w) (p q c)", p=rows, q=columns)
        if not self.norm_pix:
            return pixels
        variance, mean = torch.var_mean(pixels, dim=-1, keepdim=True)
        return (pixels - mean) / (variance + 1e-6).sqrt()

    def get_classifier(self) -> nn.Module:
        """The last layer: it gives pixels."""
        return self.decoder_pred

    def no_weight_decay(self) -> set[str]:
        """Parameters that weight decay leaves alone, besides biases and norms."""
        return super().no_weight_decay() | {"mask_token"}


def count_visible(count: int, mask_ratio: float) -> int:
    """How many of ``count`` patches the encoder sees: their share, rounded down."""
    return int(count * (1.0 - mask_ratio) + 1e-6)  # 10 x (1 - 0.9) is a hair below 1


def _check_mask(count: int, mask_ratio: float) -> None:
    if not 0 < count_visible(count, mask_ratio) < count:
        raise ValueError(
            f"mask_ratio {mask_ratio} shows {count_visible(count, mask_ratio)} of {count} patches; "
            f"allowed: {1 / count:.3g} to {1 - 1 / count:.3g}, so that there are both"
        )


def _check_encoder(encoder: dict[str, Any]) -> None:
    if encoder.get("conv_stem") is not None:
        raise ValueError(
            "conv_stem reads across patches, so it sees what should be hidden; leave it out"
        )
    if encoder.get("patch_drop_rate"):
        raise ValueError("patch_drop_rate leaves out patches, as mask_ratio does; set it to 0")
    if encoder.get("global_pool") == "map":
        raise ValueError(
            "global_pool 'map' has parameters that nothing here trains; allowed: token, avg, max"
        )
