"""Attention rollout: maps multiplied through the layers, with half of each for the residual stream.

Source: Abnar & Zuidema, "Quantifying attention flow in Transformers", arXiv 2005.00928, section 3.
Fusing heads by their maximum or minimum and leaving out the smallest entries are common additions
for pictures (jacobgil/vit-explain), and off unless asked for.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vitkit.errors import ConfigError, EvaluationError
from vitkit.explain.anatomy import Anatomy, anatomy_of
from vitkit.explain.maps import recorded_weights
from vitkit.nn import Attention, evaluating, record_attention

__all__ = ["FUSIONS", "attention_rollout", "rollout"]

FUSIONS = {"mean": "mean", "max": "amax", "min": "amin"}
"""How the heads of a layer become one map -> torch's name of it."""


def rollout(
    maps: Tensor, *, fusion: str = "mean", discard: float = 0.0, class_token: bool = True
) -> Tensor:
    """What each token of the last layer is made of, in tokens of the first.

    Args:
        maps: (B, L, H, N, N), first layer first, as of :func:`attention_maps`.
        fusion: one of :data:`FUSIONS`.
        discard: share of each fused map's entries, the smallest, that are set to zero.
        class_token: token 0 is one: what it keeps of itself is not set to zero, though it counts
            among the smallest.

    Returns:
        (B, N, N); rows sum to one.

    Raises:
        ConfigError: another fusion, or a share outside [0, 1).
    """
    fused = _fused(maps, fusion, discard, class_token)
    out = torch.eye(fused.shape[-1], device=fused.device, dtype=fused.dtype)
    for layer in fused.unbind(dim=1):
        out = _with_residual(layer) @ out
    return out


@torch.no_grad()
def attention_rollout(
    model: nn.Module, images: Tensor, *, fusion: str = "mean", discard: float = 0.0
) -> Tensor:
    """How much of each patch reaches what the head reads, if attention were all that mixes.

    The head's view is the row of the class token (the mean of class and distillation token's where
    it reads both), of the patches weighted as sequence or attention pooling weighs them, else the
    mean over all patches.

    Args:
        model: vitkit's or timm's, all of whose blocks have attention.
        images: its input, float (B, channels, height, width).
        fusion, discard: as of :func:`rollout`, whose ``class_token`` is the model's.

    Returns:
        float32 (B, rows, columns), not negative. Sums to one, less what stays with prefix tokens.

    Raises:
        EvaluationError: no attention that can be read, blocks that mix tokens otherwise, or a
            pooling that cannot be told.
        ConfigError: as of :func:`rollout`.
    """
    anatomy = anatomy_of(model)
    layers = anatomy.all_attending("rollout")
    with evaluating(model), recorded_weights(layers) as maps:
        tokens = anatomy.features(images)
    has_class = "class token" in anatomy.prefix_names
    fused = _fused(torch.stack(maps, dim=1), fusion, discard, has_class)
    view = _view(anatomy, tokens)
    for layer in reversed(fused.unbind(dim=1)):  # a row at a time: no product of whole maps
        view = torch.einsum("bn,bnm->bm", view, _with_residual(layer))
    return anatomy.on_grid(view, images)


def _fused(maps: Tensor, fusion: str, discard: float, class_token: bool) -> Tensor:
    """(B, L, H, N, N) -> (B, L, N, N)."""
    if fusion not in FUSIONS:
        raise ConfigError(f"fusion {fusion!r}; allowed: {', '.join(FUSIONS)}")
    if not 0.0 <= discard < 1.0:
        raise ConfigError(f"discard {discard}; allowed: a share from 0 up, below 1")
    fused: Tensor = getattr(maps, FUSIONS[fusion])(dim=2)
    count = int(discard * fused.shape[-1] * fused.shape[-2])
    if count == 0:
        return fused
    flat = fused.flatten(2)
    smallest = flat.topk(count, dim=-1, largest=False).indices
    left = flat.scatter(-1, smallest, 0.0)
    if class_token:
        left[..., 0] = flat[..., 0]
    return left.view_as(fused)


def _with_residual(fused: Tensor) -> Tensor:
    """(A + I) / 2 with rows that sum to one."""
    mixed = fused + torch.eye(fused.shape[-1], device=fused.device, dtype=fused.dtype)
    return mixed / mixed.sum(dim=-1, keepdim=True)


def _view(anatomy: Anatomy, tokens: Tensor) -> Tensor:
    """How the head weighs tokens (B, N, C) of the last layer: (B, N), rows sum to one."""
    batch, count = tokens.shape[:2]
    view = tokens.new_zeros(batch, count, dtype=torch.float32)
    model: Any = anatomy.model
    pool = getattr(model, "attn_pool", None)
    if anatomy.num_read:
        view[:, : anatomy.num_read] = 1.0 / anatomy.num_read
    elif getattr(model, "seq_pool", None) is not None:
        view[:] = model.seq_pool.score(tokens).softmax(dim=1)[..., 0]
    elif isinstance(pool, Attention):
        with record_attention(pool) as maps:
            model.pool(tokens)
        view[:, anatomy.num_prefix :] = maps[0].mean(dim=1)[:, 0]
    elif pool is not None:
        raise EvaluationError(
            f"rollout cannot tell how {type(pool).__name__} weighs the tokens; use relevance"
        )
    else:
        view[:, anatomy.num_prefix :] = 1.0 / (count - anatomy.num_prefix)
    return view
