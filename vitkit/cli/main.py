"""Entry points, and how an error looks to a person: one line, a non-zero exit, no traceback."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from typing import NoReturn

import typer

from vitkit.cli import commands
from vitkit.errors import ConfigError, Interrupted, VitkitError

__all__ = ["main", "run_eval", "run_train"]

DISK_ERRORS = {errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT, errno.EPERM}


def main() -> NoReturn:
    """The ``vitkit`` command."""
    app = _app()
    app.command("train")(commands.train)
    app.command("eval")(commands.evaluate)
    app.command("predict")(commands.predict)
    app.command("models")(commands.models)
    app.command("check-data")(commands.check_data)
    app.callback()(commands.vitkit)
    _run(app, "vitkit")


def run_train() -> NoReturn:
    """``python train.py`` is ``vitkit train``."""
    app = _app()
    app.command("train")(commands.train)
    _run(app, "train.py")


def run_eval() -> NoReturn:
    """``python eval.py`` is ``vitkit eval``."""
    app = _app()
    app.command("eval")(commands.evaluate)
    _run(app, "eval.py")


def _app() -> typer.Typer:
    return typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
    )


def _run(app: Callable[..., None], name: str) -> NoReturn:
    debug = "--debug" in sys.argv
    try:
        app(prog_name=name)
    except VitkitError as error:
        _leave(error, debug)
    except KeyboardInterrupt:
        _say("interrupted before training began; nothing was lost")
        sys.exit(130)
    except BrokenPipeError:
        # The reader (head, less) has seen enough. Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        if debug or error.errno not in DISK_ERRORS:
            _unexpected(error, debug)
        _say(f"error: {error.strerror}: {error.filename or 'while writing'}")
        sys.exit(1)
    except Exception as error:
        _unexpected(error, debug)
    sys.exit(0)


def _leave(error: VitkitError, debug: bool) -> NoReturn:
    if debug and not isinstance(error, Interrupted):
        raise error
    if _is_child():
        # Rank 0 speaks for all. A child that left in good order must not look like a crash to it.
        sys.exit(0 if isinstance(error, Interrupted) else error.exit_code)
    if isinstance(error, ConfigError) and len(error.faults) > 1:
        _say(f"error: {len(error.faults)} faults in the configuration:")
        for fault in error.faults:
            _say(f"  {fault}")
    else:
        _say(str(error) if isinstance(error, Interrupted) else f"error: {error}")
    sys.exit(error.exit_code)


def _unexpected(error: Exception, debug: bool) -> NoReturn:
    if debug:
        raise error
    lines = str(error).strip().splitlines()
    _say(
        f"error: {type(error).__name__}: {lines[0] if lines else 'no message'} "
        "(not foreseen by vitkit; run again with --debug for the traceback, and please report it)"
    )
    sys.exit(1)


def _is_child() -> bool:
    return int(os.environ.get("LOCAL_RANK", "0")) > 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
