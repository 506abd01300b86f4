"""How the commands are called here, so that what is printed can be pasted."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

__all__ = ["command_words", "resume_command"]


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


def _found(program: str, path: str) -> str:
    """A program's bare name where the shell finds that very one, else its path from here."""
    if (there := shutil.which(program)) and os.path.samefile(Path(there).parent, Path(path).parent):
        return program
    try:
        here = os.path.relpath(path)
    except ValueError:  # on another drive of Windows
        return path
    return path if here.startswith(os.pardir) else here
