"""All chapters that need no trained model, one after the other."""

from __future__ import annotations

import sys
from importlib import import_module

CHAPTERS = (
    *("recurrence", "search", "two_tokens", "heads", "masks", "transformer"),
    *("patches", "vit", "mixers", "two_views"),
)


def main(arguments: list[str]) -> None:
    """Give the same words to each chapter."""
    for chapter in CHAPTERS:
        print(f"\n{chapter}")
        import_module(f"examples.story.{chapter}").main(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
