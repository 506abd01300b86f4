"""Pictures as they lie inside a page: sheets of many small ones, single ones, and heat."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["Sheet", "bytes_text", "heat_uri", "picture_uri", "sheet_of"]

Pixels = NDArray[np.uint8]

QUALITY = 88
"""Of JPEG; a thumbnail of 32 x 32 then takes about half a kilobyte."""

LOSSLESS_UP_TO = 64
"""Pixels a side; a larger picture is a JPEG too."""

MAGMA = (
    (0, 0, 4),
    (24, 15, 61),
    (68, 15, 118),
    (114, 31, 129),
    (158, 47, 127),
    (205, 64, 113),
    (241, 96, 93),
    (253, 150, 104),
    (254, 202, 141),
    (252, 253, 191),
)
"""Nine steps of a scale whose lightness rises evenly, so that it reads the same without colours."""


@dataclass(frozen=True)
class Sheet:
    """Many small pictures of one size in one.

    Attributes:
        uri: the picture as a ``data:`` address.
        columns, rows: how many lie beside and below one another.
        height, width: of one of them, in pixels.
    """

    uri: str
    columns: int
    rows: int
    height: int
    width: int


def sheet_of(pictures: Pixels) -> Sheet:
    """A sheet of pictures, row by row.

    Args:
        pictures: uint8 (P, height, width, 1 or 3), at least one.
    """
    count, height, width, channels = pictures.shape
    columns = min(count, max(1, math.ceil(math.sqrt(count * height / width))))
    rows = math.ceil(count / columns)
    cells = np.zeros((rows * columns, height, width, channels), dtype=np.uint8)
    cells[:count] = pictures
    whole = cells.reshape(rows, columns, height, width, channels).transpose(0, 2, 1, 3, 4)
    pixels = whole.reshape(rows * height, columns * width, channels)
    file = io.BytesIO()
    _image(pixels).save(file, "JPEG", quality=QUALITY, subsampling=0)
    return Sheet(_uri("jpeg", file.getvalue()), columns, rows, height, width)


def picture_uri(picture: Pixels) -> str:
    """uint8 (height, width, 1, 3 or 4) as a ``data:`` address; lossless if small or see-through."""
    file = io.BytesIO()
    if max(picture.shape[:2]) > LOSSLESS_UP_TO and picture.shape[-1] < 4:
        _image(picture).save(file, "JPEG", quality=QUALITY)
        return _uri("jpeg", file.getvalue())
    _image(picture).save(file, "PNG", optimize=True)
    return _uri("png", file.getvalue())


def heat_uri(heat: NDArray[np.floating]) -> str:
    """Numbers in [0, 1] (rows, columns) -> their colours, the clearer the larger they are."""
    values = np.clip(np.nan_to_num(np.asarray(heat, dtype=np.float64)), 0.0, 1.0)
    stops = np.linspace(0.0, 1.0, len(MAGMA))
    colours = [np.interp(values, stops, [c[i] for c in MAGMA]) for i in range(3)]
    opacity = 60.0 + 150.0 * values
    return picture_uri(np.stack([*colours, opacity], axis=-1).round().astype(np.uint8))


def bytes_text(values: NDArray[np.uint8]) -> str:
    """Bytes as text, which the page's script reads back."""
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")


def _image(pixels: Pixels) -> Image.Image:
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
