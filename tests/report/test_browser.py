"""The page in a real browser: quiet, readable at any width, by mouse and by keys."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser import (
    OWN_SCHEMES,
    WIDTHS,
    ActionChains,
    By,
    Driver,
    Keys,
    WebDriverWait,
    needs_browser,
    new_browser,
    open_page,
    requests_of,
    set_width,
)
from tests.report.made_up import write_run
from vitkit.report import comparison_page, read_run, run_page

pytestmark = needs_browser

Look = Callable[[str, int], Driver]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run's page and a comparison's, on disk."""
    root = tmp_path_factory.mktemp("pages")
    runs = [read_run(write_run(root / name, seed=i)) for i, name in enumerate(("a", "b"))]
    tests = {"difference": 0.01, "low": -0.01, "high": 0.03, "bootstrap_p": 0.2, "mcnemar_p": 0.3}
    paired = {**tests, "only_first": 12, "only_second": 9}
    made = {"run": run_page(runs[0]), "compare": comparison_page(runs, [paired])}
    for name, text in made.items():
        (root / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: root / f"{name}.html" for name in made}


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """A browser without a window and without a past."""
    saved = tmp_path_factory.mktemp("saved")
    made = new_browser(tmp_path_factory.mktemp("browser"), saved)
    made.saved_to = saved  # type: ignore[attr-defined]
    yield made
    made.quit()


@pytest.fixture
def look(driver: Driver, pages: dict[str, Path]) -> Look:
    """Open one of the pages at a width."""

    def opened(name: str, width: int = 1400) -> Driver:
        set_width(driver, width)
        open_page(driver, pages[name])
        return driver

    return opened


def _complaints(driver: Driver) -> list[dict[str, Any]]:
    return list(driver.get_log("browser"))


def _all(driver: Driver, selector: str) -> list[Any]:
    return driver.find_elements(By.CSS_SELECTOR, selector)


def _one(driver: Driver, selector: str) -> Any:
    return driver.find_element(By.CSS_SELECTOR, selector)


def _click(driver: Driver, element: Any) -> None:
    """In the middle of the window, where nothing that sticks to its top is in front."""
    driver.execute_script(
        "arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element
    )
    element.click()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["run", "compare"])
def test_a_page_is_quiet_and_fits(look: Look, name: str, width: int) -> None:
    driver = look(name, width)
    assert _complaints(driver) == []
    requests = requests_of(driver)
    assert requests and all(address.startswith(OWN_SCHEMES) for address in requests), requests
    wide = driver.execute_script(
        "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert wide[0] <= wide[1] and width - 20 < wide[1] <= width  # but for the scroll bar
    for chart in _all(driver, ".plot"):
        assert chart.size["height"] > 100 and chart.size["width"] > 100
    drawn = driver.execute_script(
        "return [...document.querySelectorAll('.plot path')].map(p => p.getTotalLength())"
    )
    assert len(drawn) >= 8 and max(drawn) > 500
    small = driver.execute_script(
        "return [...document.querySelectorAll('.x-ticks span, .y-ticks span, td, th, p')]"
        ".filter(e => e.offsetParent && parseFloat(getComputedStyle(e).fontSize) < 9).length"
    )
    assert small == 0


def _colours(driver: Driver) -> tuple[str, str]:
    return tuple(
        driver.execute_script(
            "const s = getComputedStyle(document.documentElement);"
            "return [s.backgroundColor, s.color]"
        )
    )


def _lightness(colour: str) -> float:
    """Relative luminance of ``rgb(r, g, b)`` (WCAG 2.2)."""
    parts = [float(p) / 255 for p in colour.split("(")[1].rstrip(")").split(",")[:3]]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _contrast(a: str, b: str) -> float:
    low, high = sorted((_lightness(a), _lightness(b)))
    return (high + 0.05) / (low + 0.05)


def test_light_and_dark(look: Look) -> None:
    driver = look("run", 1400)
    seen = {}
    for scheme in ("light", "dark"):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        seen[scheme] = _colours(driver)
        assert _contrast(*seen[scheme]) > 7
        muted = driver.execute_script(
            "const n = document.querySelector('.note');"
            "return [getComputedStyle(n).color,"
            " getComputedStyle(n.closest('.figure')).backgroundColor]"
        )
        assert _contrast(*muted) > 4.5
    assert _lightness(seen["light"][0]) > 0.8 and _lightness(seen["dark"][0]) < 0.05
    switch = _one(driver, "#theme")
    _click(driver, switch)
    assert switch.text == "Theme: light" and _colours(driver) == seen["light"]
    _click(driver, switch)
    assert switch.text == "Theme: dark" and _colours(driver) == seen["dark"]
    driver.refresh()
    assert _one(driver, "#theme").text == "Theme: dark", "the choice is kept"
    _click(driver, _one(driver, "#theme"))
    assert _one(driver, "#theme").text == "Theme: auto"
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_a_cell_shows_its_images(look: Look) -> None:
    driver = look("run", 1400)
    pictures = driver.execute_script(
        "return JSON.parse(document.querySelector('#gallery').textContent).pictures"
    )
    place, right, said, _ = next(p for p in pictures if p[1] != p[2])
    _click(driver, _one(driver, f'[data-cell="{right},{said}"]'))
    shown = _all(driver, "#cell-images .thumb")
    assert len(shown) == sum(p[1:3] == [right, said] for p in pictures)
    assert f"image {place}:" in " ".join(s.get_attribute("aria-label") for s in shown)
    assert all(s.size["width"] >= 32 and s.size["height"] >= 32 for s in shown)
    assert "taken for" in _one(driver, "#cell-title").text
    assert _complaints(driver) == []
    # By keys: the first full cell to the right, then Enter.
    start = _one(driver, '[data-cell="0,0"]')
    start.send_keys(Keys.ARROW_DOWN)
    chosen = driver.switch_to.active_element
    assert chosen.get_attribute("data-cell").split(",")[1] == "0"
    assert chosen.get_attribute("data-cell") != "0,0"
    chosen.send_keys(Keys.ENTER)
    assert chosen.get_attribute("aria-pressed") == "true"


def test_a_thumbnail_is_the_right_part_of_the_sheet(look: Look) -> None:
    driver = look("run", 1400)
    data = driver.execute_script(
        "return JSON.parse(document.querySelector('#gallery').textContent)"
    )
    index, picture = next((i, p) for i, p in enumerate(data["pictures"]) if i > data["columns"])
    _click(driver, _one(driver, f'[data-cell="{picture[1]},{picture[2]}"]'))
    label = f"image {picture[0]}:"
    (thumb,) = [t for t in _all(driver, ".thumb") if label in t.get_attribute("aria-label")]
    x, y = driver.execute_script(
        "return getComputedStyle(arguments[0]).backgroundPosition.split(' ').map(parseFloat)", thumb
    )
    row, column = divmod(index, data["columns"])
    assert x == pytest.approx(100 * column / (data["columns"] - 1), abs=0.1)
    assert y == pytest.approx(100 * row / (data["rows"] - 1), abs=0.1)


def test_the_matrix_is_put_in_another_order(look: Look) -> None:
    driver = look("run", 1400)
    orders = driver.execute_script(
        "return JSON.parse(document.querySelector('.orders').textContent)"
    )
    for key in ("recall", "alike", "name", "index"):
        driver.execute_script(
            "const s = document.querySelector('[data-order]'); s.value = arguments[0];"
            "s.dispatchEvent(new Event('change', {bubbles: true}))",
            key,
        )
        rows = [int(row.get_attribute("data-r")) for row in _all(driver, ".matrix tbody tr")]
        heads = [int(h.get_attribute("data-c")) for h in _all(driver, ".matrix thead th")]
        cells = [
            int(c.get_attribute("data-c")) for c in _all(driver, ".matrix tbody tr:first-child td")
        ]
        assert rows == heads == cells == orders[key]


def test_tables_are_sorted_by_their_headings(look: Look) -> None:
    driver = look("run", 1400)
    heads = _all(driver, "#per-class th[aria-sort]")
    index = [h.text.strip("\u2195\u2191\u2193 ") for h in heads].index("recall")
    button = heads[index].find_element(By.CSS_SELECTOR, "button")

    def values() -> list[float]:
        cells = _all(driver, f"#per-class tbody tr > :nth-child({index + 1})")
        return [float(cell.get_attribute("data-v")) for cell in cells]

    _click(driver, button)
    assert heads[index].get_attribute("aria-sort") == "descending"
    assert values() == sorted(values(), reverse=True)
    _click(driver, button)
    assert heads[index].get_attribute("aria-sort") == "ascending"
    assert values() == sorted(values())


def test_curves_read_out_their_values(look: Look) -> None:
    driver = look("run", 1400)
    plot = _one(driver, "#curve-lr .plot")
    out = _one(driver, "#curve-lr .readout")
    driver.execute_script(
        "arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", plot
    )
    ActionChains(driver).move_to_element(plot).perform()
    assert "steps 2" in out.text or "steps 19" in out.text
    assert "learning rate 0.0015" in out.text or "learning rate 0.00149" in out.text
    plot.send_keys(Keys.HOME)
    assert "learning rate 0.003" in out.text or "learning rate 0.0029" in out.text
    before = out.text
    plot.send_keys(Keys.ARROW_RIGHT)
    assert out.text != before
    assert _one(driver, "#curve-lr .cursor").is_displayed()


@pytest.mark.parametrize("width", WIDTHS)
def test_the_explorer_answers(look: Look, width: int) -> None:
    driver = look("run", width)
    view, note = _one(driver, "#view"), _one(driver, "#view-note")
    assert len(_all(driver, "#heads .map")) == 3 * (2 + 1)
    pixels = "return [...document.querySelectorAll('#heads canvas')].map(c => c.toDataURL()).join()"

    def after(action: Callable[[], object]) -> tuple[str, str]:
        before = (note.text, driver.execute_script(pixels))
        action()
        now = (note.text, driver.execute_script(pixels))
        assert now[0] != before[0] and now[1] != before[1]
        return now

    driver.execute_script(
        "arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", view
    )
    chain = ActionChains(driver)
    reach = view.size["width"] // 2 - 4
    after(chain.move_to_element_with_offset(view, -reach, -reach).perform)
    assert "From row 1, column 1" in note.text
    after(lambda: view.send_keys(Keys.ARROW_RIGHT))
    assert "From row 1, column 2" in note.text
    after(lambda: view.send_keys(Keys.ARROW_DOWN))
    assert "From row 2, column 2" in note.text
    patch = _one(driver, "#view-patch")
    assert patch.rect["x"] == pytest.approx(view.rect["x"] + view.size["width"] / 4, abs=1.5)
    after(lambda: _click(driver, _one(driver, '[data-token="0"]')))
    assert "From the class token" in note.text and not patch.is_displayed()
    after(lambda: _click(driver, _all(driver, "[data-scene]")[3]))
    _click(driver, _all(driver, "#heads .map")[1])
    assert _one(driver, ".over").is_displayed()
    assert _all(driver, '#heads .map[aria-pressed="true"]') == [_all(driver, "#heads .map")[1]]
    assert _complaints(driver) == []


def test_what_the_explorer_says_is_what_was_recorded(look: Look, pages: dict[str, Path]) -> None:
    driver = look("run", 1400)
    record = read_run(pages["run"].parent / "a").examples
    assert record is not None
    _one(driver, "#view").send_keys(Keys.ARROW_LEFT)  # from the middle (3, 3) to (3, 2)
    token = 1 + 2 * 4 + 1
    weights = record.maps[0, 2, 1, token, 1:].astype(float) / 255 * 0.5
    label = _all(driver, "#heads .map")[2 * 3 + 1].get_attribute("title")
    row, column = divmod(int(weights.argmax()), 4)
    want = f"layer 3, head 2: most at row {row + 1}, column {column + 1}, {100 * weights.max():.1f}"
    assert label.replace("\u00a0", " ") == f"{want} %"


def test_figures_hand_out_their_data(look: Look, driver: Driver) -> None:
    look("run", 1400)
    saved: Path = driver.saved_to  # type: ignore[attr-defined]
    driver.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(saved)}
    )
    figures = [f.get_attribute("id") for f in _all(driver, "figure")]
    for name in figures:
        assert len(_all(driver, f"#{name} [data-save]")) == 2
    for name in ("curve-lr", "confusion", "explorer"):
        for kind in ("csv", "json"):
            _click(driver, _one(driver, f'#{name} [data-save="{kind}"]'))
    names = ("curve-lr", "confusion", "explorer")
    wanted = [saved / f"{name}.{kind}" for name in names for kind in ("csv", "json")]
    WebDriverWait(driver, 10).until(lambda _: all(path.is_file() for path in wanted))
    head, *rows = (saved / "curve-lr.csv").read_text().splitlines()
    assert head == "line,steps,learning rate" and len(rows) == 200
    confusion = json.loads((saved / "confusion.json").read_text())
    assert len(confusion) == 11 and len(confusion["right"]) == 10
    explorer = json.loads((saved / "explorer.json").read_text())
    assert len(explorer["weight"]) == 3 * 2 * 16
    assert _complaints(driver) == []


def test_the_page_can_be_walked_by_the_tab_key(look: Look) -> None:
    driver = look("run", 1400)
    body = _one(driver, "body")
    body.send_keys(Keys.TAB)
    assert driver.switch_to.active_element.text == "Skip to the content"
    seen = set()
    for _ in range(80):
        active = driver.switch_to.active_element
        seen.add(active.get_attribute("id") or active.get_attribute("class"))
        outline = driver.execute_script(
            "const s = getComputedStyle(arguments[0]);"
            "return s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) > 0",
            active,
        )
        assert outline, active.get_attribute("outerHTML")[:200]
        active.send_keys(Keys.TAB)
    assert "theme" in seen and "plot" in seen


def test_unnamed_things_are_few(look: Look) -> None:
    driver = look("run", 1400)
    unnamed = driver.execute_script(
        "return [...document.querySelectorAll('button, a, select, [role=img], [role=region]')]"
        ".filter(e => !(e.textContent.trim() || e.getAttribute('aria-label')"
        " || e.getAttribute('aria-labelledby') || e.querySelector('[aria-label]')"
        " || e.closest('label'))).map(e => e.outerHTML.slice(0, 120))"
    )
    assert unnamed == []
