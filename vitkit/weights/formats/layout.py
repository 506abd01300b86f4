"""What a format of weights is: how it is recognised, and how its names become ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "BEHIND_REPRESENTATION",
    "CIFAR",
    "HALF",
    "IMAGENET",
    "Format",
    "Names",
    "Resampling",
    "Shapes",
    "Translated",
    "block_indices",
    "join_parts",
    "left_out",
]

BEHIND_REPRESENTATION = "a representation layer, which the model lacks, and the head behind it"
"""Why a head is left out whose input is a layer that our models do not have."""

Shapes = Mapping[str, tuple[int, ...]]
"""Shape of each tensor by its name."""

_IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
_HALF = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
_CIFAR = {"mean": [0.4914, 0.4822, 0.4465], "std": [0.2470, 0.2435, 0.2616]}
IMAGENET: dict[str, Any] = {**_IMAGENET, "interpolation": "bicubic", "crop_pct": 0.875}
"""ImageNet's statistics; the shorter side resized to 8/7 of the input, the centre cut out."""
HALF: dict[str, Any] = {**_HALF, "interpolation": "bicubic", "crop_pct": 0.9}
"""Pixels to [-1, 1], as timm evaluates Google's weights and its own."""
CIFAR: dict[str, Any] = {**_CIFAR, "interpolation": "bicubic", "crop_pct": 1.0}
"""CIFAR-10's statistics at its own size."""


@dataclass(frozen=True)
class Resampling:
    """How a format's own library brings learned positions to another grid.

    Attributes:
        mode, antialias, align_corners: as in ``torch.nn.functional.interpolate``.
        offset: added to the rows and columns wanted, in the scale alone.
    """

    mode: str = "bicubic"
    antialias: bool = True
    align_corners: bool = False
    offset: float = 0.0


@dataclass
class Translated:
    """A file's tensors under our names.

    Attributes:
        tensors: by our names.
        left: names of the file -> why nothing of ours reads them; known, so no error.
        arguments: constructor arguments that the tensors of this format show.
        notes: what else a person should know about them, a line each.
        embeds: whether the head makes embeddings instead of scores of classes.
    """

    tensors: dict[str, Tensor]
    left: dict[str, str] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    embeds: bool = False


@dataclass(frozen=True)
class Format:
    """A layout of weights that somebody publishes.

    Attributes:
        name: for people.
        recognise: whether a file is of this format, by names and shapes alone.
        translate: to our names.
        arguments: constructor arguments that the format fixes and its names do not show.
        preprocessing: mean, std, interpolation, ... that it documents, for files that state none.
        resampling: how its library resizes learned positions.
        reads_words: whether its models read words and not pictures.
        of_imagenet: whether its classifiers are ImageNet's, for hardly anybody but its authors
            writes it, and these publish such.
    """

    name: str
    recognise: Callable[[Shapes], bool]
    translate: Callable[[Mapping[str, Tensor]], Translated]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    resampling: Resampling = Resampling()
    reads_words: bool = False
    of_imagenet: bool = False


class Names:
    """A table of names, read in both directions.

    Args:
        pairs: (theirs, ours); ``{i}`` stands for a number. A pair of modules stands for their
            ``weight`` and ``bias`` too. Where several pairs fit, the first one counts.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self._pairs = [(_pattern(a), a, _pattern(b), b) for a, b in pairs]

    def to_ours(self, name: str) -> str | None:
        """Our name for one of theirs; None if the table lacks it."""
        for theirs, _, _, ours in self._pairs:
            if match := theirs.fullmatch(name):
                return _filled(ours, match)
        return None

    def from_ours(self, name: str) -> str | None:
        """Their name for one of ours; None if the table lacks it."""
        for _, theirs, ours, _ in self._pairs:
            if match := ours.fullmatch(name):
                return _filled(theirs, match)
        return None

    def translate(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All tensors under our names; one that the table lacks keeps its own."""
        return {self.to_ours(name) or name: tensor for name, tensor in tensors.items()}


def join_parts(
    tensors: Mapping[str, Tensor], parts: tuple[str, ...], whole: str
) -> dict[str, Tensor]:
    """Rows of several layers as those of one: q, k and v as ``qkv``.

    Args:
        tensors: by name.
        parts: names of the layers inside a block, in the order of their rows.
        whole: name of the one layer.
    """
    first = re.compile(rf"(.*\.){re.escape(parts[0])}(\.weight|\.bias)")
    joined: dict[str, Tensor] = {}
    used = set()
    for name in tensors:
        match = first.fullmatch(name)
        names = [f"{match[1]}{part}{match[2]}" for part in parts] if match else []
        if match and all(part in tensors for part in names):
            joined[f"{match[1]}{whole}{match[2]}"] = torch.cat([tensors[part] for part in names])
            used.update(names)
    return {**{name: tensor for name, tensor in tensors.items() if name not in used}, **joined}


def left_out(
    tensors: Mapping[str, Tensor], reasons: Mapping[str, str]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors without those whose name fits a regular expression, and the reasons for these."""
    kept, left = {}, {}
    for name, tensor in tensors.items():
        why = next((why for fit, why in reasons.items() if re.fullmatch(fit, name)), None)
        if why is None:
            kept[name] = tensor
        else:
            left[name] = why
    return kept, left


def block_indices(names: Iterable[str]) -> list[int]:
    """The numbers of the blocks under our names, sorted."""
    found = {int(match[1]) for name in names if (match := re.match(r"blocks\.(\d+)\.", name))}
    return sorted(found)


def _pattern(template: str) -> re.Pattern[str]:
    fixed = re.escape(template).replace(r"\{i\}", r"(?P<i>\d+)")
    return re.compile(rf"{fixed}(?P<leaf>\.weight|\.bias|)")


def _filled(template: str, match: re.Match[str]) -> str:
    found = match.groupdict()
    return template.replace("{i}", found.get("i") or "") + found["leaf"]
