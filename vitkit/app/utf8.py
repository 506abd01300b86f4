"""Texts from outside, of which nothing is known but that they are in UTF-8."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from vitkit.data.text.corpus import decode_text
from vitkit.data.text.parallel import read_lines

__all__ = ["decode_text", "read_lines", "utf8_lines"]


def utf8_lines(lines: Iterable[bytes], where: str) -> Iterator[str]:
    """Lines of bytes as text, without their ends. Args and errors as of :func:`decode_text`."""
    for number, line in enumerate(lines, start=1):
        text = decode_text(line, where, first_line=number)
        yield text.removesuffix("\n").removesuffix("\r")
