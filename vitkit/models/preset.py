"""What a model's name stands for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Kwargs", "Preset"]

Kwargs = dict[str, object]
"""Arguments of a family's constructor, plain data."""


@dataclass(frozen=True)
class Preset:
    """What a model name stands for.

    Attributes:
        family: key of :data:`vitkit.models.presets.FAMILIES`.
        kwargs: arguments of the family's constructor; the others keep their defaults.
        doc: one line for people.
    """

    family: str
    kwargs: Mapping[str, object] = field(default_factory=dict)
    doc: str = ""
