"""The documentation in a real browser, from disk: quiet, readable, searchable, light and dark."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("selenium", reason="selenium is not installed: pip install -e .[dev]")

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
DRIVER = shutil.which("chromedriver")

pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER),
    reason="no browser is installed: apt-get install chromium chromium-driver",
)

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-prefers-reduced-motion",
)
WIDTHS = (380, 1400)
POLL = 0.02
ONE_OF_EACH_KIND = (
    "index.html",
    "zh/index.html",
    "results.html",  # wide tables
    "seeing-inside.html",  # long lines of code
    "decisions/index.html",
    "reference/evaluation.html",
)
OWN_SCHEMES = ("file:", "data:", "blob:", "about:")

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

Look = Callable[..., webdriver.Chrome]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """A browser without a window and without a past."""
    options = Options()
    options.binary_location = str(BROWSER)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    made = webdriver.Chrome(options=options, service=Service(str(DRIVER), log_output=os.devnull))
    yield made
    made.quit()


@pytest.fixture
def look(driver: webdriver.Chrome, site: Path) -> Look:
    """Open a page of the site at a width, for a system that is light or dark."""

    def opened(name: str, width: int = 1400, scheme: str = "light") -> webdriver.Chrome:
        _set_width(driver, width)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        driver.get("about:blank")
        for kind in ("browser", "performance"):
            driver.get_log(kind)  # what came before is not this page's
        driver.get((site / name).as_uri())
        WebDriverWait(driver, 10, POLL).until(
            lambda d: d.execute_script(
                "return document.readyState === 'complete'"
                " && document.documentElement.classList.contains('js')"
            )
        )
        return driver

    return opened


def _set_width(driver: webdriver.Chrome, width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def _requests(driver: webdriver.Chrome) -> list[str]:
    """Addresses that were asked for since the page was opened."""
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    sent = [e["params"] for e in events if e["method"] == "Network.requestWillBeSent"]
    return [params["request"]["url"] for params in sent]


def _assert_quiet(driver: webdriver.Chrome) -> None:
    assert driver.get_log("browser") == []
    requests = _requests(driver)
    assert requests and all(address.startswith(OWN_SCHEMES) for address in requests), requests


def _names(site: Path) -> list[str]:
    found = sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))
    return [name for name in found if not name.endswith("404.html")]


def _assert_fits(look: Look, name: str) -> None:
    driver = look(name, WIDTHS[0])
    for width in WIDTHS:
        _set_width(driver, width)
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


def _background(driver: webdriver.Chrome) -> float:
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
    ("start", "name", "language"),
    [("decisions/index.html", "中文", "zh"), ("zh/index.html", "English", "en")],
)
def test_the_language_is_switched(look: Look, start: str, name: str, language: str) -> None:
    driver = look(start)
    link = driver.find_element(By.CSS_SELECTOR, f"a.md-select__link[hreflang={language}]")
    assert link.get_attribute("textContent").strip() == name
    driver.execute_script("arguments[0].click()", link)
    WebDriverWait(driver, 10, POLL).until(
        lambda d: d.execute_script("return document.documentElement.lang") == language
    )
    assert driver.current_url.endswith("index.html")
    _assert_quiet(driver)
