"""Progress of long jobs other than training: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vitkit.training.progress import PLAIN_LINE_SECONDS, clock, progress_bar, rate_text

__all__ = ["counted", "rate_text"]


@contextmanager
def counted(what: str, unit: str, *, show: bool = True) -> Iterator[Callable[[int, int], None]]:
    """Yields what a job calls with (done, total) as it goes.

    Args:
        what: shown in front.
        unit: what is counted, such as ``images``.
        show: False shows nothing.
    """
    started = shown = time.perf_counter()
    bar = progress_bar() if show and sys.stderr.isatty() else None
    task = bar.add_task(what, total=None, rate="", done="") if bar is not None else None

    def tell(done: int, total: int) -> None:
        nonlocal shown
        now = time.perf_counter()
        rate = done / max(now - started, 1e-9)
        if bar is not None and task is not None:
            if now - shown > 0.1 or done == total:
                shown = now
                bar.update(
                    task,
                    completed=done,
                    total=total,
                    done=f"{done:,}/{total:,}",
                    rate=f"{rate_text(rate)} {unit}/s",
                )
        elif show and now - shown > PLAIN_LINE_SECONDS:
            shown = now
            left = clock((total - done) / rate)
            print(
                f"  {what} {done:,}/{total:,}  {rate_text(rate)} {unit}/s  {left} left",
                file=sys.stderr,
                flush=True,
            )

    if bar is None:
        yield tell
        return
    with bar:
        yield tell
