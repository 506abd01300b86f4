"""Output that nobody can read any more is dropped, and the work goes on.

A long training must not end because ``head`` has seen enough, a log's disk is full or a terminal
was closed: what counts is on disk.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

__all__ = [
    "Lasting",
    "lasting_output",
    "loss",
    "results_are_on_disk",
    "tell_notes",
    "write_utf8",
]

_on_disk = False


def tell_notes(notes: Iterable[str]) -> None:
    """Beside the results: on standard error."""
    for note in notes:
        print(f"note: {note}", file=sys.stderr, flush=True)


def write_utf8() -> None:
    """Standard output in UTF-8 from here on, as text is read, whatever the locale says; a terminal
    is written to in its own way.
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and not sys.stdout.isatty():
        sys.stdout.reconfigure(encoding="utf-8", errors=sys.stdout.errors)


class Lasting(io.RawIOBase):
    """A file descriptor that leads nowhere from its first failure on, for child processes too.

    Args:
        descriptor: to write to.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        """How many bytes were written, or dropped."""
        try:
            return os.write(self._descriptor, data)
        except OSError as error:
            self.error = error
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._descriptor)
            os.close(nowhere)
            return len(data)

    def writable(self) -> bool:
        """It is for writing."""
        return True

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self._descriptor)


@contextmanager
def lasting_output() -> Iterator[list[Lasting]]:
    """Inside, printing never fails. Yields what stands under standard output and errors."""
    global _on_disk
    _on_disk = False
    before = sys.stdout, sys.stderr
    lasting: list[Lasting] = []
    sys.stdout, sys.stderr = _made_lasting(before[0], lasting), _made_lasting(before[1], lasting)
    try:
        yield lasting
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for made, stream in zip((sys.stdout, sys.stderr), before, strict=True):
            if stream is None:
                made.close()
        sys.stdout, sys.stderr = before


def results_are_on_disk() -> None:
    """Says of the command that runs that losing its output is no failure."""
    global _on_disk
    _on_disk = True


def loss(lasting: list[Lasting]) -> tuple[str, bool] | None:
    """What kept output from being written, and whether that makes the command a failure.

    A reader that has seen enough, as ``head``, is neither.
    """
    sys.stdout.flush()
    errors = [one.error for one in lasting if one.error and one.error.errno != errno.EPIPE]
    return (os.strerror(errors[0].errno or 0), not _on_disk) if errors else None


def _made_lasting(stream: TextIO | None, lasting: list[Lasting]) -> TextIO:
    if stream is None:  # closed by the shell
        return open(os.devnull, "w", encoding="utf-8")
    try:
        descriptor = stream.fileno()
        stream.flush()
    except (OSError, ValueError):  # a test's or a notebook's: there is no file beneath
        return stream
    if sys.platform == "win32" and stream.isatty():
        return stream  # Windows' consoles are written to in their own way
    raw = Lasting(descriptor)
    lasting.append(raw)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        # A file's name need not be text: shown with its bytes, rather than an end in the middle.
        errors="backslashreplace" if stream.errors == "strict" else stream.errors,
        line_buffering=stream.isatty() or stream is sys.stderr,
    )
