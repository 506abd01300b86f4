"""What linear layers begin with, and the last of a classifier. Modules of other kinds keep torch's
own weights.
"""

from __future__ import annotations

from torch import nn

__all__ = ["init_glorot_weights", "init_vit_weights", "make_head"]


def make_head(width: int, num_classes: int) -> nn.Module:
    """The linear layer that classifies, with torch's own first weights.

    Args:
        width: of the features that it reads.
        num_classes: how many there are; 0: an identity in its place.
    """
    return nn.Linear(width, num_classes) if num_classes else nn.Identity()


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
