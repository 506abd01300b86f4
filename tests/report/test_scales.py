"""Axes: every value has its place, and what is named lies where it should."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitkit.report.scales import Scale, nice_step, scale_of, tick_text, ticks
from vitkit.report.wording import compact, duration, metric_text, percent, points

VALUES = st.floats(-1e12, 1e12).filter(lambda v: v == 0 or abs(v) > 1e-3)
POSITIVE = st.floats(1e-9, 1e12)


@given(st.lists(VALUES, min_size=1, max_size=20))
def test_an_axis_holds_its_values_in_order(values: list[float]) -> None:
    scale = scale_of(values)
    places = [scale(value) for value in sorted(values)]
    assert all(-1e-6 <= place <= 1 + 1e-6 for place in places)
    assert places == sorted(places)
    assert (scale(scale.low), scale(scale.high)) == (0.0, 1.0)


@given(st.lists(POSITIVE, min_size=1, max_size=20))
def test_an_axis_by_ratios_holds_its_values(values: list[float]) -> None:
    scale = scale_of(values, log=True)
    places = [scale(value) for value in sorted(values)]
    assert all(-1e-9 <= place <= 1 + 1e-9 for place in places)
    assert places == sorted(places)


@given(POSITIVE, st.floats(1.001, 1e6), st.floats(0, 1), st.booleans())
def test_a_place_gives_its_value_back(low: float, ratio: float, place: float, log: bool) -> None:
    scale = Scale(low, low * ratio, log)
    assert scale(scale.value(place)) == pytest.approx(place, abs=1e-6)
    if log:  # halfway is the geometric mean
        assert scale.value(0.5) == pytest.approx(math.sqrt(scale.low * scale.high), rel=1e-9)
    else:
        assert scale.value(0.5) == pytest.approx((scale.low + scale.high) / 2, rel=1e-9)


@given(st.lists(VALUES, min_size=2, max_size=20))
def test_what_is_named_is_on_the_axis_and_evenly_apart(values: list[float]) -> None:
    scale = scale_of(values)
    named = ticks(scale)
    assert 2 <= len(named) <= 12
    span = scale.high - scale.low
    assert all(scale.low - 1e-6 * span <= value <= scale.high + 1e-6 * span for value in named)
    gaps = [b - a for a, b in itertools.pairwise(named)]
    assert max(gaps) == pytest.approx(min(gaps), rel=1e-6)
    assert len({tick_text(value, named) for value in named}) == len(named)


@given(POSITIVE, st.floats(1.01, 1e15))
def test_an_axis_by_ratios_names_values_on_it(low: float, ratio: float) -> None:
    scale = Scale(low, low * ratio, log=True)
    named = ticks(scale)
    assert 2 <= len(named) <= 12
    assert named == sorted(set(named))
    assert all(scale.low * 0.999 <= value <= scale.high * 1.001 for value in named)


@given(st.floats(1e-6, 1e9), st.integers(2, 10))
def test_a_step_is_one_of_the_nice_ones(span: float, count: int) -> None:
    step = nice_step(span, count)
    assert step * count >= span * (1 - 1e-6)
    assert step <= 2.5 * span / count * (1 + 1e-6)
    mantissa = step / 10 ** math.floor(math.log10(step) + 1e-9)
    assert any(mantissa == pytest.approx(nice) for nice in (1, 2, 2.5, 5, 10))


def test_axes_that_are_none_are_refused() -> None:
    for low, high in ((1.0, 1.0), (2.0, 1.0), (0.0, math.inf), (math.nan, 1.0)):
        with pytest.raises(ValueError, match="has no length"):
            Scale(low, high)
    with pytest.raises(ValueError, match="starts above 0"):
        Scale(0.0, 1.0, log=True)


def test_no_values_and_values_that_are_none() -> None:
    assert scale_of([]) == Scale(0.0, 1.0)
    assert scale_of([math.nan, math.inf]) == Scale(0.0, 1.0)
    assert scale_of([-1.0, 0.0], log=True) == Scale(1.0, 10.0, log=True)
    assert scale_of([5.0, 5.0])(5.0) == pytest.approx(0.5)
    assert scale_of([3.0], least=0.0).low == 0.0
    assert scale_of([0.0, 5e-324]).high > 0.0


@pytest.mark.parametrize(
    ("named", "as_percent", "texts"),
    [
        ([0.0, 0.25, 0.5], False, ["0", "0.25", "0.50"]),
        ([0.0, 0.2, 0.4], True, ["0 %", "20 %", "40 %"]),
        ([0.0, 5000.0, 10000.0], False, ["0", "5k", "10k"]),
        ([0.0, 1000.0, 2000.0], False, ["0", "1,000", "2,000"]),
        ([-2e-4, 0.0, 2e-4], False, ["-0.0002", "0", "0.0002"]),
        ([1.0, 10.0, 100.0], False, ["1", "10", "100"]),
    ],
)
def test_named_values_read_well(named: list[float], as_percent: bool, texts: list[str]) -> None:
    shown = [tick_text(value, named, percent=as_percent) for value in named]
    assert [text.replace("\u00a0", " ") for text in shown] == texts


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (202_058, "202 k"),
        (5_717_416, "5.72 M"),
        (999_999, "1 M"),
        (1234, "1,234"),
        (0.00321, "0.00321"),
        (172e6, "172 M"),
        (None, "\u2013"),
        (math.nan, "\u2013"),
        (12_345, "12.3 k"),
    ],
)
def test_compact_numbers(value: float | None, text: str) -> None:
    assert compact(value).replace("\u00a0", " ") == text


def test_other_numbers() -> None:
    assert percent(0.98889).replace("\u00a0", " ") == "98.89 %"
    assert percent(None) == percent(math.nan) == "\u2013"
    assert points(-0.0123) == "\u22121.23" and points(0.5) == "+50.00"
    shown = [duration(s).replace("\u00a0", " ") for s in (4.84, 59.99, 200, 3725, None)]
    assert shown == ["4.8 s", "60.0 s", "3 min 20 s", "1 h 2 min", "\u2013"]
    assert metric_text("test/acc", 0.5).startswith("50.00")
    for name in ("ece", "ace", "tace_scaled"):
        assert metric_text(f"test/{name}", 0.043).startswith("4.30"), name
    assert metric_text("speed/best_batch", 32.0) == "32"
    assert metric_text("test/loss", 0.12345) == "0.1235"
