"""The trunk: a stack of blocks. The object that the ViT and the text Transformer both hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
from torch.utils.checkpoint import checkpoint

from vitkit.nn.attention import Attention, NormLayer
from vitkit.nn.blocks import NO_CONTEXT, Block, BlockContext, LayerCache, drop_path_ramp
from vitkit.nn.tokenwise import Mlp, SwiGlu

__all__ = ["GradientCheckpointing", "Trunk", "encoder_blocks", "make_mlp"]


class Trunk(nn.ModuleList):
    """Blocks in a row, each from (B, N, C) to (B, N, C), reading one :class:`BlockContext`.

    Attributes:
        grad_checkpointing: recompute each block in the backward pass instead of keeping its
            activations.
    """

    def __init__(self, blocks: Iterable[nn.Module] = ()) -> None:
        super().__init__(blocks)
        self.grad_checkpointing = False

    def forward(
        self, x: Tensor, ctx: BlockContext = NO_CONTEXT, *, read: int | None = None
    ) -> Tensor:
        """All blocks in order.

        Args:
            x: (B, N, C).
            ctx: what the tokens know besides their values.
            read: the caller needs only the first ``read`` tokens; the last block then computes
                these alone where that is exact and nobody listens to the rest.

        Returns:
            (B, N, C), or (B, read, C).
        """
        blocks = list(self)
        last = self._reader(ctx) if read is not None else None
        for index, block in enumerate(blocks if last is None else blocks[:-1]):
            x = self._run(block, x, ctx.for_layer(index))
        if read is None or last is None:
            return x if read is None else x[:, :read]
        ctx = ctx.for_layer(len(blocks) - 1)
        if self.grad_checkpointing and self.training:
            # Recomputed too, so that checkpointing changes no random draw of dropout.
            out: Tensor = checkpoint(last.read, x, read, ctx, use_reentrant=False)
            return out
        return last.read(x, read, ctx)

    def intermediates(
        self, x: Tensor, ctx: BlockContext = NO_CONTEXT, *, indices: Iterable[int]
    ) -> list[Tensor]:
        """The outputs of some blocks, (B, N, C) each, in the order of the blocks.

        Args:
            indices: which blocks; negative ones count from the end.

        Raises:
            ValueError: an index beyond the depth.
        """
        depth = len(self)
        wanted = set()
        for index in indices:
            if not -depth <= index < depth:
                raise ValueError(f"block {index} does not exist; allowed: {-depth} to {depth - 1}")
            wanted.add(index % depth)
        taken = []
        for index, block in enumerate(self):
            if index > max(wanted, default=-1):
                break
            x = self._run(block, x, ctx.for_layer(index))
            if index in wanted:
                taken.append(x)
        return taken

    def new_caches(self) -> list[LayerCache]:
        """An empty cache per layer, for ``BlockContext.caches``."""
        return [LayerCache() for _ in self]

    def _reader(self, ctx: BlockContext) -> Block | None:
        """The last block, where it can compute some of the tokens alone."""
        last = self[-1] if len(self) else None
        if ctx.is_causal or ctx.caches or not isinstance(last, Block):
            return None
        return last if last.can_read() else None

    def _run(self, block: nn.Module, x: Tensor, ctx: BlockContext) -> Tensor:
        # Not with a cache: recomputing would append to it again.
        if self.grad_checkpointing and self.training and ctx.caches is None:
            norms = [m for m in block.modules() if isinstance(m, BatchNorm)]
            more: dict[str, Any] = {"context_fn": partial(_two_passes, norms)} if norms else {}
            out: Tensor = checkpoint(block, x, ctx, use_reentrant=False, **more)
            return out
        out = block(x, ctx)
        return out


class GradientCheckpointing(nn.Module):
    """A model on trunks, which may recompute their blocks."""

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the blocks in the backward pass: less memory, about a third more time."""
        for part in self.modules():
            if isinstance(part, Trunk):
                part.grad_checkpointing = enable


def _two_passes(
    norms: list[BatchNorm],
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Contexts of a block's first pass and of its recomputation: a batch is counted once."""
    return nullcontext(), _uncounted(norms)


@contextmanager
def _uncounted(norms: list[BatchNorm]) -> Iterator[None]:
    """Running statistics stay: the new batch's share is 0. Turning them off would change what the
    pass saves, which the recomputation compares.
    """
    before = [(norm.momentum, _counter(norm).clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum = momentum
            _counter(norm).copy_(count)


def _counter(norm: BatchNorm) -> Tensor:
    count = norm.num_batches_tracked
    return torch.zeros(()) if count is None else count


def make_mlp(
    kind: str,
    embed_dim: int,
    hidden_dim: int,
    *,
    act_layer: str,
    drop: float | tuple[float, float],
    bias: bool = True,
) -> nn.Module:
    """The channel mixer by name: ``mlp`` or ``swiglu``, whose gate is silu whatever ``act_layer``.

    Raises:
        ValueError: another name.
    """
    if kind == "swiglu":
        return SwiGlu(embed_dim, hidden_dim, drop=drop, bias=bias)
    if kind != "mlp":
        raise ValueError(f"mlp_layer {kind!r}; allowed: 'mlp', 'swiglu'")
    return Mlp(embed_dim, hidden_dim, act_layer=act_layer, drop=drop, bias=bias)


def encoder_blocks(
    depth: int,
    embed_dim: int,
    num_heads: int,
    *,
    block_type: type[Block] = Block,
    mlp_ratio: float = 4.0,
    head_dim: int | None = None,
    num_kv_heads: int | None = None,
    qkv_bias: bool = True,
    proj_bias: bool = True,
    qk_norm: bool = False,
    init_values: float | None = None,
    norm_layer: NormLayer = nn.LayerNorm,
    norm_first: bool = True,
    mlp_layer: str = "mlp",
    act_layer: str = "gelu",
    attn_drop_rate: float = 0.0,
    proj_drop_rate: float = 0.0,
    mlp_drop_rate: float | None = None,
    mlp_bias: bool = True,
    drop_path_rate: float = 0.0,
) -> Trunk:
    """A trunk of ``depth`` self-attention blocks, all alike but for the rising drop path.

    Args:
        block_type: :class:`Block` or :class:`CompactBlock`.
        mlp_ratio: hidden width of the channel mixer over ``embed_dim``.
        mlp_drop_rate: dropout in the channel mixer; ``proj_drop_rate`` unless given.
        mlp_bias: biases of the channel mixer.
        drop_path_rate: of the last block; the first has 0.

    The other arguments go to :class:`Attention`, :class:`Mlp` or the block as named there.
    """
    mlp_drop = proj_drop_rate if mlp_drop_rate is None else mlp_drop_rate
    return Trunk(
        block_type(
            embed_dim,
            Attention(
                embed_dim,
                num_heads,
                head_dim=head_dim,
                num_kv_heads=num_kv_heads,
                qkv_bias=qkv_bias,
                proj_bias=proj_bias,
                qk_norm=qk_norm,
                norm_layer=norm_layer,
                attn_drop=attn_drop_rate,
                proj_drop=proj_drop_rate,
            ),
            make_mlp(
                mlp_layer,
                embed_dim,
                int(embed_dim * mlp_ratio),
                act_layer=act_layer,
                drop=mlp_drop,
                bias=mlp_bias,
            ),
            norm_layer=norm_layer,
            norm_first=norm_first,
            init_values=init_values,
            drop_path=drop_path,
        )
        for drop_path in drop_path_ramp(drop_path_rate, depth)
    )
