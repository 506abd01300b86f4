"""Numbers as a person reads them, with a space that does not break before a unit."""

from __future__ import annotations

import math
from collections.abc import Callable

from vitkit.records import is_share

__all__ = [
    "as_metric",
    "chance",
    "compact",
    "duration",
    "metric_text",
    "percent",
    "plain_text",
    "points",
]

SPACE = "\u00a0"
NONE = "\u2013"
MINUTE, HOUR = 60, 3600
THOUSAND = 1e3
UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (THOUSAND, "k"))
FEW_THOUSANDS, NEARLY_ONE = 10.0, 0.9995
"""How much of a unit there must be for it to be used."""


def percent(value: float | None, digits: int = 2) -> str:
    """0.9889 is ``98.89 %``."""
    if value is None or not math.isfinite(value):
        return NONE
    return f"{100 * value:.{digits}f}{SPACE}%"


def points(value: float, digits: int = 2) -> str:
    """A difference of shares with its sign, in percentage points: ``+1.20``."""
    if not math.isfinite(value):
        return NONE
    return f"{100 * value:+.{digits}f}".replace("-", "\u2212")


def compact(value: float | None) -> str:
    """Three digits and a letter: 202,058 is ``202 k``, 5.72e6 ``5.72 M``."""
    if value is None or not math.isfinite(value):
        return NONE
    for size, letter in UNITS:
        scaled = value / size
        if abs(scaled) >= (FEW_THOUSANDS if size == THOUSAND else NEARLY_ONE):
            digits = f"{scaled:.3g}" if abs(scaled) < THOUSAND - 0.5 else f"{scaled:,.0f}"
            return f"{digits}{SPACE}{letter}"
    if float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < THOUSAND - 0.5 else f"{value:,.0f}"


def duration(seconds: float | None) -> str:
    """``4.8 s``, ``3 min 20 s``, ``1 h 2 min``."""
    if seconds is None or not math.isfinite(seconds):
        return NONE
    if seconds < MINUTE:
        return f"{seconds:.1f}{SPACE}s"
    whole = round(seconds)
    if whole < HOUR:
        return f"{whole // MINUTE}{SPACE}min {whole % MINUTE}{SPACE}s"
    return f"{whole // HOUR}{SPACE}h {whole % HOUR // MINUTE}{SPACE}min"


def metric_text(name: str, value: float | None) -> str:
    """A metric by what its name says it is."""
    if value is None or not math.isfinite(value):
        return NONE
    if is_share(name):
        return percent(value)
    if float(value).is_integer() and abs(value) >= 2:
        return f"{value:,.0f}"
    return f"{value:.4g}" if abs(value) < 1e-3 else f"{value:,.4f}"


def as_metric(name: str) -> Callable[[float | None], str]:
    """How values of one metric are written.

    Args:
        name: without its split, such as ``acc``.
    """
    return lambda value: metric_text(f"/{name}", value)


def chance(value: float) -> str:
    """A p-value: two digits, and no more precise than ``< 0.001``."""
    if not math.isfinite(value):
        return NONE
    return f"{value:.2g}" if value >= 0.001 else "< 0.001"


def plain_text(value: object) -> str:
    """Any plain value of a record or a config."""
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.2f}" if abs(value) >= 1000 else f"{value:.6g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
