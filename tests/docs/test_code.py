"""The guides do what they say: their Python is run, and the commands of the first pages are."""

from __future__ import annotations

import functools
import importlib
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.docs.conftest import ROOT
from tests.small_data import write_cifar
from tests.test_readme import Workshop, blocks, commands
from vitkit.config import load_config

DOCS = ROOT / "docs"
TOLD_ELSEWHERE = "from-nlp-to-cv"
"""The story has tests of its own."""
PAGES = [path for path in sorted(DOCS.rglob("*.md")) if TOLD_ELSEWHERE not in path.parts]
ENGLISH = [path for path in sorted(DOCS.rglob("*.md")) if "zh" not in path.relative_to(DOCS).parts]
"""A Chinese page has the code of its English one: see tests/docs/test_chinese.py."""
PYTHON = {
    path.relative_to(DOCS).as_posix(): code
    for path in ENGLISH
    if TOLD_ELSEWHERE not in path.parts
    and (code := [content for name, content in blocks(path.read_text("utf-8")) if name == "python"])
}
COMMANDS = [
    pytest.param(line, id=f"{name}: {line}")
    for name in ("index.md", "getting-started.md", "training.md", "own-data.md")
    for line in commands((DOCS / name).read_text(encoding="utf-8"))
]
PROGRAMS = {"vitkit": "main", "python train.py": "run_train", "python eval.py": "run_eval"}
"""What a command begins with, and the function behind it."""
SETTING = re.compile(r"[a-z_]+\.[\w.]+=.*")


def typed(text: str) -> list[str]:
    """Every line of a fenced block, whatever its language, that is a command of ours."""
    fenced = re.findall(r"^ *```[^\n]*\n(.*?)^ *```$", text, re.M | re.S)
    lines = "".join(fenced).replace("\\\n", " ").splitlines()
    bare = [re.sub(r"(^|\s+)#.*", "", line).strip() for line in lines]
    return [line for line in bare if any(line.startswith(f"{start} ") for start in PROGRAMS)]


TYPED = [
    pytest.param(line, id=f"{path.relative_to(DOCS).as_posix()}: {line}")
    for path in ENGLISH
    for line in typed(path.read_text(encoding="utf-8"))
]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    folder = tmp_path_factory.mktemp("guides")
    with pytest.MonkeyPatch.context() as patch:
        write_cifar("cifar10", folder / "data", patch)
        yield Workshop(folder)


@pytest.fixture(scope="module")
def other_workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """For Python: its runs are not those that the commands speak of."""
    return Workshop(tmp_path_factory.mktemp("python"))


def shortened(code: str) -> str:
    """One epoch, and models as shallow as the workshop's weights."""
    code = re.sub(r"trainer\.max_epochs=\d+", "trainer.max_epochs=1", code)
    return code.replace('"vit_tiny_patch16_224"', '"vit_tiny_patch16_224", depth=1')


def test_the_guides_that_must_have_python_have_it() -> None:
    assert {"getting-started.md", "training.md", "own-data.md", "own-model.md"} <= set(PYTHON)
    assert {"weights.md", "seeing-inside.md"} <= set(PYTHON)


@pytest.mark.parametrize("name", PYTHON)
def test_the_python_of_a_page(
    other_workshop: Workshop,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(other_workshop.folder)
    names: dict[str, object] = {}
    for code in PYTHON[name]:
        capsys.readouterr()
        exec(compile(shortened(other_workshop.filled(code)), name, "exec"), names)
        assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_first_pages(
    workshop: Workshop, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    workshop.run(line)
    out = capsys.readouterr().out
    assert line.startswith("make ") or out.strip()


@pytest.mark.parametrize("line", TYPED)
def test_a_command_of_any_page_is_understood(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its options and arguments are the command's own, and its settings can be set so."""
    given: list[object] = []

    def noting(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def note(**arguments: object) -> None:
            given.extend(arguments.values())

        return note

    cli = importlib.import_module("vitkit.cli.main")
    monkeypatch.setattr(cli, "_command", noting)
    monkeypatch.chdir(ROOT)
    (start,) = (start for start in PROGRAMS if line.startswith(f"{start} "))
    rest = line.removeprefix(start).replace("CONFIG", "configs/vit_mini_cifar10.yaml")
    monkeypatch.setattr(sys, "argv", [start, *shlex.split(rest)])
    with pytest.raises(SystemExit) as left:
        getattr(cli, PROGRAMS[start])()
    assert given and not left.value.code
    words = [str(word) for value in given if isinstance(value, list) for word in value]
    files = [word for word in words if word.endswith(".yaml") and "=" not in word]
    load_config(files, [word for word in words if SETTING.fullmatch(word)])


def test_pages_are_searched_for_commands() -> None:
    """Those whose blocks name no language too."""
    pages = {str(one.id).partition(": ")[0] for one in TYPED}
    assert {f"{name}.md" for name in ("evaluation", "finetuning", "pretraining", "words")} <= pages
    assert {"report.md", "seeing-inside.md", "weights.md", "getting-started.md"} <= pages
    # Those of a Chinese page are compared where they begin a line.
    for path in set(DOCS.rglob("*.md")) - set(ENGLISH):
        assert not re.search(r"^ +```", path.read_text(encoding="utf-8"), re.M), path


def test_files_that_pages_include_or_name_exist() -> None:
    named = 0
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        for name in re.findall(r"^--8<--\n(.+)\n--8<--$", text, re.M):
            assert (ROOT / name).is_file(), f"{path.name}: {name}"
            named += 1
        for name in re.findall(r"(?<![\w/])((?:configs|examples)/\w+\.(?:yaml|py))\b", text):
            assert (ROOT / name).is_file(), f"{path.name}: {name}"
            named += 1
        for name in re.findall(r"python -m ((?:examples|benchmarks)(?:\.\w+)+)", text):
            assert (ROOT / Path(*name.split("."))).with_suffix(".py").is_file(), name
            named += 1
    assert named > 10


def test_the_first_page_states_what_the_lab_notebook_states() -> None:
    notebook = (DOCS / "results.md").read_text(encoding="utf-8")
    for page in ("index.md", "zh/index.md"):
        stated = re.findall(r"\b\d+\.\d+ %", (DOCS / page).read_text(encoding="utf-8"))
        assert len(stated) >= 2
        for number in stated:
            known = re.search(rf"(?<![\d.]){re.escape(number)}", notebook)
            assert known, f"{page}: {number}"
