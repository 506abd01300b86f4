"""The built documentation: nothing from elsewhere, no dead end, nothing left out."""

from __future__ import annotations

import importlib
import re
import tomllib
from pathlib import Path

import pytest

from tests.docs.conftest import NO_TOOLS, ROOT, build, copied_project
from tests.docs.pages import Page, addresses_of_style, elsewhere, read_page

NEXT = re.compile(r'href="([^"]*)" class="md-footer__link md-footer__link--next"')


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Page]:
    """Every page by its place in the site; the page for dead links is served from anywhere."""
    found = {path.relative_to(site).as_posix(): path for path in site.rglob("*.html")}
    return {name: read_page(path) for name, path in found.items() if path.name != "404.html"}


def _sources(folder: Path) -> set[str]:
    """Pages that should come of the Markdown files below a folder."""
    names = {path.relative_to(folder).with_suffix("") for path in folder.rglob("*.md")}
    return {
        (name.with_name("index") if name.name == "README" else name).as_posix() + ".html"
        for name in names
    }


def test_every_page_is_built_in_its_language(pages: dict[str, Page]) -> None:
    assert set(pages) == _sources(ROOT / "docs")
    for name, page in pages.items():
        assert page.language == ("zh" if name.startswith("zh/") else "en"), name


def test_both_languages_have_a_first_page_that_leads_to_the_other(pages: dict[str, Page]) -> None:
    for name, page in pages.items():
        reached = {page.place(link)[0] for link in page.leads if not elsewhere(link)}
        assert {pages["index.html"].path, pages["zh/index.html"].path} <= reached, name


def test_no_page_loads_anything_from_elsewhere(pages: dict[str, Page]) -> None:
    for name, page in pages.items():
        assert page.loads, "a page has at least its style"
        assert not [address for address in page.loads if elsewhere(address)], name
        for address in page.loads:
            if not address.startswith("data:"):
                assert page.place(address)[0].is_file(), f"{name}: {address}"


def test_no_style_loads_anything_from_elsewhere(site: Path) -> None:
    styles = list(site.rglob("*.css"))
    assert len(styles) >= 3
    for style in styles:
        addresses = addresses_of_style(style.read_text(encoding="utf-8"))
        assert not [address for address in addresses if elsewhere(address)], style.name


def test_links_and_anchors_resolve(pages: dict[str, Page]) -> None:
    by_path = {page.path.resolve(): page for page in pages.values()}
    count = 0
    for name, page in pages.items():
        for link in page.leads:
            if elsewhere(link) or link.startswith("mailto:"):
                continue
            path, anchor = page.place(link)
            assert path in by_path, f"{name}: {link}"
            assert not anchor or anchor in by_path[path].anchors, f"{name}: {link}"
            count += 1
    assert count > 1000


def test_the_menu_holds_every_page_of_its_language(pages: dict[str, Page], site: Path) -> None:
    for first in ("index.html", "zh/index.html"):
        page = pages[first]
        reached = {page.place(link)[0].relative_to(site).as_posix() for link in page.in_menu}
        chinese = first.startswith("zh/")
        assert reached == {name for name in pages if name.startswith("zh/") == chinese}


@pytest.mark.parametrize("first", ["index.html", "zh/index.html"])
def test_who_always_goes_on_reads_the_story_from_its_first_page_to_its_last(
    pages: dict[str, Page], site: Path, first: str
) -> None:
    chain = [first]
    while following := NEXT.search(pages[chain[-1]].path.read_text("utf-8")):
        place, _ = pages[chain[-1]].place(following[1])
        chain.append(place.relative_to(site).as_posix())
    folder = Path(first).with_name("from-nlp-to-cv")
    names = sorted(path.name for path in (site / folder).glob("[0-9]*.html"))
    assert len(names) == 11
    story = [(folder / name).as_posix() for name in ("index.html", *names)]
    assert chain[:14] == [first, Path(first).with_name("getting-started.html").as_posix(), *story]


def test_no_page_is_in_the_menu_by_chance() -> None:
    named = (ROOT / "docs" / ".nav.yml").read_text(encoding="utf-8")
    for path in (ROOT / "docs").glob("*.md"):
        assert path.name in named, f"docs/.nav.yml says no place for {path.name}"


@pytest.mark.parametrize(
    "room", ["app", "nn", "models", "explain", "weights", "training", "data", "evaluation"]
)
def test_the_reference_explains_the_public_names(pages: dict[str, Page], room: str) -> None:
    module = importlib.import_module(f"vitkit.{room}")
    anchors = pages[f"reference/{room}.html"].anchors
    missing = []
    for name in getattr(module, "__all__", []):
        value = getattr(module, name)
        if callable(value) and value.__doc__:
            # A function called as its module is found under the module's name alone.
            places = {f"vitkit.{room}.{name}", f"{value.__module__}.{name}"}
            missing += [] if places & anchors else [name]
    assert not missing
    assert sum(anchor.startswith(f"vitkit.{room}.") for anchor in anchors) > 10


def test_the_public_face_is_in_the_reference(pages: dict[str, Page]) -> None:
    import vitkit

    page = pages["reference/vitkit.html"]
    missing = {name for name in vitkit.__all__ if f"vitkit.{name}" not in page.anchors}
    assert missing == {"attention"}, "whose module's name hides it"
    assert "nn.html" in page.leads
    assert "vitkit.nn.functional.attention" in pages["reference/nn.html"].anchors


def test_examples_and_references_are_shown_as_meant(site: Path) -> None:
    own_model = (site / "own-model.html").read_text(encoding="utf-8")
    assert "two_layers" in own_model and "8&lt;" not in own_model
    for page in (site / "reference").glob("*.html"):
        assert not re.search(r":(func|class|mod|meth):", page.read_text("utf-8")), page.name


def test_the_two_languages_are_configured_alike() -> None:
    english, chinese = (
        tomllib.loads((ROOT / name).read_text(encoding="utf-8"))["project"]
        for name in ("zensical.toml", "zensical.zh.toml")
    )
    for own in ("docs_dir", "site_dir", "site_description"):
        assert english.pop(own) != chinese.pop(own)
    english.pop("exclude_docs")
    assert english["plugins"].pop("mkdocstrings"), "the reference is English"
    assert chinese.pop("validation") == {"invalid_links": False}, "it leads to English pages"
    moved = [f"../{path}" for path in english.pop("extra_css")]
    assert moved == chinese.pop("extra_css")
    assert [f"../{p}" for p in english["extra"].pop("polyfills")] == chinese["extra"].pop(
        "polyfills"
    )
    names = [[entry["lang"] for entry in c["extra"].pop("alternate")] for c in (english, chinese)]
    assert names[0] == names[1] == ["en", "zh"]
    for config in (english, chinese):
        config["theme"].pop("language")
        for palette in config["theme"]["palette"]:
            palette["toggle"].pop("name")
    assert english == chinese


def test_chapters_of_the_story_come_in_by_their_file_names(tmp_path: Path) -> None:
    pytest.importorskip("zensical", reason=NO_TOOLS)
    chapters = ["index.html", "01-words.html", "02-search.html", "10-vision.html"]
    story = tmp_path / "docs" / "from-nlp-to-cv"
    story.mkdir(parents=True)
    for name in ("zensical.toml", "docs/.nav.yml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / "docs" / "index.md").write_text("# First\n")
    for name in chapters:
        (story / name).with_suffix(".md").write_text(f"# Chapter {name}\n")
    assert build(tmp_path).returncode == 0
    menu = read_page(tmp_path / "site" / "index.html").in_menu
    told = [link.rpartition("/")[2] for link in menu if "from-nlp-to-cv/" in link]
    assert told == chapters


@pytest.mark.parametrize(
    ("config", "page", "line"),
    [
        ("zensical.toml", "index.md", "[x](nowhere.md)"),
        ("zensical.zh.toml", "zh/index.md", "[x](index.md#nowhere)"),
    ],
)
def test_a_dead_link_stops_the_build(tmp_path: Path, config: str, page: str, line: str) -> None:
    pytest.importorskip("zensical", reason=NO_TOOLS)
    project = copied_project(tmp_path)
    file = project / "docs" / page
    command = ("--strict", "--config-file", config)
    assert build(project, *command).returncode == 0
    file.write_text(file.read_text(encoding="utf-8") + f"\n{line}\n", encoding="utf-8")
    assert build(project, *command).returncode != 0


@pytest.mark.parametrize(
    ("address", "leaves"),
    [
        ("https://example.org/a.js", True),
        ("//example.org/a.js", True),
        ("HTTP://example.org", True),
        ("../a.css", False),
        ("data:image/png;base64,xx", False),
        ("page.html#a:b", False),
    ],
)
def test_an_address_elsewhere_is_seen(tmp_path: Path, address: str, leaves: bool) -> None:
    page = tmp_path / "a.html"
    page.write_text(f'<html lang="en"><img src="{address}"><i style="a: url({address})">')
    assert read_page(page).loads == [address] * 2
    assert elsewhere(address) is leaves
