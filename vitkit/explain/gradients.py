"""Gradient-weighted relevance: which patches speak for a class.

Source: Chefer, Gur & Wolf, "Generic attention-model explainability for interpreting bi-modal and
encoder-decoder Transformers", arXiv 2103.15679, section 3, for self attention: R starts as the
identity and each layer adds E_h[(dy/dA * A)+] R.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vitkit.errors import ConfigError, EvaluationError
from vitkit.explain.anatomy import Anatomy, anatomy_of
from vitkit.explain.maps import recorded_weights
from vitkit.nn import evaluating

__all__ = ["checked_targets", "relevance", "require_classes"]


def relevance(model: nn.Module, images: Tensor, targets: Tensor | None = None) -> Tensor:
    """What each patch says for a class.

    Every layer keeps its fast kernel: the weights A are computed beside it, and as the layer's
    output is O = A V, their gradient is dy/dA = dy/dO V^T, with dy/dO from before the output
    projection.

    The source reads the class token's row of R (here the mean of two rows where the head reads a
    distillation token too). Where the head reads the patches, whatever the pooling, the rows are
    weighted by what each patch token adds to the class itself, beyond what patches add on average:
    the positive part of gradient times token less its mean, scaled to sum to one.

    Args:
        model: vitkit's or timm's, all of whose blocks have attention.
        images: its input, float (B, channels, height, width).
        targets: class of each image, int (B,); the predicted one without it.

    Returns:
        float32 (B, rows, columns), not negative, not scaled: larger is more relevant.

    Raises:
        EvaluationError: no attention that can be read, blocks that mix tokens otherwise, or a model
            that gives no logits (B, classes).
        ConfigError: a class that does not exist.
    """
    anatomy = anatomy_of(model)
    layers = anatomy.all_attending("relevance")
    # Whoever calls may be in no_grad or inference mode, and every parameter may be frozen.
    with torch.inference_mode(False), torch.enable_grad(), evaluating(model):
        pictures = images.detach().clone().requires_grad_()
        with recorded_weights(layers) as maps, _watched(layers) as (outputs, values):
            tokens = anatomy.features(pictures)
        logits: Tensor = anatomy.head(tokens)
        require_classes("relevance", model, logits)
        chosen = logits.gather(1, checked_targets(targets, logits)[:, None]).sum()
        *slopes, towards = torch.autograd.grad(chosen, [*outputs, tokens])
    with torch.no_grad():
        rows = _view(anatomy, tokens, towards)
        for weights, slope, value in reversed(list(zip(maps, slopes, values, strict=True))):
            per_head = slope.float().unflatten(-1, (int(weights.shape[1]), -1)).transpose(1, 2)
            towards_weights = per_head @ value.transpose(-2, -1)
            added = (weights * towards_weights).clamp(min=0).mean(dim=1)
            # The rows of R that are read, from the last layer back: no product of whole matrices.
            rows = rows + torch.einsum("bn,bnm->bm", rows, added)
        return anatomy.on_grid(rows, images)


@contextmanager
def _watched(layers: Sequence[nn.Module]) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """Lists that fill: what goes into each output projection (B, N, H D), values (B, H, N, D)."""
    outputs: list[Tensor] = []
    values: list[Tensor] = []
    handles = []
    for layer in layers:
        attn: Any = layer
        handles.append(attn.qkv.register_forward_hook(partial(_keep_values, attn, values)))
        handles.append(attn.proj.register_forward_pre_hook(partial(_keep_output, outputs)))
    try:
        yield outputs, values
    finally:
        for handle in handles:
            handle.remove()


def _keep_output(outputs: list[Tensor], _: Any, inputs: tuple[Tensor, ...]) -> None:
    outputs.append(inputs[0])


def _keep_values(attn: Any, values: list[Tensor], _: Any, inputs: Any, qkv: Tensor) -> None:
    """The last part of the projection's output; shared heads are repeated for their queries."""
    heads: int = attn.num_heads
    groups: int = getattr(attn, "num_kv_heads", heads)
    v = qkv.detach()[..., -groups * attn.head_dim :].float()
    v = v.unflatten(-1, (groups, attn.head_dim)).transpose(1, 2)
    values.append(v.repeat_interleave(heads // groups, dim=1))


def require_classes(what: str, model: nn.Module, logits: Tensor) -> None:
    """Refuse features, of which any number would be taken for a class, and logits of each token.

    Args:
        what: needs classes.
        model: whose output it is.
        logits: of the model.

    Raises:
        EvaluationError: they are none.
    """
    if logits.ndim != 2 or getattr(model, "num_classes", None) == 0:
        raise EvaluationError(
            f"{what} asks what speaks for a class, and {type(model).__name__} gives "
            f"{tuple(logits.shape)}, not (images, classes): build it with num_classes and a "
            "global_pool, or look at its attention maps"
        )


def checked_targets(targets: Tensor | None, logits: Tensor) -> Tensor:
    """One class an image, int64 (B,): the predicted one where none is asked for.

    Args:
        targets: as of :func:`relevance`.
        logits: (B, classes).

    Raises:
        ConfigError: a class that does not exist, or not one an image.
    """
    if targets is None:
        return logits.argmax(dim=1)
    batch, classes = logits.shape
    if targets.shape != (batch,) or targets.is_floating_point():
        raise ConfigError(
            f"targets: given {tuple(targets.shape)} {targets.dtype}; give one whole number an "
            f"image, ({batch},)"
        )
    outside = targets[(targets < 0) | (targets >= classes)]
    if len(outside):
        raise ConfigError(f"class {int(outside[0])} does not exist; allowed: 0 to {classes - 1}")
    # A copy: an inference tensor could not be kept for the backward pass.
    return targets.to(logits.device, torch.int64).clone()


def _view(anatomy: Anatomy, tokens: Tensor, towards: Tensor) -> Tensor:
    """How much of the class each token (B, N, C) of the last layer holds: (B, N)."""
    rows = tokens.new_zeros(tokens.shape[:2], dtype=torch.float32)
    if anatomy.num_read:
        rows[:, : anatomy.num_read] = 1.0 / anatomy.num_read
        return rows
    # Against the mean: an amount that all patches add alike tells none from another, and where
    # all speak against the class, some do so least.
    said = (towards.float() * tokens.float()).sum(dim=-1)[:, anatomy.num_prefix :]
    said = (said - said.mean(dim=1, keepdim=True)).clamp(min=0)
    total = said.sum(dim=1, keepdim=True).clamp(min=torch.finfo(said.dtype).tiny)
    rows[:, anatomy.num_prefix :] = said / total
    return rows
