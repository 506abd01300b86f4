"""What the commands do, as Python calls; where strings become objects.

Lazy: importing ``vitkit.app`` brings no torch before one of its names is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitkit.app.catalogue import model_rows
    from vitkit.app.evaluator import Comparison, EvalResult, compare, evaluate
    from vitkit.app.exporter import EXPORT_FORMATS, ExportResult, export
    from vitkit.app.facts import process_seconds
    from vitkit.app.inspector import check_data
    from vitkit.app.predictor import Prediction, Predictor, load
    from vitkit.app.pretrained import LoadedModel, load_model
    from vitkit.app.progress import rate_text
    from vitkit.app.runs import finished_results
    from vitkit.app.seeds import SeedSummary, train_seeds
    from vitkit.app.trainer import TrainResult, resume, train, try_one_batch

__all__ = [
    "EXPORT_FORMATS",
    "Comparison",
    "EvalResult",
    "ExportResult",
    "LoadedModel",
    "Prediction",
    "Predictor",
    "SeedSummary",
    "TrainResult",
    "check_data",
    "compare",
    "evaluate",
    "export",
    "finished_results",
    "load",
    "load_model",
    "model_rows",
    "process_seconds",
    "rate_text",
    "resume",
    "train",
    "train_seeds",
    "try_one_batch",
]

_HOMES = {
    "Comparison": "evaluator",
    "EXPORT_FORMATS": "exporter",
    "EvalResult": "evaluator",
    "ExportResult": "exporter",
    "LoadedModel": "pretrained",
    "Prediction": "predictor",
    "Predictor": "predictor",
    "SeedSummary": "seeds",
    "TrainResult": "trainer",
    "check_data": "inspector",
    "compare": "evaluator",
    "evaluate": "evaluator",
    "export": "exporter",
    "finished_results": "runs",
    "load": "predictor",
    "load_model": "pretrained",
    "model_rows": "catalogue",
    "process_seconds": "facts",
    "rate_text": "progress",
    "resume": "trainer",
    "train": "trainer",
    "train_seeds": "seeds",
    "try_one_batch": "trainer",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
