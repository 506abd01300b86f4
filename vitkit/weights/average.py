"""The mean of several checkpoints of one training, as an ordinary checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitkit.errors import WeightsError, first_line
from vitkit.records import write_beside
from vitkit.weights.checkpoint import OWN_KEY, checkpoint_of
from vitkit.weights.files import read_file

__all__ = ["average_files", "require_new", "write_checkpoint"]

SAME = ("config", "model", "data", "preprocessing", "tokenizer")
"""What checkpoints must agree in, of what they say beside the weights."""


def average_files(paths: Sequence[Path]) -> dict[str, Any]:
    """What a checkpoint holds whose weights are the mean of others'.

    Each floating-point tensor is summed in float64 and cast back to its own type: parameters, the
    statistics of batch norm (averaged as they are, not measured anew), and, where the training kept
    a moving average, that one too. Integer buffers and all else are those of the newest. Beside the
    step of the newest it holds ``average_of_steps``, the steps of all.

    Source: the averaged checkpoints of A. Vaswani et al., "Attention is all you need" (arXiv
    1706.03762), section 6.1.

    Args:
        paths: checkpoints of ours, two or more, in any order.

    Raises:
        WeightsError: fewer than two, the same one twice, of different trainings, or not ours.
    """
    if len(paths) < 2:
        raise WeightsError(f"nothing to average: {len(paths)} checkpoint given, two are needed")
    newest: dict[str, Any] = {}
    sums: dict[str, dict[str, Tensor]] = {}
    seen: dict[int, Path] = {}
    for path in paths:
        content = read_file(path)
        step = checkpoint_of(content, path).step
        if newest:
            _require_alike(paths[0], newest[OWN_KEY], path, content[OWN_KEY])
        if step in seen:
            raise WeightsError(
                f"{seen[step]} and {path} both hold step {step:,}; give each checkpoint once"
            )
        _add(sums, content, path)
        if step > max(seen, default=-1):
            newest = content
        seen[step] = path
    _set_means(newest, sums, len(paths))
    newest[OWN_KEY]["average_of_steps"] = sorted(seen)
    return newest


def require_new(path: Path) -> None:
    """Raise :class:`WeightsError` if there is such a file already."""
    if path.exists():
        raise WeightsError(f"{path} exists and is not overwritten; choose another --output")


def write_checkpoint(content: Mapping[str, Any], path: Path) -> None:
    """Write what a checkpoint holds, beside its place first.

    Raises:
        WeightsError: there is such a file already, or it cannot be written.
    """
    require_new(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_beside(path, lambda beside: torch.save(dict(content), beside))
    except (OSError, RuntimeError) as error:
        raise WeightsError(
            f"cannot write {path}: {first_line(error)}; choose another --output"
        ) from error


def _require_alike(
    first: Path, ours: Mapping[str, Any], path: Path, theirs: Mapping[str, Any]
) -> None:
    """Refuse a checkpoint of another training.

    Raises:
        WeightsError: it says which sections of the config differ, or what else does.
    """
    for key in SAME:
        if ours.get(key) == theirs.get(key):
            continue
        differ = key
        if key == "config":
            one, two = ours[key], theirs[key]
            names = sorted({*one, *two})
            sections = [name for name in names if one.get(name) != two.get(name)]
            differ = f"config ({', '.join(sections)})"
        raise WeightsError(
            f"{first} and {path} are of different trainings: their {differ} differ; average the "
            "checkpoints of one run"
        )


def _groups(content: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The state dicts of a checkpoint: the weights as trained, and a moving average if there is."""
    groups = {"trained": content["state_dict"]}
    if content[OWN_KEY].get("averaged") is not None:
        groups["averaged"] = content[OWN_KEY]["averaged"]
    return groups


def _add(sums: dict[str, dict[str, Tensor]], content: Mapping[str, Any], path: Path) -> None:
    """Add the floating-point tensors of a checkpoint to the sums.

    Raises:
        WeightsError: it has other tensors than those before.
    """
    found = {
        name: {key: t for key, t in state.items() if _is_floating(t)}
        for name, state in _groups(content).items()
    }
    if not sums:
        sums.update({name: {k: t.double() for k, t in s.items()} for name, s in found.items()})
        return
    shapes = [
        {name: {key: t.shape for key, t in state.items()} for name, state in some.items()}
        for some in (sums, found)
    ]
    if shapes[0] != shapes[1]:
        raise WeightsError(f"{path} has other tensors than the checkpoints before it")
    for name, state in found.items():
        for key, tensor in state.items():
            sums[name][key] = sums[name][key] + tensor.double()


def _set_means(content: dict[str, Any], sums: Mapping[str, dict[str, Tensor]], count: int) -> None:
    """Put the means in the place of a checkpoint's floating-point tensors."""
    for name, state in _groups(content).items():
        for key, total in sums[name].items():
            state[key] = (total / count).to(state[key].dtype)


def _is_floating(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()
