"""A model's section with every argument spelled out: what another library has to be told."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from vitkit.errors import WeightsError
from vitkit.models.config import validate_model
from vitkit.models.presets import FAMILIES, family_of
from vitkit.models.vit import VisionTransformer

__all__ = ["VIT_FAMILIES", "refuse", "spelled_out"]

VIT_FAMILIES = ("vit", "vit_distilled")


def spelled_out(section: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The family of a section and all arguments of its model, defaults of a ViT among them."""
    config = validate_model(section)
    family, given = family_of(config.name), config.constructor_kwargs()
    if family not in VIT_FAMILIES:
        return family, given
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(VisionTransformer).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    full = {**defaults, **given}
    if full["fc_norm"] is None:
        full["fc_norm"] = full["global_pool"] in ("avg", "max")
    return family, full


def refuse(family: str, what: str, faults: list[str]) -> None:
    """Say once what keeps a model from another library.

    Args:
        family: of the model.
        what: the other library.
        faults: what the model has and the library lacks; without any nothing is raised.

    Raises:
        WeightsError: there are faults.
    """
    if faults:
        raise WeightsError(
            f"this model ({FAMILIES.get(family, family)}) cannot be exported to {what}, which has "
            f"no {', no '.join(faults)}; --format safetensors, onnx and torch-export take any model"
        )
