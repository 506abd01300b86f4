"""Formats of weights in and out, beside the models and never inside them."""

from vitkit.weights.card import model_card
from vitkit.weights.checkpoint import (
    FORMAT_VERSION,
    Checkpoint,
    read_checkpoint,
    tested_name,
)
from vitkit.weights.files import read_file
from vitkit.weights.hub import HUB_PREFIX, TIMM_PREFIX, TORCHVISION_PREFIX
from vitkit.weights.load import Loaded, build_and_load, load_weights
from vitkit.weights.load_report import LoadReport
from vitkit.weights.own_folder import own_folder
from vitkit.weights.probe_head import load_head, write_head
from vitkit.weights.programs import write_onnx, write_torch_export
from vitkit.weights.sources import files_beside, own_checkpoint
from vitkit.weights.stated import processor_config, stated_by_timm
from vitkit.weights.to_hugging_face import hugging_face_folder
from vitkit.weights.to_timm import timm_folder

__all__ = [
    "FORMAT_VERSION",
    "HUB_PREFIX",
    "TIMM_PREFIX",
    "TORCHVISION_PREFIX",
    "Checkpoint",
    "LoadReport",
    "Loaded",
    "build_and_load",
    "files_beside",
    "hugging_face_folder",
    "load_head",
    "load_weights",
    "model_card",
    "own_checkpoint",
    "own_folder",
    "processor_config",
    "read_checkpoint",
    "read_file",
    "stated_by_timm",
    "tested_name",
    "timm_folder",
    "write_head",
    "write_onnx",
    "write_torch_export",
]
