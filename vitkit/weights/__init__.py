"""Formats of weights in and out, beside the models and never inside them."""

from vitkit.weights.checkpoint import FORMAT_VERSION, Checkpoint, read_checkpoint
from vitkit.weights.files import read_file, read_tensors
from vitkit.weights.load import LoadReport, load_weights

__all__ = [
    "FORMAT_VERSION",
    "Checkpoint",
    "LoadReport",
    "load_weights",
    "read_checkpoint",
    "read_file",
    "read_tensors",
]
