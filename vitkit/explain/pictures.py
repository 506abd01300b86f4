"""Numbers as pictures: heat maps, overlays, grids of tiles, points on axes. Pillow alone."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

__all__ = ["as_picture", "heat", "overlay", "points", "tiles"]

Array = NDArray[Any]
Colors = tuple[tuple[int, int, int], ...]

GLOW: Colors = (
    *((10, 10, 40), (70, 30, 120), (160, 50, 110)),
    *((230, 95, 60), (250, 175, 50), (255, 250, 200)),
)
"""From nothing to the largest value."""
TWO_SIDED: Colors = ((30, 80, 160), (245, 245, 245), (175, 40, 45))
"""From the smallest value through the middle to the largest."""

PAPER, INK, FAINT = (255, 255, 255), (30, 30, 30), (200, 200, 200)
GAP = 4
LINE = 14
STRENGTH = 0.65
"""Share of the heat colour where an overlay is hottest."""
LEGEND = 20
"""Most names beside a plot."""


def heat(
    values: Array,
    size: tuple[int, int],
    *,
    low: float = 0.0,
    high: float | None = None,
    colors: Colors = GLOW,
) -> Image.Image:
    """A map in colours, one flat square a value.

    Args:
        values: (rows, columns).
        size: (height, width) in pixels.
        low, high: values of the first and the last colour; ``high`` is the largest value unless
            given.
        colors: from low to high.
    """
    painted = Image.fromarray(_painted(_scaled(values, low, high), colors))
    return painted.resize((size[1], size[0]), Image.Resampling.NEAREST)


def overlay(picture: Image.Image, values: Array) -> Image.Image:
    """A picture with a map over it, hottest where the map is largest.

    Args:
        picture: RGB.
        values: (rows, columns), not negative.
    """
    small = Image.fromarray(_scaled(values, 0.0, None).astype(np.float32))
    smooth = np.asarray(small.resize(picture.size, Image.Resampling.BICUBIC)).clip(0.0, 1.0)
    share = STRENGTH * smooth[..., None]
    mixed = (1 - share) * np.asarray(picture, dtype=np.float64) + share * _painted(smooth, GLOW)
    return Image.fromarray(mixed.round().clip(0, 255).astype(np.uint8))


def as_picture(image: Array, least: int = 224) -> Image.Image:
    """uint8 (channels, height, width) with 1 or 3 channels -> RGB, enlarged by whole pixels.

    Args:
        image: the image; of other counts of channels the first is shown in grey.
        least: pixels that the shorter side has at least.
    """
    shown = image if image.shape[0] == 3 else np.repeat(image[:1], 3, axis=0)
    picture = Image.fromarray(np.ascontiguousarray(shown.transpose(1, 2, 0)))
    factor = max(1, -(-least // min(picture.size)))
    size = (picture.width * factor, picture.height * factor)
    return picture.resize(size, Image.Resampling.NEAREST)


def tiles(
    rows: Sequence[Sequence[Image.Image]],
    row_names: Sequence[str] = (),
    column_names: Sequence[str] = (),
) -> Image.Image:
    """Pictures side by side and below each other, all in cells as large as the largest.

    Args:
        rows: pictures, row by row; rows may differ in length.
        row_names, column_names: written to the left and above.
    """
    everything = [picture for row in rows for picture in row]
    width = max(picture.width for picture in everything) + GAP
    height = max(picture.height for picture in everything) + GAP
    left = GAP + max((_text_width(name) for name in row_names), default=0) + GAP
    top = GAP + (LINE if column_names else 0)
    columns = max(len(row) for row in rows)
    page = Image.new("RGB", (left + columns * width, top + len(rows) * height), PAPER)
    draw = ImageDraw.Draw(page)
    for index, name in enumerate(column_names):
        _write(draw, (left + index * width, GAP // 2), name)
    for number, row in enumerate(rows):
        if number < len(row_names):
            _write(draw, (GAP, top + number * height + height // 2 - LINE // 2), row_names[number])
        for index, picture in enumerate(row):
            page.paste(picture, (left + index * width, top + number * height))
    return page


def points(
    places: Array,
    groups: Sequence[int],
    names: Sequence[str],
    *,
    labels: tuple[str, str],
    size: tuple[int, int] = (420, 560),
    radius: float = 2.5,
) -> Image.Image:
    """Points on two axes, a colour a group.

    Args:
        places: (n, 2), horizontal then vertical.
        groups: of each point, an index into ``names``.
        names: of the groups; the first twenty are listed beside the plot.
        labels: of the horizontal and the vertical axis.
        size: (height, width) of the plot itself in pixels.
        radius: of a point in pixels.
    """
    height, width = size
    margin = 48
    # The font at hand has no other letters; question marks would make all names alike.
    said = [name if name.isascii() else f"class {index}" for index, name in enumerate(names)]
    listed = said[:LEGEND] if len(names) > 1 else []
    beside = max((_text_width(name) for name in listed), default=0) + (24 if listed else GAP)
    page = Image.new("RGB", (width + 2 * margin + beside, height + 2 * margin), PAPER)
    draw = ImageDraw.Draw(page)
    draw.rectangle((margin, margin, margin + width, margin + height), outline=FAINT)
    low, high = places.min(axis=0), places.max(axis=0)
    room = np.where(high > low, high - low, 1.0)
    for (x, y), group in zip((places - low) / room, groups, strict=True):
        at = (margin + 6 + x * (width - 12), margin + 6 + (1 - y) * (height - 12))
        box = (at[0] - radius, at[1] - radius, at[0] + radius, at[1] + radius)
        draw.ellipse(box, fill=_color(group, len(names)))
    _name_axes(draw, (margin, margin, width, height), labels, low, high)
    for index, name in enumerate(listed):
        y = margin + index * LINE
        draw.rectangle(
            (margin + width + 8, y + 3, margin + width + 15, y + 10), fill=_color(index, len(names))
        )
        _write(draw, (margin + width + 20, y), name)
    return page


def _name_axes(
    draw: ImageDraw.ImageDraw,
    box: tuple[int, int, int, int],
    labels: tuple[str, str],
    low: Array,
    high: Array,
) -> None:
    """Both names, and the smallest and largest value of each axis."""
    left, top, width, height = box
    _write(draw, (left + width // 2 - _text_width(labels[0]) // 2, top + height + 20), labels[0])
    _write(draw, (left, top - 18), labels[1])
    _write(draw, (left, top + height + 4), f"{low[0]:.3g}")
    end = f"{high[0]:.3g}"
    _write(draw, (left + width - _text_width(end), top + height + 4), end)
    for value, y in ((low[1], top + height - LINE), (high[1], top)):
        said = f"{value:.3g}"
        _write(draw, (left - _text_width(said) - GAP, y), said)


def _scaled(values: Array, low: float, high: float | None) -> Array:
    """To [0, 1]."""
    values = np.asarray(values, dtype=np.float64)
    top = float(values.max()) if high is None else high
    return ((values - low) / max(top - low, 1e-30)).clip(0.0, 1.0)


def _painted(values: Array, colors: Colors) -> Array:
    """(rows, columns) in [0, 1] -> uint8 (rows, columns, 3)."""
    stops = np.linspace(0.0, 1.0, len(colors))
    channels = [np.interp(values, stops, [color[c] for color in colors]) for c in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def _color(group: int, count: int) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(group / max(count, 1), 0.85, 0.8)
    return round(red * 255), round(green * 255), round(blue * 255)


def _plain(text: str) -> str:
    """What every font can show."""
    return text.encode("ascii", "replace").decode("ascii")


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default()


def _text_width(text: str) -> int:
    return round(_font().getlength(_plain(text)))


def _write(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str) -> None:
    draw.text(place, _plain(text), fill=INK, font=_font())
