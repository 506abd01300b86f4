"""What to run next, ready to paste into the shell that ran the command before."""

from __future__ import annotations

import shlex
from pathlib import Path

from vitkit.app.invocation import command_words
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
    config, weights = folder / "config.yaml", folder / "checkpoints" / "last.ckpt"
    words = [str(config), f"model.weights={weights}"]
    if config.is_file() and load_config([config]).run.dir is not None:
        words.append("run.dir=null")  # which holds this run
    command = shlex.join([*command_words("train"), *words])
    return f"To train it longer or otherwise, start a new run from its weights: {command}"
