"""Texts from outside, of which nothing is known but that they are in UTF-8."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from vitkit.data.text.corpus import decode_text
from vitkit.data.text.parallel import read_lines

__all__ = ["read_lines", "utf8_lines", "utf8_text"]


def utf8_text(content: bytes, where: str) -> str:
    """Bytes as text.

    Args:
        content: in UTF-8.
        where: they come from, for the message.

    Raises:
        DataError: not UTF-8.
    """
    return decode_text(content, where)


def utf8_lines(lines: Iterable[bytes], where: str) -> Iterator[str]:
    """Lines of bytes as text, without their ends. Args and errors as of :func:`utf8_text`."""
    for number, line in enumerate(lines, start=1):
        text = decode_text(line, where, first_line=number)
        yield text.removesuffix("\n").removesuffix("\r")
