"""Finished models as makers of features: ours, weights of any layout, any model of timm."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vitkit.app.build import build_from_checkpoint, picture_section
from vitkit.app.devices import best_device
from vitkit.app.expectations import stated_preprocessing
from vitkit.app.leavings import suffix_of
from vitkit.app.pretrained import load_model
from vitkit.app.sources import (
    MODEL,
    OfTimm,
    Source,
    Weights,
    model_settings,
    opened_source,
    require_data,
    require_read,
    short_name,
)
from vitkit.app.subjects import folder_elsewhere, folder_of
from vitkit.config import RunConfig, load_config, override_words
from vitkit.data.preprocess import Fit, Preprocessing
from vitkit.errors import ConfigError, EvaluationError
from vitkit.models.patches import as_pair
from vitkit.models.presets import TIMM_PREFIX
from vitkit.models.registry import create_model
from vitkit.nn import pooled_features
from vitkit.records import Plain
from vitkit.weights import Checkpoint, load_weights, stated_by_timm

__all__ = ["Encoder", "digest_of", "open_encoder"]

READ = ("data.", "eval.seed", "trainer.accelerator", "run.root")
"""How the settings begin that are read beside the model's."""

USUAL_SIZE = 224
VERSION = 2
"""Of the way from an image to its features; another number makes no use of what was kept."""


@dataclass(frozen=True)
class Encoder:
    """A finished model whose features are looked at.

    Attributes:
        model: in evaluation mode, on ``device``.
        section: the model section that rebuilds it.
        preprocessing: from a stored picture to its input.
        config: data and devices.
        device: where it is.
        folder: where records go.
        facts: about the model, plain values.
        notes: what a person should know about how its weights were read, a line each.
        suffix: of the records' names, where the folder has some of another checkpoint.
    """

    model: nn.Module
    section: dict[str, Any]
    preprocessing: Preprocessing
    config: RunConfig
    device: torch.device
    folder: Path
    facts: dict[str, Plain]
    notes: tuple[str, ...] = ()
    suffix: str = ""

    def features(self, images: Tensor) -> Tensor:
        """uint8 images (B, channels, height, width) of any size -> float32 (B, C), on the CPU.

        Raises:
            EvaluationError: the model has none, or they are not finite.
        """
        name = self.section["name"]
        if not hasattr(self.model, "forward_head"):
            raise EvaluationError(
                f"{name} has no features before its classifier: a model needs "
                "forward_features(images) and forward_head(features, pre_logits=True)"
            )
        if tuple(images.shape[2:]) != tuple(self.preprocessing.img_size):
            way = picture_section(self.config)
            size = self.preprocessing.img_size
            images = Fit(size, way.interpolation, way.crop_pct, way.crop_mode)(images)
        found = pooled_features(self.model, self.preprocessing(images)).float().cpu()
        if found.ndim != 2:
            raise EvaluationError(
                f"{name} pools nothing (features {tuple(found.shape)}); probing needs one vector "
                "an image, as with model.global_pool=avg"
            )
        if not found.isfinite().all():
            raise EvaluationError(
                f"{name} has features that are not finite; its weights are damaged, or the "
                "training that they are of diverged"
            )
        return found

    @cached_property
    def digest(self) -> str:
        """Of all that decides what the model makes of an image."""
        settings = {
            "version": VERSION,
            "section": self.section,
            "preprocessing": self.preprocessing.to_dict(),
        }
        text = json.dumps(settings, sort_keys=True, default=str)
        return digest_of(text, self.model.state_dict().items())


def digest_of(text: str, tensors: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 of a text and of tensors with their names, types and shapes."""
    sha = hashlib.sha256(text.encode())
    for name, tensor in tensors:
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        sha.update(f"\n{name} {flat.dtype} {tuple(tensor.shape)}\n".encode())
        sha.update(flat.view(torch.uint8).numpy().data)
    return sha.hexdigest()


def open_encoder(
    source: Source, overrides: Sequence[str] = (), *, data_name: str | None = None
) -> Encoder:
    """The model that a source stands for.

    Args:
        source: a run folder or checkpoint; a file or folder of weights; a model by name, as in
            ``hf-hub:<owner>/<model>``; ``("timm:<name>", <file of weights>)``.
        overrides: ``"data.key=value"`` strings; ``"model.key=value"`` of weights that do not say
            it, such as ``model.num_heads=3``.
        data_name: of data that are at hand already; None: the settings name them.

    Raises:
        VitkitError: nothing there, damaged, of no layout that is known, or no data named.
    """
    opened, overrides = opened_source(source), override_words(overrides)
    if isinstance(opened, OfTimm):
        return _of_timm(opened, overrides, data_name)
    if isinstance(opened, Weights):
        return _of_weights(opened.place, overrides, data_name)
    return _of_checkpoint(opened, overrides)


def _of_checkpoint(checkpoint: Checkpoint, overrides: Sequence[str]) -> Encoder:
    """One of ours, with its run's data unless others are named."""
    path = checkpoint.path
    if given := [word for word in overrides if word.startswith(MODEL)]:
        raise ConfigError(f"{given[0]}: the model is that of {path}; leave the setting out")
    require_read(overrides, READ)
    model, preprocessing, _ = build_from_checkpoint(checkpoint)
    config = load_config(base=checkpoint.config, overrides=overrides)
    device = best_device(config.trainer.accelerator)
    return Encoder(
        model=model.to(device),
        section=dict(checkpoint.model),
        preprocessing=preprocessing,
        config=config,
        device=device,
        folder=folder_of(path),
        facts=checkpoint.facts(),
        suffix=suffix_of(path, folder_of(path)),
    )


def _of_weights(name: str | Path, overrides: Sequence[str], data_name: str | None) -> Encoder:
    """Weights of any layout that is read, with the preprocessing that they state."""
    ours, others = model_settings(overrides)
    config = _data_config(str(name), others, data_name)
    loaded = load_model(name, **ours)
    facts: dict[str, Plain] = {
        "checkpoint": str(name),
        "weights": "trained",
        "model": str(loaded.section["name"]),
        "format": loaded.report.format,
    }
    place = f"{short_name(name)}-{data_name or config.data.name}"
    found = _elsewhere(
        loaded.model, loaded.section, loaded.preprocessing, config, place=place, facts=facts
    )
    return replace(found, notes=tuple(loaded.report.notes))


def _of_timm(timm: OfTimm, overrides: Sequence[str], data_name: str | None) -> Encoder:
    """Any model of timm, with a file of weights."""
    name, weights = timm.name, timm.weights
    ours, others = model_settings(overrides)
    config = _data_config(timm.shown, others, data_name)
    section = {"name": TIMM_PREFIX + name, **ours}
    model: Any = create_model(TIMM_PREFIX + name, **ours)
    load_weights(model, weights)
    stated = stated_by_timm(name, getattr(model, "pretrained_cfg", None)).preprocessing
    size = ours.get("img_size") or stated.get("img_size") or USUAL_SIZE
    preprocessing = stated_preprocessing(
        stated,
        img_size=as_pair(size),
        in_chans=int(ours.get("in_chans", 3)),
    )
    facts: dict[str, Plain] = {
        "checkpoint": str(weights),
        "weights": "trained",
        "model": TIMM_PREFIX + name,
    }
    place = f"timm-{name}-{data_name or config.data.name}"
    return _elsewhere(model.eval(), section, preprocessing, config, place=place, facts=facts)


def _elsewhere(
    model: nn.Module,
    section: dict[str, Any],
    preprocessing: Preprocessing,
    config: RunConfig,
    *,
    place: str,
    facts: dict[str, Plain],
) -> Encoder:
    """Not of a run: its records go under ``<run.root>/probe/``."""
    device = best_device(config.trainer.accelerator)
    folder = folder_elsewhere(config, place, "probe")
    return Encoder(model.to(device), section, preprocessing, config, device, folder, facts)


def _data_config(name: str, overrides: Sequence[str], data_name: str | None) -> RunConfig:
    """The settings of the data.

    Raises:
        ConfigError: none are named.
    """
    require_data(name, overrides, at_hand=data_name is not None)
    require_read(overrides, READ)
    return load_config(base={}, overrides=overrides)
