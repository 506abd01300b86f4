"""Plain tables that fit 80 columns and survive a pipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["metric_table", "model_lines"]


def metric_table(metrics: Mapping[str, float]) -> str:
    """One line a metric; accuracies as percentages."""
    rows = [(name, _shown(name, value)) for name, value in metrics.items()]
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join(f"{name:<{width}}  {value:>9}" for name, value in rows)


def model_lines(rows: Sequence[tuple[str, str]]) -> list[str]:
    """A line a model: its name and what it is."""
    return [f"{name:<34}{doc}"[:80].rstrip() if doc else name for name, doc in rows]


def _shown(name: str, value: float) -> str:
    return f"{value:.2%}" if "/acc" in name else f"{value:.4f}"
