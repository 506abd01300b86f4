"""Tensors out of files, without ever running what a file contains."""

from __future__ import annotations

import argparse
import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vitkit.errors import WeightsError

__all__ = ["SUFFIXES", "read_file", "read_json", "tensors_in"]

SUFFIXES = (".safetensors", ".ckpt", ".pth", ".pt", ".bin", ".npz")
GIT_LFS = b"version https://git-lfs"
ZIP, PICKLE = b"PK\x03\x04", b"\x80"
AVERAGED = ("state_dict_ema", "model_ema")
WRAPPERS = (
    *AVERAGED,
    *("state_dict", "model", "model_state_dict", "module", "net", "teacher"),
)
"""Where training files keep the weights; averaged ones first, for they are what was evaluated."""
SHARDS = ".index.json"
PLAIN_CLASSES: list[Any] = [argparse.Namespace]
"""What training files of DeiT, MAE and others hold beside tensors: attributes, no behaviour."""


def read_file(path: str | Path) -> dict[str, Any]:
    """All that a ``.safetensors``, ``.npz``, ``.ckpt``, ``.pt``, ``.pth`` or ``.bin`` file holds.

    Of a file cut into shards, give the ``.index.json``.

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
    if path.name.endswith(SHARDS):
        return _read_shards(path)
    if path.suffix == ".npz":
        return dict(_read_npz(path))
    if path.suffix == ".safetensors":
        try:
            return dict(load_file(path))
        except SafetensorError as error:
            raise WeightsError(f"{path} is damaged or half-downloaded ({error})") from error
    return _read_torch(path)


def tensors_in(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a state dict, out of the usual wrappers."""
    inner: Any = content
    for _ in WRAPPERS:
        wrapper = next((w for w in WRAPPERS if isinstance(inner.get(w), Mapping)), None)
        if wrapper is None:
            break
        inner = inner[wrapper]
    return {str(name): value for name, value in inner.items() if isinstance(value, Tensor)}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds one object.

    Raises:
        WeightsError: it is no such file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds a {type(content).__name__}; expected an object")
    return content


def _read_shards(path: Path) -> dict[str, Any]:
    files = read_json(path).get("weight_map")
    if not isinstance(files, dict) or not files:
        raise WeightsError(f"{path} has no weight_map that names the shards")
    content: dict[str, Any] = {}
    for name in sorted(set(map(str, files.values()))):
        if Path(name).name != name:
            raise WeightsError(f"{path} names a shard outside its folder: {name}")
        content |= read_file(path.with_name(name))
    return content


def _read_npz(path: Path) -> dict[str, Tensor]:
    if not zipfile.is_zipfile(path):
        raise WeightsError(f"{path} is damaged or incomplete; copy or download it again")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: _from_numpy(arrays[name]) for name in arrays.files}
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise WeightsError(
                f"{path} holds Python objects beside arrays; refused, and nothing in it was run. "
                "Ask for a .safetensors file"
            ) from error
        raise WeightsError(f"{path} is damaged or no weights file ({error})") from error
    except (OSError, EOFError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise WeightsError(f"{path} is damaged or incomplete; copy or download it again") from error


def _from_numpy(array: np.ndarray[Any, Any]) -> Tensor:
    if array.dtype.kind == "V" and array.dtype.itemsize == 2:
        # bfloat16, which numpy does not know: the upper half of a float32.
        array = (array.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape))


def _read_torch(path: Path) -> dict[str, Any]:
    if not _looks_like_torch(path):
        raise WeightsError(
            f"{path} is not a checkpoint: neither a file of PyTorch's nor one of safetensors'"
        )
    if _is_program(path):
        raise WeightsError(
            f"{path} is a TorchScript program, which cannot be read without running what is in it; "
            f"if you trust it, make weights of it yourself, in Python: import torch; torch.save("
            f"torch.jit.load({str(path)!r}, map_location='cpu').state_dict(), 'weights.pth')"
        )
    try:
        with torch.serialization.safe_globals(PLAIN_CLASSES), warnings.catch_warnings():
            # A pickle of another protocol is refused or read: either way there is nothing to do.
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
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


def _is_program(path: Path) -> bool:
    """Whether a file is of ``torch.jit.save``, as OpenAI's CLIP is: code beside the tensors."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        inner = {name.partition("/")[2] for name in archive.namelist()}
    return "constants.pkl" in inner and any(name.startswith("code/") for name in inner)


def _neighbours(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f" (the folder {folder} does not exist)"
    names = sorted(p.name for p in folder.iterdir() if p.suffix in SUFFIXES)
    return f"; in that folder: {', '.join(names[:5])}" if names else ""
