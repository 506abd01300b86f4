"""A room as it is, as the fresh model sees it, as the trained one sees it: one small SVG."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from examples.two_view.scene import Pair
from vitkit.records import write_text

__all__ = ["draw"]

PANEL, GAP, TOP, LEFT = 132, 12, 26, 92
RAMP = torch.tensor(
    [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]], dtype=torch.float32
)
"""Near is dark violet, far is yellow; told apart by every kind of colour vision."""

STYLE = """
text { font: 13px system-ui, sans-serif; fill: #222 }
image { image-rendering: pixelated }
rect.paper { fill: #fff }
"""


def draw(
    path: Path,
    pair: Pair,
    before: tuple[Tensor, Tensor],
    after: tuple[Tensor, Tensor],
    index: int,
) -> None:
    """Write the picture of room ``index``.

    Args:
        path: of the SVG.
        pair: what was seen, and the truth.
        before, after: points of both views by the fresh and by the trained model, each
            (B, side, side, 3).
        index: of the room.
    """
    truth = _unit(tuple(p[index] for p in pair.points))
    guesses = [_unit(tuple(p[index] for p in points)) for points in (before, after)]
    far = max(float(points[..., 2].max()) for points in truth)
    columns = ["seen", "true", "before", "after"]
    rows = ["first view", "second view", "from above"]
    cells: list[list[Tensor | None]] = []
    for view in range(2):
        seen = (pair.images[view][index].permute(1, 2, 0) + 1) / 2
        cells.append([seen, *(_depth(maps[view], far) for maps in (truth, *guesses))])
    cells.append([None, *(_from_above(maps, far) for maps in (truth, *guesses))])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, _svg(cells, rows, columns))


def _unit(maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Both views' points over their mean distance."""
    mean = torch.cat([points.norm(dim=-1).flatten() for points in maps]).mean().clamp(min=1e-8)
    return tuple(points / mean for points in maps)


def _depth(points: Tensor, far: float) -> Tensor:
    """How far ahead of the first camera each pixel's point lies, as colours (side, side, 3)."""
    return _colours(points[..., 2] / far)


def _from_above(maps: tuple[Tensor, ...], far: float, cells: int = 66) -> Tensor:
    """Where the points of both views lie on the floor, the first camera at the bottom's middle."""
    picture = torch.full((cells, cells, 3), 0.93)
    for points, colour in zip(maps, ([0.0, 0.45, 0.7], [0.84, 0.37, 0.0]), strict=True):
        flat = points.reshape(-1, 3)
        column = ((flat[:, 0] / far + 1) / 2 * cells).long()
        row = cells - 1 - (flat[:, 2] / far * 0.95 * cells).long()
        fits = (column >= 0) & (column < cells) & (row >= 0) & (row < cells)
        picture[row[fits], column[fits]] = torch.tensor(colour)
    return picture


def _colours(values: Tensor) -> Tensor:
    """0 ... 1, values beyond are cut, -> (..., 3) in 0 ... 1."""
    place = values.clamp(0, 1) * (len(RAMP) - 1)
    low = place.floor().long().clamp(max=len(RAMP) - 2)
    share = (place - low)[..., None]
    return (RAMP[low] * (1 - share) + RAMP[low + 1] * share) / 255


def _svg(cells: list[list[Tensor | None]], rows: list[str], columns: list[str]) -> str:
    width = LEFT + len(columns) * (PANEL + GAP)
    height = TOP + len(rows) * (PANEL + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img">',
        "<title>Two views of a room, and the points a small model gives for them</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="paper" width="{width}" height="{height}"/>',
    ]
    for number, name in enumerate(columns):
        x = LEFT + number * (PANEL + GAP) + PANEL // 2
        parts.append(f'<text x="{x}" y="17" text-anchor="middle">{name}</text>')
    for line, (name, panels) in enumerate(zip(rows, cells, strict=True)):
        y = TOP + line * (PANEL + GAP)
        parts.append(f'<text x="8" y="{y + PANEL // 2}">{name}</text>')
        for number, panel in enumerate(panels):
            if panel is not None:
                x = LEFT + number * (PANEL + GAP)
                parts.append(
                    f'<image x="{x}" y="{y}" width="{PANEL}" height="{PANEL}" '
                    f'href="data:image/png;base64,{_png(panel)}"/>'
                )
    return "\n".join([*parts, "</svg>", ""])


def _png(picture: Tensor) -> str:
    """(rows, columns, 3) in 0 ... 1 as base64."""
    pixels = (picture.clamp(0, 1) * 255).round().to(torch.uint8).contiguous()
    file = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(file, format="PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode("ascii")
