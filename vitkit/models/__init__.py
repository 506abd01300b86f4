"""Models: what knows the modality. Patches or words in, the shared trunk, pooling, a head.

Lazy: importing ``vitkit.models`` (or its ``config`` and ``presets``) does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitkit.models.beams import Hypotheses
    from vitkit.models.compact import CompactTransformer
    from vitkit.models.config import ModelConfig, validate_model
    from vitkit.models.decoding import continuations, generate, stream, translate
    from vitkit.models.distilled import DistilledVisionTransformer
    from vitkit.models.hybrid import HybridClassifier
    from vitkit.models.mae import MaskedAutoencoder
    from vitkit.models.pixels import PixelTextClassifier
    from vitkit.models.recurrent import RecurrentLanguageModel, RecurrentSeq2Seq
    from vitkit.models.registry import create_model, list_models, register_model
    from vitkit.models.resnet import CifarResNet
    from vitkit.models.seq2seq import EncoderDecoder
    from vitkit.models.text import CausalLanguageModel, TextTransformer
    from vitkit.models.timm_baseline import build_timm, imagenet_names, timm_config, timm_names
    from vitkit.models.vit import VisionTransformer

__all__ = [
    "CausalLanguageModel",
    "CifarResNet",
    "CompactTransformer",
    "DistilledVisionTransformer",
    "EncoderDecoder",
    "HybridClassifier",
    "Hypotheses",
    "MaskedAutoencoder",
    "ModelConfig",
    "PixelTextClassifier",
    "RecurrentLanguageModel",
    "RecurrentSeq2Seq",
    "TextTransformer",
    "VisionTransformer",
    "build_timm",
    "continuations",
    "create_model",
    "generate",
    "imagenet_names",
    "list_models",
    "register_model",
    "stream",
    "timm_config",
    "timm_names",
    "translate",
    "validate_model",
]

_HOMES = {
    "CausalLanguageModel": "text",
    "CifarResNet": "resnet",
    "CompactTransformer": "compact",
    "DistilledVisionTransformer": "distilled",
    "EncoderDecoder": "seq2seq",
    "HybridClassifier": "hybrid",
    "Hypotheses": "beams",
    "MaskedAutoencoder": "mae",
    "ModelConfig": "config",
    "PixelTextClassifier": "pixels",
    "RecurrentLanguageModel": "recurrent",
    "RecurrentSeq2Seq": "recurrent",
    "TextTransformer": "text",
    "VisionTransformer": "vit",
    "build_timm": "timm_baseline",
    "continuations": "decoding",
    "create_model": "registry",
    "generate": "decoding",
    "imagenet_names": "timm_baseline",
    "list_models": "registry",
    "register_model": "registry",
    "stream": "decoding",
    "timm_config": "timm_baseline",
    "timm_names": "timm_baseline",
    "translate": "decoding",
    "validate_model": "config",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
