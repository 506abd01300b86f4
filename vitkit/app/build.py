"""Where strings become objects: a config's data and model, made to fit each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vitkit.app.expectations import pretrained_report, run_preprocessing
from vitkit.app.progress import counted
from vitkit.config import RunConfig
from vitkit.data.config import ImageDataConfig
from vitkit.data.imagenet import IMAGENET_CLASSES, are_identifiers
from vitkit.data.info import DataInfo
from vitkit.data.preprocess import Preprocessing
from vitkit.data.sources import load_data
from vitkit.data.splits import ImageData, sample_images
from vitkit.errors import ConfigError, DataError, WeightsError, first_line
from vitkit.models.config import ModelConfig, validate_model
from vitkit.models.patches import as_pair
from vitkit.models.registry import create_model
from vitkit.nn import classifier_names
from vitkit.training.finetune import adapt
from vitkit.training.task_config import ClassificationConfig
from vitkit.weights import Checkpoint, LoadReport, load_head, load_weights

__all__ = [
    "Built",
    "build",
    "build_data",
    "build_from_checkpoint",
    "build_model",
    "fill_from_checkpoint",
    "fitted_data",
    "model_section",
    "picture_section",
    "require_classes",
    "require_same_classes",
    "with_classes_of",
    "with_classes_of_weights",
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
    *,
    encoder: Callable[[Mapping[str, Any]], nn.Module] | None = None,
    progress: bool = False,
) -> Built:
    """Data and model of a config; the data may be handed in ready-made.

    Args:
        config: resolved.
        data: data of a person's own.
        encoder: for pre-training: builds the model from its section, which then has no classes.
        progress: show a bar while data are read.

    Raises:
        ConfigError: model and data contradict each other.
    """
    data = build_data(config, progress=progress) if data is None else data
    section = model_section(config.model, data.info)
    if encoder is not None:
        section["num_classes"] = 0
    torch.manual_seed(config.run.seed)
    if encoder is not None:
        model = encoder(section)
    else:
        fetches = getattr(config.model, "pretrained", False) and not config.model.weights
        fetching = {"pretrained": True} if fetches else {}
        model = build_model({**section, **fetching})
    report: LoadReport | None
    if config.model.weights:
        report = load_weights(
            model, config.model.weights, class_names=() if encoder else data.info.class_names
        )
    else:
        report = pretrained_report(config, model)
    preprocessing = run_preprocessing(model, data.info, config, report)
    if report is None and getattr(model, "wants_images", False) and len(data.train):
        willing: Any = model
        willing.init_from_images(preprocessing(sample_images(data.train, SAMPLE)))
    if isinstance(config.task, ClassificationConfig):
        adapt(model, config.task.finetune)
        if report is not None and config.task.finetune.zero_head:
            report.begin_anew(classifier_names(model), "task.finetune.zero_head")
        if config.task.finetune.head is not None:
            load_head(model, config.task.finetune.head, data.info.class_names)
            if report is not None:
                report.begin_anew(classifier_names(model), "task.finetune.head")
    return Built(model, section, preprocessing, data.info, data, report)


def picture_section(config: RunConfig) -> ImageDataConfig:
    """The data section of a config whose data are pictures.

    Raises:
        ConfigError: they are not.
    """
    if isinstance(config.data, ImageDataConfig):
        return config.data
    raise ConfigError(f"data.name: {config.data.name} is {config.data.kind}; this needs images")


def build_data(config: RunConfig, *, progress: bool = False) -> ImageData:
    """The data of a config, at the size and with the channels that its model asks for."""
    pictures = picture_section(config)
    size = config.model.constructor_kwargs().get("img_size")
    given = config.model.img_size is not None or pictures.img_size is None
    asked = as_pair(size) if size and given else None
    return _read(pictures, asked, config.model.in_chans, progress)


def fitted_data(config: RunConfig, want: Preprocessing, *, progress: bool = False) -> ImageData:
    """The data of a config, at the size and with the channels of a model that is there already.

    Args:
        config: whose data section counts.
        want: what the model expects of a picture.
        progress: show a bar while data are read.
    """
    return _read(picture_section(config), want.img_size, want.in_chans, progress)


def _read(
    pictures: ImageDataConfig, img_size: tuple[int, int] | None, in_chans: int | None, show: bool
) -> ImageData:
    with counted("reading", "files", show=show) as tell:
        return load_data(pictures, img_size=img_size, in_chans=in_chans, on_file=tell)


def model_section(config: ModelConfig, info: DataInfo) -> dict[str, Any]:
    """The model section with classes, channels and size filled in from the data. Where the weights
    that it begins with are from is left out: who rebuilds it has better ones.

    Raises:
        ConfigError: the section says otherwise than the data.
    """
    section = config.without_weights().model_dump(exclude_none=True)
    faults = []
    for key, ours in (("num_classes", info.num_classes), ("in_chans", info.in_chans)):
        given = section.setdefault(key, ours)
        if given != ours:
            faults.append(
                f"model.{key}: given {given}, but {info.name} has {ours}; "
                f"leave it out or set {ours}"
            )
    size = section.setdefault("img_size", info.img_size)
    if as_pair(size) != tuple(info.img_size):
        faults.append(f"model.img_size: given {size}, but the images are {info.img_size}")
    section["img_size"] = list(as_pair(section["img_size"]))
    if faults:
        raise ConfigError(faults)
    return section


def build_model(section: Mapping[str, Any]) -> nn.Module:
    """A model from its section."""
    return create_model(validate_model(section))


def build_from_checkpoint(checkpoint: Checkpoint) -> tuple[nn.Module, Preprocessing, DataInfo]:
    """The model of a checkpoint with the weights to evaluate, in evaluation mode.

    Raises:
        WeightsError: a model of words, or weights that do not fit their own config.
    """
    if checkpoint.tokenizer is not None:
        raise WeightsError(
            f"{checkpoint.path} holds {checkpoint.model['name']}, which reads words, not pictures; "
            "use it with: vitkit generate (a language model), vitkit translate, or vitkit eval"
        )
    model = create_model(validate_model(checkpoint.model).without_weights())
    fill_from_checkpoint(model, checkpoint)
    info = DataInfo.from_dict(checkpoint.data)
    return model.eval(), Preprocessing.from_dict(checkpoint.preprocessing), info


def fill_from_checkpoint(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Put the weights to evaluate into a model that is as the checkpoint says.

    Raises:
        WeightsError: they do not fit it.
    """
    try:
        model.load_state_dict(checkpoint.weights)
    except RuntimeError as error:
        raise WeightsError(
            f"{checkpoint.path} does not fit its own config: {first_line(error)}"
        ) from error


def require_classes(section: Mapping[str, Any], path: Path) -> None:
    """Refuse an encoder that was pre-trained and not yet taught any classes.

    Args:
        section: of the model.
        path: of its checkpoint.

    Raises:
        WeightsError: it is one.
    """
    if section.get("num_classes") == 0:
        raise WeightsError(
            f"{path} is of a pre-training run, which knows no classes; fine-tune it first "
            f"(vitkit train ... model.weights={path}), or look at its features: vitkit probe {path}"
        )


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


def with_classes_of(trained_on: DataInfo, data: ImageData) -> ImageData:
    """Data to evaluate on, its classes matched by name to those of a model.

    Some of the model's classes may be absent, and the order may be another.

    Raises:
        DataError: a class that the model does not know.
    """
    given = data.info
    if given.class_names == trained_on.class_names:
        return data
    known = {name: index for index, name in enumerate(trained_on.class_names)}
    unknown = [name for name in given.class_names if name not in known]
    if unknown:
        raise DataError(
            f"the model knows {trained_on.num_classes} classes ({trained_on.name}), {given.name} "
            f"has {given.num_classes}, and {unknown[0]!r} is none of the model's; use data with "
            "the same class names"
        )
    places = torch.tensor([known[name] for name in given.class_names])
    counts = dict(zip(given.class_names, given.class_counts, strict=False))
    info = replace(
        given,
        class_names=trained_on.class_names,
        class_counts=tuple(counts.get(name, 0) for name in trained_on.class_names),
    )
    val = None if data.val is None else data.val.with_targets(places[data.val.targets])
    test = None if data.test is None else data.test.with_targets(places[data.test.targets])
    return ImageData(info, data.train.with_targets(places[data.train.targets]), val, test)


def with_classes_of_weights(
    source: str, names: Sequence[str], count: int, data: ImageData
) -> tuple[ImageData, str]:
    """Data to evaluate weights on, their classes those of the classifier.

    They are matched by name where the weights name theirs, as by :func:`with_classes_of`, else by
    order. ImageNet's identifiers are matched by order to a classifier of a thousand classes, for
    its models call them in words and have them in that order.

    Args:
        source: of the weights, for messages.
        names: of the classifier's classes; empty: unknown.
        count: of its classes.
        data: to evaluate on.

    Returns:
        The data, and how they were matched: ``by name`` or ``by order``.

    Raises:
        DataError: a class that the weights do not know, or one whose name two of theirs bear;
            classes to be matched by order that are not as many.
    """
    info = data.info
    of_imagenet = count == IMAGENET_CLASSES and are_identifiers(info.class_names)
    if names and not (of_imagenet and set(names).isdisjoint(info.class_names)):
        _require_single(source, names, info)
        known = replace(info, name=source, class_names=tuple(names))
        return with_classes_of(known, data), "by name"
    if info.num_classes != count:
        raise DataError(
            f"{source} tells {count} classes apart and does not name them, {info.name} has "
            f"{info.num_classes}; use data with as many, which are then matched by their order"
        )
    return data, "by order"


def _require_single(source: str, names: Sequence[str], info: DataInfo) -> None:
    """Refuse a class of the data whose name stands for two of the weights' classes.

    Raises:
        DataError: there is one, and the classes are not the very same.
    """
    if tuple(names) == info.class_names:
        return
    times = Counter(names)
    if twice := [name for name in info.class_names if times[name] > 1]:
        raise DataError(
            f"{source} has {times[twice[0]]} classes called {twice[0]!r}, and which of them is "
            f"that of {info.name} cannot be told; name the classes apart in its config.json"
        )
