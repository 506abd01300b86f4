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
    picture_section,
    with_classes_of,
)
from vitkit.app.devices import best_device
from vitkit.app.expectations import FITTING, fitting_of
from vitkit.app.pretrained import load_model
from vitkit.app.runs import find_checkpoint
from vitkit.config import RunConfig, load_config
from vitkit.data.config import ImageDataConfig
from vitkit.data.preprocess import Preprocessing
from vitkit.data.splits import ImageData
from vitkit.errors import ConfigError, DataError, WeightsError
from vitkit.models.presets import TIMM_PREFIX
from vitkit.records import Plain
from vitkit.weights import Checkpoint, read_checkpoint, stated_by_config

__all__ = [
    "TIMM_SOURCE",
    "Source",
    "Subject",
    "folder_of",
    "is_of_timm",
    "open_subject",
    "opened_source",
    "require_read",
    "subject_of_checkpoint",
]

CUTS = ("data.val_fraction=", "data.split_seed=")
"""Settings that cut other validation images out of the training ones than a run did."""

READ = ("data.", "eval.", "trainer.accelerator", "run.report", "model.img_size")
"""How the settings begin that an evaluation of a checkpoint reads; it has the others itself."""

READ_OF_TIMM = ("data.", "eval.", "model.", "trainer.accelerator", "run.report", "run.root")
"""The same of a model of timm, whose section and place are still open."""

SIZES = ("model.img_size", "data.img_size")
"""Either says the size of both; see :func:`_one_size`."""

TIMM_SOURCE = "timm:"
"""In front of the name of one of timm's models."""

Source = str | Path | tuple[str, str | Path]
"""A run folder or checkpoint; ``timm:<name>`` with a file of weights."""


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

    @property
    def pictures(self) -> ImageDataConfig:
        """The settings of its data."""
        return picture_section(self.config)

    def predict(self, images: Tensor) -> Tensor:
        """uint8 images (B, channels, height, width) -> logits (B, classes)."""
        logits: Tensor = self.model(self.preprocessing.scaled(images))
        return logits


def opened_source(source: Source) -> Source | Checkpoint:
    """The checkpoint that a source stands for; a model of timm as it is.

    Raises:
        ConfigError: a model of timm without weights.
        RunError: nothing there.
        WeightsError: damaged, or not ours.
    """
    if isinstance(source, tuple) or is_of_timm(source):
        return source
    if str(source).startswith(TIMM_PREFIX) and not Path(source).exists():
        name = str(source).removeprefix(TIMM_PREFIX)
        raise ConfigError(f"{source}: give its weights too: {TIMM_SOURCE}{name} weights=FILE")
    return read_checkpoint(find_checkpoint(source))


def is_of_timm(source: Source) -> bool:
    """Whether a source is one of timm's models by its name, perhaps with a file of weights."""
    return str(source[0] if isinstance(source, tuple) else source).startswith(TIMM_SOURCE)


def folder_of(path: Path) -> Path:
    """Where records about a checkpoint go: its run's folder, or beside it."""
    return path.parent.parent if path.parent.name == "checkpoints" else path.parent


def open_subject(
    source: Source | Checkpoint,
    overrides: Sequence[str] = (),
    *,
    data: ImageData | None = None,
    progress: bool = True,
) -> Subject:
    """The model that a source stands for.

    Args:
        source: see :data:`Source`; or a checkpoint that was read.
        overrides: ``"section.key=value"`` strings.
        data: data of your own in place of the source's.
        progress: show a bar on a terminal while data are read.

    Raises:
        VitkitError: nothing there, damaged, or data that does not fit its classes.
    """
    if isinstance(source, Checkpoint):
        return subject_of_checkpoint(source, overrides, data=data, progress=progress)
    name, weights = source if isinstance(source, tuple) else (source, None)
    if isinstance(name, str) and name.startswith(TIMM_SOURCE):
        model = name.removeprefix(TIMM_SOURCE)
        return _of_timm(model, weights, overrides, data=data, progress=progress)
    if weights is not None:
        raise ConfigError(
            f"weights={weights}: {name} brings its own weights; only {TIMM_SOURCE}<name> needs a "
            "file"
        )
    path = find_checkpoint(name)
    return subject_of_checkpoint(path, overrides, data=data, progress=progress)


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
        named = any(override.startswith("data.") for override in overrides)
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
    facts: dict[str, Plain] = {
        "checkpoint": str(path),
        "weights": checkpoint.weights_name,
        "model": str(checkpoint.model["name"]),
        "data": data.info.name,
        "epoch": checkpoint.epoch,
        "step": checkpoint.step,
        **fitting_of(data.info),
    }
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
        facts=facts,
        own_val=not any(override.startswith(CUTS) for override in overrides),
    )


def require_read(
    overrides: Sequence[str], read: Sequence[str] = READ, *, own_statistics: bool = True
) -> None:
    """Refuse settings that would change nothing.

    Args:
        overrides: ``"section.key=value"`` strings.
        read: how those begin that change something.
        own_statistics: the model brings mean and deviation.

    Raises:
        ConfigError: there are some, all of them named.
    """
    keys = [override.partition("=")[0].strip() for override in overrides]
    allowed = ", ".join(f"{name}*" if name.endswith(".") else name for name in read)
    faults = [
        f"{key}: changes nothing here, where {allowed} are read; leave it out"
        for key in keys
        if not key.startswith(tuple(read))
    ]
    if own_statistics and "data.normalize" in keys:
        faults.append("data.normalize: the checkpoint has its own mean and std; leave it out")
    if faults:
        raise ConfigError(faults)


def _one_size(overrides: Sequence[str]) -> list[str]:
    """An image size that is given for the model or the data holds for both."""
    sizes = [o.partition("=")[2] for o in overrides if o.partition("=")[0].strip() in SIZES]
    return [*overrides, *(f"{key}={sizes[0]}" for key in SIZES if len(sizes) == 1)]


def _at_size(path: Path, size: tuple[int, int]) -> tuple[nn.Module, dict[str, Any]]:
    """A checkpoint's model built for images of another size, its positions resampled; its section.

    Raises:
        ConfigError: a size that the model cannot take.
        WeightsError: weights that belong to one size.
    """
    loaded = load_model(path, img_size=list(size))
    return loaded.model, loaded.section


def _of_timm(
    name: str,
    weights: str | Path | None,
    overrides: Sequence[str],
    *,
    data: ImageData | None,
    progress: bool,
) -> Subject:
    """A model of timm by its name and a file of weights."""
    shown = TIMM_SOURCE + name
    if weights is None:
        raise ConfigError(
            f"{shown}: which weights? Put weights=FILE behind it (.safetensors, .pth, .bin)"
        )
    if data is None and not any(o.startswith("data.name=") for o in overrides):
        raise ConfigError(f"{shown}: on which data? Say so, as in data.name=cifar10 data.root=data")
    require_read(overrides, READ_OF_TIMM, own_statistics=False)
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
    place = f"{TIMM_PREFIX}{name}-{built.info.name}".replace("/", "-")
    return Subject(
        model=built.model.eval().to(device),
        section=built.section,
        preprocessing=preprocessing,
        data=built.data,
        config=config,
        device=device,
        path=Path(weights),
        weights_name="trained",
        folder=Path(config.run.root) / "eval" / place,
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
    given = {override.partition("=")[0].strip() for override in overrides}
    own = {key: getattr(preprocessing, key) for key in FITTING if f"data.{key}" not in given}
    return config.model_copy(update={"data": section.model_copy(update=own)})


def _fitted_as_stated(name: str, config: RunConfig, overrides: Sequence[str]) -> RunConfig:
    """Photographs are fitted as timm states it for the model, unless a setting says otherwise.
    Small images that come at one size were learned as they are.
    """
    section = picture_section(config)
    given = {override.partition("=")[0].strip() for override in overrides}
    if section.name != "image_folder" or given & {f"data.{key}" for key in FITTING}:
        return config
    # Nothing is asked of the architecture, which may be one that only timm has.
    stated = stated_by_config({"architecture": "", "pretrained_cfg": models.timm_config(name)})
    own = {key: stated.preprocessing[key] for key in FITTING if key in stated.preprocessing}
    return config.model_copy(update={"data": section.model_copy(update=own)})


def _require_size(shown: str, built: Built, overrides: Sequence[str]) -> None:
    """Weights made to fit images of another size give another model: only if that was asked for.

    Raises:
        ConfigError: no size was given.
    """
    if any(o.partition("=")[0].strip() in SIZES for o in overrides):
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
