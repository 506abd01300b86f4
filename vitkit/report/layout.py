"""The page around its sections: one file that asks nothing of any network."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from vitkit.report.markup import Markup, element

__all__ = ["Section", "code_block", "document", "opening_of", "quiet", "title_of"]

FEW = 3
"""Runs that a title can name."""

SCRIPTED = ".tools, .chooser, #theme, .code .small, .readout, #cell { display: none; }"
"""What does nothing without the script."""
UNSCRIPTED = "Sorting, pictures of cells and the attention explorer need JavaScript."


@dataclass(frozen=True)
class Section:
    """One chapter of the page.

    Attributes:
        key: its address in the page.
        title: its heading; also in the list of chapters.
        body: what it holds.
    """

    key: str
    title: str
    body: Markup


def title_of(labels: Sequence[str], kind: str) -> str:
    """A heading that names what a page is about, or counts it where that would be too long.

    Args:
        labels: names of the runs or recipes.
        kind: what they are, in the plural.
    """
    if len(labels) > FEW:
        return f"{len(labels)} {kind}"
    return f"{', '.join(labels[:-1])} and {labels[-1]}"


def opening_of(eyebrow: str, title: str, *more: str) -> Markup:
    """What stands above the chapters of a comparison.

    Args:
        eyebrow: what kind of page it is.
        title: its heading.
        more: what follows it.
    """
    return element(
        "section",
        element("p", eyebrow, class_="eyebrow"),
        element("h1", title, id="summary-heading"),
        *more,
        id="summary",
        class_="summary",
        aria_labelledby="summary-heading",
    )


def quiet(text: str, command: str | None = None) -> Markup:
    """A line in place of what is not there, with the command that gets it."""
    return element("p", text, element("code", command) if command else None, class_="quiet")


def code_block(text: str, label: str) -> Markup:
    """Text to be copied, with a button for it."""
    button = element(
        "button", "Copy", type="button", class_="small", data_copy=True, aria_label=f"Copy {label}"
    )
    block = element("pre", element("code", text), tabindex="0", aria_label=label)
    return element("div", button, block, class_="code")


def document(title: str, opening: str, sections: Sequence[Section], *, style: str = "") -> str:
    """The whole page.

    Only the script that belongs to the page is allowed to run: its hash stands in the page's
    policy, so that nothing that a name or a config smuggled in ever could.

    Args:
        title: of the window.
        opening: what stands above the chapters.
        sections: the chapters.
        style: more rules, such as those that hold pictures.
    """
    script, rules = _part("page.js"), _part("page.css")
    links = [element("a", s.title, href=f"#{s.key}") for s in sections]
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy(script)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="generator", content="vitkit"),
        element("meta", name="color-scheme", content="light dark"),
        element("link", rel="icon", href="data:,"),
        element("title", title),
        element("style", Markup(rules + style)),
        element("noscript", element("style", Markup(SCRIPTED))),
    )
    body = element(
        "body",
        element("a", "Skip to the content", href="#main", class_="skip"),
        element(
            "header",
            element("span", "vitkit", class_="brand"),
            element("nav", *links, aria_label="Chapters"),
            element(
                "button",
                "Theme: auto",
                type="button",
                id="theme",
                class_="small",
                aria_label="Theme: auto. Press to change",
            ),
            class_="top",
        ),
        element("noscript", quiet(UNSCRIPTED)),
        element("main", opening, *(_chapter(section) for section in sections), id="main"),
        element(
            "footer",
            element("p", "Made by vitkit from the files of the run; nothing else was asked."),
        ),
        element("script", Markup(script)),
    )
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _chapter(section: Section) -> Markup:
    title = element("h2", section.title, id=f"{section.key}-heading")
    return element(
        "section", title, section.body, id=section.key, aria_labelledby=f"{section.key}-heading"
    )


def _policy(script: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    rules = [
        "default-src 'none'",
        "img-src data:",
        "style-src 'unsafe-inline'",
        f"script-src 'sha256-{digest}'",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    return "; ".join(rules)


def _part(name: str) -> str:
    return (resources.files("vitkit.report") / name).read_text(encoding="utf-8")
