"""Blocks: a token mixer and a channel mixer around a residual stream.

A block is a module from (B, N, C) to (B, N, C) that reads one :class:`BlockContext`. The usual one
is :class:`Block`; cousins that wire the residual differently are small classes of their own.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitkit.nn.attention import Attention, KeyValueCache, NormLayer
from vitkit.nn.dropout import through
from vitkit.nn.products import Linear
from vitkit.nn.recurrent import RecurrentState
from vitkit.nn.rotary import Rotation
from vitkit.nn.tokenwise import TOKENWISE

__all__ = [
    "Block",
    "BlockContext",
    "CompactBlock",
    "DecoderBlock",
    "DropPath",
    "LayerCache",
    "LayerScale",
    "drop_path_ramp",
    "is_hooked",
]


@dataclass
class LayerCache:
    """What one layer remembers while decoding.

    Attributes:
        tokens: keys and values of its own tokens.
        memory: projections of the tokens that a decoder reads.
        state: of a recurrent layer.
    """

    tokens: KeyValueCache = dataclasses.field(default_factory=KeyValueCache)
    memory: KeyValueCache = dataclasses.field(default_factory=KeyValueCache)
    state: RecurrentState = dataclasses.field(default_factory=RecurrentState)

    def select(self, rows: Tensor, *, memory: bool = True) -> None:
        """Keep the batch rows ``rows``, in that order; without ``memory`` its part stays."""
        self.tokens.select(rows)
        self.state.select(rows)
        if memory:
            self.memory.select(rows)


@dataclass(frozen=True)
class BlockContext:
    """What the tokens of one forward pass know besides their values.

    Attributes:
        grid: (rows, columns) of the patch tokens, where there is a grid.
        num_prefix: tokens before the grid: class token and registers.
        mask: bool or float, broadcastable to (B, H, N, M).
        is_causal: aligned at the end; combines with ``mask``.
        rotary: angles of the tokens of this pass.
        bias: float, added to the scores.
        biases: one such bias per layer, in place of ``bias``; the trunk hands each its own.
        memory: tokens that a decoder's cross attention reads, (B, M, C').
        memory_mask: mask of the memory, broadcastable to (B, H, N, M).
        caches: one per layer, while decoding with a cache.
        cache: the cache of the current layer; set by the trunk.
    """

    grid: tuple[int, int] | None = None
    num_prefix: int = 0
    mask: Tensor | None = None
    is_causal: bool = False
    rotary: Rotation | None = None
    bias: Tensor | None = None
    biases: tuple[Tensor, ...] | None = None
    memory: Tensor | None = None
    memory_mask: Tensor | None = None
    caches: list[LayerCache] | None = None
    cache: LayerCache | None = None

    def for_layer(self, index: int) -> BlockContext:
        """The context as layer ``index`` sees it."""
        ctx = self
        if ctx.biases is not None:
            ctx = dataclasses.replace(ctx, bias=ctx.biases[index], biases=None)
        if ctx.caches is not None:
            ctx = dataclasses.replace(ctx, cache=ctx.caches[index])
        return ctx


NO_CONTEXT = BlockContext()


class DropPath(nn.Module):
    """Drop a residual branch for some examples in training (stochastic depth).

    Args:
        p: probability of dropping; survivors are scaled by 1 / (1 - p).

    Source: Huang et al., arXiv 1603.09382.
    """

    def __init__(self, p: float = 0.0) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) -> (B, ...)."""
        if self.p == 0.0 or not self.training:
            return x
        keep = 1.0 - self.p
        shape = (x.shape[0],) + (1,) * (x.ndim - 1)
        # Scaled afterwards: as a value of the mask the scale would be rounded in bfloat16.
        return (x * x.new_empty(shape).bernoulli_(keep)).mul_(1.0 / max(keep, 1e-12))

    def extra_repr(self) -> str:
        """Shown by ``print``."""
        return f"p={self.p}"


def drop_path_ramp(rate: float, depth: int) -> list[float]:
    """Rates rising linearly from 0 to ``rate`` over the blocks, as in timm and CCT."""
    return [rate * i / max(depth - 1, 1) for i in range(depth)]


class LayerScale(nn.Module):
    """A learned factor per channel on a residual branch.

    Source: Touvron et al., "Going deeper with image Transformers", arXiv 2103.17239.
    """

    def __init__(self, embed_dim: int, init_values: float = 1e-5) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((embed_dim,), init_values))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        return x * self.gamma


class Block(nn.Module):
    """The usual block: tokens mix, then channels mix, each on a residual branch.

    Args:
        embed_dim: C.
        attn: token mixer, called as ``attn(x, mask=, is_causal=, rotary=, bias=, cache=)``.
        mlp: channel mixer, called as ``mlp(x)``.
        norm_layer: makes a norm from a width.
        norm_first: True: x + f(norm(x)) (ViT). False: norm(x + f(x)) (arXiv 1706.03762).
        init_values: LayerScale's first value; None leaves it out.
        drop_path: probability of dropping a branch.
    """

    def __init__(
        self,
        embed_dim: int,
        attn: nn.Module,
        mlp: nn.Module,
        *,
        norm_layer: NormLayer = nn.LayerNorm,
        norm_first: bool = True,
        init_values: float | None = None,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm_first = norm_first
        self.norm1 = norm_layer(embed_dim)
        self.attn = attn
        self.ls1, self.drop_path1 = _branch_tail(embed_dim, init_values, drop_path)
        self.norm2 = norm_layer(embed_dim)
        self.mlp = mlp
        self.ls2, self.drop_path2 = _branch_tail(embed_dim, init_values, drop_path)

    def forward(self, x: Tensor, ctx: BlockContext = NO_CONTEXT) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        x = _added(x, _mix(self.attn, self._looked_at(x), ctx), self.ls1, self.drop_path1)
        return self._mix_channels(x)

    def can_read(self) -> bool:
        """Whether :meth:`read` may stand in for :meth:`forward`: all but attention works token by
        token, no subclass has its own forward, and nobody listens inside.
        """
        attn = self.attn
        plain = (
            type(self).forward is Block.forward
            and isinstance(attn, Attention)
            and not attn.is_cross
            and type(attn.qkv) in (Linear, nn.Linear)
            and isinstance(self.mlp, TOKENWISE)
            and isinstance(self.norm1, TOKENWISE)
            and isinstance(self.norm2, TOKENWISE)
        )
        return plain and not globally_hooked() and not any(map(is_hooked, self.modules()))

    def read(self, x: Tensor, count: int, ctx: BlockContext = NO_CONTEXT) -> Tensor:
        """What :meth:`forward` gives for the first ``count`` tokens, (B, count, C), and no more.

        Exact: the other tokens only serve as keys and values here. Needs self attention, no cache.
        """
        attn, h = self.attn, self._looked_at(x)
        assert isinstance(attn, Attention)
        attended = attn.first(h, count, mask=ctx.mask, rotary=ctx.rotary, bias=ctx.bias)
        return self._mix_channels(_added(x[:, :count], attended, self.ls1, self.drop_path1))

    def _looked_at(self, x: Tensor) -> Tensor:
        """What attention reads of the residual stream."""
        return self.norm1(x) if self.norm_first else x

    def _mix_channels(self, x: Tensor) -> Tensor:
        """The way from the residual stream with attention's branch on it to the block's end."""
        if self.norm_first:
            return _added(x, self.mlp(self.norm2(x)), self.ls2, self.drop_path2)
        x = self.norm1(x)
        return self.norm2(_added(x, self.mlp(x), self.ls2, self.drop_path2))


class CompactBlock(Block):
    """CCT's block: pre-norm attention, then an MLP whose residual starts from the *normed* value.

    Takes what :class:`Block` takes; ``norm_first`` does not apply.

    Source: Hassani et al., arXiv 2104.05704, and SHI-Labs/Compact-Transformers.
    """

    def forward(self, x: Tensor, ctx: BlockContext = NO_CONTEXT) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        x = _added(x, _mix(self.attn, self.norm1(x), ctx), self.ls1, self.drop_path1)
        x = self.norm2(x)
        return _added(x, self.mlp(x), self.ls2, self.drop_path2)

    def can_read(self) -> bool:
        """CCT pools over all tokens: there is no short way."""
        return False


class DecoderBlock(nn.Module):
    """Self attention, cross attention to a memory, channel mixer.

    Args:
        embed_dim: C.
        attn: token mixer over the decoder's own tokens.
        cross_attn: cross attention, called as ``cross_attn(x, memory, mask=, cache=)``.
        mlp: channel mixer.
        norm_layer, norm_first, init_values, drop_path: as in :class:`Block`.
    """

    def __init__(
        self,
        embed_dim: int,
        attn: nn.Module,
        cross_attn: nn.Module,
        mlp: nn.Module,
        *,
        norm_layer: NormLayer = nn.LayerNorm,
        norm_first: bool = True,
        init_values: float | None = None,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm_first = norm_first
        self.norm1 = norm_layer(embed_dim)
        self.attn = attn
        self.ls1, self.drop_path1 = _branch_tail(embed_dim, init_values, drop_path)
        self.norm2 = norm_layer(embed_dim)
        self.cross_attn = cross_attn
        self.ls2, self.drop_path2 = _branch_tail(embed_dim, init_values, drop_path)
        self.norm3 = norm_layer(embed_dim)
        self.mlp = mlp
        self.ls3, self.drop_path3 = _branch_tail(embed_dim, init_values, drop_path)

    def forward(self, x: Tensor, ctx: BlockContext = NO_CONTEXT) -> Tensor:
        """(B, N, C) -> (B, N, C); reads ``ctx.memory`` under ``ctx.memory_mask``."""
        if self.norm_first:
            x = _added(x, _mix(self.attn, self.norm1(x), ctx), self.ls1, self.drop_path1)
            x = _added(x, self._read_memory(self.norm2(x), ctx), self.ls2, self.drop_path2)
            return _added(x, self.mlp(self.norm3(x)), self.ls3, self.drop_path3)
        x = self.norm1(_added(x, _mix(self.attn, x, ctx), self.ls1, self.drop_path1))
        x = self.norm2(_added(x, self._read_memory(x, ctx), self.ls2, self.drop_path2))
        return self.norm3(_added(x, self.mlp(x), self.ls3, self.drop_path3))

    def _read_memory(self, x: Tensor, ctx: BlockContext) -> Tensor:
        cache = None if ctx.cache is None else ctx.cache.memory
        out: Tensor = self.cross_attn(x, ctx.memory, mask=ctx.memory_mask, cache=cache)
        return out


def _branch_tail(
    embed_dim: int, init_values: float | None, drop_path: float
) -> tuple[LayerScale | None, DropPath | None]:
    """LayerScale and DropPath of one residual branch; None where they are off, because calling a
    layer that does nothing takes a small model as long as an addition.
    """
    scale = None if init_values is None else LayerScale(embed_dim, init_values)
    return scale, DropPath(drop_path) if drop_path > 0.0 else None


def _added(
    x: Tensor, branch: Tensor, scale: LayerScale | None, drop_path: DropPath | None
) -> Tensor:
    """The residual stream x with a branch put on it."""
    return x + through(drop_path, through(scale, branch))


def _mix(mixer: nn.Module, x: Tensor, ctx: BlockContext) -> Tensor:
    cache = None if ctx.cache is None else ctx.cache.tokens
    out: Tensor = mixer(
        x, mask=ctx.mask, is_causal=ctx.is_causal, rotary=ctx.rotary, bias=ctx.bias, cache=cache
    )
    return out


def globally_hooked() -> bool:
    """Whether somebody listens to the passes of all modules."""
    everywhere = nn.modules.module
    return bool(
        everywhere._global_forward_hooks
        or everywhere._global_forward_pre_hooks
        or everywhere._global_backward_hooks
        or everywhere._global_backward_pre_hooks
    )


def is_hooked(module: nn.Module) -> bool:
    """Whether somebody listens to a module's passes."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )
