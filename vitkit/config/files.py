"""YAML 1.2 in and out: ``1e-3`` is a number, ``off`` is text, a date is text.

Reading never runs or builds anything: mappings, lists, text, numbers, true, false and null are all
that a file can hold. A fault is a line added to a list, so that one reading reports all of them.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from vitkit.config.layers import layered
from vitkit.errors import first_line, nearest

__all__ = ["EXTENDS", "Document", "dump_sections", "parse_value", "read_file"]

EXTENDS = "extends"
"""The key by which a file names the file that it builds on, relative to its own folder."""

_TAG = "tag:yaml.org,2002:"
_NUMBERS_AND_SUCH = {_TAG + kind for kind in ("int", "float", "bool", "null")}
# ruamel resolves dates and a lone "=" even in YAML 1.2; the core schema has neither.
_TEXTS = {_TAG + kind for kind in ("str", "timestamp", "value", "merge")}


@dataclass(frozen=True)
class Document:
    """A file's content and where each of its keys was written.

    Attributes:
        values: nested mappings of plain values.
        origins: dotted key -> ``"path, line n"``.
    """

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)


class _Reader:
    """Turns one file's nodes into plain values, noting faults and the line of every key."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.faults: list[str] = []
        self.origins: dict[str, str] = {}
        self._yaml = YAML(typ="safe", pure=True)
        self._open: list[int] = []

    def where(self, line: int) -> str:
        return f"{self.name}, line {line + 1}" if self.name else ""

    def fault(self, node: Node, text: str) -> None:
        where = self.where(node.start_mark.line)
        self.faults.append(f"{where}: {text}" if where else text)

    def read(self, text: str) -> Any:
        """Plain values of one YAML document; None for an empty one."""
        try:
            node = self._yaml.compose(io.StringIO(text))
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            where = self.where(mark.line) if mark is not None else self.name
            problem = error.problem or error.context or "it cannot be read"
            self.faults.append(f"{where + ': ' if where else ''}not valid YAML: {problem}")
            return None
        except YAMLError as error:
            problem = first_line(error)
            self.faults.append(f"{self.name + ': ' if self.name else ''}not valid YAML: {problem}")
            return None
        return None if node is None else self.plain(node, "")

    def plain(self, node: Node, key: str) -> Any:
        if id(node) in self._open:
            self.fault(node, f"{key}: the value contains itself; write it out instead")
            return None
        self._open.append(id(node))
        try:
            if isinstance(node, MappingNode):
                return self.mapping(node, key)
            if isinstance(node, SequenceNode) and node.tag == _TAG + "seq":
                return [self.plain(item, key) for item in node.value]
            return self.scalar(node, key)
        finally:
            self._open.pop()

    def mapping(self, node: MappingNode, key: str) -> dict[str, Any]:
        values: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for name_node, value_node in node.value:
            name = name_node.value
            if not isinstance(name, str) or name_node.tag not in _TEXTS:
                shown = name if isinstance(name, str) else "a list or mapping"
                self.fault(name_node, f"{shown}: a key must be text")
                continue
            full = f"{key}.{name}" if key else name
            if name in lines:
                first = lines[name] + 1
                self.fault(name_node, f"{full}: given twice, first in line {first}; keep one")
                continue
            lines[name] = name_node.start_mark.line
            if self.name:
                self.origins[full] = self.where(lines[name])
            values[name] = self.plain(value_node, full)
        if node.tag != _TAG + "map":
            self.fault(node, f"{key}: the tag {node.tag} is not allowed; write a plain value")
        return values

    def scalar(self, node: Node, key: str) -> Any:
        if isinstance(node, ScalarNode) and node.tag in _TEXTS:
            return node.value
        if isinstance(node, ScalarNode) and node.tag in _NUMBERS_AND_SUCH:
            try:
                return self._yaml.constructor.construct_object(node)
            except (ValueError, KeyError, YAMLError):  # such as "!!int ten"
                self.fault(node, f"{key}: {node.value!r} does not fit its tag; remove the tag")
                return None
        self.fault(node, f"{key}: the tag {node.tag} is not allowed; write a plain value")
        return None


COMMENT = re.compile(r"\s#")


def parse_value(text: str) -> tuple[Any, list[str]]:
    """The value of an override such as ``1e-3``, and what is wrong with it (empty if nothing)."""
    reader = _Reader("")
    value = reader.read(text)
    if COMMENT.search(text) and "#" not in str(value):
        reader.faults.append(f"what is behind # in {text} is a comment; quote it: '\"...\"'")
    return value, [fault.removeprefix(": ") for fault in reader.faults]


def read_file(path: Path, faults: list[str], above: tuple[Path, ...] = ()) -> Document:
    """Read a config file, and first the file that it ``extends``, if any.

    Args:
        path: the file.
        faults: what is wrong is added here, a line each; the rest is still read.
        above: the files that led here through ``extends``.

    Returns:
        The merged content, without the key ``extends``.
    """
    if path.resolve() in above:
        faults.append(f"{path}: it extends itself, by way of {above[-1].name}; remove one of them")
        return Document()
    text = _read_text(path, faults)
    if text is None:
        return Document()
    reader = _Reader(str(path))
    values = reader.read(text)
    faults.extend(reader.faults)
    if values is None:
        return Document()
    if not isinstance(values, dict):
        faults.append(f"{path}: a config file holds sections such as 'data:', not a lone value")
        return Document()
    if EXTENDS not in values:
        return Document(values, reader.origins)
    target = values.pop(EXTENDS)
    if not isinstance(target, str):
        faults.append(f"{reader.origins[EXTENDS]}: extends: the name of one file is needed")
        return Document(values, reader.origins)
    base = read_file(path.parent / target, faults, (*above, path.resolve()))
    origins = base.origins | reader.origins
    return Document(layered(base.values, values), origins)


def _read_text(path: Path, faults: list[str]) -> str | None:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        faults.append(_missing(path))
    except (IsADirectoryError, PermissionError) as error:  # Windows calls a folder "no permission"
        reason = "a folder, but a YAML file is needed" if path.is_dir() else str(error.strerror)
        if path.is_dir():
            reason += f" (pictures: data.name=image_folder data.root={path})"
        faults.append(f"{path}: {reason}")
    except UnicodeDecodeError:
        faults.append(f"{path}: not a text file in UTF-8")
    except (OSError, ValueError) as error:  # a name too long, or one with a null character
        faults.append(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}")
    return None


def _missing(path: Path) -> str:
    """Says that a file is missing and which ones its folder has."""
    if not path.parent.is_dir():
        return f"{path}: no such file, and no folder {path.parent}"
    names = _yaml_files(path.parent)
    # The shipped ones lie in a folder of that name.
    below = path.parent / "configs"
    places = dict.fromkeys(names, path.parent)
    places |= {name: below for name in _yaml_files(below) if name not in places}
    for name in (path.name, path.name + ".yaml"):
        if close := nearest(name, places, n=1):
            return f"{path}: no such file; did you mean {places[close[0]] / close[0]}?"
    if not names:
        return f"{path}: no such file, and no YAML file in {path.parent}"
    more = ", ..." if len(names) > 8 else ""
    return f"{path}: no such file; {path.parent} has {', '.join(names[:8])}{more}"


def _yaml_files(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    names = (p.name for p in folder.iterdir() if p.suffix in {".yaml", ".yml"})
    return sorted(name for name in names if not name.startswith("."))


def dump_sections(values: Mapping[str, Any], header: str = "") -> str:
    """YAML text of plain values, a blank line between sections, ``header`` as comments on top."""
    yaml: Any = YAML(typ="safe", pure=True)
    yaml.allow_unicode = True
    yaml.width = 4096
    yaml.sort_base_mapping_type_on_output = False
    parts = [f"# {line}".rstrip() + "\n" for line in header.splitlines()]
    for name, section in values.items():
        stream = io.StringIO()
        yaml.default_flow_style = not bool(isinstance(section, Mapping) and section)
        yaml.dump({name: section}, stream)
        parts.append(("\n" if parts else "") + stream.getvalue())
    return "".join(parts)
