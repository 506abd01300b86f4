"""Weights into a model, with a word about every tensor that did not simply fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from vitkit.errors import WeightsError
from vitkit.nn import resize_position_grid
from vitkit.weights.checkpoint import OWN_KEY, PREFIX
from vitkit.weights.files import read_file, read_tensors

__all__ = ["LoadReport", "load_weights"]

HEAD = "head."
COUNTER = ".num_batches_tracked"
"""BatchNorm's, which older files lack; read by nothing where its momentum is a number."""


@dataclass
class LoadReport:
    """What became of each tensor.

    Attributes:
        loaded: names taken as they were.
        resized: names resampled to the model's grid.
        new: names of the model that the source lacks (a head for other classes): kept as they are.
        unused: names of the source that the model lacks.
    """

    loaded: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """A short table, one line a kind."""
        rows = [("loaded", self.loaded), ("resized", self.resized)]
        rows += [("new", self.new), ("unused", self.unused)]
        return [f"{kind:8}{len(names):4}  {_some(names)}" for kind, names in rows if names]


def load_weights(
    model: nn.Module, source: Mapping[str, Tensor] | str | Path, *, strict: bool = True
) -> LoadReport:
    """Load timm's plain-ViT layout (which is ours) into a model.

    Learned positions are resampled to the model's grid. A head for another number of classes stays
    as the model has it.

    Args:
        model: to fill, in place.
        source: a state dict, a file of tensors, or a checkpoint of ours (averaged weights first).
        strict: any other missing or left-over tensor is an error; False reports it instead.

    Raises:
        WeightsError: tensors that do not fit, all of them named.
    """
    given = _tensors(source)
    own = model.state_dict()
    report, fitting, faults = LoadReport(), {}, []
    for name, tensor in given.items():
        if name not in own:
            report.unused.append(name)
        elif tensor.shape == own[name].shape:
            fitting[name] = tensor
            report.loaded.append(name)
        elif name == "pos_embed" and _can_resize(model, tensor):
            fitting[name] = _resized(model, tensor)
            report.resized.append(name)
        elif name.startswith(HEAD):
            report.new.append(name)
        else:
            shapes = f"{tuple(tensor.shape)}, the model has {tuple(own[name].shape)}"
            faults.append(f"{name}: given {shapes}")
    head_differs = bool(report.new)
    missing = [name for name in own if name not in given and not name.endswith(COUNTER)]
    report.new += missing
    if strict:
        faults += [f"{name}: missing" for name in missing if not name.startswith(HEAD)]
        spare = report.unused
        if not head_differs and getattr(model, "num_classes", None) == 0:
            spare = [name for name in spare if not name.startswith(HEAD)]
        faults += [f"{name}: not in the model" for name in spare]
    if faults:
        shown = "; ".join(faults[:6]) + (f"; and {len(faults) - 6} more" if len(faults) > 6 else "")
        raise WeightsError(f"the weights do not fit {type(model).__name__}: {shown}")
    model.load_state_dict(fitting, strict=False)
    return report


def _tensors(source: Mapping[str, Tensor] | str | Path) -> dict[str, Tensor]:
    if isinstance(source, Mapping):
        tensors = dict(source)
    else:
        content = read_file(source)
        own = content.get(OWN_KEY)
        if isinstance(own, dict) and own.get("averaged") is not None:
            return dict(own["averaged"])
        tensors = read_tensors(source)
    # A Lightning module's or a compiled model's prefix says nothing about the layout.
    for prefix in (PREFIX, "_orig_mod."):
        if tensors and all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _can_resize(model: nn.Module, tensor: Tensor) -> bool:
    embed = getattr(model, "patch_embed", None)
    return tensor.ndim == 3 and hasattr(embed, "grid_size") and _square_side(model, tensor) > 0


def _square_side(model: nn.Module, tensor: Tensor) -> int:
    """Side of the old grid, 0 if it was not square: a state dict does not say its grid."""
    count = int(tensor.shape[1]) - _prefix(model)
    side = round(max(count, 0) ** 0.5)
    return side if side * side == count else 0


def _prefix(model: nn.Module) -> int:
    return 0 if getattr(model, "no_embed_class", False) else int(model.num_prefix_tokens)  # type: ignore[arg-type]


def _resized(model: nn.Module, tensor: Tensor) -> Tensor:
    side = _square_side(model, tensor)
    new: tuple[int, int] = model.patch_embed.grid_size  # type: ignore[union-attr,assignment]
    return resize_position_grid(tensor, (side, side), new, num_prefix=_prefix(model))


def _some(names: list[str], count: int = 3) -> str:
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")
