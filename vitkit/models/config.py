"""What a person may say about a model, and its checks. No torch is imported here.

Each family of models has one config class whose fields are the arguments of the family's
constructor. A field left at None keeps the preset's own value. :func:`validate_model` picks the
class by name; :meth:`ModelConfig.constructor_kwargs` overlays the preset with what was given.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from vitkit.models.config_base import ModelConfig
from vitkit.models.picture_config import (
    CompactConfig,
    DistilledViTConfig,
    HybridConfig,
    ResNetConfig,
    ViTConfig,
)
from vitkit.models.presets import DEFAULT_MODEL, TIMM_PREFIX, family_of, resolve_name
from vitkit.models.word_config import (
    LanguageModelConfig,
    PixelTextConfig,
    RecurrentLanguageModelConfig,
    RecurrentSeq2SeqConfig,
    Seq2SeqConfig,
    TextClassifierConfig,
)

__all__ = [
    "CONFIGS",
    "CompactConfig",
    "CustomConfig",
    "DistilledViTConfig",
    "HybridConfig",
    "LanguageModelConfig",
    "ModelConfig",
    "PixelTextConfig",
    "RecurrentLanguageModelConfig",
    "RecurrentSeq2SeqConfig",
    "ResNetConfig",
    "Seq2SeqConfig",
    "TextClassifierConfig",
    "TimmConfig",
    "ViTConfig",
    "validate_model",
]


class TimmConfig(ModelConfig):
    """A model of timm, named ``timm/<model>``."""

    family: ClassVar[str | None] = "timm"

    pretrained: bool = Field(False, description="download timm's weights (needs the network)")
    kwargs: dict[str, Any] = Field({}, description="further arguments of timm.create_model")

    def without_weights(self) -> TimmConfig:
        """See :meth:`ModelConfig.without_weights`: nothing is fetched either."""
        return self.model_copy(update={"weights": None, "pretrained": False})

    def constructor_kwargs(self) -> dict[str, Any]:
        """What :func:`vitkit.models.timm_baseline.build_timm` takes."""
        return {"model": self.name.removeprefix(TIMM_PREFIX), **super().constructor_kwargs()}


class CustomConfig(ModelConfig):
    """A person's own module, registered with ``register_model``."""

    family: ClassVar[str | None] = "custom"

    kwargs: dict[str, Any] = Field({}, description="further arguments of the registered function")


CONFIGS: dict[str, type[ModelConfig]] = {
    "vit": ViTConfig,
    "vit_distilled": DistilledViTConfig,
    "compact": CompactConfig,
    "hybrid": HybridConfig,
    "resnet": ResNetConfig,
    "pixels": PixelTextConfig,
    "text": TextClassifierConfig,
    "lm": LanguageModelConfig,
    "lm_recurrent": RecurrentLanguageModelConfig,
    "seq2seq": Seq2SeqConfig,
    "seq2seq_recurrent": RecurrentSeq2SeqConfig,
    "timm": TimmConfig,
    "custom": CustomConfig,
}
"""The config class of each family."""


def validate_model(section: Mapping[str, Any]) -> ModelConfig:
    """The checked config of a model, of the class that its name asks for.

    Args:
        section: ``name`` and any fields of that family; without a name the default model.

    Raises:
        UnknownNameError: no such model; the message offers the nearest names.
        pydantic.ValidationError: a field that is unknown, of the wrong type or out of range.
    """
    name = section.get("name", DEFAULT_MODEL)
    if not isinstance(name, str):
        return ModelConfig.model_validate({"name": name})  # raises, naming the type
    name = resolve_name(name)
    return CONFIGS[family_of(name)].model_validate({**section, "name": name})
