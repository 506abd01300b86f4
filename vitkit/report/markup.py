"""HTML and SVG as text, in which everything is escaped unless it was made here."""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["Markup", "data_block", "element", "embedded_json", "escaped", "joined", "number"]

VOID = frozenset({"br", "col", "hr", "img", "input", "link", "meta"})
"""Elements without an end tag."""

UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]")
"""What HTML forbids as text."""

Attribute = str | int | float | bool | None


class Markup(str):
    """Text that may stand in a page as it is."""

    __slots__ = ()


def escaped(text: object) -> Markup:
    """Any text as it may stand between tags and in quoted attributes.

    A :class:`Markup` is returned unchanged; control characters and halves of surrogate pairs, which
    file names may hold, become replacement characters.
    """
    if isinstance(text, Markup):
        return text
    plain = str(text).encode("utf-8", "replace").decode("utf-8")
    return Markup(html.escape(UNPRINTABLE.sub("\ufffd", plain), quote=True))


def joined(parts: Sequence[str | None], between: str = "") -> Markup:
    """Parts behind one another, each escaped if need be; None is nothing."""
    return Markup(escaped(between).join(escaped(part) for part in parts if part is not None))


def element(tag: str, *children: str | None, **attributes: Attribute) -> Markup:
    """``<tag ...>children</tag>``.

    Args:
        tag: name of the element.
        children: text, which is escaped, or :class:`Markup`; None is nothing.
        attributes: ``class_`` is ``class`` and ``aria_label`` is ``aria-label``; True is an
            attribute without a value, None and False are none.
    """
    words = [tag]
    for name, value in attributes.items():
        if value is None or value is False:
            continue
        name = name.rstrip("_").replace("_", "-")
        if value is True:
            words.append(name)
        else:
            shown = number(value) if isinstance(value, float) else value
            words.append(f'{name}="{escaped(shown)}"')
    start = f"<{' '.join(words)}>"
    if tag in VOID:
        return Markup(start)
    return Markup(f"{start}{joined(children)}</{tag}>")


def number(value: float) -> str:
    """At most two digits behind the point, none that say nothing: 3, 0.5, 12.25."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def embedded_json(value: Any) -> Markup:
    """JSON as it may stand inside a ``script`` element: nothing in it can end the element.

    Numbers that are not finite, which JSON does not know, become null.
    """
    text = json.dumps(_finite(value), separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)


def data_block(value: Any, **attributes: Attribute) -> Markup:
    """A ``script`` element that holds data and is never run."""
    return element("script", embedded_json(value), type="application/json", **attributes)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
