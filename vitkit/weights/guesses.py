"""What neither the names nor the shapes of weights say, and what is taken in its place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vitkit.weights.shapes import is_like_its_preset

__all__ = ["SQUARE", "guessed", "guessed_statistics"]

SQUARE = (
    "positions taken to be a square grid, for nothing says another; if they are not, "
    "load_model(..., img_size=(height, width))"
)
NO_POSITIONS = (
    "built without positions, for the file has none; if they are computed, "
    'load_model(..., pos_embed="sincos2d") or "rotary"'
)
QUICK_GELU = (
    "activation taken to be QuickGELU, as OpenAI's own weights have it; for a tower that was "
    'trained again with GELU, load_model(..., act_layer="gelu")'
)


def guessed(
    section: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    stated: Mapping[str, Any],
    *,
    grid_known: bool,
    act_known: bool,
) -> list[str]:
    """A line for each thing about a model that was guessed.

    Args:
        section: as inferred.
        tensors: by our names.
        stated: what was not left to guessing: by the format, beside the file or by the caller.
        grid_known: whether the grid of the positions is stated.
        act_known: whether the activation is, by more than the format.
    """
    notes = []
    if "pos_embed" in tensors and not grid_known:
        notes.append(SQUARE)
    if section.get("pos_embed") == "none" and not stated.get("pos_embed"):
        notes.append(NO_POSITIONS)
    if section.get("act_layer") == "quick_gelu" and not act_known:
        notes.append(QUICK_GELU)
    if not stated.get("num_heads") and not is_like_its_preset(section):
        notes.append(
            f"num_heads taken to be {section['num_heads']}, for nothing says how many; if that is "
            "wrong, load_model(..., num_heads=)"
        )
    return notes


def guessed_statistics(preprocessing: Mapping[str, Any], name: str) -> str:
    """A line about mean and standard deviation that a file's format has, and the file does not say.

    Args:
        preprocessing: of the format.
        name: of the format.
    """
    mean, std = (_shown(preprocessing[key]) for key in ("mean", "std"))
    return f"mean {mean} and std {std} are usual for {name}; nothing says that they are these"


def _shown(values: Any) -> str:
    return ", ".join(f"{value:.4g}" for value in dict.fromkeys(values))
