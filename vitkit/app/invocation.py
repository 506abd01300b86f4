"""How the commands are called here, so that what is printed can be pasted."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

from vitkit.config import RunConfig
from vitkit.training.task_config import ClassificationConfig

__all__ = ["command_words", "is_child", "restart_command", "resume_command"]


def is_child() -> bool:
    """Whether this is not the first of a training's processes, which speaks for all."""
    return int(os.environ.get("LOCAL_RANK", "0")) > 0


def command_words(name: str) -> list[str]:
    """How a command is called by someone who called this process as it was.

    Args:
        name: of the command, such as ``eval``.

    Returns:
        Words of a command line; ``vitkit <name>`` where no command of ours was called.
    """
    script = Path(sys.argv[0])
    if script.name in ("train.py", "eval.py"):
        other = script.with_name(f"{name}.py")
        words = [str(other)] if other.is_file() else ["-m", "vitkit", name]
        return [_found("python", sys.executable), *words]
    if script.parts[-2:] == ("vitkit", "__main__.py"):
        return [_found("python", sys.executable), "-m", "vitkit", name]
    return [_found("vitkit", sys.argv[0]) if script.stem == "vitkit" else "vitkit", name]


def resume_command(folder: Path) -> str:
    """The command that goes on with a run."""
    return shlex.join([*command_words("train"), "--resume", str(folder)])


def restart_command(recipe: Path, config: RunConfig | None, weights: Path) -> str:
    """The command that begins a new run like another one, from weights that this one has trained.

    Args:
        recipe: the other run's ``config.yaml``.
        config: what it says, if that is known.
        weights: a checkpoint.
    """
    words = [str(recipe), f"model.weights={weights}"]
    if config is not None:
        words += _other_beginning(config)
    return shlex.join([*command_words("train"), *words])


def _other_beginning(config: RunConfig) -> list[str]:
    """Settings in place of those by which a run began: its folder, and what it made of its model's
    weights or head before the first step.
    """
    words = ["run.dir=null"] if config.run.dir else []
    task = config.task
    if isinstance(task, ClassificationConfig):
        words += ["task.finetune.head=null"] if task.finetune.head else []
        words += ["task.finetune.zero_head=false"] if task.finetune.zero_head else []
    return words


def _found(program: str, path: str) -> str:
    """A program's bare name where the shell finds that very one, else its path from here."""
    if (there := shutil.which(program)) and os.path.samefile(Path(there).parent, Path(path).parent):
        return program
    try:
        here = os.path.relpath(path)
    except ValueError:  # on another drive of Windows
        return path
    return path if here.startswith(os.pardir) else here
