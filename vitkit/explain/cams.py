"""Grad-CAM on tokens: which patches hold what speaks for a class, in one layer.

Source: Selvaraju et al., "Grad-CAM: Visual explanations from deep networks via gradient-based
localization", arXiv 1610.02391, section 3: channels weighted by their mean gradient, summed, and
what is below zero left out.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vitkit.explain.anatomy import anatomy_of, chosen_layers
from vitkit.explain.gradients import checked_targets, require_classes
from vitkit.nn import evaluating

__all__ = ["grad_cam"]


def grad_cam(
    model: nn.Module, images: Tensor, targets: Tensor | None = None, *, layer: int = -1
) -> Tensor:
    """Patch tokens times their mean gradient, where they speak for a class.

    The tokens are those that an attention layer reads, as usual for Transformers: behind a block's
    first norm. Those behind the last block would not do where the head reads the class token alone,
    for the patches have no gradient there.

    Args:
        model: vitkit's or timm's; blocks without attention may lie between.
        images: its input, float (B, channels, height, width).
        targets: class of each image, int (B,); the predicted one without it.
        layer: of those blocks that have attention, counted from 0; negative ones from the end.

    Returns:
        float32 (B, rows, columns), not negative, not scaled: larger is more.

    Raises:
        EvaluationError: no attention that can be read, or a model that gives no logits
            (B, classes).
        ConfigError: a class or a layer that does not exist.
    """
    anatomy = anatomy_of(model)
    attention = anatomy.attending()
    (index,) = chosen_layers(len(attention), [layer])
    attn: Any = attention[index]
    read: list[Tensor] = []
    handle = attn.qkv.register_forward_pre_hook(partial(_keep_input, read))
    try:
        # Whoever calls may be in no_grad or inference mode, and every parameter may be frozen.
        with torch.inference_mode(False), torch.enable_grad(), evaluating(model):
            pictures = images.detach().clone().requires_grad_()
            logits: Tensor = anatomy.head(anatomy.features(pictures))
            require_classes("Grad-CAM", model, logits)
            chosen = logits.gather(1, checked_targets(targets, logits)[:, None]).sum()
            (towards,) = torch.autograd.grad(chosen, read)
    finally:
        handle.remove()
    with torch.no_grad():
        slopes, tokens = (anatomy.on_grid(t.float().mT, images) for t in (towards, read[0]))
        weights = slopes.mean(dim=(-2, -1), keepdim=True)  # of the channels, (B, C, 1, 1)
        return (weights * tokens).sum(dim=1).clamp(min=0)


def _keep_input(read: list[Tensor], _: Any, inputs: tuple[Tensor, ...]) -> None:
    read.append(inputs[0])
