"""Layers that call each other without torch's machinery in between."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from vitkit.nn.attention import Attention
from vitkit.nn.blocks import Mlp, SwiGlu, is_hooked
from vitkit.nn.products import Linear

__all__ = ["direct_calls"]

KNOWN = (
    *(Attention, Mlp, SwiGlu, Linear, nn.Linear, nn.LayerNorm, nn.RMSNorm),
    *(nn.GELU, nn.SiLU, nn.ReLU),
)
"""Layers that others only call."""


@contextmanager
def direct_calls(model: nn.Module) -> Iterator[None]:
    """Inside the ``with`` block, layers of known types are called as plain functions.

    torch looks up a layer's name and its hooks at each call: for one token of a small model that
    takes longer than the arithmetic. Outputs are the same to the bit. Layers with hooks are called
    as ever; a hook that is put in place within the block is not seen.

    Args:
        model: its modules, and what they hold, stay; only how they find each other changes.
    """
    placed: list[tuple[nn.Module, str]] = []
    try:
        for module in model.modules():
            for name, part in module._modules.items():
                if part is not None and type(part) in KNOWN and not is_hooked(part):
                    # An instance's own dict is looked into before the modules are.
                    module.__dict__[name] = part.forward
                    placed.append((module, name))
        yield
    finally:
        for module, name in placed:
            module.__dict__.pop(name, None)
