"""Attention maps: how much each token takes from every other, per layer and head.

Source: Vaswani et al., "Attention is all you need", arXiv 1706.03762, section 3.2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vitkit.errors import EvaluationError
from vitkit.explain.anatomy import anatomy_of, chosen_layers
from vitkit.nn import Attention, attention_weights, evaluating, record_attention

__all__ = ["attention_maps", "recorded_weights"]


@torch.no_grad()
def attention_maps(model: nn.Module, images: Tensor, layers: Sequence[int] | None = None) -> Tensor:
    """The attention of every head, as the model applies it in evaluation.

    Every layer keeps its fast kernel; the weights are computed beside it.

    Args:
        model: vitkit's or timm's.
        images: its input, float (B, channels, height, width).
        layers: of those blocks that have attention, counted from 0; negative ones from the end;
            None: all.

    Returns:
        float32 (B, L, H, N, N): row the token that looks, column what it looks at. Rows sum to one.
        The first tokens are class token, distillation token and registers, as far as there are
        any; then the patches, row by row.

    Raises:
        EvaluationError: a model without attention that can be read.
        ConfigError: a layer that does not exist.
    """
    attention = anatomy_of(model).attending()
    wanted = chosen_layers(len(attention), layers)
    with evaluating(model), recorded_weights([attention[i] for i in wanted]) as maps:
        model(images)
    if len({weights.shape for weights in maps}) > 1:
        raise EvaluationError("the chosen layers differ in heads or tokens; take them one by one")
    return torch.stack(maps, dim=1)


@contextmanager
def recorded_weights(layers: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Record attention layers of vitkit or timm inside the ``with`` block.

    Yields:
        A list that is filled when the block ends: float32 (B, H, N, M) a layer, of the newest pass.
    """
    weights: list[Tensor] = []
    with ExitStack() as stack:
        seen = [stack.enter_context(_recorded(layer)) for layer in layers]
        yield weights
        weights.extend(one[0] for one in seen)


def _recorded(layer: nn.Module) -> AbstractContextManager[dict[Any, Tensor]]:
    return record_attention(layer) if isinstance(layer, Attention) else _recorded_timm(layer)


@contextmanager
def _recorded_timm(layer: nn.Module) -> Iterator[dict[Any, Tensor]]:
    """As record_attention does for ours, from what timm's projection gives."""
    seen: dict[Any, Tensor] = {}
    attn: Any = layer
    handle = attn.qkv.register_forward_hook(partial(_keep_timm, attn, seen))
    try:
        yield seen
    finally:
        handle.remove()


@torch.no_grad()
def _keep_timm(attn: Any, seen: dict[Any, Tensor], _: Any, inputs: Any, qkv: Tensor) -> None:
    q, k, _ = qkv.unflatten(-1, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
    seen[0] = attention_weights(attn.q_norm(q), attn.k_norm(k), scale=attn.scale)
