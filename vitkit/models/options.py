"""Options that are one of a few words."""

from __future__ import annotations

from collections.abc import Collection

__all__ = ["check_option"]


def check_option(option: str, value: str, allowed: Collection[str]) -> None:
    """Refuse a word that an option does not know.

    Args:
        option: its name.
        value: as given.
        allowed: the words that it knows.

    Raises:
        ValueError: another word.
    """
    if value not in allowed:
        raise ValueError(f"{option} {value!r}; allowed: {', '.join(map(repr, allowed))}")
