"""What linear layers begin with. Modules of other kinds keep torch's own."""

from __future__ import annotations

from torch import nn

__all__ = ["init_glorot_weights", "init_vit_weights"]


def init_vit_weights(module: nn.Module) -> None:
    """Of a linear layer: truncated normal 0.02, zero bias."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def init_glorot_weights(module: nn.Module) -> None:
    """Of a linear layer: Glorot's uniform weights, zero bias. A layer that holds queries, keys and
    values counts as one, so that these begin smaller than apart.
    """
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
