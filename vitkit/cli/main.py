"""Entry points, and how an error looks to a person: one line, a non-zero exit, no traceback."""

from __future__ import annotations

import errno
import functools
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import typer
from typer.main import get_command

from vitkit.app.invocation import is_child
from vitkit.cli import (
    averaging,
    checking,
    commands,
    evaluation,
    inspection,
    probing,
    reports,
    training,
    words,
)
from vitkit.cli.output import lasting_output, loss
from vitkit.errors import ConfigError, Interrupted, VitkitError

__all__ = ["main", "run_eval", "run_train"]

WITHOUT_SETTINGS = {
    "average",
    "compare",
    "export",
    "generate",
    "models",
    "predict",
    "report",
    "translate",
}
"""Commands that take none."""

DISK_ERRORS = {errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT, errno.EPERM}


def main() -> NoReturn:
    """The ``vitkit`` command."""
    app = _app()
    app.command("train", short_help="Train a model, test it, keep the results.")(
        _command(training.train)
    )
    app.command("eval", short_help="Evaluate runs or weights.")(_command(evaluation.evaluate))
    app.command("predict", short_help="Name the classes of pictures.")(_command(commands.predict))
    app.command("inspect", short_help="Look inside a model.")(_command(inspection.inspect))
    app.command("probe", short_help="Measure what frozen features are worth.")(
        _command(probing.probe)
    )
    app.command("generate", short_help="Go on with a text.")(_command(words.generate))
    app.command("translate", short_help="Translate sentences.")(_command(words.translate))
    app.command("report", short_help="Make the page of a run again.")(_command(reports.report))
    app.command("compare", short_help="Make one page of several runs.")(_command(reports.compare))
    app.command("export", short_help="Write a model for other libraries.")(
        _command(commands.export)
    )
    app.command("average", short_help="Average checkpoints of a run.")(_command(averaging.average))
    app.command("models", short_help="List the models.")(_command(commands.models))
    app.command("check-data", short_help="Look through a data set before training.")(
        _command(checking.check_data)
    )
    app.callback(invoke_without_command=True)(commands.vitkit)
    _run(app, "vitkit")


def run_train() -> NoReturn:
    """``python train.py`` is ``vitkit train``."""
    app = _app()
    app.command("train")(_command(training.train))
    _run(app, "train.py")


def run_eval() -> NoReturn:
    """``python eval.py`` is ``vitkit eval``."""
    app = _app()
    app.command("eval")(_command(evaluation.evaluate))
    _run(app, "eval.py")


def _app() -> typer.Typer:
    return typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
    )


def _run(app: typer.Typer, name: str) -> NoReturn:
    with lasting_output() as streams, _quiet_threads():
        code = _exit_code(app, name)
        if (lost := loss(streams)) is not None:
            reason, failed = lost
            _say(f"{'error' if failed else 'note'}: output could not be written: {reason}")
            code = code or int(failed)
    sys.exit(code)


@contextmanager
def _quiet_threads() -> Iterator[None]:
    """No traceback of a library's thread that meets a full disk: who waits for it says so."""
    before = threading.excepthook

    def hook(failure: threading.ExceptHookArgs) -> None:
        disk = isinstance(failure.exc_value, OSError) and failure.exc_value.errno in DISK_ERRORS
        if "--debug" in sys.argv or not disk:
            before(failure)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before


def _exit_code(app: typer.Typer, name: str) -> int:
    """Run a command; whatever goes wrong becomes a line and an exit code."""
    debug = "--debug" in sys.argv
    try:
        app(prog_name=name)
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
        if code == 2:
            _hint_at_settings(sys.argv[1:], _options(app, sys.argv[1:]))
        return code
    except VitkitError as error:
        return _told(error, debug)
    except OSError as error:
        if debug or error.errno not in DISK_ERRORS:
            return _unexpected(error, debug)
        _say(f"error: {error.strerror}: {error.filename or 'while writing'}")
        return 1
    except Exception as error:
        return _unexpected(error, debug)
    return 0


def _command(function: Callable[..., None]) -> Callable[..., None]:
    """Ctrl-C and a broken pipe end in our words: Typer would leave without any."""

    @functools.wraps(function)
    def guarded(*args: object, **kwargs: object) -> None:
        try:
            function(*args, **kwargs)
        except KeyboardInterrupt:
            raise Interrupted(
                "interrupted; what was written before is whole", signal.SIGINT
            ) from None
        except BrokenPipeError as error:
            raise RuntimeError(f"a process of this command is gone ({error})") from error

    return guarded


def _told(error: VitkitError, debug: bool) -> int:
    if debug and not isinstance(error, Interrupted):
        raise error
    if is_child():
        # Rank 0 speaks for all. A child that left in good order must not look like a crash to it.
        return 0 if isinstance(error, Interrupted) else error.exit_code
    if isinstance(error, ConfigError) and len(error.faults) > 1:
        _say(f"error: {len(error.faults)} faults in the configuration:")
        for fault in error.faults:
            _say(f"  {fault}")
    else:
        _say(str(error) if isinstance(error, Interrupted) else f"error: {error}")
    return error.exit_code


def _unexpected(error: Exception, debug: bool) -> int:
    if debug:
        raise error
    lines = str(error).strip().splitlines()
    _say(
        f"error: {type(error).__name__}: {lines[0] if lines else 'no message'} "
        "(not foreseen by vitkit; run again with --debug for the traceback, and please report it)"
    )
    return 1


def _options(app: typer.Typer, words: list[str]) -> set[str]:
    """Those of the command that the words call."""
    command: Any = get_command(app)
    several = getattr(command, "commands", {})  # train.py is but one
    command = several.get(words[0] if words else "", command)
    return {"--help", *(name for p in command.params for name in (*p.opts, *p.secondary_opts))}


def _hint_at_settings(words: list[str], options: set[str]) -> None:
    """After a usage error: an option that the command has not may be meant as a setting."""
    from vitkit.config import suggest_key

    if words[:1] and words[0] in WITHOUT_SETTINGS:
        return
    for word, after in zip(words, [*words[1:], ""], strict=False):
        name, _, value = word.partition("=")
        if name.startswith("--") and name not in options and (key := suggest_key(name)):
            value = value or ("..." if after.startswith("-") or "=" in after else after or "...")
            _say(f"Settings are written without dashes: did you mean {key}={value}?")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
