"""Shapes as they flow through a model: from pixels to tokens to classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vitkit.explain.anatomy import EMBED_NAMES, head_token_names
from vitkit.nn import evaluating

__all__ = ["ShapeStep", "token_shapes"]

Shape = tuple[int, ...]


@dataclass(frozen=True)
class ShapeStep:
    """One step from input to output, for one image.

    Attributes:
        name: of the module, or what happens between two of them.
        given: shape before: (height, width, channels) of pixels, (N, C) of tokens, (C,) pooled.
        made: shape behind.
    """

    name: str
    given: Shape
    made: Shape


@torch.no_grad()
def token_shapes(model: nn.Module, images: Tensor) -> list[ShapeStep]:
    """The shapes in front of and behind each part of a model, and each of its blocks.

    Parts that have no weights and change no shape are left out. What happens between parts (tokens
    are prepended, pooled) is a step where it changes the shape.

    Args:
        model: any that is called with images; on the meta device nothing is computed.
        images: (B, channels, height, width), on the model's device.
    """
    steps: list[ShapeStep] = []
    handles = [module.register_forward_hook(_noting(name, steps)) for name, module in _parts(model)]
    try:
        with evaluating(model):
            _run(model, images)
    finally:
        for handle in handles:
            handle.remove()
    return _joined(model, steps)


def _run(model: Any, images: Tensor) -> None:
    """The whole way: a model may leave tokens out that its head does not read."""
    if hasattr(model, "forward_features") and hasattr(model, "forward_head"):
        model.forward_head(model.forward_features(images))
    else:
        model(images)


def _parts(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Children by name, blocks one by one."""
    parts: list[tuple[str, nn.Module]] = []
    for name, child in model.named_children():
        if name == "blocks" and isinstance(child, nn.ModuleList | nn.Sequential):
            parts += [(f"{name}.{index}", block) for index, block in enumerate(child)]
        else:
            parts.append((name, child))
    return parts


def _noting(name: str, steps: list[ShapeStep]) -> Any:
    def note(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if not inputs or not isinstance(inputs[0], Tensor):
            return
        given, made = _shape(inputs[0]), _shape(output)
        channels_last = getattr(getattr(module, "output_fmt", None), "value", "") == "NHWC"
        if channels_last and len(made) == 3:  # undo what _shape did
            made = (made[2], made[0], made[1])
        if given != made or any(True for _ in module.parameters()):
            steps.append(ShapeStep(name, given, made))

    return note


def _shape(value: Any) -> Shape:
    """Of one image: without the batch, channels last."""
    tensor: Tensor = value[0] if isinstance(value, tuple | list) else value
    shape = tuple(int(n) for n in tensor.shape[1:])
    return (*shape[1:], shape[0]) if len(shape) == 3 else shape


def _joined(model: nn.Module, steps: list[ShapeStep]) -> list[ShapeStep]:
    """With a step between two parts where the second is given a shape that none has made."""
    out: list[ShapeStep] = []
    known: set[Shape] = {steps[0].given} if steps else set()
    for step in steps:
        if step.given not in known:
            before = out[-1]
            embedded = before.name in EMBED_NAMES
            name = _prepended(model) if embedded else _pooling(model)
            out.append(ShapeStep(name, before.made, step.given))
        out.append(step)
        known |= {step.given, step.made}
    return out


def _prepended(model: Any) -> str:
    """The tokens in front of the patches, and what else joins there."""
    found = head_token_names(model)
    registers = getattr(model, "reg_token", None)
    if registers is not None:
        count = int(registers.shape[1])
        found.append(f"{count} register{'s' if count > 1 else ''}")
    if getattr(model, "pos_embed", None) is not None:
        found.append("positions")
    return "+ " + ", ".join(found) if found else "to tokens"


def _pooling(model: Any) -> str:
    kind = getattr(model, "global_pool", "")
    return f"pooling: {kind}" if isinstance(kind, str) and kind else "to the next part"
