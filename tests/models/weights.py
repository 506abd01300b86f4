"""Weights of models under test."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["randomized"]


def randomized(model: Any) -> Any:
    """The model in float64 and evaluation mode with all weights far from their first values."""
    torch.manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return model.double().eval()
