"""Pydantic's errors as lines that a person can act on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from vitkit.errors import nearest

__all__ = ["fault_lines", "fields_of", "located"]

TYPES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "model_type": "a group of keys",
    "dict_type": "a group of keys",
    "tuple_type": "a list",
    "finite_number": "a finite number",
}
MOST = 3
"""Places of a key in other sections that are worth naming; ``name`` is in nearly all of them."""

BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def fault_lines(error: ValidationError, section: str, known: Iterable[str]) -> list[str]:
    """One line a fault: the dotted key, what was given, what is allowed.

    Args:
        error: from checking one section.
        section: its name.
        known: all dotted keys that exist, for the nearest right one.
    """
    known = list(known)
    texts: dict[str, list[str]] = {}
    for details in error.errors():
        key = ".".join([section, *(str(part) for part in details["loc"] if _is_key(part))])
        text = _text(details, key, known)
        others = texts.setdefault(key, [])
        given, allowed, rest = text.partition(", allowed: ")
        if others and rest and others[-1].startswith(given + allowed):
            others[-1] += f" or {rest}"  # another branch of the same union
        elif text not in others:
            others.append(text)
    return [f"{key}: {text}" for key, lines in texts.items() for text in lines]


def located(fault: str, origins: Mapping[str, str]) -> str:
    """A fault that begins with a key, with the place where that was written."""
    where = origins.get(fault.partition(":")[0])
    return fault if where is None else f"{fault} ({where})"


def fields_of(model: type[BaseModel], prefix: str) -> list[tuple[str, FieldInfo]]:
    """(dotted key, field) of all that a section holds, in place of a group what is in it."""
    fields: list[tuple[str, FieldInfo]] = []
    for name, field in model.model_fields.items():
        key, kind = f"{prefix}.{name}", field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            fields += fields_of(kind, key)
        else:
            fields.append((key, field))
    return fields


def _text(details: ErrorDetails, key: str, known: list[str]) -> str:
    kind, given, context = details["type"], details["input"], details.get("ctx", {})
    if kind == "extra_forbidden":
        close = _elsewhere(key, known) or _sibling(key, known) or _by_last_part(key, known)
        return f"unknown key; did you mean {' or '.join(close)}?" if close else "unknown key"
    if kind == "literal_error":
        allowed = str(context.get("expected", "")).replace(" or ", ", ")
        close = nearest(str(given), [part.strip("' ") for part in allowed.split(",")], n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        return f"given {given!r}, allowed: {allowed}{hint}"
    if kind in ("greater_than_equal", "greater_than", "less_than_equal", "less_than"):
        bound, limit = next((b, v) for b, v in context.items() if b in BOUNDS)
        return f"given {given!r}, allowed: {BOUNDS[bound]} {limit}"
    if kind == "value_error":
        message = str(context.get("error", details["msg"])).removeprefix("should be ")
        return f"given {given!r}, allowed: {message}" if _is_plain(given) else message
    return f"given {given!r}, allowed: {TYPES.get(kind, details['msg'].removeprefix('Input '))}"


def _elsewhere(key: str, known: list[str]) -> list[str]:
    """The same name in other sections: ``model.lr`` -> ``optimizer.lr``; not of what has many."""
    last = "." + key.rsplit(".", 1)[-1]
    found = [name for name in known if name.endswith(last)]
    return found if len(found) <= MOST else []


def _sibling(key: str, known: list[str]) -> list[str]:
    """Nearly the right name, in the same section: what the section is called makes none alike."""
    group, _, last = key.rpartition(".")
    own = [name.rpartition(".")[2] for name in known if name.rpartition(".")[0] == group]
    return [f"{group}.{name}" for name in nearest(last, own, n=1)]


def _by_last_part(key: str, known: list[str]) -> list[str]:
    """Nearly the right name, in another section."""
    last = key.rsplit(".", 1)[-1]
    by_last = {name.rsplit(".", 1)[-1]: name for name in known}
    return [by_last[name] for name in nearest(last, by_last, n=1)]


def _is_key(part: int | str) -> bool:
    """Field names; pydantic also puts list indices and names of types into a location."""
    return isinstance(part, str) and part.isidentifier() and part not in ("int", "tuple", "str")


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float | bool | list | tuple | None)
