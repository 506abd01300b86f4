"""A classifier that was fitted to features which stay, for a fine-tuning to begin with.

Source: Kumar et al., "Fine-tuning can distort pretrained features and underperform
out-of-distribution", arXiv 2202.10054: the head first, then everything.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from vitkit.errors import WeightsError
from vitkit.nn import classifiers

__all__ = ["load_head", "write_head"]

CLASSES = "class_names"


def write_head(path: Path, weight: Tensor, bias: Tensor, class_names: Sequence[str]) -> None:
    """Write a classifier of pooled features.

    Args:
        path: of the file.
        weight: (classes, C).
        bias: (classes,).
        class_names: by row.
    """
    tensors = {"weight": weight.contiguous().cpu(), "bias": bias.contiguous().cpu()}
    save_file(tensors, path, metadata={CLASSES: json.dumps(list(class_names))})


def load_head(model: nn.Module, path: str | Path, class_names: Sequence[str]) -> None:
    """Put such a classifier into a model, its rows by the names of the classes.

    Args:
        model: says which layers classify; of a distilled one both get it.
        path: of the file.
        class_names: by row of the model's.

    Raises:
        WeightsError: no such file, or it is of other classes or features, or the model's classifier
            has no bias; then nothing is changed.
    """
    tensors, names = _read(Path(path))
    strange = [name for name in class_names if name not in names]
    if strange:
        raise WeightsError(
            f"{path} knows no class {strange[0]!r}; probe the data that you train on"
        )
    rows = torch.tensor([names.index(name) for name in class_names])
    weight, bias = tensors["weight"][rows], tensors["bias"][rows]
    layers = classifiers(model)
    if not layers:
        raise WeightsError(
            f"{path}: {type(model).__name__} has no get_classifier(), so its head is not known"
        )
    linear = [_fitting(layer, weight, model, path) for layer in layers]
    with torch.no_grad():
        for layer in linear:
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)


def _fitting(layer: nn.Module, weight: Tensor, model: nn.Module, path: str | Path) -> nn.Linear:
    """The layer, if it can take the head.

    Raises:
        WeightsError: it cannot.
    """
    name = type(model).__name__
    if not isinstance(layer, nn.Linear) or layer.weight.shape != weight.shape:
        raise WeightsError(
            f"{path} is a head of {weight.shape[1]} features, which {name}'s does not read; probe "
            "the weights that you train"
        )
    if layer.bias is None:
        raise WeightsError(
            f"{path} is a head with a bias, which {name}'s has not; leave out task.finetune.head"
        )
    return layer


def _read(path: Path) -> tuple[dict[str, Tensor], list[str]]:
    if not path.is_file():
        raise WeightsError(f"no such head: {path}; vitkit probe leaves one")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            names = json.loads((file.metadata() or {}).get(CLASSES, "[]"))
    except (SafetensorError, ValueError) as error:
        raise WeightsError(f"{path} is damaged or no head ({error})") from error
    if set(tensors) != {"weight", "bias"} or len(names) != len(tensors["bias"]):
        raise WeightsError(f"{path} is no head that vitkit probe left")
    return tensors, names
