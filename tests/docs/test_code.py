"""The guides do what they say: their Python is run, and the commands of the first pages are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.conftest import ROOT
from tests.small_data import write_cifar
from tests.test_readme import Workshop, blocks, commands

DOCS = ROOT / "docs"
TOLD_ELSEWHERE = "from-nlp-to-cv"
"""The story has tests of its own."""
PAGES = [path for path in sorted(DOCS.rglob("*.md")) if TOLD_ELSEWHERE not in path.parts]
PYTHON = {
    path.relative_to(DOCS).as_posix(): code
    for path in PAGES
    if (code := [content for name, content in blocks(path.read_text("utf-8")) if name == "python"])
}
COMMANDS = [
    pytest.param(line, id=f"{name}: {line}")
    for name in ("index.md", "getting-started.md", "training.md", "own-data.md", "zh/index.md")
    for line in commands((DOCS / name).read_text(encoding="utf-8"))
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
            assert number in notebook, f"{page}: {number}"
