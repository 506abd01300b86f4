"""How widely heads look: the entropy of what they attend to, from one token to all of them alike.

Source: Zhai et al., "Stabilizing Transformer training by preventing attention entropy collapse",
arXiv 2303.06296, section 3: where it falls towards 0, training tends to be unstable.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vitkit.explain.maps import attention_maps

__all__ = ["attention_entropy", "mean_attention_entropy"]


def attention_entropy(maps: Tensor) -> Tensor:
    """Mean entropy of attention maps, over the tokens that look.

    Args:
        maps: (..., N, M), rows that sum to one: prefix tokens look and are looked at as patches
            are.

    Returns:
        float32 (...), in nats: from 0, where each token looks at one, to ln M, where each looks at
        all alike.
    """
    shares = maps.float()
    return -torch.xlogy(shares, shares).sum(dim=-1).mean(dim=-1)


def mean_attention_entropy(model: nn.Module, images: Tensor) -> Tensor:
    """Mean attention entropy of every head.

    Args:
        model: vitkit's or timm's, with attention.
        images: its input, float (B, channels, height, width).

    Returns:
        float32 (B, L, H), in nats, ln N at most.

    Raises:
        EvaluationError: a model without attention that can be read.
    """
    return attention_entropy(attention_maps(model, images))
