"""Which layers of a model classify: it says so itself, as timm's do."""

from __future__ import annotations

from typing import Any

from torch import nn

__all__ = ["classifier_names", "classifiers"]


def classifiers(model: nn.Module) -> tuple[nn.Module, ...]:
    """The last layer, or the two of a distilled model; empty if the model does not say."""
    named: Any = getattr(model, "get_classifier", None)
    heads = () if named is None else named()
    return heads if isinstance(heads, tuple) else (heads,)


def classifier_names(model: nn.Module) -> list[str]:
    """Names of the parameters of :func:`classifiers`, in the model's order."""
    own = {id(parameter) for head in classifiers(model) for parameter in head.parameters()}
    return [name for name, parameter in model.named_parameters() if id(parameter) in own]
