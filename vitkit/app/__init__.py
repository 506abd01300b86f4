"""What the commands do, as Python calls; where strings become objects."""

from vitkit.app.evaluate import EvalResult, evaluate
from vitkit.app.predict import Prediction, Predictor, load
from vitkit.app.train import TrainResult, resume, train, try_one_batch

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
