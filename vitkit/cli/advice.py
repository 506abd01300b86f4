"""What to run next, ready to paste into the shell that ran the command before."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

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
        words = [*_command("probe"), run], [*_command("train"), "CONFIG...", weights]
        return [" ".join(line) for line in words]
    if task in WORDS:
        command, more = WORDS[task]
        words = [*_command("eval"), run], [*_command(command), run, *more]
        return [" ".join(line) for line in words]
    words = [*_command("eval"), run], [*_command("predict"), run, "PICTURE..."]
    return [" ".join(line) for line in words]


def train_longer(folder: Path) -> str:
    """How to go on from a finished run."""
    config, weights = folder / "config.yaml", folder / "checkpoints" / "last.ckpt"
    command = [*_command("train"), str(config), f"model.weights={weights}"]
    return f"To train it longer or otherwise, start a new run from its weights: {' '.join(command)}"


def _command(name: str) -> list[str]:
    """How a command is called by someone who called this one as it was."""
    script = Path(sys.argv[0])
    if script.name in ("train.py", "eval.py"):
        other = script.with_name(f"{name}.py")
        words = [str(other)] if other.is_file() else ["-m", "vitkit", name]
        return [_found("python", sys.executable), *words]
    if script.name == "__main__.py":
        return [_found("python", sys.executable), "-m", "vitkit", name]
    return [_found("vitkit", sys.argv[0]), name]


def _found(program: str, path: str) -> str:
    """A program's bare name where the shell finds that very one, else its path from here."""
    if (there := shutil.which(program)) and os.path.samefile(Path(there).parent, Path(path).parent):
        return program
    here = os.path.relpath(path)
    return path if here.startswith(os.pardir) else here
