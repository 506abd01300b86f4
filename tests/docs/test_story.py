"""The story: its code prints what its pages show; its numbers and figures come from commands."""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Iterator
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
import pytest

from examples.story import __main__ as all_chapters
from tests.docs.conftest import ROOT
from vitkit.config import load_config, split_arguments

STORY = ROOT / "docs" / "from-nlp-to-cv"
FIGURES = STORY / "figures"
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in sorted(STORY.glob("*.md"))}
TRAINED = {"transformer", "attention_on_pictures", "every_query", "token_mixing"}
"""Chapters whose numbers come of a training."""
SCRIPTS = sorted({*all_chapters.CHAPTERS, *TRAINED})
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.M | re.S)
NUMBER = re.compile(r"(?<![\w.,-])\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?(?!\w)")
CITED = {
    "01-recurrence": {"100000"},  # round; examples.sequence_mixers prints them
    "02-attention-as-search": {"100"},  # where BLEU ends
    "05-masks-and-positions": {"10000"},  # arXiv 1706.03762, section 3.5
    "06-transformer-2017": {"65", "10", "1024"},  # arXiv 1706.03762, table 3
    "07-patches-are-words": {"32"},  # pixels along a side of CIFAR-10's pictures
    "08-vision-transformer": {"300", "50000"},  # arXiv 2010.11929; CIFAR-10's training pictures
    "10-without-attention": {"21"},  # millions: what nb01_vit's size is in words
    "index": {"10"},  # a chapter
}
"""Numbers that no command gives, each with where it is from."""


@pytest.fixture(autouse=True)
def _matplotlib_as_it_was() -> Iterator[None]:
    with matplotlib.rc_context():
        yield


def numbers(text: str, *, shortest: int = 1) -> set[str]:
    """Numbers of so many characters, as one writes them in code: 1,024 is 1024, and 8.0 is 8."""
    found = [number for number in NUMBER.findall(text) if len(number.rstrip(",")) >= shortest]
    return {number.replace(",", "").removesuffix(".0") for number in found}


def section(page: str, anchor: str) -> str:
    """What a page of ``docs/`` says under a heading of level 2; all of it without an anchor."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    parts = re.split(r"^## (.*)$", text, flags=re.M)
    for heading, body in zip(parts[1::2], parts[2::2], strict=True):
        if anchor == re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-"):
            return body
    assert not anchor, f"{page} has no section #{anchor}"
    return text


def told(page: str, text: str) -> list[tuple[str, str]]:
    """(what a block of Python printed, what the page shows below it) for each block."""
    names: dict[str, Any] = {}
    found = []
    for index, (code, shown) in enumerate(BLOCK.findall(text)):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(code, f"{page}, block {index + 1}", "exec"), names)
        found.append((out.getvalue(), shown))
    return found


def prose(text: str) -> str:
    """What a reader reads: no code, no addresses, no sources, no number of the chapter."""
    text = text.partition("\n## Sources")[0]
    text = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    text = re.sub(r"`[^`]*`|\]\([^)]*\)", " ", text)
    return re.sub(r"^#+ \d+\. |^\| \d+ \|", "", text, flags=re.M)


def unfounded(page: str, text: str) -> set[str]:
    """Numbers of two signs and more in the text that nothing on the page or behind it gives."""
    code = " ".join(re.findall(r"^```.*?^```$", text, re.M | re.S))
    known = numbers(code) | CITED.get(page, set())
    known |= numbers(" ".join(re.findall(r"`[^`\n]*`", text)))
    for script in re.findall(r"python -m examples\.story\.(\w+)", text):
        for value in kept(script).values():
            known |= numbers(value)
    for notebook, anchor in re.findall(r"\((?:\.\./)+(results|notebooks)\.md#?([\w-]*)\)", text):
        assert anchor or notebook == "notebooks", "which part of the results?"
        known |= numbers(section(f"{notebook}.md", anchor))
    stated = numbers(prose(text), shortest=2)
    return {number for number in stated if not re.fullmatch(r"(?:19|20)\d\d", number)} - known


def kept(script: str) -> dict[str, str]:
    """The numbers that a script left beside its figures."""
    path = FIGURES / f"{script}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_a_page_prints_what_stands_below_it(page: str) -> None:
    blocks = told(page, PAGES[page])
    assert blocks or page == "index"
    for printed, shown in blocks:
        assert printed == shown


@pytest.mark.parametrize("page", PAGES)
def test_every_number_of_a_page_comes_from_code(page: str) -> None:
    assert unfounded(page, PAGES[page]) == set()


def test_a_changed_number_is_noticed() -> None:
    page = "04-heads"
    changed = PAGES[page].replace("60.13 : 68.72", "60.13 : 68.73")
    assert unfounded(page, changed) == {"68.73"}
    page = "03-two-tokens"
    changed = PAGES[page].replace("'0.33', '0.67'", "'0.34', '0.66'")
    assert changed != PAGES[page]
    assert any(printed != shown for printed, shown in told(page, changed))
    assert unfounded(page, PAGES[page].replace("b1 = (0.33", "b1 = (0.34")) == {"0.34"}
    page = "08-vision-transformer"
    assert unfounded(page, PAGES[page].replace("90.26 %", "38.51 %")) == {"38.51"}, (
        "a section's own"
    )
    page = "09-where-a-vit-looks"
    assert unfounded(page, PAGES[page].replace("on average, those", "on average, 77.0, those")) == {
        "77"
    }


def test_pages_lead_from_one_to_the_next() -> None:
    names = list(PAGES)
    names.insert(0, names.pop(names.index("index")))
    assert 10 <= len(names) <= 12
    for page, following in pairwise(names):
        assert re.search(rf"^Next: \[[^\]]+\]\({following}\.md\)\.$", PAGES[page], re.M), page
        assert f"]({following}.md)" in PAGES["index"]
    for page in names:
        assert "\n## Sources\n" in PAGES[page], page


def test_commands_on_the_pages_exist() -> None:
    text = "\n".join(PAGES.values())
    text = text.replace("\\\n", "")
    trained = re.findall(r"python train\.py ([^`\n]+)", text)
    assert len(trained) >= 3
    for words in trained:
        files, overrides = split_arguments(words.split())
        load_config([ROOT / file for file in files], overrides)
    modules = set(re.findall(r"python -m (examples[\w.]*)", text))
    assert {f"examples.story.{script}" for script in SCRIPTS} <= modules
    for name in modules:
        import_module(name)


def test_figures_are_those_that_pages_show_and_small() -> None:
    shown = {
        (alt, name)
        for text in PAGES.values()
        for alt, name in re.findall(r"!\[([^\]]*)\]\(figures/([^)]+)\)", text)
    }
    assert all(len(alt) > 30 for alt, _ in shown), "words for those who cannot see the figure"
    files = {path.name for path in FIGURES.iterdir() if path.suffix != ".json"}
    assert files == {name for _, name in shown}
    sizes = [path.stat().st_size for path in FIGURES.iterdir()]
    assert max(sizes) < 200_000 and sum(sizes) < 2_000_000


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_draws_its_figures_and_finds_its_numbers_again(
    script: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = import_module(f"examples.story.{script}")
    facts = module.main(["--quick", "--out", str(tmp_path)])
    drawn = {path.name for path in tmp_path.iterdir()}
    assert drawn and drawn <= {path.name for path in FIGURES.iterdir()}
    assert not list(tmp_path.glob("*.json")), "what is quick is not kept"
    assert capsys.readouterr().out.count("figure: ") == len(drawn)
    if script not in TRAINED:
        assert facts == kept(script)


def test_scripts_draw_all_figures() -> None:
    """Each figure is named by a script, or by a command of its page."""
    told = "\n".join(PAGES.values())
    sources = [path.read_text("utf-8") for path in (ROOT / "examples" / "story").glob("*.py")]
    for path in FIGURES.iterdir():
        stem = re.sub(r"-\d+$", "-", path.stem)
        if path.suffix != ".json" and f"--picture {path.name}" not in told:
            assert sum(f'"{stem}' in text for text in sources) >= 1, stem


def test_a_figure_is_the_same_every_time(tmp_path: Path) -> None:
    module = import_module("examples.story.two_tokens")
    for name in ("one", "two"):
        module.main(["--quick", "--out", str(tmp_path / name)])
    one, two = ((tmp_path / name / "two-tokens.svg").read_bytes() for name in ("one", "two"))
    assert one == two and b"<dc:date>" not in one


def test_all_chapters_run_from_one_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(all_chapters, "CHAPTERS", ("two_views", "search"))
    said: list[list[str]] = []
    for chapter in all_chapters.CHAPTERS:
        module = import_module(f"examples.story.{chapter}")
        monkeypatch.setattr(module, "main", said.append)
    all_chapters.main(["--quick"])
    assert said == [["--quick"]] * 2
    assert capsys.readouterr().out.split() == ["two_views", "search"]
