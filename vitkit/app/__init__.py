"""What the commands do, as Python calls; where strings become objects."""

from vitkit.app.evaluator import EvalResult, evaluate
from vitkit.app.predictor import Prediction, Predictor, load
from vitkit.app.trainer import TrainResult, resume, train, try_one_batch

__all__ = [
    "EvalResult",
    "Prediction",
    "Predictor",
    "TrainResult",
    "evaluate",
    "load",
    "resume",
    "train",
    "try_one_batch",
]
