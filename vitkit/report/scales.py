"""From values to places on an axis, and which values an axis names."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Scale", "nice_step", "scale_of", "tick_text", "ticks"]

STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
SLACK = 1e-9
ALIKE, TINY = 1e-6, 1e-300
"""Values nearer to each other than this share of theirs, or this much, are one to an axis."""
THOUSAND, MILLION = 1e3, 1e6
MOST_DIGITS = 15


@dataclass(frozen=True)
class Scale:
    """Maps [low, high] to [0, 1].

    Attributes:
        low, high: ends of the axis; high is above low, and with ``log`` both are above 0.
        log: by ratios, not by differences.

    Raises:
        ValueError: an end that is not finite, no length, or with ``log`` a start that is not
            above 0.
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"an axis from {self.low} to {self.high} has no length")
        if self.log and self.low <= 0:
            raise ValueError(f"an axis by ratios starts above 0, not at {self.low}")

    def __call__(self, value: float) -> float:
        """Place of a value, in [0, 1] where the value is on the axis."""
        low, high = self._measure(self.low), self._measure(self.high)
        return (self._measure(value) - low) / (high - low)

    def value(self, place: float) -> float:
        """The inverse of the call."""
        low, high = self._measure(self.low), self._measure(self.high)
        measured = low + place * (high - low)
        return 10.0**measured if self.log else measured

    def _measure(self, value: float) -> float:
        return math.log10(value) if self.log else value


def scale_of(
    values: Iterable[float], *, log: bool = False, least: float | None = None, count: int = 5
) -> Scale:
    """An axis that holds all finite values and ends where it can name its ends.

    Args:
        values: to be held; those that are not finite, or with ``log`` not above 0, do not count.
        log: by ratios.
        least: the axis starts here or below.
        count: about how many values it will name.
    """
    kept = [float(v) for v in values if math.isfinite(v) and (v > 0 or not log)]
    if least is not None:
        kept.append(least)
    low, high = (min(kept), max(kept)) if kept else (1.0, 10.0) if log else (0.0, 1.0)
    if log:
        return Scale(low, high, log) if high > low else Scale(low / 2, high * 2, log)
    if high - low <= max(ALIKE * max(abs(low), abs(high)), TINY):
        room = abs(low) / 2 or 1.0
        low, high = low - room, high + room
    step = nice_step(high - low, count)
    return Scale(math.floor(low / step + SLACK) * step, math.ceil(high / step - SLACK) * step)


def nice_step(span: float, count: int) -> float:
    """The smallest of 1, 2, 2.5, 5 times a power of ten of which ``count`` fill the span."""
    raw = span / count
    power = 10.0 ** math.floor(math.log10(raw))
    return next(step * power for step in STEPS if raw <= step * power * (1 + SLACK))


def ticks(scale: Scale, count: int = 5) -> list[float]:
    """The values an axis names, ascending, all on it."""
    if scale.log:
        return _log_ticks(scale, count)
    step = nice_step(scale.high - scale.low, count)
    first = math.ceil(scale.low / step - SLACK)
    last = math.floor(scale.high / step + SLACK)
    return [index * step for index in range(first, last + 1)]


def _log_ticks(scale: Scale, count: int) -> list[float]:
    """Powers of ten; where there are not two of them, also 2 and 5 times these, or the ends."""
    first, last = math.floor(math.log10(scale.low)), math.ceil(math.log10(scale.high))

    def named(factors: tuple[int, ...]) -> list[float]:
        all_of_them = [f * 10.0**power for power in range(first, last + 1) for f in factors]
        low, high = scale.low * (1 - SLACK), scale.high * (1 + SLACK)
        return [value for value in all_of_them if low <= value <= high]

    tens = named((1,))
    if len(tens) > count:
        return tens[:: math.ceil(len(tens) / count)]
    if len(tens) >= 3:
        return tens
    more = named((1, 2, 5))
    return more if len(more) >= 2 else [scale.low, scale.high]


def tick_text(value: float, values: list[float], *, percent: bool = False) -> str:
    """A named value with as many digits as tell it from its neighbours: 0.25, 1.5k, 80 %.

    Args:
        value: to be written.
        values: all that the axis names.
        percent: the value is a share, and written as percent.
    """
    scale = 100.0 if percent else 1.0
    shown = [v * scale for v in values]
    largest = max(map(abs, shown), default=0.0)
    unit, letter = 1.0, "\u00a0%" if percent else ""
    if not percent and largest >= 10 * MILLION:
        unit, letter = MILLION, "M"
    elif not percent and largest >= 10 * THOUSAND:
        unit, letter = THOUSAND, "k"
    gaps = [b - a for a, b in itertools.pairwise(shown)]
    if len({round(gap / max(gaps), 6) for gap in gaps}) > 1:  # by ratios: each as short as it is
        return f"{value * scale / unit:.4g}{letter}"
    step = (gaps[0] if gaps else largest or 1.0) / unit
    digits = next(
        (d for d in range(MOST_DIGITS) if abs(round(step, d) - step) <= SLACK * step), MOST_DIGITS
    )
    text = f"{value * scale / unit:,.{digits}f}"
    if float(text.replace(",", "")) == 0:
        return f"0{letter}" if percent else "0"
    return text + letter
