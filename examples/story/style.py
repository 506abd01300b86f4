"""How all figures of the story look, and the words that all its scripts understand.

Every figure is dark ink on a light card, so that it can be read on a light and on a dark page. The
colours are Okabe and Ito's, which can be told apart by the colour-blind. The same numbers give the
same file: no date, and names within the file from the figure's name.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from torch import Tensor

FOLDER = Path("runs/story")
"""Where figures go unless told otherwise; git does not look there."""
INK, QUIET, FAINT, CARD = "#22252b", "#6a707a", "#cfccc2", "#fbfaf6"
BLUE, ORANGE, GREEN, RED = "#0072b2", "#e69f00", "#009e73", "#d55e00"
PINK, SKY = "#cc79a7", "#56b4e9"
HEAT = LinearSegmentedColormap.from_list("heat", [CARD, "#9fd0ee", BLUE, "#04273d"])
SIGNED = LinearSegmentedColormap.from_list("signed", [RED, ORANGE, CARD, SKY, BLUE])
SETTINGS = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": QUIET,
    "axes.facecolor": CARD,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.facecolor": CARD,
    "legend.frameon": False,
    "svg.fonttype": "path",
}


@dataclass(frozen=True)
class Options:
    """What a script was asked for."""

    out: Path
    quick: bool
    run: str | None = None


def options(arguments: Sequence[str], doc: str | None, *, run: bool = False) -> Options:
    """The words behind a script's name; sets matplotlib up as well."""
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument(
        "--out", type=Path, default=FOLDER, help=f"folder of the figures ({FOLDER})"
    )
    parser.add_argument("--quick", action="store_true", help="less work, to see that it runs")
    if run:
        parser.add_argument("run", nargs="?", help="folder of the run that the page trains")
    given = parser.parse_args(arguments)
    matplotlib.rcParams.update(SETTINGS)
    given.out.mkdir(parents=True, exist_ok=True)
    return Options(given.out, given.quick, getattr(given, "run", None))


def save(figure: Figure, folder: Path, name: str) -> Path:
    """Write ``<name>.svg`` into a folder, and say so."""
    path = folder / f"{name}.svg"
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.set(w_pad=0.08, h_pad=0.1)
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(path, metadata={"Date": None, "Creator": None})
    print(f"figure: {path}")
    return path


def keep(options: Options, chapter: str, facts: dict[str, str]) -> dict[str, str]:
    """Leave a page's numbers beside its figures, unless they are of a quick run; returns them."""
    if not options.quick:
        text = json.dumps(facts, indent=2) + "\n"
        (options.out / f"{chapter}.json").write_text(text, encoding="utf-8")
    return facts


def drawing(width: float, height: float, *, inch: float = 0.72) -> tuple[Figure, Axes]:
    """A sheet of ``width`` x ``height`` units, y upwards, for a diagram."""
    figure = Figure(figsize=(width * inch, height * inch))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height), aspect="equal")
    axes.axis("off")
    return figure, axes


def box(
    axes: Axes,
    place: tuple[float, float],
    text: str,
    *,
    width: float = 1.6,
    height: float = 0.7,
    colour: str = BLUE,
    size: float = 10,
) -> None:
    """A rounded box with its centre at ``place``."""
    x, y = place[0] - width / 2, place[1] - height / 2
    axes.add_patch(
        FancyBboxPatch(
            (x, y),
            width,
            height,
            boxstyle="round,pad=0,rounding_size=0.12",
            facecolor=_pale(colour),
            edgecolor=colour,
            linewidth=1.2,
        )
    )
    axes.text(*place, text, ha="center", va="center", fontsize=size)


def arrow(
    axes: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    *,
    colour: str = QUIET,
    width: float = 1.2,
    bend: float = 0.0,
    alpha: float = 1.0,
) -> None:
    """An arrow from one place to another."""
    axes.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>",
            mutation_scale=9,
            color=colour,
            linewidth=width,
            alpha=alpha,
            shrinkA=0,
            shrinkB=0,
            connectionstyle=f"arc3,rad={bend}",
        )
    )


def note(axes: Axes, place: tuple[float, float], text: str, **more: Any) -> None:
    """Words without a box."""
    axes.text(
        *place, text, **{"ha": "center", "va": "center", "color": QUIET, "fontsize": 9} | more
    )


def matrix(
    axes: Axes,
    corner: tuple[float, float],
    values: Tensor,
    *,
    cell: float = 0.72,
    title: str = "",
    form: str = "{:.2f}",
    colour: str | None = None,
    size: float = 9,
) -> None:
    """A table of numbers with its upper left corner at ``corner``.

    Cells are shaded by their value from 0 to 1, or all in one ``colour``.
    """
    rows, columns = values.shape
    for i in range(rows):
        for j in range(columns):
            value = float(values[i, j])
            x, y = corner[0] + j * cell, corner[1] - (i + 1) * cell
            shade = HEAT(min(max(value, 0.0), 1.0) * 0.8) if colour is None else _pale(colour)
            axes.add_patch(Rectangle((x, y), cell, cell, facecolor=shade, edgecolor=CARD))
            dark = colour is None and value > 0.55
            axes.text(
                x + cell / 2,
                y + cell / 2,
                form.format(value),
                ha="center",
                va="center",
                fontsize=size,
                color=CARD if dark else INK,
            )
    if title:
        note(axes, (corner[0] + columns * cell / 2, corner[1] + 0.25), title, color=INK)


def heat(axes: Axes, values: Tensor, *, title: str = "", top: float | None = None) -> None:
    """A map of values from 0 to ``top`` (their largest unless given), dark where they are large."""
    axes.imshow(values.numpy(), cmap=HEAT, vmin=0.0, vmax=top, interpolation="none", aspect="equal")
    _frame(axes, title)


def signed(axes: Axes, values: Tensor, *, title: str = "") -> None:
    """A map of values from -1 to 1: orange below zero, blue above."""
    axes.imshow(
        values.numpy(), cmap=SIGNED, vmin=-1.0, vmax=1.0, interpolation="none", aspect="equal"
    )
    _frame(axes, title)


def sheet(maps: Tensor, side: int) -> Tensor:
    """Maps (side * side, H, W) row by row on one sheet, with a gap of NaN between neighbours."""
    gaps = torch.nn.functional.pad(maps, (0, 1, 0, 1), value=torch.nan)
    rows = gaps.unflatten(0, (side, side)).transpose(1, 2)  # (side, H + 1, side, W + 1)
    return rows.flatten(2).flatten(0, 1)[:-1, :-1]


def _frame(axes: Axes, title: str) -> None:
    """A title, a thin line around, no ticks."""
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=9)
    for side in axes.spines.values():
        side.set(visible=True, color=FAINT, linewidth=0.8)


def _pale(colour: str) -> tuple[float, float, float]:
    """A colour mixed into the card, so that ink on it can be read."""
    rgb, card = (matplotlib.colors.to_rgb(c) for c in (colour, CARD))
    return tuple(0.22 * a + 0.78 * b for a, b in zip(rgb, card, strict=True))  # type: ignore[return-value]
