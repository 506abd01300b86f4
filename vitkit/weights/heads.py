"""Classifiers of weights: which tensors they are, and whose classes their rows mean."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vitkit.nn import classifier_names, classifiers

__all__ = ["head_prefixes", "match_classes", "otherwise_pooled"]

HEADS = ("head.", "head_dist.")
"""How the names of classifiers begin in models that do not say which theirs are."""


def head_prefixes(model: nn.Module) -> tuple[str, ...]:
    """How the names of a model's classifiers begin, also where it was built without classes."""
    layers = {id(layer) for layer in classifiers(model)}
    own = [name for name, part in model.named_modules() if id(part) in layers]
    # timm's, which may have nothing in the place of one that was left out.
    stated: Any = (getattr(model, "pretrained_cfg", None) or {}).get("classifier") or ()
    named = (stated,) if isinstance(stated, str) else tuple(stated)
    return tuple(dict.fromkeys((*HEADS, *(f"{name}." for name in (*own, *named)))))


def match_classes(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    given: Sequence[str],
    wanted: Sequence[str],
) -> tuple[dict[str, Tensor], str]:
    """The tensors with the heads' rows in the order of other classes: by name, never by place.

    Without the heads where a class is none of the weights', or bears the name of two: a row that
    means another class is worse than none.

    Args:
        model: that the tensors are for; it says which are its classifiers.
        tensors: in its names.
        given: class names by row, as the weights state them; empty: unknown, nothing is changed.
        wanted: those of the model's rows; empty: unknown.

    Returns:
        The tensors, and a word about what was done; empty if nothing.
    """
    heads = [name for name in classifier_names(model) if len(tensors.get(name, ())) == len(given)]
    if not given or not wanted or list(given) == list(wanted) or not heads:
        return dict(tensors), ""
    times = Counter(given)
    row_of = {name: row for row, name in enumerate(given) if times[name] == 1}
    strange = [name for name in wanted if name not in row_of]
    if strange:
        kept = {name: tensor for name, tensor in tensors.items() if name not in heads}
        return kept, f"the head is new: its class {strange[0]!r} is none of the weights' classes"
    rows = torch.tensor([row_of[name] for name in wanted])
    ordered = {name: tensors[name][rows] for name in heads}
    return {**tensors, **ordered}, "the head's rows are put in the order of these classes, by name"


def otherwise_pooled(model: nn.Module, tensors: Mapping[str, Tensor]) -> list[str]:
    """The names of a classifier that reads class token and mean of the patches side by side, where
    the model's reads one vector alone, or the other way round; empty of any other.

    Args:
        model: that the tensors are for.
        tensors: in its names.
    """
    own, given = model.state_dict().get("head.weight"), tensors.get("head.weight")
    token = tensors.get("cls_token")
    if own is None or given is None or token is None or not own.ndim == given.ndim == 2:
        return []
    width = getattr(model, "embed_dim", 0)
    if token.shape[-1] != width or {own.shape[1], given.shape[1]} != {width, 2 * width}:
        return []
    return [name for name in tensors if name.startswith("head.")]
