"""What the commands do, as Python calls; where strings become objects.

Lazy: importing ``vitkit.app`` brings no torch before one of its names is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitkit.app.averager import AverageResult, average_checkpoints
    from vitkit.app.catalogue import model_rows
    from vitkit.app.checker import check_data
    from vitkit.app.class_names import read_class_names
    from vitkit.app.eval_results import EvalResult
    from vitkit.app.evaluator import Comparison, compare, evaluate
    from vitkit.app.exporter import EXPORT_FORMATS, ExportResult, export
    from vitkit.app.facts import process_seconds
    from vitkit.app.inspection import Inspection, inspect
    from vitkit.app.predictor import Prediction, Predictor, load
    from vitkit.app.pretrained import LoadedModel, load_model
    from vitkit.app.prober import ProbeResult, probe
    from vitkit.app.progress import rate_text
    from vitkit.app.reporter import report_comparison, report_run
    from vitkit.app.runs import finished_results
    from vitkit.app.seeds import SeedSummary, train_seeds
    from vitkit.app.trainer import TrainResult, resume, train, try_one_batch
    from vitkit.app.translator import Translator, load_translator, translate
    from vitkit.app.utf8 import decode_text, read_lines, utf8_lines
    from vitkit.app.writer import Writer, generate, load_writer, require_nothing_drawn

__all__ = [
    "EXPORT_FORMATS",
    "AverageResult",
    "Comparison",
    "EvalResult",
    "ExportResult",
    "Inspection",
    "LoadedModel",
    "Prediction",
    "Predictor",
    "ProbeResult",
    "SeedSummary",
    "TrainResult",
    "Translator",
    "Writer",
    "average_checkpoints",
    "check_data",
    "compare",
    "decode_text",
    "evaluate",
    "export",
    "finished_results",
    "generate",
    "inspect",
    "load",
    "load_model",
    "load_translator",
    "load_writer",
    "model_rows",
    "probe",
    "process_seconds",
    "rate_text",
    "read_class_names",
    "read_lines",
    "report_comparison",
    "report_run",
    "require_nothing_drawn",
    "resume",
    "train",
    "train_seeds",
    "translate",
    "try_one_batch",
    "utf8_lines",
]

_HOMES = {
    "AverageResult": "averager",
    "Comparison": "evaluator",
    "EXPORT_FORMATS": "exporter",
    "EvalResult": "eval_results",
    "ExportResult": "exporter",
    "Inspection": "inspection",
    "LoadedModel": "pretrained",
    "Prediction": "predictor",
    "Predictor": "predictor",
    "ProbeResult": "prober",
    "SeedSummary": "seeds",
    "TrainResult": "trainer",
    "Translator": "translator",
    "Writer": "writer",
    "average_checkpoints": "averager",
    "check_data": "checker",
    "compare": "evaluator",
    "decode_text": "utf8",
    "evaluate": "evaluator",
    "export": "exporter",
    "finished_results": "runs",
    "generate": "writer",
    "inspect": "inspection",
    "load": "predictor",
    "load_model": "pretrained",
    "load_translator": "translator",
    "load_writer": "writer",
    "model_rows": "catalogue",
    "probe": "prober",
    "process_seconds": "facts",
    "rate_text": "progress",
    "read_class_names": "class_names",
    "read_lines": "utf8",
    "report_comparison": "reporter",
    "report_run": "reporter",
    "require_nothing_drawn": "writer",
    "resume": "trainer",
    "train": "trainer",
    "train_seeds": "seeds",
    "translate": "translator",
    "try_one_batch": "trainer",
    "utf8_lines": "utf8",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
