"""Where strings become objects: a config's data and model, made to fit each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vitkit.app.expectations import pretrained_report, run_preprocessing
from vitkit.app.progress import counted
from vitkit.config import RunConfig
from vitkit.data.info import DataInfo
from vitkit.data.preprocess import Preprocessing
from vitkit.data.sources import load_data
from vitkit.data.splits import ImageData, sample_images
from vitkit.errors import ConfigError, DataError, WeightsError
from vitkit.models.config import ModelConfig, validate_model
from vitkit.models.registry import create_model
from vitkit.nn import merge_lora
from vitkit.training.config import FinetuneConfig
from vitkit.training.finetune import adapt
from vitkit.weights import Checkpoint, LoadReport, load_weights

__all__ = [
    "Built",
    "build",
    "build_data",
    "build_from_checkpoint",
    "build_model",
    "model_section",
    "require_same_classes",
]

SAMPLE = 2048
"""Images that a model may set its first weights by."""


@dataclass
class Built:
    """A model and what it was built for.

    Attributes:
        model: on the CPU.
        section: the model section that rebuilds it, complete.
        preprocessing: from a stored picture to its input.
        info: of the data.
        data: the data itself.
        report: what happened to the weights it starts from, if any were named.
    """

    model: nn.Module
    section: dict[str, Any]
    preprocessing: Preprocessing
    info: DataInfo
    data: ImageData
    report: LoadReport | None = None


def build(
    config: RunConfig,
    data: ImageData | None = None,
    model: nn.Module | None = None,
    *,
    progress: bool = False,
) -> Built:
    """Data and model of a config; either may be handed in ready-made.

    Raises:
        ConfigError: model and data contradict each other.
    """
    data = build_data(config, progress=progress) if data is None else data
    section = model_section(config.model, data.info)
    report: LoadReport | None = None
    fresh = model is None
    if model is None:
        torch.manual_seed(config.run.seed)
        model = build_model(section)
    if fresh and config.model.weights:
        report = load_weights(model, config.model.weights)
    elif fresh:
        report = pretrained_report(config, model)
    preprocessing = run_preprocessing(model, data.info, config, report)
    if fresh and report is None and getattr(model, "wants_images", False):
        willing: Any = model
        willing.init_from_images(preprocessing(sample_images(data.train, SAMPLE)))
    if fresh:
        adapt(model, config.task.finetune)
    return Built(model, section, preprocessing, data.info, data, report)


def build_data(config: RunConfig, *, progress: bool = False) -> ImageData:
    """The data of a config, at the size and with the channels that its model asks for."""
    size = config.model.constructor_kwargs().get("img_size")
    given = config.model.img_size is not None or config.data.img_size is None
    with counted("reading", "files", show=progress) as tell:
        return load_data(
            config.data,
            img_size=_pair(size) if size and given else None,
            in_chans=config.model.in_chans,
            on_file=tell,
        )


def model_section(config: ModelConfig, info: DataInfo) -> dict[str, Any]:
    """The model section with classes, channels and size filled in from the data.

    Raises:
        ConfigError: the section says otherwise than the data.
    """
    section = config.model_dump(exclude_none=True, exclude={"weights"})
    faults = []
    for key, ours in (("num_classes", info.num_classes), ("in_chans", info.in_chans)):
        given = section.setdefault(key, ours)
        if given != ours:
            faults.append(
                f"model.{key}: given {given}, but {info.name} has {ours}; "
                f"leave it out or set {ours}"
            )
    size = section.setdefault("img_size", info.img_size)
    if _pair(size) != tuple(info.img_size):
        faults.append(f"model.img_size: given {size}, but the images are {info.img_size}")
    section["img_size"] = list(_pair(section["img_size"]))
    if faults:
        raise ConfigError(faults)
    return section


def build_model(section: Mapping[str, Any]) -> nn.Module:
    """A model from its section."""
    return create_model(validate_model(section))


def build_from_checkpoint(checkpoint: Checkpoint) -> tuple[nn.Module, Preprocessing, DataInfo]:
    """The model of a checkpoint with the weights to evaluate, in evaluation mode.

    Raises:
        WeightsError: its weights do not fit its own config.
    """
    model = build_model(checkpoint.model)
    finetune = FinetuneConfig.model_validate(checkpoint.config["task"].get("finetune", {}))
    if finetune.mode == "lora":
        adapt(model, finetune)
    try:
        model.load_state_dict(checkpoint.weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(f"{checkpoint.path} does not fit its own config: {reason}") from error
    info = DataInfo.from_dict(checkpoint.data)
    if finetune.mode == "lora":
        merge_lora(model).requires_grad_()
    return model.eval(), Preprocessing.from_dict(checkpoint.preprocessing), info


def require_same_classes(trained_on: DataInfo, given: DataInfo) -> None:
    """Classes are matched by name and order: a shifted label map would be a silent zero.

    Raises:
        DataError: other classes, or in another order.
    """
    if trained_on.num_classes != given.num_classes:
        raise DataError(
            f"the model knows {trained_on.num_classes} classes ({trained_on.name}), "
            f"{given.name} has {given.num_classes}; use data with the same classes"
        )
    if trained_on.class_names != given.class_names:
        pairs = zip(trained_on.class_names, given.class_names, strict=True)
        index, (ours, theirs) = next((i, p) for i, p in enumerate(pairs) if p[0] != p[1])
        raise DataError(
            f"class {index} is {ours!r} in the checkpoint but {theirs!r} in {given.name}; "
            "the class names must agree in name and order"
        )


def _pair(size: int | tuple[int, int] | list[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])
