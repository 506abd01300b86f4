"""Tensors out of files, without ever running what a file contains."""

from __future__ import annotations

import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vitkit.errors import WeightsError

__all__ = ["read_file", "read_tensors"]

GIT_LFS = b"version https://git-lfs"
ZIP, PICKLE = b"PK\x03\x04", b"\x80"
WRAPPERS = ("state_dict", "model", "model_state_dict", "module")


def read_file(path: str | Path) -> dict[str, Any]:
    """All that a ``.safetensors``, ``.ckpt``, ``.pt``, ``.pth`` or ``.bin`` file holds.

    Raises:
        WeightsError: the file is missing, cut, no weights file, or holds code.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"no such weights file: {path}{_neighbours(path)}")
    with path.open("rb") as file:
        if file.read(len(GIT_LFS)) == GIT_LFS:
            raise WeightsError(
                f"{path} is a git-lfs pointer; run `git lfs pull` to get the weights"
            )
    if path.suffix == ".safetensors":
        try:
            return dict(load_file(path))
        except SafetensorError as error:
            raise WeightsError(f"{path} is damaged or half-downloaded ({error})") from error
    return _read_torch(path)


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a file, out of the usual wrappers.

    Raises:
        WeightsError: as :func:`read_file`, or no tensors found.
    """
    content: Any = read_file(path)
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise WeightsError(f"{path} holds no tensors; expected a state dict")
    return tensors


def _read_torch(path: Path) -> dict[str, Any]:
    if not _looks_like_torch(path):
        raise WeightsError(
            f"{path} is not a checkpoint: neither a file of PyTorch's nor one of safetensors'"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's own words advise to load the file without its check: never shown.
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        if named or zipfile.is_zipfile(path):
            raise WeightsError(
                f"{path} holds more than tensors and plain values"
                f"{f' ({named[1]})' if named else ''}; refused, and nothing in it was run. "
                "Ask for a .safetensors file"
            ) from error
        raise WeightsError(f"{path} is damaged or no weights file") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise WeightsError(f"{path} is damaged or incomplete; copy or download it again") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds a {type(content).__name__}; expected a state dict")
    return content


def _looks_like_torch(path: Path) -> bool:
    """A zip archive with a pickle in it, a cut one, or the bare pickle of older versions."""
    with path.open("rb") as file:
        start = file.read(4)
    if not start.startswith((ZIP, PICKLE)):
        return False
    if not zipfile.is_zipfile(path):
        return True
    with zipfile.ZipFile(path) as archive:
        return any(name.rpartition("/")[2] == "data.pkl" for name in archive.namelist())


def _neighbours(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f" (the folder {folder} does not exist)"
    names = sorted(
        p.name for p in folder.iterdir() if p.suffix in {".ckpt", ".safetensors", ".pth"}
    )
    return f"; in that folder: {', '.join(names[:5])}" if names else ""
