"""Layers of settings, one over the other: base, files from left to right, settings on the line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from vitkit.training.config import OptimizerConfig, ScheduleConfig

__all__ = ["fitting", "layered", "merge", "name_in", "replaced"]

OF_ITS_NAME: dict[str, tuple[str, tuple[str, ...]]] = {
    "optimizer": (
        OptimizerConfig.model_fields["name"].default,
        ("lr", "adamw_lr", "weight_decay", "betas", "eps", "momentum", "ns_steps"),
    ),
    "schedule": (ScheduleConfig.model_fields["name"].default, ("warmup",)),
}
"""Section -> its ``name`` where none is given, and the keys whose usual values the name decides."""

ONE_CYCLE = "one_cycle"
"""The only schedule with a usual warm-up of its own; the others trade shapes and keep theirs."""


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """A new mapping: ``above`` over ``below``, mappings merged key by key, all else replaced."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            result[key] = merge(old, value)
        else:
            result[key] = value
    return result


def replaced(below: Mapping[str, Any], above: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted keys of what :func:`merge` takes from ``above`` whole; groups that it merges are none.

    Args:
        below, above: as of :func:`merge`.
        prefix: of all keys.
    """
    for key, value in above.items():
        old = below.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            yield from replaced(old, value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def layered(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Sections over sections, without what belongs to an optimiser that is replaced."""
    return merge(fitting(below, above), above)


def fitting(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """``below`` without what belongs to an optimiser or a schedule that ``above`` replaces.

    A rate of Muon's is none for AdamW: who names another optimiser gets what is usual for that one,
    or says otherwise in the same layer or a later one.
    """
    kept = dict(below)
    for section, (default, keys) in OF_ITS_NAME.items():
        part, new = below.get(section), name_in(section, above)
        if new is None or not isinstance(part, Mapping):
            continue
        old = part.get("name", default)
        if old != new and (section == "optimizer" or ONE_CYCLE in (old, new)):
            kept[section] = {key: value for key, value in part.items() if key not in keys}
    return kept


def name_in(section: str, layer: Mapping[str, Any]) -> Any:
    """The ``name`` that a layer gives a section; None if it gives none."""
    part = layer.get(section)
    return part.get("name") if isinstance(part, Mapping) else None
