"""Pages in two languages tell the same: code, numbers, pictures and headings are alike."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.conftest import ROOT

DOCS = ROOT / "docs"
BLOCK = re.compile(r"^(```.*?^```)$", re.M | re.S)
NUMBER = re.compile(r"(?<![\w.])\d[\d,]*(?:\.\d+)?")
PAIRS = {
    "README.zh-CN.md": (ROOT / "README.md", ROOT / "README.zh-CN.md"),
    **{
        path.relative_to(DOCS / "zh").as_posix(): (DOCS / path.relative_to(DOCS / "zh"), path)
        for path in sorted((DOCS / "zh").rglob("*.md"))
    },
}
"""Chinese pages by their place, each with (the English page, itself)."""


def pair(name: str) -> tuple[str, str]:
    """The text of both."""
    english, chinese = (path.read_text(encoding="utf-8") for path in PAIRS[name])
    return english, chinese


def blocks(text: str) -> list[str]:
    return BLOCK.findall(text)


def levels(text: str) -> list[int]:
    return [len(marks) for marks in re.findall(r"^(#+) ", BLOCK.sub("", text), re.M)]


def pictures(text: str, page: Path) -> list[Path]:
    """Where a page's pictures lie."""
    return [(page.parent / name).resolve() for name in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)]


def numbers(text: str) -> set[str]:
    """Of two digits and more, outside of code and addresses."""
    text = re.sub(r"`[^`]*`|\]\([^)]*\)", " ", BLOCK.sub("", text))
    return {number.strip(",") for number in NUMBER.findall(text) if len(number.strip(",")) > 1}


def test_the_story_and_the_first_steps_are_there() -> None:
    story = {path.name for path in (DOCS / "from-nlp-to-cv").glob("*.md")}
    assert {f"from-nlp-to-cv/{name}" for name in story} <= set(PAIRS)
    assert {"README.zh-CN.md", "index.md", "getting-started.md"} <= set(PAIRS)


def test_the_language_menu_knows_the_pages() -> None:
    script = (DOCS / "assets" / "same-page.js").read_text(encoding="utf-8")
    (rule,) = re.findall(r"/(\^.+\$)/\.test", script)
    built = {name.replace(".md", ".html") for name in PAIRS if name != "README.zh-CN.md"}
    assert {name for name in built if not re.fullmatch(rule, name)} == {"index.html"}


@pytest.mark.parametrize("name", PAIRS)
def test_a_chinese_page_tells_what_the_english_one_tells(name: str) -> None:
    english, chinese = pair(name)
    assert blocks(chinese) == blocks(english)
    assert levels(chinese) == levels(english)
    assert pictures(chinese, PAIRS[name][1]) == pictures(english, PAIRS[name][0])
    assert numbers(chinese) == numbers(english)
    assert chinese.count("\n|") == english.count("\n|"), "rows of tables"


@pytest.mark.parametrize("name", PAIRS)
def test_a_chinese_page_is_chinese(name: str) -> None:
    chinese = re.sub(r"`[^`]*`|\]\([^)]*\)", " ", BLOCK.sub("", pair(name)[1]))
    told, _, _ = chinese.partition("## 来源")
    letters = len(re.findall(r"[\u4e00-\u9fff]", told))
    assert letters > 3 * len(re.findall(r"[A-Za-z]+", told)), "more Chinese than English words"


@pytest.mark.parametrize("name", PAIRS)
def test_each_readme_and_first_page_leads_to_the_other_language(name: str) -> None:
    english, chinese = PAIRS[name]
    if name == "README.zh-CN.md":
        assert "](README.zh-CN.md)" in english.read_text(encoding="utf-8")
        assert "](README.md)" in chinese.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#:]+\.md)(?:#[^)]*)?\)", chinese.read_text(encoding="utf-8")):
        assert (chinese.parent / link).is_file(), f"{name}: {link}"


def test_what_differs_is_noticed() -> None:
    assert numbers("宽度 64、4,096 个词元、`12` 和 1 [x](a/12.md)") == {"64", "4,096"}
    assert levels("# a\n```bash\n# b\n```\n## c") == [1, 2]
    assert blocks("a\n```bash\nls\n```\n") == ["```bash\nls\n```"]


@pytest.mark.parametrize("name", PAIRS)
def test_a_paragraph_is_a_line(name: str) -> None:
    """A browser shows a break as a space, which Chinese has none of."""
    prose = BLOCK.sub("", pair(name)[1])
    assert not re.findall(
        r".*[\u3000-\u9fff\uff00-\uffef]\n *(?:[\u4e00-\u9fff\w\[`(]|\*\*).*", prose
    )
