"""Which models there are, for people; without torch unless timm's are asked for."""

from __future__ import annotations

from fnmatch import fnmatchcase

from vitkit import models
from vitkit.models.presets import CUSTOM, PRESETS, TIMM_PREFIX, matching_names

__all__ = ["model_rows"]


def model_rows(pattern: str = "*") -> list[tuple[str, str]]:
    """(name, what it is) of the models that match a shell pattern; ``timm/...`` lists timm's."""
    if pattern.startswith(TIMM_PREFIX):
        names: list[str] = models.timm_names()
        return [(name, "") for name in names if fnmatchcase(name, pattern)]
    return [
        (name, PRESETS[name].doc if name in PRESETS else CUSTOM[name])
        for name in matching_names(pattern)
    ]
