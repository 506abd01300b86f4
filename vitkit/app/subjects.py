"""What is evaluated: a finished model, with the data and settings that its numbers belong to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vitkit import models  # as a whole: timm takes seconds to import, and few evaluations need it
from vitkit.app.build import (
    Built,
    build,
    build_data,
    build_from_checkpoint,
    fitted_data,
    picture_section,
    with_classes_of,
    with_classes_of_weights,
)
from vitkit.app.devices import best_device
from vitkit.app.expectations import FITTING, fitting_of
from vitkit.app.pretrained import load_classifier, load_model
from vitkit.app.sources import (
    OfTimm,
    Opened,
    Source,
    Weights,
    model_settings,
    opened_source,
    require_data,
    require_read,
    short_name,
)
from vitkit.config import RunConfig, given_keys, load_config, override_words
from vitkit.data.config import ImageDataConfig
from vitkit.data.info import DataInfo
from vitkit.data.preprocess import Preprocessing
from vitkit.data.splits import ImageData
from vitkit.errors import ConfigError, DataError, WeightsError
from vitkit.models.presets import TIMM_PREFIX
from vitkit.records import Plain
from vitkit.weights import Checkpoint, read_checkpoint, stated_by_timm

__all__ = ["Subject", "folder_elsewhere", "folder_of", "open_subject", "subject_of_checkpoint"]

CUTS = {"data.val_fraction", "data.split_seed"}
"""Settings that cut other validation images out of the training ones than a run did."""

READ_ELSEWHERE = ("data.", "eval.", "model.", "trainer.accelerator", "run.report", "run.root")
"""How the settings begin that an evaluation of other weights than a checkpoint's reads: what they
do not say themselves, and where the records go, is open.
"""

SIZES = ("model.img_size", "data.img_size")
"""Either says the size of both; see :func:`_one_size`."""


@dataclass(frozen=True)
class Subject:
    """A finished model.

    Attributes:
        model: in evaluation mode, on ``device``.
        section: the model section that rebuilds it, as far as it is known.
        preprocessing: from a stored picture to its input.
        data: what it is measured on.
        config: its run's, with the settings given for this evaluation.
        device: where it is.
        path: file of its weights.
        weights_name: ``trained`` or ``averaged``.
        folder: where the records go.
        facts: about the model, plain values.
        own_val: whether its validation images are none that it was trained on.
        notes: what a person should know about how its weights were read, a line each.
    """

    model: nn.Module
    section: dict[str, Any]
    preprocessing: Preprocessing
    data: ImageData
    config: RunConfig
    device: torch.device
    path: Path
    weights_name: str
    folder: Path
    facts: dict[str, Plain]
    own_val: bool = True
    notes: tuple[str, ...] = ()

    @property
    def pictures(self) -> ImageDataConfig:
        """The settings of its data."""
        return picture_section(self.config)

    def predict(self, images: Tensor) -> Tensor:
        """uint8 images (B, channels, height, width) -> logits (B, classes)."""
        logits: Tensor = self.model(self.preprocessing.scaled(images))
        return logits


def folder_of(path: Path) -> Path:
    """Where records about a checkpoint go: its run's folder, or beside it."""
    return path.parent.parent if path.parent.name == "checkpoints" else path.parent


def folder_elsewhere(config: RunConfig, place: str, kind: str = "eval") -> Path:
    """Where records about weights go that are no run's: ``<run.root>/<kind>/<place>``.

    Args:
        config: of the evaluation.
        place: what it is called after; what no folder can be called becomes a dash.
        kind: of records.
    """
    return Path(config.run.root) / kind / place.replace("/", "-").replace(":", "-")


def open_subject(
    source: Source | Opened,
    overrides: Sequence[str] = (),
    *,
    data: ImageData | None = None,
    progress: bool = True,
) -> Subject:
    """The model that a source stands for.

    Args:
        source: see :data:`~vitkit.app.sources.Source`; or what was opened of one.
        overrides: ``"section.key=value"`` strings.
        data: data of your own in place of the source's.
        progress: show a bar on a terminal while data are read.

    Raises:
        VitkitError: nothing there, damaged, or data that does not fit its classes.
    """
    opened = source if isinstance(source, Opened) else opened_source(source)
    if isinstance(opened, OfTimm):
        return _of_timm(opened, overrides, data=data, progress=progress)
    if isinstance(opened, Weights):
        return _of_weights(opened.place, overrides, data=data, progress=progress)
    return subject_of_checkpoint(opened, overrides, data=data, progress=progress)


def subject_of_checkpoint(
    source: Path | Checkpoint,
    overrides: Sequence[str] = (),
    *,
    data: ImageData | None = None,
    progress: bool = True,
) -> Subject:
    """The model of one of our checkpoints; all that it needs is in there.

    Args and errors as of :func:`open_subject`.
    """
    checkpoint = source if isinstance(source, Checkpoint) else read_checkpoint(source)
    path = checkpoint.path
    model, preprocessing, trained_on = build_from_checkpoint(checkpoint)
    config = load_config(base=checkpoint.config, overrides=_one_size(overrides))
    require_read(overrides)
    config = _fitted_as_trained(config, preprocessing, overrides)
    if data is None:
        data = build_data(config, progress=progress)
        named = any(key.startswith("data.") for key in given_keys(overrides))
        if data.info.name != trained_on.name and not named:
            raise DataError(
                f"{path} was trained on {trained_on.name}, which was handed in as data=, not on "
                f"{data.info.name}, which its config names; hand it in again, or name data.*"
            )
    data = with_classes_of(trained_on, data)
    section = dict(checkpoint.model)
    if data.info.img_size != tuple(preprocessing.img_size):
        model, section = _at_size(path, data.info.img_size)
        preprocessing = replace(preprocessing, img_size=data.info.img_size)
    preprocessing = replace(preprocessing, **fitting_of(data.info))
    device = best_device(config.trainer.accelerator)
    return Subject(
        model=model.to(device),
        section=section,
        preprocessing=preprocessing,
        data=data,
        config=config,
        device=device,
        path=path,
        weights_name=checkpoint.weights_name,
        folder=folder_of(path),
        facts={**checkpoint.facts(), "data": data.info.name, **fitting_of(data.info)},
        own_val=CUTS.isdisjoint(given_keys(overrides)),
    )


def _one_size(overrides: Sequence[str]) -> list[str]:
    """An image size that is given for the model or the data holds for both."""
    words = [word.partition("=") for word in override_words(overrides)]
    sizes = [size for key, _, size in words if key in SIZES]
    return [*overrides, *(f"{key}={sizes[0]}" for key in SIZES if len(sizes) == 1)]


def _at_size(path: Path, size: tuple[int, int]) -> tuple[nn.Module, dict[str, Any]]:
    """A checkpoint's model built for images of another size, its positions resampled; its section.

    Raises:
        ConfigError: a size that the model cannot take.
        WeightsError: weights that belong to one size.
    """
    loaded = load_model(path, img_size=list(size))
    return loaded.model, loaded.section


def _of_weights(
    place: str | Path, overrides: Sequence[str], *, data: ImageData | None, progress: bool
) -> Subject:
    """Weights of any layout that is read, with the preprocessing that they state."""
    shown = str(place)
    require_data(shown, overrides, at_hand=data is not None)
    require_read(overrides, READ_ELSEWHERE, own_statistics=False)
    ours, others = model_settings(_one_size(overrides))
    config = load_config(base={}, overrides=others)
    loaded = load_classifier(place, **ours)
    own = loaded.preprocessing
    config = _fitted_as_trained(config, own, overrides)
    if data is None:
        data = fitted_data(config, own, progress=progress)
    _require_shape(shown, own, data.info)
    count = int(loaded.section["num_classes"])
    data, matched = with_classes_of_weights(shown, loaded.class_names, count, data)
    normalize = picture_section(config).normalize
    preprocessing = replace(own, **fitting_of(data.info))
    if normalize != "auto":
        preprocessing = replace(preprocessing, mean=data.info.mean, std=data.info.std)
    notes = [*loaded.report.notes, *_overridden(own, preprocessing, normalize)]
    if matched == "by order":
        first, last = data.info.class_names[0], data.info.class_names[-1]
        notes.append(
            f"the {count} classes are matched by their order, from {first!r} to {last!r}: the "
            "weights do not call them so"
        )
    device = best_device(config.trainer.accelerator)
    return Subject(
        model=loaded.model.to(device),
        section=dict(loaded.section),
        preprocessing=preprocessing,
        data=data,
        config=config,
        device=device,
        path=Path(place),
        weights_name="trained",
        folder=folder_elsewhere(config, f"{short_name(place)}-{data.info.name}"),
        facts={
            "checkpoint": shown,
            "weights": "trained",
            "model": str(loaded.section["name"]),
            "format": loaded.report.format,
            "data": data.info.name,
            "classes_matched": matched,
            "normalize": "the weights'" if normalize == "auto" else normalize,
            **fitting_of(data.info),
        },
        notes=tuple(notes),
    )


def _require_shape(shown: str, want: Preprocessing, info: DataInfo) -> None:
    """See that images are as the model takes them, which those that were handed in may not be.

    Raises:
        ConfigError: they are not.
    """
    takes, given = (want.in_chans, *want.img_size), (info.in_chans, *info.img_size)
    if takes != given:
        raise ConfigError(
            f"{shown} takes images of {takes} (channels, height, width), those of {info.name} are "
            f"{given}; hand in others, or set model.img_size={list(info.img_size)} and "
            f"model.in_chans={info.in_chans} to fit the weights to them"
        )


def _overridden(own: Preprocessing, used: Preprocessing, normalize: str) -> list[str]:
    """A line for each thing about pictures that is not as the weights state it."""
    notes = [
        f"pictures have {key} {getattr(used, key)} here, {getattr(own, key)} by the weights"
        for key in FITTING
        if getattr(used, key) != getattr(own, key)
    ]
    if (used.mean, used.std) != (own.mean, own.std):
        notes.append(f"data.normalize={normalize} overrides the weights' own mean and std")
    return notes


def _of_timm(
    timm: OfTimm, overrides: Sequence[str], *, data: ImageData | None, progress: bool
) -> Subject:
    """A model of timm by its name and a file of weights."""
    name, weights, shown = timm.name, timm.weights, timm.shown
    require_data(shown, overrides, at_hand=data is not None)
    require_read(overrides, READ_ELSEWHERE, own_statistics=False)
    section = {"name": TIMM_PREFIX + name, "weights": str(weights)}
    config = load_config(base={"model": section}, overrides=overrides)
    config = _fitted_as_stated(name, config, overrides)
    built = build(config, data, progress=progress)
    if built.report is not None and built.report.new:
        told = [note for note in built.report.notes if note.startswith("the head is new")]
        if told:
            raise WeightsError(
                f"{weights}: {told[0]}; call the classes as the config.json beside the weights "
                "does, or move the weights away from it: classes are then matched by their order"
            )
        missing = ", ".join(built.report.new[:3])
        raise WeightsError(
            f"{weights} has no weights that fit {missing} of {shown} with {built.info.num_classes} "
            f"classes ({built.info.name}); evaluate it on data with its own classes"
        )
    if built.report is not None and built.report.resized:
        _require_size(shown, built, overrides)
    device = best_device(config.trainer.accelerator)
    preprocessing, statistics = _as_timm_has_it(built.model, built.preprocessing, config)
    return Subject(
        model=built.model.eval().to(device),
        section=built.section,
        preprocessing=preprocessing,
        data=built.data,
        config=config,
        device=device,
        path=Path(weights),
        weights_name="trained",
        folder=folder_elsewhere(config, f"{TIMM_PREFIX}{name}-{built.info.name}"),
        facts={
            "checkpoint": str(weights),
            "weights": "trained",
            "model": TIMM_PREFIX + name,
            "data": built.info.name,
            "normalize": statistics,
            **{key: getattr(preprocessing, key) for key in FITTING},
        },
    )


def _fitted_as_trained(
    config: RunConfig, preprocessing: Preprocessing, overrides: Sequence[str]
) -> RunConfig:
    """Pictures are fitted as those that the model was trained on, which may have been handed in,
    unless a setting says otherwise.
    """
    section = picture_section(config)
    given = set(given_keys(overrides))
    own = {key: getattr(preprocessing, key) for key in FITTING if f"data.{key}" not in given}
    return config.model_copy(update={"data": section.model_copy(update=own)})


def _fitted_as_stated(name: str, config: RunConfig, overrides: Sequence[str]) -> RunConfig:
    """Photographs are fitted as timm states it for the model, unless a setting says otherwise.
    Small images that come at one size were learned as they are.
    """
    section = picture_section(config)
    given = set(given_keys(overrides))
    if section.name != "image_folder" or given & {f"data.{key}" for key in FITTING}:
        return config
    # Nothing is asked of the architecture, which may be one that only timm has.
    stated = stated_by_timm("", models.timm_config(name))
    own = {key: stated.preprocessing[key] for key in FITTING if key in stated.preprocessing}
    return config.model_copy(update={"data": section.model_copy(update=own)})


def _require_size(shown: str, built: Built, overrides: Sequence[str]) -> None:
    """Weights made to fit images of another size give another model: only if that was asked for.

    Raises:
        ConfigError: no size was given.
    """
    if not set(SIZES).isdisjoint(given_keys(overrides)):
        return
    stated = getattr(built.model, "pretrained_cfg", None) or {}
    own = (stated.get("input_size") or (0, 0))[-1]
    enlarge = f"model.img_size={own} to resize the images, or " if own else ""
    height, width = built.info.img_size
    raise ConfigError(
        f"{shown}: its weights are not for images of {height} x {width} ({built.info.name}); give "
        f"{enlarge}model.img_size={max(height, width)} to fit the weights to them"
    )


def _as_timm_has_it(
    model: nn.Module, preprocessing: Preprocessing, config: RunConfig
) -> tuple[Preprocessing, str]:
    """With the mean and deviation that timm states for the model, unless ``data.normalize`` says
    another; and which they are.
    """
    normalize = picture_section(config).normalize
    stated = getattr(model, "pretrained_cfg", None) or {}
    mean, std = tuple(stated.get("mean") or ()), tuple(stated.get("std") or ())
    fits = len(mean) == len(std) == preprocessing.in_chans
    if normalize != "auto" or not fits:
        return preprocessing, normalize
    return replace(preprocessing, mean=mean, std=std), "timm's"
