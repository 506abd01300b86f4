"""Plain tables that fit 80 columns and survive a pipe."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["metric_table", "model_lines"]


def metric_table(metrics: Mapping[str, float]) -> str:
    """One line a metric; accuracies as percentages."""
    rows = [(name, _shown(name, value)) for name, value in metrics.items()]
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join(f"{name:<{width}}  {value:>9}" for name, value in rows)


def model_lines(pattern: str) -> list[str]:
    """Names that match, each with what it is."""
    from vitkit.models.presets import PRESETS
    from vitkit.models.registry import list_models

    lines = []
    for name in list_models(pattern):
        preset = PRESETS.get(name)
        lines.append(f"{name:<34}{preset.doc if preset else ''}"[:80].rstrip())
    return lines


def _shown(name: str, value: float) -> str:
    return f"{value:.2%}" if "/acc" in name else f"{value:.4f}"
