"""Figures: a frame with title, data and buttons; curves and bars inside it.

The drawing is an SVG that is stretched to whatever room there is, its lines keeping their width;
all words are HTML around it, so that they keep their size on a phone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vitkit.report.markup import Markup, data_block, element, escaped, number
from vitkit.report.scales import Scale, scale_of, tick_text, ticks

__all__ = ["Axis", "Series", "figure", "line_chart", "reliability_chart", "thinned"]

SIDE = 1000.0
"""Of the drawing, in its own units; the page stretches it."""

MOST_POINTS = 240
DOTTED_UP_TO = 24
COLOURS = 6
NEAR_THE_END = 0.97
RELIABILITY = ("low", "high", "images", "confidence", "accuracy")


@dataclass(frozen=True)
class Series:
    """One line.

    Attributes:
        name: shown in the legend.
        x, y: its points; those that are not finite are left out.
        colour: its number in the palette.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: int = 0


@dataclass(frozen=True)
class Axis:
    """What an axis says.

    Attributes:
        name: of what it measures, with its unit.
        log: by ratios.
        percent: shares, written as percent.
        least: it starts here or below.
    """

    name: str
    log: bool = False
    percent: bool = False
    least: float | None = None


def figure(
    key: str,
    title: str,
    *body: str | None,
    data: Mapping[str, Sequence[Any]] | None = None,
    note: str | None = None,
    wide: bool = False,
) -> Markup:
    """A frame with a title and buttons that hand out what it shows.

    Args:
        key: its identity in the page, and the name of the files.
        title: of the figure.
        body: what it shows.
        data: columns of one length behind it; None: a block of class ``data`` is in the body.
        note: a sentence below the title.
        wide: it takes the whole width.
    """
    buttons = [
        element(
            "button",
            kind.upper(),
            type="button",
            class_="small",
            data_save=kind,
            aria_label=f"Save the data of {title} as {kind.upper()}",
        )
        for kind in ("csv", "json")
    ]
    return element(
        "figure",
        element(
            "figcaption",
            element("h3", title, id=f"{key}-title"),
            element("div", *buttons, class_="tools"),
            element("p", note, class_="note") if note else None,
        ),
        *body,
        data_block({"columns": data}, class_="data") if data is not None else None,
        id=key,
        class_="figure wide" if wide else "figure",
        aria_labelledby=f"{key}-title",
    )


def thinned(xs: Sequence[float], ys: Sequence[float]) -> tuple[list[float], list[float], int]:
    """At most :data:`MOST_POINTS` points, each the mean of equally many neighbours, and how many.

    Points that are not finite are left out.
    """
    pairs = [(x, y) for x, y in zip(xs, ys, strict=True) if math.isfinite(x) and math.isfinite(y)]
    size = max(1, math.ceil(len(pairs) / MOST_POINTS))
    parts = [pairs[start : start + size] for start in range(0, len(pairs), size)]
    return (
        [sum(x for x, _ in part) / len(part) for part in parts],
        [sum(y for _, y in part) / len(part) for part in parts],
        size,
    )


def line_chart(
    key: str, title: str, lines: Sequence[Series], x: Axis, y: Axis, *, note: str | None = None
) -> Markup | None:
    """Lines over a common axis; None where no line has a point.

    Args:
        key, title, note: as for :func:`figure`.
        lines: to be drawn, in order.
        x, y: the axes.
    """
    drawn, notes = _thinned(lines)
    if not drawn:
        return None
    across = _across(drawn, x)
    up = scale_of((v for line in drawn for v in line.y), log=y.log, least=y.least)
    data = {
        "lines": [
            {"name": s.name, "colour": s.colour, "x": _short(s.x), "y": _short(s.y)} for s in drawn
        ],
        "axes": {"x": x.name, "y": y.name},
        "x": [across.low, across.high, x.log],
        "y": [up.low, up.high, y.log],
        "percent": y.percent,
    }
    described = f"{title}: {y.name} over {x.name}. " + " ".join(_ends(s, y.percent) for s in drawn)
    plot = element(
        "div",
        _grid(across, up),
        *(_path(line, across, up) for line in drawn),
        class_="plot",
        tabindex="0",
        role="img",
        aria_label=f"{described} Arrow keys read out values.",
        data_lines=True,
    )
    return figure(
        key,
        title,
        _framed(plot, across, up, x, y),
        _legend(drawn),
        element("output", class_="readout", aria_live="polite"),
        data_block(data, class_="data"),
        note=" ".join([note, *notes] if note else notes) or None,
    )


def _thinned(lines: Sequence[Series]) -> tuple[list[Series], list[str]]:
    """Lines as they are drawn, and a sentence on whatever was done to them."""
    drawn: list[Series] = []
    notes: list[str] = []
    means: dict[str, int] = {}
    for line in lines:
        xs, ys, size = thinned(line.x, line.y)
        lost = sum(not math.isfinite(value) for value in line.y)
        if lost:
            notes.append(f"{lost:,} values of {line.name} are not finite and left out.")
        if xs:
            means[line.name] = size
            drawn.append(Series(line.name, xs, ys, line.colour))
    sizes = set(means.values())
    if len(sizes) == 1 and sizes != {1}:
        notes.append(f"A point is the mean of {sizes.pop():,}.")
    else:
        notes += [f"A point of {n} is the mean of {s:,}." for n, s in means.items() if s > 1]
    return drawn, notes


def _across(lines: Sequence[Series], axis: Axis) -> Scale:
    """Where the curves end, the axis does, unless it goes by ratios."""
    low, high = min(min(s.x) for s in lines), max(max(s.x) for s in lines)
    if axis.least is not None:
        low = min(low, axis.least)
    if axis.log or high <= low:
        return scale_of([low, high], log=axis.log)
    return Scale(low, high)


def _short(values: Sequence[float]) -> list[float]:
    """Six digits, as many as a page can show."""
    return [float(f"{value:.6g}") for value in values]


def _ends(line: Series, percent: bool) -> str:
    """A line in words, for whoever does not see it."""
    first, last = (f"{v:.1%}" if percent else f"{v:.4g}" for v in (line.y[0], line.y[-1]))
    return f"{line.name} goes from {first} to {last}."


def _framed(plot: str, across: Scale, up: Scale, x: Axis, y: Axis) -> Markup:
    """A plot with its axes around it, in HTML."""
    named_x, named_y = ticks(across, 5), ticks(up, 5)
    left = [
        element(
            "span",
            tick_text(value, named_y, percent=y.percent),
            style=f"top:{number(100 * (1 - up(value)))}%",
        )
        for value in named_y
    ]
    below = [
        element(
            "span",
            tick_text(value, named_x, percent=x.percent),
            style=f"left:{number(100 * across(value))}%",
            class_="end" if across(value) > NEAR_THE_END else None,
        )
        for value in named_x
    ]
    return element(
        "div",
        element("div", y.name, class_="y-name", aria_hidden="true"),
        element("div", *left, class_="y-ticks", aria_hidden="true"),
        plot,
        element("div", *below, class_="x-ticks", aria_hidden="true"),
        element("div", x.name, class_="x-name", aria_hidden="true"),
        class_="chart",
    )


def _svg(*shapes: str | None, class_: str) -> Markup:
    return element(
        "svg",
        *shapes,
        viewBox=f"0 0 {SIDE:.0f} {SIDE:.0f}",
        preserveAspectRatio="none",
        aria_hidden="true",
        focusable="false",
        class_=class_,
    )


def _grid(across: Scale, up: Scale) -> Markup:
    rows = [f"M0 {number(SIDE * (1 - up(value)))}H{SIDE:.0f}" for value in ticks(up, 5)]
    columns = [f"M{number(SIDE * across(value))} 0V{SIDE:.0f}" for value in ticks(across, 5)]
    return _svg(element("path", d="".join(rows + columns)), class_="grid")


def _path(line: Series, across: Scale, up: Scale) -> Markup:
    """A line, with dots where there are few points."""
    places = [
        (number(SIDE * across(a)), number(SIDE * (1 - up(b))))
        for a, b in zip(line.x, line.y, strict=True)
        if (a > 0 or not across.log) and (b > 0 or not up.log)
    ]
    shapes = [element("path", d="M" + "L".join(f"{a} {b}" for a, b in places))] if places else []
    if len(places) <= DOTTED_UP_TO:
        dots = "".join(f"M{a} {b}h0" for a, b in places)
        shapes.append(element("path", d=dots, class_="dots"))
    return _svg(*shapes, class_=f"line {_style(line.colour)}")


def _style(colour: int) -> str:
    """Behind the last colour the first one again, in thinner lines."""
    return f"c{colour % COLOURS}" + (" again" if colour >= COLOURS else "")


def _legend(lines: Sequence[Series]) -> Markup | None:
    if len(lines) == 1:
        return None
    items = [
        element(
            "li",
            element("i", class_=f"swatch {_style(line.colour)}", aria_hidden="true"),
            escaped(line.name),
        )
        for line in lines
    ]
    return element("ul", *items, class_="legend")


def reliability_chart(
    key: str, title: str, bins: Mapping[str, Sequence[float]], *, note: str | None = None
) -> Markup:
    """Accuracy over confidence, with the gap to what was claimed and how many images are where.

    Args:
        key, title, note: as for :func:`figure`.
        bins: columns ``low``, ``high``, ``images``, ``confidence``, ``accuracy``; of a bin without
            images the last two do not count.

    Source: Guo et al., "On calibration of modern neural networks", arXiv 1706.04599.
    """
    unit = Scale(0.0, 1.0)
    most, total = max([*bins["images"], 1]), sum(bins["images"])
    bars, over, under, counts = _reliability_paths(bins, most)
    axis = Axis("confidence", percent=True)
    plot = element(
        "div",
        _grid(unit, unit),
        _svg(element("path", d=bars), class_="bars"),
        _svg(element("path", d=over), class_="gaps over-sure"),
        _svg(element("path", d=under), class_="gaps under-sure"),
        _svg(element("path", d=f"M0 {SIDE:.0f}L{SIDE:.0f} 0"), class_="ideal"),
        class_="plot",
        role="img",
        aria_label=f"{title}: accuracy in each of {len(bins['low'])} bins of confidence, over "
        f"{total:,} images. The numbers can be saved as CSV or JSON.",
    )
    heights = element(
        "div",
        _svg(element("path", d=counts), class_="counts"),
        class_="strip",
        role="img",
        aria_label=f"Images a bin of confidence, at most {most:,}",
    )
    legend = element(
        "ul",
        _named("bars-swatch", "accuracy"),
        _named("over-sure", "surer than right"),
        _named("under-sure", "accuracy beyond the confidence"),
        _named("counts-swatch", f"images a bin, at most {most:,}"),
        class_="legend",
    )
    framed = _framed(plot, unit, unit, axis, Axis("accuracy", percent=True))
    return figure(
        key,
        title,
        element("div", framed, heights, class_="reliability"),
        legend,
        data={name: list(bins[name]) for name in RELIABILITY},
        note=note,
    )


def _reliability_paths(bins: Mapping[str, Sequence[Any]], most: float) -> tuple[str, ...]:
    """Paths of the bars, of the gaps of bins that are surer than right and of the others, and of
    the heights that say how many images a bin has.

    Args:
        bins: as for :func:`reliability_chart`.
        most: images of the fullest bin.
    """
    bars: list[str] = []
    over: list[str] = []
    under: list[str] = []
    counts: list[str] = []
    rows = zip(*(bins[name] for name in RELIABILITY), strict=True)
    for low, high, images, confidence, accuracy in rows:
        if not images:
            continue
        left, width = SIDE * low, SIDE * (high - low)
        top, bottom = max(confidence, accuracy), min(confidence, accuracy)
        bars.append(_box(left, SIDE * (1 - bottom), width, SIDE * bottom))
        gap = _box(left, SIDE * (1 - top), width, SIDE * (top - bottom))
        (over if confidence > accuracy else under).append(gap)
        share = images / most
        counts.append(_box(left, SIDE * (1 - share), width, SIDE * share))
    return "".join(bars), "".join(over), "".join(under), "".join(counts)


def _named(swatch: str, text: str) -> Markup:
    return element("li", element("i", class_=f"swatch {swatch}", aria_hidden="true"), text)


def _box(left: float, top: float, width: float, height: float) -> str:
    """A rectangle as part of a path."""
    corner = f"M{number(left)} {number(top)}"
    return f"{corner}h{number(width)}v{number(height)}h{number(-width)}z"
