"""Numbers about a finished model. Gets a callable and batches; knows no model, data or trainer."""

from vitkit.evaluation.classification import ClassificationSums, Predictions, predict_all

__all__ = ["ClassificationSums", "Predictions", "predict_all"]
