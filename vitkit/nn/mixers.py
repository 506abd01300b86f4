"""Blocks that mix tokens without attention: MLP-Mixer's, ConvMixer's, and recurrent ones.

They are modules from (B, N, C) to (B, N, C) that read a :class:`BlockContext`, so a trunk may hold
them beside attention in any order. In the mixers every token reaches every other, or its neighbours
on the grid; a recurrent layer reads in order. Masks, biases, caches and causal order that a block
cannot keep are refused; rotary positions, which only attention has a use for, are not read.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vitkit.nn.attention import NormLayer
from vitkit.nn.blocks import NO_CONTEXT, BlockContext, DropPath
from vitkit.nn.dropout import dropout_or_none, through
from vitkit.nn.products import Linear
from vitkit.nn.recurrent import Recurrent, real_tokens
from vitkit.nn.tokenwise import Mlp, make_activation

__all__ = ["ConvMixerBlock", "MixerBlock", "RecurrentBlock", "TwiceActivatedMlp"]


class MixerBlock(nn.Module):
    """MLP-Mixer's block: an MLP over the tokens of each channel, then one over each token's
    channels, pre-norm, each on a residual branch.

    Parameter names are timm's.

    Args:
        embed_dim: C.
        num_tokens: N, fixed: the token MLP has weights of its own for each.
        tokens_dim: hidden width of the MLP over tokens.
        channels_dim: hidden width of the MLP over channels.
        shared_norm: one norm in front of both MLPs, as in Keras' example, instead of two.
        norm_layer: makes a norm from a width.
        act_layer: activation of both MLPs.
        drop: dropout in both MLPs, as in :class:`Mlp`.
        drop_path: probability of dropping a branch.

    Source: Tolstikhin et al., "MLP-Mixer: an all-MLP architecture for vision", arXiv 2105.01601.
    """

    def __init__(
        self,
        embed_dim: int,
        num_tokens: int,
        *,
        tokens_dim: int,
        channels_dim: int,
        shared_norm: bool = False,
        norm_layer: NormLayer = nn.LayerNorm,
        act_layer: str = "gelu",
        drop: float | tuple[float, float] = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_tokens = num_tokens
        self.norm1 = norm_layer(embed_dim)
        self.mlp_tokens = Mlp(num_tokens, tokens_dim, act_layer=act_layer, drop=drop)
        # None, not the same module twice: a state dict would then hold its weights twice.
        self.norm2 = None if shared_norm else norm_layer(embed_dim)
        self.mlp_channels = Mlp(embed_dim, channels_dim, act_layer=act_layer, drop=drop)
        self.drop_path = DropPath(drop_path) if drop_path > 0.0 else None

    def forward(self, x: Tensor, ctx: BlockContext = NO_CONTEXT) -> Tensor:
        """(B, N, C) -> (B, N, C).

        Raises:
            ValueError: another number of tokens than the block was built for, or a context that
                forbids attending.
        """
        _refuse_rules(ctx, "MLP-Mixer")
        if x.shape[1] != self.num_tokens:
            raise ValueError(
                f"{x.shape[1]} tokens given to an MLP-Mixer block built for {self.num_tokens}; "
                "its weights fit no other number"
            )
        mixed = self.mlp_tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        x = x + through(self.drop_path, mixed)
        norm2 = self.norm1 if self.norm2 is None else self.norm2
        return x + through(self.drop_path, self.mlp_channels(norm2(x)))


class ConvMixerBlock(nn.Module):
    """ConvMixer's block: a depthwise convolution on a residual branch, then a pointwise one, each
    with its activation and BatchNorm behind it.

    Reads ``ctx.grid``. Prefix tokens have no place on the grid and pass unchanged.

    Args:
        embed_dim: C.
        kernel_size: side of the depthwise kernel in tokens; the grid keeps its size.
        act_layer: activation.
        bn_eps, bn_momentum: of both BatchNorms; the momentum is the new batch's share.
        drop_path: probability of dropping the residual branch.

    Source: Trockman & Kolter, "Patches are all you need?", arXiv 2201.09792.
    """

    def __init__(
        self,
        embed_dim: int,
        *,
        kernel_size: int = 9,
        act_layer: str = "gelu",
        bn_eps: float = 1e-5,
        bn_momentum: float = 0.1,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(
            embed_dim, embed_dim, kernel_size, padding="same", groups=embed_dim
        )
        self.norm1 = nn.BatchNorm2d(embed_dim, eps=bn_eps, momentum=bn_momentum)
        self.drop_path = DropPath(drop_path) if drop_path > 0.0 else None
        self.pointwise = nn.Conv2d(embed_dim, embed_dim, 1)
        self.norm2 = nn.BatchNorm2d(embed_dim, eps=bn_eps, momentum=bn_momentum)
        self.act = make_activation(act_layer)

    def forward(self, x: Tensor, ctx: BlockContext = NO_CONTEXT) -> Tensor:
        """(B, N, C) -> (B, N, C).

        Raises:
            ValueError: tokens without a grid, or a context that forbids attending.
        """
        _refuse_rules(ctx, "ConvMixer")
        if ctx.grid is None:
            raise ValueError("a ConvMixer block needs the grid of the tokens; there is none")
        prefix, patches = x[:, : ctx.num_prefix], x[:, ctx.num_prefix :]
        # Views: what the convolutions see lies channels last in memory.
        grid = patches.transpose(1, 2).unflatten(2, ctx.grid)
        grid = grid + through(self.drop_path, self.norm1(self.act(self.depthwise(grid))))
        grid = self.norm2(self.act(self.pointwise(grid)))
        patches = grid.flatten(2).transpose(1, 2)
        return torch.cat([prefix, patches], dim=1) if ctx.num_prefix else patches


class RecurrentBlock(nn.Module):
    """The usual block with an RNN, LSTM or GRU in attention's place, pre-norm.

    Reads padding masks and ``ctx.cache.state``; tokens are read in their order, a grid row by row.

    Args:
        embed_dim: C.
        hidden_dim: width of the state in each direction; C unless given.
        cell: ``rnn``, ``lstm`` or ``gru``.
        bidirectional: read from both ends.
        mlp_dim: hidden width of the channel mixer.
        norm_layer: makes a norm from a width.
        act_layer: activation of the channel mixer.
        drop: dropout behind the recurrent layer's projection and in the channel mixer.
        drop_path: probability of dropping a branch.
    """

    def __init__(
        self,
        embed_dim: int,
        *,
        mlp_dim: int,
        hidden_dim: int | None = None,
        cell: str = "lstm",
        bidirectional: bool = False,
        norm_layer: NormLayer = nn.LayerNorm,
        act_layer: str = "gelu",
        drop: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1 = norm_layer(embed_dim)
        hidden_dim = embed_dim if hidden_dim is None else hidden_dim
        self.rnn = Recurrent(embed_dim, hidden_dim, cell=cell, bidirectional=bidirectional)
        self.proj = Linear(self.rnn.output_dim, embed_dim)
        self.proj_drop = dropout_or_none(drop)
        self.norm2 = norm_layer(embed_dim)
        self.mlp = Mlp(embed_dim, mlp_dim, act_layer=act_layer, drop=drop)
        self.drop_path = DropPath(drop_path) if drop_path > 0.0 else None

    def forward(self, x: Tensor, ctx: BlockContext = NO_CONTEXT) -> Tensor:
        """(B, N, C) -> (B, N, C).

        Raises:
            ValueError: a bias, a mask that hides more than padding, padding in front of a token,
                or causal order where both directions are read.
        """
        if ctx.bias is not None:
            raise ValueError("a recurrent block has no scores to add a bias to; take attention")
        if self.rnn.bidirectional and (ctx.is_causal or ctx.cache is not None):
            raise ValueError(
                "a recurrent block of both directions sees what follows and cannot keep causal "
                "order; take one direction"
            )
        real = real_tokens(ctx.mask, x.shape[0])
        if real is not None and ctx.cache is not None:
            real = real[:, -x.shape[1] :]  # the mask is of all tokens so far, x of the new ones
        state = None if ctx.cache is None else ctx.cache.state
        mixed = self.proj(self.rnn(self.norm1(x), real=real, state=state))
        x = x + through(self.drop_path, through(self.proj_drop, mixed))
        return x + through(self.drop_path, self.mlp(self.norm2(x)))


class TwiceActivatedMlp(Mlp):
    """A channel mixer with the activation behind its second layer too, as in Keras' ViT example.

    Takes what :class:`Mlp` takes.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        x = through(self.drop1, self.act(self.fc1(x)))
        return through(self.drop2, self.act(self.fc2(x)))


def _refuse_rules(ctx: BlockContext, kind: str) -> None:
    rules = {"a mask": ctx.mask, "a bias": ctx.bias, "a cache": ctx.cache}
    given = [name for name, rule in rules.items() if rule is not None]
    given += ["causal order"] if ctx.is_causal else []
    if given:
        raise ValueError(
            f"a {kind} block mixes all tokens and cannot keep {' or '.join(given)}; "
            "take attention blocks"
        )
