"""Tables that a person can sort, and a screen reader can read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from vitkit.report.markup import Markup, element
from vitkit.report.wording import plain_text

__all__ = ["Column", "pairs_table", "scrolling", "shade", "table"]

HALF, DENSE = 0.65, 0.85
"""Shares of full colour from which text on it is inverted: on a dark page, on a light one too."""


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        name: in the head.
        values: from top to bottom; they are what is sorted by.
        shown: how a value is written.
        bar: each value is a share, and drawn behind its number.
        best: the largest value is the ``high``, the smallest the ``low`` one to be marked, if any.
    """

    name: str
    values: Sequence[Any]
    shown: Callable[[Any], str] = plain_text
    bar: bool = False
    best: str = ""

    @cached_property
    def numeric(self) -> bool:
        """Whether it holds numbers, which are set to the right."""
        kept = [value for value in self.values if value is not None]
        return bool(kept) and all(isinstance(value, int | float) for value in kept)


def table(caption: str, columns: Sequence[Column], *, sortable: bool = False) -> Markup:
    """A table whose first column names the rows.

    Args:
        caption: for screen readers: what the table is.
        columns: of one length.
        sortable: the names in the head are buttons that sort.
    """
    head = element("tr", *(_head(column, sortable) for column in columns))
    rows = zip(*(column.values for column in columns), strict=True)
    body = [
        element("tr", *(_cell(c, v, c is columns[0]) for c, v in zip(columns, row, strict=True)))
        for row in rows
    ]
    made = element(
        "table",
        element("caption", caption, class_="unseen"),
        element("thead", head),
        element("tbody", *body),
        data_sortable=sortable,
    )
    return scrolling(caption, made)


def pairs_table(caption: str, pairs: Sequence[tuple[str, object]]) -> Markup:
    """Names and values, a row each."""
    rows = [
        element("tr", element("th", name, scope="row"), element("td", plain_text(value)))
        for name, value in pairs
    ]
    made = element(
        "table",
        element("caption", caption, class_="unseen"),
        element("tbody", *rows),
        class_="pairs",
    )
    return scrolling(caption, made)


def shade(share: float) -> str:
    """The class of a coloured cell, by which its text stands out from the colour.

    Args:
        share: of full colour, in [0, 1].
    """
    return "dense" if share >= DENSE else "half" if share >= HALF else "thin"


def scrolling(label: str, content: str) -> Markup:
    """A part that scrolls by itself where it is too wide, also by keyboard."""
    return element("div", content, class_="scroll", role="region", aria_label=label, tabindex="0")


def _head(column: Column, sortable: bool) -> Markup:
    kind = "number" if column.numeric else None
    if not sortable:
        return element("th", column.name, scope="col", class_=kind)
    button = element("button", column.name, type="button", class_="sort")
    return element("th", button, scope="col", class_=kind, aria_sort="none")


def _cell(column: Column, value: Any, is_head: bool) -> Markup:
    shown = column.shown(value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    sorted_by = repr(value) if is_number else str(value)
    if is_head:
        return element("th", shown, scope="row", data_v=sorted_by)
    words = ["number"] if column.numeric else []
    style = None
    if column.bar and is_number:
        words.append("bar")
        style = f"--v:{min(max(float(value), 0.0), 1.0):.4f}"
    if column.best and value is not None:
        kept = [v for v in column.values if v is not None]
        if len(set(kept)) > 1 and value == (max if column.best == "high" else min)(kept):
            words.append("best")
    class_ = " ".join(words) or None
    return element("td", shown, class_=class_, style=style, data_v=sorted_by)
