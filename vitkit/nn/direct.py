"""Layers that call each other without torch's machinery in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from vitkit.nn.attention import Attention
from vitkit.nn.blocks import Mlp, SwiGlu, is_hooked

__all__ = ["direct_calls"]


@contextmanager
def direct_calls(model: nn.Module) -> Iterator[None]:
    """Inside the ``with`` block, layers of known types are called as plain functions.

    torch looks up a layer's name, its hooks and its parameters at each call: for one token of a
    small model that takes longer than the arithmetic. Outputs are the same to the bit. Layers with
    hooks are called as ever; a hook, or a weight, that is put in place within the block is not
    seen.

    Args:
        model: its modules, and what they hold, stay; only how they find each other changes.
    """
    placed: list[tuple[nn.Module, str]] = []
    try:
        for module in model.modules():
            for name, part in module._modules.items():
                call = None if part is None or is_hooked(part) else _plain(part)
                if call is not None:
                    # An instance's own dict is looked into before the modules are.
                    module.__dict__[name] = call
                    placed.append((module, name))
        yield
    finally:
        for module, name in placed:
            module.__dict__.pop(name, None)


def _plain(layer: nn.Module) -> Callable[..., Tensor] | None:
    """What the layer computes, as a function that holds its weights; None for unknown types."""
    if type(layer) is nn.Linear:
        return partial(F.linear, weight=layer.weight, bias=layer.bias)
    if type(layer) is nn.LayerNorm:
        return partial(
            F.layer_norm,
            normalized_shape=layer.normalized_shape,
            weight=layer.weight,
            bias=layer.bias,
            eps=layer.eps,
        )
    if type(layer) is nn.GELU:
        return partial(F.gelu, approximate=layer.approximate)
    if type(layer) in (Attention, Mlp, SwiGlu, nn.RMSNorm, nn.SiLU, nn.ReLU):
        forward: Callable[..., Tensor] = layer.forward
        return forward
    return None
