"""Our checkpoint: Lightning's file plus plain values that rebuild the model without it.

Under the key ``vitkit`` lie the format version, the resolved config, the model's name and
arguments, class names, preprocessing and, with averaging on, the averaged weights. Tensors and
plain values only, so ``weights_only=True`` always suffices.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from vitkit.errors import WeightsError
from vitkit.nn import merge_lora_state
from vitkit.records import Plain
from vitkit.weights.files import read_file, read_json

__all__ = [
    "FORMAT_VERSION",
    "Checkpoint",
    "checkpoint_of",
    "read_checkpoint",
    "require_version",
    "spare_names",
    "tested_name",
    "trained_weights",
    "without_adapters",
]

FORMAT_VERSION = 1
OWN_KEY = "vitkit"
PREFIX = "model."


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint of ours says.

    Attributes:
        path: where it was read.
        config: the run's resolved config, plain values.
        model: the model section that rebuilds it: name, num_classes, in_chans, img_size, ...
        data: name, class names and statistics of the data, plain values.
        preprocessing: what the model expects of a picture, plain values; empty for words.
        trained: the weights as trained.
        averaged: the averaged weights, or None without averaging.
        epoch: epochs begun before it was written, from 0.
        step: optimiser steps taken.
        tokenizer: of a model of words, plain values; None of any other.
        pretraining: beginnings of names -> what the weights of such names are, where the training
            alone had a use for them.
        lost_patience: early stopping has ended its training.
    """

    path: Path
    config: dict[str, Any]
    model: dict[str, Any]
    data: dict[str, Any]
    preprocessing: dict[str, Any]
    trained: dict[str, Tensor]
    averaged: dict[str, Tensor] | None
    epoch: int
    step: int
    tokenizer: dict[str, Any] | None = None
    pretraining: dict[str, str] = field(default_factory=dict)
    lost_patience: bool = False

    @property
    def weights(self) -> dict[str, Tensor]:
        """What is evaluated: the averaged weights, where there are any, with adapters merged, and
        of them only what is of use after the training.
        """
        held = self.trained if self.averaged is None else self.averaged
        spare = spare_names(held, self.pretraining)
        kept = {name: tensor for name, tensor in held.items() if name not in spare}
        return without_adapters(kept, self.config)

    @property
    def weights_name(self) -> str:
        """``trained`` or ``averaged``."""
        return "trained" if self.averaged is None else "averaged"

    def facts(self) -> dict[str, Plain]:
        """What records say of it: file, which weights, model, epoch and step."""
        return {
            "checkpoint": str(self.path),
            "weights": self.weights_name,
            "model": str(self.model["name"]),
            "epoch": self.epoch,
            "step": self.step,
        }


def tested_name(run: Path) -> str | None:
    """The checkpoint's file that a run's ``results.json`` says was tested; None where it does not.

    Raises:
        WeightsError: the file is damaged.
    """
    results = run / "results.json"
    tested = read_json(results).get("checkpoint") if results.is_file() else None
    return tested if isinstance(tested, str) else None


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint of ours.

    Raises:
        WeightsError: missing, damaged, unsafe, not ours, or newer than this version can read.
    """
    path = Path(path)
    return checkpoint_of(read_file(path), path)


def checkpoint_of(content: Mapping[str, Any], path: Path) -> Checkpoint:
    """The checkpoint in what a file of ours holds.

    Args:
        content: see :func:`vitkit.weights.files.read_file`.
        path: of the file.

    Raises:
        WeightsError: not ours, or newer than this version can read.
    """
    own = content.get(OWN_KEY)
    if not isinstance(own, dict) or "state_dict" not in content:
        raise WeightsError(
            f"{path} is not a vitkit checkpoint; to start from foreign weights use model.weights="
        )
    require_version(own, path)
    state = content["state_dict"]
    return Checkpoint(
        path=path,
        config=own["config"],
        model=own["model"],
        data=own["data"],
        preprocessing=own.get("preprocessing", {}),
        trained=trained_weights(state),
        averaged=own.get("averaged"),
        epoch=int(own["epoch"]),
        step=int(own["step"]),
        tokenizer=own.get("tokenizer"),
        pretraining=dict(own.get("pretraining") or {}),
        lost_patience=_has_lost_patience(content.get("callbacks") or {}),
    )


def _has_lost_patience(states: Mapping[str, Any]) -> bool:
    """Whether one of Lightning's callbacks has waited as long as it would."""
    waiting = [state for state in states.values() if isinstance(state, Mapping)]
    return any(s.get("wait_count", 0) >= s["patience"] for s in waiting if "patience" in s)


def trained_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The model's weights by its own names, out of the state dict of the module that trained it."""
    return {name.removeprefix(PREFIX): t for name, t in state.items() if name.startswith(PREFIX)}


def require_version(own: Mapping[str, Any], path: Path) -> None:
    """Refuse what this version cannot read.

    Args:
        own: what the checkpoint holds under :data:`OWN_KEY`.
        path: of it.

    Raises:
        WeightsError: it is of a newer format.
    """
    version = own.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise WeightsError(
            f"{path} has checkpoint format {version!r}; this version of vitkit reads up to "
            f"{FORMAT_VERSION}. Update vitkit"
        )


def without_adapters(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Weights of a run with those of ``task.finetune=lora``, if it had any, made part of them."""
    if not any(name.endswith(".lora_a") for name in tensors):
        return dict(tensors)
    finetune = config["task"]["finetune"]
    return merge_lora_state(tensors, alpha=finetune["alpha"], targets=finetune["targets"])


def spare_names(names: Iterable[str], pretraining: Mapping[str, str]) -> dict[str, str]:
    """Those of the names that begin as one of ``pretraining`` does, and what they are."""
    found = {}
    for name in names:
        for beginning, what in pretraining.items():
            if name.startswith(beginning):
                found[name] = what
    return found
