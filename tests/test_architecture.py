"""Who may import whom: the table of docs/architecture.md, held against every import there is."""

from __future__ import annotations

import ast
import configparser
import importlib
import inspect
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import vitkit

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "vitkit"
DOCUMENT = ROOT / "docs" / "architecture.md"

CONFIG_CLASSES = frozenset(
    {
        "models.config",
        "models.presets",
        "data.config",
        "data.kinds",
        "training.config",
        "training.task_config",
        "evaluation.config",
    }
)
BELOW_APP = frozenset(
    {"nn", "models", "data", "training", "evaluation", "weights", "explain", "report"}
)

TABLE: dict[str, frozenset[str]] = {
    "nn": frozenset(),
    "models": frozenset({"nn"}),
    "data": frozenset(),
    "training": frozenset({"nn", "evaluation"}),
    "evaluation": frozenset(),
    "report": frozenset(),
    "explain": frozenset({"nn", "models"}),
    "weights": frozenset({"nn", "models"}),
    "config": CONFIG_CLASSES,
    "app": BELOW_APP | {"config"},
    "cli": frozenset({"app", "config"}),
}
"""Room -> rooms, or single modules as ``room.module``, that it may import besides itself."""

LEAVES = frozenset({"errors", "records"})
"""Modules that everyone may import, and that import nothing of ours."""

FACES = {"vitkit", "vitkit.app", "vitkit.models"}
"""Packages whose ``__getattr__`` imports a name when it is first used."""

EXTRAS = {
    "onnxruntime": "onnx",
    "onnxscript": "onnx",
    "pytorch_lightning.loggers.WandbLogger": "wandb",
    "sacrebleu": "text",
    "tokenizers": "text",
    "umap.UMAP": "umap",
}
"""What may be imported inside a function of any module -> the extra of setup.cfg it needs."""


@dataclass(frozen=True)
class Import:
    """One imported name.

    Attributes:
        place: file and line.
        source: module that imports.
        target: module that is imported; with the name behind it where that is no module of ours.
        inside: function or method in which it happens, None at the top of the file.
    """

    place: str
    source: str
    target: str
    inside: str | None


class _Imports(ast.NodeVisitor):
    """Collects the imports of a module: statements, and module names in text for import_module."""

    def __init__(self, path: Path, module: str, modules: frozenset[str]) -> None:
        self.path, self.module, self.modules = path, module, modules
        self.package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        self.functions: list[str] = []
        self.found: list[Import] = []

    def add(self, node: ast.stmt | ast.expr, target: str) -> None:
        inside = self.functions[-1] if self.functions else None
        place = f"{self.path.name}:{node.lineno}"
        self.found.append(Import(place, self.module, target, inside))

    def visit_Import(self, node: ast.Import) -> None:
        for name in node.names:
            self.add(node, name.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = node.module or ""
        if node.level:
            parts = self.package.split(".")
            above = ".".join(parts[: len(parts) - node.level + 1])
            base = f"{above}.{base}" if base else above
        for name in node.names:
            full = f"{base}.{name.name}"
            ours = base in self.modules and full not in self.modules
            self.add(node, base if ours else full)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str) and "." in node.value and node.value in self.modules:
            self.functions.append("")  # text is imported when it is used, not here
            self.add(node, node.value)
            self.functions.pop()

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.functions.append(node.name)
        self.generic_visit(node)
        self.functions.pop()

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self.visit_FunctionDef(node)


def imports_of(package: Path) -> list[Import]:
    """Every import of every file under a package's folder."""
    files = {_module(package, path): path for path in sorted(package.rglob("*.py"))}
    found = []
    for module, path in files.items():
        visitor = _Imports(path, module, frozenset(files))
        visitor.visit(ast.parse(path.read_text(encoding="utf-8")))
        found += visitor.found
    return found


def forbidden_arrows(package: Path) -> list[str]:
    """One line an import that the table does not allow."""
    own = package.name
    return [
        f"{i.source} ({i.place}) imports {i.target}"
        for i in imports_of(package)
        if i.target.split(".")[0] == own and not _allowed(own, i.source, i.target)
    ]


def hidden_imports(package: Path) -> list[str]:
    """One line an import inside a function that has no leave to be there."""
    own = package.name
    return [
        f"{i.source} ({i.place}) imports {i.target} inside {i.inside}()"
        for i in imports_of(package)
        if i.inside
        and i.source not in FACES
        and not i.source.startswith(f"{own}.cli.")
        and i.target not in EXTRAS
    ]


def rooms_of(package: Path) -> set[str]:
    """Names of the folders with Python files."""
    return {path.parent.name for path in package.glob("*/*.py")}


def _module(package: Path, path: Path) -> str:
    parts = [package.name, *path.relative_to(package).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _allowed(own: str, source: str, target: str) -> bool:
    if source == own:
        return True  # the face shows names of every room
    here, there = (name.removeprefix(f"{own}.") for name in (source, target))
    room, other = here.split(".")[0], there.split(".")[0]
    if room == "__main__":
        return other == "cli"
    if other in LEAVES:
        return room not in LEAVES or room == other
    return room == other or bool({other, there} & TABLE.get(room, frozenset()))


@cache
def _documented() -> dict[str, frozenset[str]]:
    """The table of docs/architecture.md in the words of TABLE."""
    text = DOCUMENT.read_text(encoding="utf-8")
    _, _, rows = text.partition("| room | holds | may import |")
    table: dict[str, frozenset[str]] = {}
    for line in rows.strip().splitlines()[1:]:
        if not line.startswith("|"):
            break
        room, _, may = (cell.strip() for cell in line.strip("|").split("|"))
        table[room.strip("`")] = _meant(may, frozenset(table))
    return table


def _meant(cell: str, above: frozenset[str]) -> frozenset[str]:
    words = {
        "nothing of ours": frozenset(),
        "config classes": CONFIG_CLASSES,
        "all of the above": above,
    }
    named = frozenset(re.findall(r"`([\w.]+)`", cell))
    assert named or cell in words, f"{DOCUMENT.name}: what does {cell!r} allow?"
    return named or words[cell]


def test_no_arrow_but_those_of_the_table() -> None:
    assert forbidden_arrows(PACKAGE) == []


def test_imports_inside_functions_are_few_and_named() -> None:
    assert hidden_imports(PACKAGE) == []
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    assert set(EXTRAS.values()) <= set(setup["options.extras_require"])
    for extra in EXTRAS:
        assert any(i.target == extra for i in imports_of(PACKAGE)), f"{extra}: used nowhere"


def test_the_table_here_is_the_one_in_the_document() -> None:
    rooms = rooms_of(PACKAGE)
    assert rooms <= set(TABLE), "a new folder needs a row in both tables"
    assert set(_documented()) == rooms, "every room has a row, and every row a room"
    for room, may in _documented().items():
        assert may == {m for m in TABLE[room] if m in CONFIG_CLASSES or m in rooms}, room


def test_the_rows_of_the_diagram_import_downwards_only() -> None:
    diagram = re.findall(r"```text\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.S)[0]
    rows = [line.split() for line in diagram.strip().splitlines()]
    place = {room: row for row, rooms in enumerate(rows) for room in rooms}
    assert sum(map(len, rows)) == len(place), "no room stands twice"
    assert set(place) == rooms_of(PACKAGE) | LEAVES
    for room, may in TABLE.items():
        for target in {m.split(".")[0] for m in may} & set(place):
            assert place[room] < place[target], f"{room} -> {target}"


def test_the_package_holds_rooms_and_leaves_and_no_utils() -> None:
    files = {path.stem for path in PACKAGE.glob("*.py")}
    assert files == {"__init__", "__main__"} | LEAVES
    names = {path.stem for path in PACKAGE.rglob("*")}
    assert not [name for name in names if re.fullmatch(r"_*(utils?|helpers?|common|misc)", name)]
    for folder in PACKAGE.rglob("*/"):
        assert (folder / "__init__.py").exists() or not list(folder.glob("*.py")), folder


_MADE_UP = {
    "__init__.py": "from own.cli import main",
    "__main__.py": "from own.cli import main",
    "errors.py": "import sys",
    "records.py": "",
    "nn/__init__.py": "from own.nn.core import f",
    "nn/core.py": "import torch\nfrom own.errors import Wrong",
    "models/__init__.py": "",
    "models/config.py": "",
    "models/big.py": "from own import nn\nfrom ..nn.core import f\nfrom . import config",
    "data/__init__.py": "",
    "data/read.py": "HOMES = {'own': 'own.data'}\n'''Words about own.models are no import.'''",
    "config/__init__.py": "from own.models.config import C",
    "app/__init__.py": "import own.models.big as big\nfrom own import data",
    "cli/__init__.py": "def main():\n    from own.app import train",
    "cli/main.py": "def main():\n    from own.app import train",
}


def _tree(folder: Path, **changes: str) -> Path:
    for name, text in {**_MADE_UP, **changes}.items():
        path = folder / "own" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "own"


def test_the_checker_is_content_with_a_good_tree(tmp_path: Path) -> None:
    package = _tree(tmp_path, **{"cli/__init__.py": "from own.cli.main import main"})
    assert forbidden_arrows(package) == []
    assert hidden_imports(package) == []


@pytest.mark.parametrize(
    ("file", "text", "target"),
    [
        ("nn/core.py", "import own.models.big", "own.models.big"),
        ("nn/core.py", "from own.models import big", "own.models.big"),
        ("nn/core.py", "from ..models.big import x", "own.models.big"),
        ("nn/core.py", "from .. import models", "own.models"),
        ("nn/core.py", "if TYPE_CHECKING:\n    from own.models import *", "own.models"),
        ("nn/core.py", "def f():\n    from own.app import x", "own.app"),
        ("nn/core.py", "async def f():\n    import own", "own"),
        ("nn/core.py", "from own import create_model", "own"),
        ("nn/core.py", "import_module('own.models.big')", "own.models.big"),
        ("data/read.py", "from own.models.config import C", "own.models.config"),
        ("models/config.py", "from own.config import x", "own.config"),
        ("config/__init__.py", "from own.models.big import x", "own.models.big"),
        ("config/__init__.py", "from own import models", "own.models"),
        ("app/__init__.py", "from own.cli import main", "own.cli.main"),
        ("cli/main.py", "from own.models import big", "own.models.big"),
        ("errors.py", "from own.records import x", "own.records"),
        ("records.py", "from own.nn import f", "own.nn"),
        ("__main__.py", "from own.app import train", "own.app"),
        ("attic/box.py", "from own.nn import f", "own.nn"),
    ],
)
def test_the_checker_finds_a_forbidden_arrow(
    tmp_path: Path, file: str, text: str, target: str
) -> None:
    package = _tree(tmp_path, **{file: text})
    (arrow,) = forbidden_arrows(package)
    assert arrow.endswith(f" imports {target}")
    assert f"{Path(file).name}:" in arrow


def test_the_checker_finds_imports_inside_functions(tmp_path: Path) -> None:
    late = "class A:\n    def f(self):\n        import torch\n        return torch"
    package = _tree(tmp_path, **{"nn/core.py": late})
    assert hidden_imports(package) == [
        "own.cli (__init__.py:2) imports own.app inside main()",
        "own.nn.core (core.py:3) imports torch inside f()",
    ]
    assert rooms_of(_tree(tmp_path, **{"attic/box.py": ""})) - set(TABLE) == {"attic"}


_LIGHT = """
import sys
import {module}
heavy = {{"torch", "pytorch_lightning", "timm", "sklearn", "torchvision"}} & set(sys.modules)
print(*sorted(heavy))
"""


@pytest.mark.parametrize("module", ["vitkit", "vitkit.config"])
def test_a_light_import_brings_no_torch(module: str) -> None:
    assert _python(_LIGHT.format(module=module)) == ""


_ALONE = """
import sys

def refuse(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"):
        raise SystemExit(f"the network was asked: {event} {arguments}")

sys.addaudithook(refuse)
import importlib, pkgutil, vitkit
for found in pkgutil.walk_packages(vitkit.__path__, "vitkit."):
    importlib.import_module(found.name)
for name in vitkit.__all__:
    getattr(vitkit, name)
print("torch" in sys.modules)
"""


def test_importing_all_of_it_asks_no_network() -> None:
    assert _python(_ALONE) == "True"
    with pytest.raises(subprocess.CalledProcessError):  # the guard itself works
        refused = _ALONE.split("import importlib")[0]
        _python(refused + "import socket\nsocket.getaddrinfo('localhost', 1)")


def _python(code: str) -> str:
    """What a fresh interpreter prints; it must end well."""
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip()


def test_every_public_name_resolves_and_is_listed_once() -> None:
    assert sorted(set(vitkit.__all__)) == vitkit.__all__
    for name in vitkit.__all__:
        assert getattr(vitkit, name) is not None
    assert set(vitkit.__all__) <= set(dir(vitkit))
    with pytest.raises(AttributeError, match="no attribute 'nothing_such'"):
        _ = vitkit.nothing_such


MODULES = [_module(PACKAGE, p) for p in sorted(PACKAGE.rglob("*.py")) if p.stem != "__main__"]


@pytest.mark.parametrize("name", MODULES)
def test_public_names_exist_and_have_docstrings(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} has no docstring"
    own = [thing for thing in vars(module).values() if getattr(thing, "__module__", "") == name]
    assert hasattr(module, "__all__") or not own, f"{name} has no __all__"
    missing = []
    for public in getattr(module, "__all__", []):
        thing = getattr(module, public)
        if (inspect.isclass(thing) or inspect.isfunction(thing)) and not thing.__doc__:
            missing.append(public)
    assert missing == [], f"{name}: without docstrings"
