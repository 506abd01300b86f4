"""Any model of timm behind the same config. The only file that imports timm."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import timm
from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset
from torch import nn

from vitkit.errors import ConfigError, UnknownNameError, WeightsError, first_line
from vitkit.models.presets import TIMM_PREFIX

__all__ = ["build_timm", "imagenet_names", "timm_config", "timm_names"]


def timm_names() -> list[str]:
    """All names of timm's models, as ``timm/<model>``."""
    return [TIMM_PREFIX + name for name in timm.list_models()]


def timm_config(model: str) -> dict[str, Any]:
    """What timm states about a model's own weights: ``mean``, ``crop_pct``, ...; empty if nothing.

    Args:
        model: timm's name, a weight tag after a dot allowed.
    """
    config = timm.get_pretrained_cfg(model, allow_unregistered=True)
    return {} if config is None else dict(config.to_dict())


def imagenet_names(num_classes: int, model: str = "") -> tuple[str, ...]:
    """What the classes of ImageNet are called, in the order in which models give them.

    A class's first word, as in torchvision; all its words where another class begins alike, and its
    number in WordNet behind them where another has the very same.

    Args:
        num_classes: 1000, or as many as one of timm's larger subsets has.
        model: timm's name of published weights, tag included: their classifier must have as many.

    Returns:
        By index, no two alike; empty where ImageNet has no such subset, or timm no such weights.
    """
    if model and _classes_published(model) != num_classes:
        return ()
    subset = infer_imagenet_subset({"num_classes": num_classes})
    if subset is None:
        return ()
    info = ImageNetInfo(subset)
    words = [str(each) for each in info.label_descriptions()]
    first = [each.partition(",")[0] for each in words]
    begins, whole = Counter(first), Counter(words)
    return tuple(
        short if begins[short] == 1 else long if whole[long] == 1 else f"{long} ({number})"
        for short, long, number in zip(first, words, info.label_names(), strict=True)
    )


def build_timm(
    model: str,
    *,
    num_classes: int | None = None,
    in_chans: int | None = None,
    img_size: int | tuple[int, int] | None = None,
    pretrained: bool = False,
    kwargs: Mapping[str, Any] | None = None,
) -> nn.Module:
    """A timm model.

    Args:
        model: timm's name, a weight tag after a dot allowed.
        num_classes, in_chans: of head and input; timm's own unless given.
        img_size: image size in pixels; handed on to models that are built for one size, and not
            needed by the others.
        pretrained: download timm's weights; the only way to the network.
        kwargs: further arguments of ``timm.create_model``.

    Raises:
        UnknownNameError: timm has no such model.
        ConfigError: timm refuses the arguments.
        WeightsError: there are no weights for it, or they cannot be fetched.
    """
    if not timm.is_model(model.split(".")[0]):
        hint = "(`vitkit models 'timm/*'` lists timm's)"
        raise UnknownNameError("model", TIMM_PREFIX + model, timm_names(), hint=hint)
    sizes = {"num_classes": num_classes, "in_chans": in_chans}
    given: dict[str, Any] = {key: value for key, value in sizes.items() if value is not None}
    if img_size is not None and _is_built_for_a_size(model):
        given["img_size"] = img_size
    try:
        built: nn.Module = timm.create_model(
            model, pretrained=pretrained, **{**given, **(kwargs or {})}
        )
    except (AssertionError, TypeError, ValueError) as error:
        raise ConfigError(f"model {TIMM_PREFIX}{model}: {first_line(error)}") from error
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise ConfigError(f"model {TIMM_PREFIX}{model}: {first_line(error)}") from error
        raise WeightsError(
            f"model {TIMM_PREFIX}{model}: no pretrained weights: {first_line(error)}; "
            "check the tag and the network, or give a file of weights (model.weights=FILE)"
        ) from error
    return built


def _classes_published(model: str) -> int:
    """Of the classifier that timm publishes under a name; 0 if it publishes none."""
    try:
        config = timm.get_pretrained_cfg(model, allow_unregistered=True)
    except RuntimeError:  # the architecture is timm's, the tag somebody else's
        return 0
    return 0 if config is None or not config.has_weights else int(config.num_classes)


def _is_built_for_a_size(model: str) -> bool:
    config = timm.get_pretrained_cfg(model.split(".")[0], allow_unregistered=True)
    return bool(config is not None and config.fixed_input_size)
