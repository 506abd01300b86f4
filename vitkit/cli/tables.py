"""Plain tables that fit 80 columns and survive a pipe."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from vitkit.records import Record

__all__ = ["metric_table", "model_lines", "seed_table"]


def metric_table(metrics: Mapping[str, float]) -> str:
    """One line a metric; accuracies as percentages."""
    rows = [(name, _shown(name, value)) for name, value in metrics.items()]
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join(f"{name:<{width}}  {value:>9}" for name, value in rows)


def seed_table(records: Mapping[int, Record], summary: Record) -> str:
    """One line a seed, then mean and standard deviation."""
    names = [name for name in next(iter(records.values())).metrics if name.startswith("test/")]
    rows = [["seed", *names, "seconds"]]
    for seed, record in records.items():
        shown = [_shown(name, record.metrics[name]) for name in names]
        rows.append([str(seed), *shown, f"{record.facts['wall_seconds']}"])
    for kind in ("mean", "sd"):
        shown = [_shown(name, summary.metrics[f"{name}/{kind}"]) for name in names]
        rows.append([kind, *shown, ""])
    return "\n".join("".join(f"{cell:>11}" for cell in row).rstrip() for row in rows)


def model_lines(rows: Sequence[tuple[str, str]], width: int | None = None) -> list[str]:
    """A line a model: its name and what it is.

    Args:
        rows: of both.
        width: columns to wrap at, below the second column; None does not wrap.
    """
    lines = []
    for name, doc in rows:
        line = f"{name:<33} {doc}".rstrip()
        if width is None or width < 60:
            lines.append(line)
        else:
            lines += textwrap.wrap(line, width, subsequent_indent=" " * 34, break_on_hyphens=False)
    return lines


def _shown(name: str, value: float) -> str:
    return f"{value:.2%}" if "/acc" in name else f"{value:.4f}"
