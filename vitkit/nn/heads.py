"""Which layers of a model classify, and what they read: it says so itself, as timm's do."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

__all__ = ["classifier_names", "classifiers", "pooled_features"]


def classifiers(model: nn.Module) -> tuple[nn.Module, ...]:
    """The last layer, or the two of a distilled model; empty if the model does not say."""
    named: Any = getattr(model, "get_classifier", None)
    heads = () if named is None else named()
    return heads if isinstance(heads, tuple) else (heads,)


def classifier_names(model: nn.Module) -> list[str]:
    """Names of the parameters of :func:`classifiers`, in the model's order."""
    own = {id(parameter) for head in classifiers(model) for parameter in head.parameters()}
    return [name for name, parameter in model.named_parameters() if id(parameter) in own]


def pooled_features(model: nn.Module, inputs: Tensor) -> Tensor:
    """What the classifier of a model would read.

    Args:
        model: with timm's ``forward_features`` and ``forward_head(..., pre_logits=True)``.
        inputs: of the model, such as images (B, channels, height, width).

    Returns:
        (B, C).
    """
    built: Any = model
    features: Tensor = built.forward_head(built.forward_features(inputs), pre_logits=True)
    return features
