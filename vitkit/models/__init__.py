"""Models: what knows the modality. Patches or words in, the shared trunk, pooling, a head.

Lazy: importing ``vitkit.models`` (or its ``config`` and ``presets``) does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitkit.models.compact import CompactTransformer
    from vitkit.models.config import ModelConfig, validate_model
    from vitkit.models.decoding import generate
    from vitkit.models.distilled import DistilledVisionTransformer
    from vitkit.models.hybrid import HybridClassifier
    from vitkit.models.pixels import PixelTextClassifier
    from vitkit.models.registry import create_model, list_models, register_model
    from vitkit.models.resnet import CifarResNet
    from vitkit.models.text import CausalLanguageModel, TextTransformer
    from vitkit.models.timm_baseline import build_timm, timm_names
    from vitkit.models.vit import VisionTransformer

__all__ = [
    "CausalLanguageModel",
    "CifarResNet",
    "CompactTransformer",
    "DistilledVisionTransformer",
    "HybridClassifier",
    "ModelConfig",
    "PixelTextClassifier",
    "TextTransformer",
    "VisionTransformer",
    "build_timm",
    "create_model",
    "generate",
    "list_models",
    "register_model",
    "timm_names",
    "validate_model",
]

_HOMES = {
    "CausalLanguageModel": "text",
    "CifarResNet": "resnet",
    "CompactTransformer": "compact",
    "DistilledVisionTransformer": "distilled",
    "HybridClassifier": "hybrid",
    "ModelConfig": "config",
    "PixelTextClassifier": "pixels",
    "TextTransformer": "text",
    "VisionTransformer": "vit",
    "build_timm": "timm_baseline",
    "create_model": "registry",
    "generate": "decoding",
    "list_models": "registry",
    "register_model": "registry",
    "timm_names": "timm_baseline",
    "validate_model": "config",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
