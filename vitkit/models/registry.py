"""From a name to a model."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

from pydantic import ValidationError
from torch import nn

from vitkit import models as face
from vitkit.errors import ConfigError, nearest
from vitkit.models.compact import CompactTransformer
from vitkit.models.config import CONFIGS, ModelConfig, validate_model
from vitkit.models.distilled import DistilledVisionTransformer
from vitkit.models.hybrid import HybridClassifier
from vitkit.models.pixels import PixelTextClassifier
from vitkit.models.presets import (
    ALIASES,
    CUSTOM,
    PRESETS,
    TIMM_PREFIX,
    family_of,
    matching_names,
)
from vitkit.models.recurrent import RecurrentLanguageModel, RecurrentSeq2Seq
from vitkit.models.resnet import CifarResNet
from vitkit.models.seq2seq import EncoderDecoder
from vitkit.models.text import CausalLanguageModel, TextTransformer
from vitkit.models.vit import VisionTransformer

__all__ = ["MODELS", "create_model", "list_models", "register_model"]

Builder = Callable[..., nn.Module]

_BUILDERS: dict[str, Builder] = {}


def _build_timm(**kwargs: Any) -> nn.Module:
    # Through the lazy face: timm takes seconds to import, and only its own models need it.
    model: nn.Module = face.build_timm(**kwargs)
    return model


MODELS: dict[str, Builder] = {
    "vit": VisionTransformer,
    "vit_distilled": DistilledVisionTransformer,
    "compact": CompactTransformer,
    "hybrid": HybridClassifier,
    "resnet": CifarResNet,
    "pixels": PixelTextClassifier,
    "text": TextTransformer,
    "lm": CausalLanguageModel,
    "lm_recurrent": RecurrentLanguageModel,
    "seq2seq": EncoderDecoder,
    "seq2seq_recurrent": RecurrentSeq2Seq,
    "timm": _build_timm,
}
"""The constructor of each family. A new one also needs a config class in
:data:`vitkit.models.config.CONFIGS`, a preset, and in :mod:`vitkit.models.presets` a line of
``FAMILIES``, and of ``READS`` if it reads no images."""


def create_model(model: str | ModelConfig, **overrides: Any) -> nn.Module:
    """Build a model, with fresh weights.

    Of a model whose first layer is whitened (``whiten_stem``) that layer is frozen at random values
    until ``init_from_images`` has set it from a sample of the inputs, as a training of ours does.

    Args:
        model: a name (see :func:`list_models`; ``timm/<model>`` for timm's), or a checked config.
        overrides: fields of the family's config class, such as ``num_classes``, ``img_size``.

    Returns:
        For image models: (B, channels, height, width) float -> logits (B, num_classes).

    Raises:
        UnknownNameError: no such model.
        ConfigError: arguments that are unknown, out of range, or contradict each other, such as an
            image size that is no multiple of the patch; one line a fault.
    """
    if overrides.get("weights") is not None:
        raise ConfigError("create_model builds fresh weights; load a file with vitkit.load_weights")
    config = _checked(model, overrides)
    family, kwargs = family_of(config.name), config.constructor_kwargs()
    try:
        if family == "custom":
            return _build_custom(config.name, kwargs)
        return MODELS[family](**kwargs)
    except ValueError as error:
        raise ConfigError(f"model {config.name}: {error}") from error


def list_models(pattern: str = "*") -> list[str]:
    """Names that match a shell pattern: presets, then registered ones.

    A pattern that starts with ``timm/`` lists timm's models instead (``timm/*`` all of them).
    """
    if pattern.startswith(TIMM_PREFIX):
        names: list[str] = face.timm_names()
        return [name for name in names if fnmatchcase(name, pattern)]
    return matching_names(pattern)


def register_model(name: str) -> Callable[[Builder], Builder]:
    """Decorator that makes a function known to configs and the command line as a model.

    The function is called as ``function(num_classes=, in_chans=, img_size=, **kwargs)`` with those
    that are known, and returns a module from images (B, channels, height, width) to logits
    (B, num_classes). Registering a name again replaces it.

    Raises:
        ValueError: the name belongs to one of vitkit's own models, or to timm's.
    """
    if not isinstance(name, str):
        raise ValueError('register_model takes the name first: @vitkit.register_model("my_net")')
    if name in PRESETS or name in ALIASES or name.startswith(TIMM_PREFIX):
        raise ValueError(f"model name {name!r} is taken; choose another")

    def register(function: Builder) -> Builder:
        _BUILDERS[name] = function
        CUSTOM[name] = (inspect.getdoc(function) or "registered by you").splitlines()[0]
        return function

    return register


def _checked(model: str | ModelConfig, overrides: dict[str, Any]) -> ModelConfig:
    if isinstance(model, ModelConfig):
        section = {**model.model_dump(exclude_none=True, exclude_unset=True), **overrides}
        section["name"] = model.name
    else:
        section = {**overrides, "name": model}
    try:
        return validate_model(section)
    except ValidationError as error:
        raise ConfigError(_faults(section["name"], error)) from error


def _faults(name: str, error: ValidationError) -> list[str]:
    """One line per fault: the key, what was given, what is allowed."""
    lines: dict[str, str] = {}
    for fault in error.errors():
        key = ".".join(str(part) for part in fault["loc"][:1])
        if fault["type"] == "extra_forbidden":
            fields = CONFIGS[family_of(validate_model({"name": name}).name)].model_fields
            close = nearest(key, fields)
            hint = f"; did you mean {' or '.join(close)}?" if close else ""
            if key == "pretrained":
                hint = (
                    "; published weights: vitkit.load_model(SOURCE, num_classes=...), where SOURCE "
                    "is a file, a folder or a name such as 'timm/vit_tiny_patch16_224'"
                )
            lines[key] = f"model {name}: unknown argument {key!r}{hint}"
        elif key in lines:  # another branch of the same union
            lines[key] += f" or {_lowered(fault['msg'])}"
        else:
            given = f" (given {fault['input']!r})" if key else ""
            lines[key] = f"model {name}: {key or 'arguments'}: {_lowered(fault['msg'])}{given}"
    return list(lines.values())


def _lowered(message: str) -> str:
    message = message.removeprefix("Value error, ")
    return message[:1].lower() + message[1:]


def _build_custom(name: str, kwargs: dict[str, Any]) -> nn.Module:
    more = kwargs.pop("kwargs", {})
    function = _BUILDERS[name]
    try:
        bound = inspect.signature(function).bind(**kwargs, **more)
    except TypeError as error:
        raise ConfigError(f"model {name}: {error}") from error
    return function(*bound.args, **bound.kwargs)
