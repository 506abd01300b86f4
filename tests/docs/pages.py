"""Built pages, read: what they load, where they lead, what can be led to."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

LOADED_LINKS = {"stylesheet", "icon", "preload", "modulepreload", "preconnect", "manifest"}
"""Kinds of ``<link>`` for which a browser asks the network."""


@dataclass
class Page:
    """One HTML file."""

    path: Path
    loads: list[str] = field(default_factory=list)
    leads: list[str] = field(default_factory=list)
    in_menu: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)
    language: str = ""

    def place(self, link: str) -> tuple[Path, str]:
        """(file, anchor) of a link that stays on the site."""
        name, _, anchor = link.partition("#")
        target = self.path.parent / unquote(name) if name else self.path
        return target.resolve(), unquote(anchor)


class _Reader(HTMLParser):
    def __init__(self, page: Page) -> None:
        super().__init__()
        self.page = page

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        page = self.page
        if tag == "html":
            page.language = given.get("lang", "")
        page.anchors |= {given[name] for name in ("id", "name") if given.get(name)}
        if tag == "link" and LOADED_LINKS & set(given.get("rel", "").split()):
            page.loads.append(given["href"])
        elif tag == "a" and "href" in given:
            page.leads.append(given["href"])
            if "md-nav__link" in given.get("class", ""):
                page.in_menu.append(given["href"])
        elif tag != "link":
            page.loads += [given[name] for name in ("src", "poster", "data") if name in given]
            page.loads += [part.split()[0] for part in given.get("srcset", "").split(",") if part]
        page.loads += addresses_of_style(given.get("style", ""))


def addresses_of_style(css: str) -> list[str]:
    """What a style sheet loads."""
    found = re.findall(r"url\(\s*[\"']?([^\"')]+)", css)
    return found + re.findall(r"@import\s+[\"']([^\"']+)", css)


def read_page(path: Path) -> Page:
    """A page and what stands in it."""
    page = Page(path)
    _Reader(page).feed(path.read_text(encoding="utf-8"))
    return page


def elsewhere(address: str) -> bool:
    """Whether an address leaves the disk."""
    return bool(re.match(r"(?!data:|mailto:)[a-z][a-z+.-]*:|//", address, re.I))
