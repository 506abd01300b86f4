"""What several commands make of the words behind them."""

from __future__ import annotations

from typing import Annotated

import typer

from vitkit.errors import ConfigError

__all__ = ["Settings", "models_and_settings"]

Settings = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[FILE | KEY=VALUE]...",
        help="YAML files, then settings such as data.name=cifar10 or optimizer.lr=1e-3.",
        show_default=False,
    ),
]


def models_and_settings(
    words: list[str],
) -> tuple[list[str | tuple[str, str]], list[str]]:
    """What to evaluate, and settings; ``weights=`` belongs to the name before it."""
    from vitkit.config import is_setting

    models: list[str | tuple[str, str]] = []
    settings: list[str] = []
    for word in words:
        key, _, value = word.partition("=")
        if not is_setting(word):
            models.append(word)
        elif key != "weights":
            settings.append(word)
        elif not models or isinstance(models[-1], tuple):
            raise ConfigError(f"{word}: put it behind the model that it is for, timm:NAME {word}")
        else:
            models[-1] = (str(models[-1]), value)
    return models, settings
