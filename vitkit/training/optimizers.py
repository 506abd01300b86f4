"""Optimisers by name, over parameter groups with and without weight decay."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from vitkit.training.config import OptimizerConfig

__all__ = ["build_optimizer", "parameter_groups"]


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: weights that decay, and those that do not.

    Biases, norms, gains (all of one dimension) and what the model's ``no_weight_decay()`` names
    (positions, class and register tokens) do not decay. Frozen parameters are left out.
    """
    named: Any = getattr(model, "no_weight_decay", set)
    spared = named()
    decay: list[nn.Parameter] = []
    no_decay: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            spare = parameter.ndim <= 1 or name in spared
            (no_decay if spare else decay).append(parameter)
    groups = [
        {"params": decay, "weight_decay": weight_decay},
        {"params": no_decay, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def build_optimizer(
    model: nn.Module, config: OptimizerConfig, *, fused: bool = True
) -> torch.optim.Optimizer:
    """The optimiser that the config names.

    Args:
        model: whose parameters to train.
        config: name and settings.
        fused: torch's one-pass kernels, where the device has them. They unscale float16 gradients
            themselves, which forbids clipping, so float16 training turns them off.
    """
    groups = parameter_groups(model, config.weight_decay)
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, fused=fused)
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=fused)
