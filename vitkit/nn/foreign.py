"""Layers of timm that are built as ours are: known by their names, never imported."""

from __future__ import annotations

from typing import Any

from torch import nn

__all__ = ["is_timm_attention", "is_timm_mlp"]

ATTENTION = {"timm.layers.attention.Attention", "timm.models.vision_transformer.Attention"}
"""With ``qkv``, whose rows are those of q, of k and of v, and ``proj``."""
MLPS = {"timm.layers.mlp.Mlp", "timm.layers.mlp.GluMlp"}
"""With ``fc1`` and ``fc2``."""


def is_timm_attention(module: Any) -> bool:
    """Whether a module is the self attention of timm's Vision Transformer."""
    return _kind(module) in ATTENTION


def is_timm_mlp(module: Any) -> bool:
    """Whether a module is an MLP of timm's, of linear layers."""
    return _kind(module) in MLPS and isinstance(module.fc1, nn.Linear)


def _kind(module: Any) -> str:
    kind = type(module)
    return f"{kind.__module__}.{kind.__qualname__}"
