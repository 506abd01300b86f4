"""Where weights come from: a state dict, a file, a folder, or a model by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vitkit.errors import WeightsError
from vitkit.weights.checkpoint import (
    OWN_KEY,
    Checkpoint,
    checkpoint_of,
    require_version,
    spare_names,
    tested_name,
    trained_weights,
    without_adapters,
)
from vitkit.weights.files import SUFFIXES, read_file, read_json, tensors_in
from vitkit.weights.hub import (
    HUB_PREFIX,
    TIMM_PREFIX,
    TORCHVISION_PREFIX,
    hub_file,
    hub_folder,
    timm_model,
    torchvision_model,
)
from vitkit.weights.stated import ACTIVATIONS, Stated, from_config, stated_by_timm, with_processor

__all__ = ["Source", "files_beside", "own_checkpoint", "read_source"]

WEIGHT_FILES = (
    *("model.safetensors", "model.safetensors.index.json"),
    *("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
"""What a folder's weights are called by custom, in the order of preference."""

TENSORS_ALONE = (".safetensors", ".npz", ".json")
"""Suffixes of files that hold tensors, or name those that do: none is a checkpoint of ours."""


@dataclass(frozen=True)
class Source:
    """Tensors as they were found, and what is said beside them.

    Attributes:
        where: for messages.
        tensors: by the names of their format.
        stated: facts about the model.
        spare: names of tensors that pre-training alone needed -> what they are.
    """

    where: str
    tensors: dict[str, Tensor]
    stated: Stated = field(default_factory=Stated)
    spare: dict[str, str] = field(default_factory=dict)

    @property
    def needed(self) -> dict[str, Tensor]:
        """Without the spare ones."""
        return {name: tensor for name, tensor in self.tensors.items() if name not in self.spare}


def read_source(source: Mapping[str, Tensor] | str | Path) -> Source:
    """Read weights from wherever they are.

    Args:
        source: a state dict, or what ``torch.load`` gives of a training file; a file
            (``.safetensors``, ``.npz``, ``.pth``, ``.pt``, ``.bin``, ``.ckpt``); a run's folder; a
            folder with ``config.json`` and weights; ``hf-hub:<id>``, ``timm/<name>`` or
            ``torchvision/<name>``, which may need the network.

    Raises:
        WeightsError: nothing there, damaged, unsafe, or out of reach.
        UnknownNameError: no such model of timm.
    """
    if isinstance(source, Mapping):
        return _of_content(source, Path("the state dict"), Stated())
    name = str(source)
    if name.startswith(HUB_PREFIX):
        return _from_folder(hub_folder(name.removeprefix(HUB_PREFIX), WEIGHT_FILES), name)
    path = Path(source)
    if path.is_dir():
        return _from_folder(path, name)
    if path.is_file():
        return _from_file(path)
    if name.startswith(TIMM_PREFIX):
        return _from_timm(name, timm_model(name))
    if name.startswith(TORCHVISION_PREFIX):
        tensors, preprocessing, classes = torchvision_model(name)
        return Source(name, tensors, Stated({}, preprocessing, classes))
    return _from_file(path)  # says that it is not there


def own_checkpoint(source: str | Path) -> Checkpoint | None:
    """The checkpoint of ours that :func:`read_source` would read; None where it would read another.

    Args:
        source: a file, of whatever suffix, or a folder, such as a run's; a model by name is none.

    Raises:
        WeightsError: damaged, unsafe, newer than this version can read, or a folder of many files.
    """
    path = Path(source)
    if path.is_dir():
        path, _ = _file_of(path, str(source))
    if not path.is_file() or path.suffix in TENSORS_ALONE:
        return None
    content = read_file(path)
    return checkpoint_of(content, path) if OWN_KEY in content else None


def files_beside(source: str | Path, names: Sequence[str]) -> list[Path] | None:
    """Files that lie beside the weights of a source; None unless all do.

    Args:
        source: a file, a folder, or ``hf-hub:<owner>/<model>``, whose files are fetched.
        names: of the files.

    Raises:
        WeightsError: the hub is out of reach.
    """
    text = str(source)
    if text.startswith(HUB_PREFIX):
        found = [hub_file(text.removeprefix(HUB_PREFIX), name) for name in names]
        return None if None in found else [path for path in found if path is not None]
    folder = Path(source) if Path(source).is_dir() else Path(source).parent
    paths = [folder / name for name in names]
    return paths if all(path.is_file() for path in paths) else None


def _from_file(path: Path, *, alone: bool = False) -> Source:
    """Of a file; what the files beside it say counts if it has a usual name or lies ``alone``."""
    told = alone or path.name in WEIGHT_FILES
    return _of_content(read_file(path), path, _beside(path) if told else Stated())


def _of_content(content: Mapping[str, Any], path: Path, stated: Stated) -> Source:
    own = content.get(OWN_KEY)
    if isinstance(own, dict) and isinstance(content.get("state_dict"), dict):
        require_version(own, path)
        return Source(str(path), *_own(own, content["state_dict"]))
    tensors = tensors_in(content)
    if not tensors:
        raise WeightsError(f"{path} holds no tensors; expected a state dict")
    return Source(str(path), tensors, stated)


def _own(
    own: Mapping[str, Any], state: Mapping[str, Any]
) -> tuple[dict[str, Tensor], Stated, dict[str, str]]:
    """Of a checkpoint of ours: averaged weights first, adapters merged, and all that it says."""
    tensors = own.get("averaged") or trained_weights(state)
    data = own.get("data") or {}
    stated = Stated(
        preprocessing=dict(own.get("preprocessing") or {}),
        class_names=tuple(data.get("class_names") or ()),
        section=dict(own["model"]) if own.get("model") else None,
    )
    plain = without_adapters(tensors, own.get("config") or {})
    return plain, stated, spare_names(tensors, own.get("pretraining") or {})


def _beside(path: Path) -> Stated:
    """What ``config.json`` and ``preprocessor_config.json`` beside a file say."""
    stated = Stated()
    if (config := path.with_name("config.json")).is_file():
        stated = from_config(read_json(config))
    processor = path.with_name("preprocessor_config.json")
    if stated.section is None and processor.is_file():  # ours says it all, and to more digits
        stated = with_processor(stated, read_json(processor))
    return stated


def _from_folder(folder: Path, where: str) -> Source:
    path, alone = _file_of(folder, where)
    return dataclasses.replace(_from_file(path, alone=alone), where=where)


def _file_of(folder: Path, where: str) -> tuple[Path, bool]:
    """The file that a folder's weights are in, and whether it is there without a usual name."""
    named = next((folder / n for n in WEIGHT_FILES if (folder / n).is_file()), None)
    named = _of_run(folder) if named is None else named
    if named is not None:
        return named, False
    files = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)
    if len(files) != 1:
        shown = ", ".join(path.name for path in files[:5]) or "no file of weights"
        raise WeightsError(f"{where} holds {shown}; give the file itself")
    return files[0], True


def _of_run(folder: Path) -> Path | None:
    """The checkpoint of a run: the tested one, or else the last; None in another folder."""
    paths = (folder / "checkpoints" / name for name in (tested_name(folder), "last.ckpt") if name)
    return next((path for path in paths if path.is_file()), None)


def _from_timm(name: str, model: nn.Module) -> Source:
    built: Any = model
    pool = getattr(built, "global_pool", None)
    stated = stated_by_timm(
        name.removeprefix(TIMM_PREFIX),
        getattr(built, "pretrained_cfg", None),
        # No shape shows it of a mean of normed patches.
        global_pool=pool if pool in ("token", "avg", "max", "map") else None,
    )
    arguments = {**stated.arguments, **_arguments_of(built)}
    stated = dataclasses.replace(
        stated, arguments=arguments, published_as=name.removeprefix(TIMM_PREFIX)
    )
    return Source(name, model.state_dict(), stated)


def _arguments_of(model: Any) -> dict[str, Any]:
    """What the names of a ViT of timm do not show, read off the modules."""
    blocks: Any = getattr(model, "blocks", None)
    stacked = isinstance(blocks, nn.Sequential | nn.ModuleList) and len(blocks) > 0
    block: Any = blocks[0] if stacked else None
    if block is None or not hasattr(getattr(block, "attn", None), "num_heads"):
        return {}
    kinds = {"GELU": "gelu", "GELUTanh": "gelu_tanh", "QuickGELU": "quick_gelu"}
    kinds |= {"SiLU": "silu", "ReLU": "relu"}
    kind = type(getattr(block.mlp, "act", nn.GELU())).__name__
    if kind not in kinds:
        allowed = ", ".join(sorted(set(ACTIVATIONS.values())))
        raise WeightsError(f"the model's activation is {kind}; vitkit has {allowed}")
    out = {"num_heads": block.attn.num_heads, "norm_eps": getattr(block.norm1, "eps", 1e-6)}
    return out if kinds[kind] == "silu" else {**out, "act_layer": kinds[kind]}
