"""Names of classes from a file, for weights that do not bring their own."""

from __future__ import annotations

import json
from pathlib import Path

from vitkit.errors import DataError

__all__ = ["read_class_names"]


def read_class_names(path: str | Path) -> tuple[str, ...]:
    """Class names by index.

    Args:
        path: JSON, ``["daisy", ...]`` or ``{"0": "daisy", ...}`` (``class_indices.json`` of other
            training scripts); or text, a name a line.

    Raises:
        DataError: missing, neither of them, or empty, or indices that do not count from 0.
    """
    path = Path(path)
    names = _names_in(path)
    if not names:
        raise DataError(f"{path} names no classes; it should, in JSON or a line each")
    return names


def _names_in(path: Path) -> tuple[str, ...]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no text in UTF-8"
        raise DataError(
            f"{path} cannot be read ({reason}); it should name the classes, in JSON or a line each"
        ) from error
    if path.suffix != ".json":
        return tuple(line.strip() for line in text.splitlines() if line.strip())
    try:
        content = json.loads(text)
    except ValueError as error:
        raise DataError(f"{path} is no JSON: {error}") from error
    names = _by_index(content) if isinstance(content, dict) else content
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f'{path} should hold ["daisy", ...] or {{"0": "daisy", "1": ...}}')
    return tuple(names)


def _by_index(content: dict[str, object]) -> list[object] | None:
    """Values in the order of their keys, if these are 0, 1, 2, ..."""
    places = [str(index) for index in range(len(content))]
    return [content[place] for place in places] if set(places) == set(content) else None
