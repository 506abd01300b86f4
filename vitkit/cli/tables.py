"""Plain tables that fit 80 columns and survive a pipe."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from vitkit.records import Record, is_share

if TYPE_CHECKING:
    from vitkit.app.evaluator import Paired

__all__ = [
    "comparison_table",
    "metric_table",
    "model_lines",
    "paired_lines",
    "seed_table",
    "split_table",
]

WIDTH = 80
COLUMN = 11


def metric_table(metrics: Mapping[str, float]) -> str:
    """One line a metric; accuracies as percentages."""
    rows = [(name, _shown(name, value)) for name, value in metrics.items()]
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join(f"{name:<{width}}  {value:>9}" for name, value in rows)


def comparison_table(models: Sequence[Mapping[str, float]]) -> str:
    """One line a metric, one column a model, numbered from 1; in blocks of 80 columns."""
    return _columns([str(number) for number in range(1, len(models) + 1)], models)


def split_table(results: Sequence[tuple[str, Mapping[str, float]]]) -> str:
    """One line a metric, one column a split, and a model after the other.

    Args:
        results: split, and its metrics, whose names begin with it.
    """
    heads = [split for split, _ in results]
    bare = [{n.removeprefix(f"{s}/"): v for n, v in metrics.items()} for s, metrics in results]
    if len(set(heads)) < len(heads):
        heads = [f"{number} {split}" for number, split in enumerate(heads, 1)]
    return _columns(heads, bare)


def _columns(heads: Sequence[str], models: Sequence[Mapping[str, float]]) -> str:
    names = list(dict.fromkeys(name for metrics in models for name in metrics))
    width = max(map(len, names), default=0)
    fit = max(1, (WIDTH - width) // COLUMN)
    blocks = []
    for start in range(0, len(models), fit):
        some = models[start : start + fit]
        above = "".join(f"{head:>{COLUMN}}" for head in heads[start : start + fit])
        lines = [f"{'':<{width}}{above}"]
        for name in names:
            shown = [_shown(name, m[name]) if name in m else "-" for m in some]
            lines.append(f"{name:<{width}}" + "".join(f"{cell:>{COLUMN}}" for cell in shown))
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def paired_lines(paired: Sequence[Paired | None], splits: Sequence[str]) -> list[str]:
    """Two lines for each result that was held against an earlier one of its split.

    Args:
        paired: of the second result and each after it.
        splits: of all results.
    """
    lines = []
    for number, found in enumerate(paired, 2):
        first = splits.index(splits[number - 1]) + 1
        if first == number:
            continue
        if found is None:
            what = "no paired test (other images, or no standard suite)"
            lines.append(f"{first} and {number}: {what}")
            continue
        lines.append(
            f"{first} less {number}: {found.difference:+.2%} accuracy, interval {found.low:+.2%} "
            f"to {found.high:+.2%}"
        )
        lines.append(
            f"  only {first} right: {found.only_first:,}, only {number}: {found.only_second:,}; "
            f"p = {found.mcnemar_p:.2g} (McNemar), {found.bootstrap_p:.2g} (bootstrap)"
        )
    return lines


def seed_table(records: Mapping[int, Record], summary: Record) -> str:
    """One line a seed, then mean, standard deviation and the interval of the mean."""
    measured = list(next(iter(records.values())).metrics)
    names = [name for name in measured if name.startswith("test/")] or [
        name for name in measured if name.endswith(("/loss", "/ppl"))
    ]
    rows = [["seed", *names, "seconds"]]
    for seed, record in records.items():
        shown = [_shown(name, record.metrics[name]) for name in names]
        rows.append([str(seed), *shown, f"{record.facts['wall_seconds']}"])
    interval = ("low", "high") if len(records) > 1 else ()
    for kind in ("mean", "sd", *interval):
        shown = [_shown(name, summary.metrics[f"{name}/{kind}"]) for name in names]
        rows.append([kind, *shown, ""])
    width = max(COLUMN, *(len(name) + 2 for name in names), 0)
    return "\n".join("".join(f"{cell:>{width}}" for cell in row).rstrip() for row in rows)


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
    if is_share(name):
        return f"{value:.2%}"
    return f"{value:,.0f}" if value.is_integer() and abs(value) >= 2 else f"{value:.4f}"
