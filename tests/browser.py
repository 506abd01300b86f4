"""A real browser for the tests of pages: one without a window, a past or a network of its own."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

pytest.importorskip("selenium", reason="selenium is not installed: pip install -e .[dev]")

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

__all__ = [
    "OWN_SCHEMES",
    "WIDTHS",
    "ActionChains",
    "By",
    "Driver",
    "Keys",
    "WebDriverWait",
    "needs_browser",
    "new_browser",
    "open_page",
    "requests_of",
    "set_width",
]

Driver = webdriver.Chrome

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
DRIVER = shutil.which("chromedriver")

needs_browser = pytest.mark.skipif(
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
OWN_SCHEMES = ("file:", "data:", "blob:")
"""How addresses begin that need no network."""


def new_browser(profile: Path, saved: Path | None = None) -> Driver:
    """A browser; the caller ends it by ``quit()``.

    Args:
        profile: an empty folder.
        saved: where downloads go, without asking.
    """
    options = Options()
    options.binary_location = str(BROWSER)
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    if saved is not None:
        places = {"download.default_directory": str(saved), "download.prompt_for_download": False}
        options.add_experimental_option("prefs", places)
    return Driver(options=options, service=Service(str(DRIVER), log_output=os.devnull))


def set_width(driver: Driver, width: int) -> None:
    """Of the window, in pixels."""
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def open_page(driver: Driver, page: Path) -> None:
    """Open a file; what was logged before it is forgotten."""
    driver.get("about:blank")
    for kind in ("browser", "performance"):
        driver.get_log(kind)
    driver.get(page.as_uri())


def requests_of(driver: Driver) -> list[str]:
    """Addresses that were asked for since the page was opened."""
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    sent = [e["params"] for e in events if e["method"] == "Network.requestWillBeSent"]
    return [params["request"]["url"] for params in sent]
