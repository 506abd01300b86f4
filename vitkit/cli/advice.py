"""What to run next, ready to paste into the shell that ran the command before."""

from __future__ import annotations

import shlex
from pathlib import Path

from vitkit.app.invocation import command_words, restart_command, resume_command
from vitkit.config import load_config

__all__ = ["next_commands", "train_longer"]

PRETRAINING = ("mae", "dino")
"""Tasks whose models know no classes yet."""

WORDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "language_model": ("generate", ()),
    "translation": ("translate", ("TEXT_FILE",)),
}
"""Tasks on words -> the command that uses their models, and what else it takes."""


def next_commands(folder: Path, task: str = "classification") -> list[str]:
    """Commands about a finished run.

    Args:
        folder: of the run.
        task: what it learned.
    """
    run = shlex.quote(str(folder))
    if task in PRETRAINING:
        weights = shlex.quote(f"model.weights={folder / 'checkpoints' / 'last.ckpt'}")
        words = [*command_words("probe"), run], [*command_words("train"), "CONFIG...", weights]
        return [" ".join(line) for line in words]
    if task in WORDS:
        command, more = WORDS[task]
        words = [*command_words("eval"), run], [*command_words(command), run, *more]
        return [" ".join(line) for line in words]
    words = [*command_words("eval"), run], [*command_words("predict"), run, "PICTURE..."]
    return [" ".join(line) for line in words]


def train_longer(folder: Path) -> str:
    """How to go on from a finished run."""
    from vitkit.app.lengths import obstacle

    recipe, last = folder / "config.yaml", folder / "checkpoints" / "last.ckpt"
    config = load_config([recipe]) if recipe.is_file() else None
    anew = restart_command(recipe, config, last)
    if config is not None and obstacle(config, last):
        return f"To train it longer or otherwise, start a new run from its weights: {anew}"
    extended = f"{resume_command(folder)} --extend EPOCHS"
    return f"To train it longer: {extended}; or start a new run from its weights: {anew}"
