"""vitkit: one attention core, two front doors: words come in by one, pictures by the other.

The public names load when they are first used, so that ``import vitkit`` is quick and brings no
torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitkit.app import (
        AverageResult,
        Comparison,
        EvalResult,
        ExportResult,
        Inspection,
        LoadedModel,
        Prediction,
        Predictor,
        ProbeResult,
        TrainResult,
        average_checkpoints,
        compare,
        evaluate,
        export,
        generate,
        inspect,
        load,
        load_model,
        load_translator,
        load_writer,
        probe,
        resume,
        train,
        translate,
    )
    from vitkit.data.own import data_from_datasets
    from vitkit.data.sources import load_data, register_dataset
    from vitkit.errors import VitkitError
    from vitkit.models.registry import create_model, list_models, register_model
    from vitkit.nn import Attention, attention, record_attention
    from vitkit.weights import load_weights

__version__ = "0.1.0"

__all__ = [
    "Attention",
    "AverageResult",
    "Comparison",
    "EvalResult",
    "ExportResult",
    "Inspection",
    "LoadedModel",
    "Prediction",
    "Predictor",
    "ProbeResult",
    "TrainResult",
    "VitkitError",
    "attention",
    "average_checkpoints",
    "compare",
    "create_model",
    "data_from_datasets",
    "evaluate",
    "export",
    "generate",
    "inspect",
    "list_models",
    "load",
    "load_data",
    "load_model",
    "load_translator",
    "load_weights",
    "load_writer",
    "probe",
    "record_attention",
    "register_dataset",
    "register_model",
    "resume",
    "train",
    "translate",
]

_HOMES = {
    "Attention": "vitkit.nn",
    "AverageResult": "vitkit.app",
    "Comparison": "vitkit.app",
    "EvalResult": "vitkit.app",
    "ExportResult": "vitkit.app",
    "Inspection": "vitkit.app",
    "LoadedModel": "vitkit.app",
    "Prediction": "vitkit.app",
    "Predictor": "vitkit.app",
    "ProbeResult": "vitkit.app",
    "TrainResult": "vitkit.app",
    "VitkitError": "vitkit.errors",
    "attention": "vitkit.nn",
    "average_checkpoints": "vitkit.app",
    "compare": "vitkit.app",
    "create_model": "vitkit.models.registry",
    "data_from_datasets": "vitkit.data.own",
    "evaluate": "vitkit.app",
    "export": "vitkit.app",
    "generate": "vitkit.app",
    "inspect": "vitkit.app",
    "list_models": "vitkit.models.registry",
    "load": "vitkit.app",
    "load_data": "vitkit.data.sources",
    "load_model": "vitkit.app",
    "load_translator": "vitkit.app",
    "load_weights": "vitkit.weights",
    "load_writer": "vitkit.app",
    "probe": "vitkit.app",
    "record_attention": "vitkit.nn",
    "register_dataset": "vitkit.data.sources",
    "register_model": "vitkit.models.registry",
    "resume": "vitkit.app",
    "train": "vitkit.app",
    "translate": "vitkit.app",
}


_ROOMS = ("app", "config", "data", "evaluation", "explain", "models", "nn", "training", "weights")


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"vitkit.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'vitkit' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, *_ROOMS, "__version__"]
