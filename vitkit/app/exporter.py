"""A trained model out of vitkit: for timm, Hugging Face, ONNX, torch.export, or plain tensors."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from vitkit.app.build import build_from_checkpoint
from vitkit.app.runs import find_checkpoint, finished_results
from vitkit.app.subjects import folder_of
from vitkit.errors import ConfigError, RunError
from vitkit.records import Record
from vitkit.weights import (
    Checkpoint,
    hugging_face_folder,
    model_card,
    own_folder,
    processor_config,
    read_checkpoint,
    timm_folder,
    write_onnx,
    write_torch_export,
)

__all__ = ["EXPORT_FORMATS", "ExportResult", "export"]

EXPORT_FORMATS = ("safetensors", "timm", "hf", "onnx", "torch-export")
PROGRAMS = {"onnx": ("model.onnx", write_onnx), "torch-export": ("model.pt2", write_torch_export)}


@dataclass(frozen=True)
class ExportResult:
    """What an export left behind.

    Attributes:
        folder: with everything.
        files: in it, sorted.
        error: largest relative difference of a program's logits from the model's; None where the
            format is no program.
    """

    folder: Path
    files: tuple[Path, ...]
    error: float | None = None


def export(
    source: str | Path, format: str = "safetensors", out: str | Path | None = None
) -> ExportResult:
    """Write a run's model as a folder that other libraries read.

    The folder holds ``model.safetensors``, ``config.json``, ``preprocessor_config.json``, a model
    card, and for ``onnx`` and ``torch-export`` the program, checked against the model.

    Args:
        source: a run folder or checkpoint.
        format: one of :data:`EXPORT_FORMATS`.
        out: the folder, new or empty; ``export-<format>`` in the run unless given.

    Raises:
        ConfigError: no such format, or its library is not installed.
        RunError: nothing to export, or the folder has files in it.
        WeightsError: the model cannot be what the format holds, or a program disagrees.
    """
    if format not in EXPORT_FORMATS:
        raise ConfigError(f"--format: given {format!r}, allowed: {', '.join(EXPORT_FORMATS)}")
    path = find_checkpoint(source)
    run = folder_of(path)
    folder = Path(out) if out is not None else run / f"export-{format}"
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"{folder} is not empty, and nothing is overwritten; give another --out")
    there = folder.is_dir()  # perhaps one that cannot be replaced, such as a mounted one
    place = folder.resolve()
    beside = (place / "export" if there else place).with_suffix(f".{os.getpid()}.part")
    try:
        beside.mkdir(parents=True)
        error = _write(read_checkpoint(path), format, beside, folder, run)
        if not there:
            beside.rename(place)
        for file in list(beside.iterdir()) if there else ():
            file.rename(place / file.name)
    except SafetensorError as fault:  # says little of a full disk
        raise RunError(f"cannot write {folder}: {fault}; is the disk full?") from fault
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return ExportResult(folder, tuple(sorted(folder.iterdir())), error)


def _write(
    checkpoint: Checkpoint, format: str, beside: Path, folder: Path, run: Path
) -> float | None:
    """Everything into ``beside``, which will be called ``folder``."""
    model, preprocessing, info = build_from_checkpoint(checkpoint)
    plain = preprocessing.to_dict()
    names = info.class_names if checkpoint.model.get("num_classes") != 0 else ()
    tensors, config = _contents(model, format, checkpoint.model, plain, names)
    save_file(_independent(tensors), beside / "model.safetensors", metadata={"format": "pt"})
    _write_json(beside / "config.json", config)
    _write_json(beside / "preprocessor_config.json", processor_config(plain))
    record = _measured(checkpoint, run)
    card = model_card(
        str(checkpoint.model["name"]),
        format,
        folder.as_posix(),
        preprocessing=plain,
        class_names=names,
        metrics=record.metrics,
        facts=record.facts,
    )
    (beside / "README.md").write_text(card, encoding="utf-8")
    if format not in PROGRAMS:
        return None
    file, write = PROGRAMS[format]
    height, width = preprocessing.img_size
    return write(model, (preprocessing.in_chans, height, width), beside / file)


def _contents(
    model: nn.Module,
    format: str,
    section: Mapping[str, Any],
    preprocessing: Mapping[str, Any],
    class_names: tuple[str, ...],
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if format == "timm":
        return timm_folder(model, section, preprocessing, class_names)
    if format == "hf":
        return hugging_face_folder(model, section, class_names)
    return own_folder(model, section, preprocessing, class_names)


def _measured(checkpoint: Checkpoint, run: Path) -> Record:
    """What the run measured of these very weights; nothing if it tested others."""
    results = finished_results(run)
    if results is None:
        return Record()
    record = Record.read(results)
    return record if record.facts.get("checkpoint") == checkpoint.path.name else Record()


def _independent(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each with memory of its own, as safetensors wants them."""
    return {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
