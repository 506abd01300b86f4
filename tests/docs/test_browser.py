"""The documentation in a real browser, from disk: quiet, readable, searchable, light and dark."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.browser import (
    OWN_SCHEMES,
    WIDTHS,
    By,
    Driver,
    WebDriverWait,
    needs_browser,
    new_browser,
    open_page,
    requests_of,
    set_width,
)

pytestmark = needs_browser

POLL = 0.02
ONE_OF_EACH_KIND = (
    "index.html",
    "zh/index.html",
    "results.html",  # wide tables
    "seeing-inside.html",  # long lines of code
    "decisions/index.html",
    "reference/evaluation.html",
)
QUIET_SCHEMES = (*OWN_SCHEMES, "about:")

MEASURE = """
const reachable = (element) => {
  if (element.getBoundingClientRect().right <= innerWidth + 1) return true;
  for (let box = element; box && box.tagName !== "ARTICLE"; box = box.parentElement)
    if (["auto", "scroll"].includes(getComputedStyle(box).overflowX)) return true;
  return false;
};
const wide = [...document.querySelectorAll("article table, article pre")];
const text = document.querySelector("article p, article li");
return [document.documentElement.scrollWidth, innerWidth,
  parseFloat(getComputedStyle(text).fontSize), wide.filter((e) => !reachable(e)).length];
"""
"""Width that the page needs and has, size of its text, boxes whose end cannot be reached."""

Look = Callable[..., Driver]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """A browser without a window and without a past."""
    made = new_browser(tmp_path_factory.mktemp("browser"))
    yield made
    made.quit()


@pytest.fixture
def look(driver: Driver, site: Path) -> Look:
    """Open a page of the site at a width, for a system that is light or dark."""

    def opened(name: str, width: int = 1400, scheme: str = "light") -> Driver:
        set_width(driver, width)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        open_page(driver, site / name)
        WebDriverWait(driver, 10, POLL).until(
            lambda d: d.execute_script(
                "return document.readyState === 'complete'"
                " && document.documentElement.classList.contains('js')"
            )
        )
        return driver

    return opened


def _assert_quiet(driver: Driver) -> None:
    assert driver.get_log("browser") == []
    requests = requests_of(driver)
    assert requests and all(address.startswith(QUIET_SCHEMES) for address in requests), requests


def _names(site: Path) -> list[str]:
    found = sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))
    return [name for name in found if not name.endswith("404.html")]


def _assert_fits(look: Look, name: str) -> None:
    driver = look(name, WIDTHS[0])
    for width in WIDTHS:
        set_width(driver, width)
        needed, given, size, hidden = driver.execute_script(MEASURE)
        assert needed <= given == width, f"{name} is {needed} pixels wide"
        assert size >= 14, name
        assert hidden == 0, f"{name}: no box scrolls what is wider than {width}"
    _assert_quiet(driver)


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_a_page_is_quiet_and_fits(look: Look, name: str) -> None:
    _assert_fits(look, name)


@pytest.mark.slow
def test_every_page_is_quiet_and_fits(look: Look, site: Path) -> None:
    for name in _names(site):
        _assert_fits(look, name)


def _lightness(colour: str) -> float:
    """Relative luminance of ``rgb(r, g, b)`` (WCAG 2.2)."""
    parts = [float(p) / 255 for p in colour.split("(")[1].rstrip(")").split(",")[:3]]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _background(driver: Driver) -> float:
    return _lightness(
        driver.execute_script("return getComputedStyle(document.body).backgroundColor")
    )


def test_light_and_dark(look: Look) -> None:
    assert _background(look("index.html", scheme="light")) > 0.8
    driver = look("index.html", scheme="dark")
    assert _background(driver) < 0.05

    def switch() -> None:
        (shown,) = [
            label
            for label in driver.find_elements(By.CSS_SELECTOR, "label[for^=__palette]")
            if label.is_displayed()
        ]
        shown.click()

    switch()
    assert _background(driver) > 0.8, "the first choice is light, whatever the system is"
    driver.refresh()
    assert _background(driver) > 0.8, "the choice is kept"
    switch()
    assert _background(driver) < 0.05, "the second is dark"
    switch()
    assert _background(look("index.html", scheme="light")) > 0.8, "the third follows the system"


@pytest.mark.parametrize(
    ("start", "word", "place"),
    [
        ("index.html", "rollout", "vitkit.explain"),
        ("reference/nn.html", "corruptions", "Evaluation"),
        ("zh/index.html", "CIFAR", "首页"),
    ],
)
def test_the_search_answers(look: Look, start: str, word: str, place: str) -> None:
    driver = look(start)
    driver.find_element(By.CSS_SELECTOR, "button.md-search__button").click()
    results = "[...(document.activeElement.shadowRoot?.querySelectorAll('li') ?? [])]"
    typed = "return document.activeElement.shadowRoot?.activeElement?.tagName === 'INPUT'"
    WebDriverWait(driver, 10, POLL).until(lambda d: d.execute_script(typed))
    driver.switch_to.active_element.send_keys(word)
    WebDriverWait(driver, 10, POLL).until(
        lambda d: d.execute_script(f"return {results}.length"), f"no answer to {word!r}"
    )
    said = driver.execute_script(f"return {results}.map(a => a.innerText).join(' | ')")
    assert word.lower() in said.lower() and place in said
    _assert_quiet(driver)


@pytest.mark.parametrize(
    ("start", "name", "language", "end"),
    [
        ("decisions/index.html", "中文", "zh", "site/zh/index.html"),
        ("zh/index.html", "English", "en", "site/index.html"),
        ("zh/from-nlp-to-cv/04-heads.html", "English", "en", "site/from-nlp-to-cv/04-heads.html"),
        ("getting-started.html", "中文", "zh", "site/zh/getting-started.html"),
    ],
)
def test_the_language_is_switched(
    look: Look, start: str, name: str, language: str, end: str
) -> None:
    driver = look(start)
    link = driver.find_element(By.CSS_SELECTOR, f"a.md-select__link[hreflang={language}]")
    assert link.get_attribute("textContent").strip() == name
    driver.execute_script("arguments[0].click()", link)
    WebDriverWait(driver, 10, POLL).until(
        lambda d: d.execute_script("return document.documentElement.lang") == language
    )
    assert driver.current_url.endswith(end)
    _assert_quiet(driver)
