"""Whatever comes from outside stays text."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.report.made_up import hostile
from vitkit.report.markup import Markup, data_block, element, embedded_json, escaped, joined, number


class _Seen(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


NASTY = st.one_of(st.sampled_from(hostile), st.text(st.characters(codec="utf-8")))
PRINTED = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Cn")))


@given(NASTY)
def test_no_text_makes_an_element_or_leaves_its_attribute(text: str) -> None:
    made = element("p", text, title=text, data_x=text)
    seen = _Seen(made)
    assert [tag for tag, _ in seen.tags] == ["p"]
    assert set(seen.tags[0][1]) == {"title", "data-x"}
    made.encode("utf-8")


@given(PRINTED)
def test_text_is_shown_as_it_was_given(text: str) -> None:
    seen = _Seen(element("p", text, title=text))
    assert seen.text == text.replace("\r\n", "\n").replace("\r", "\n")
    assert (seen.tags[0][1]["title"] or "").split() == text.split()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | NASTY | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NASTY, inner, max_size=4),
    max_leaves=8,
)


@given(JSON)
def test_data_is_read_back_and_ends_no_script(value: object) -> None:
    text = embedded_json(value)
    assert not set("<>&\u2028\u2029") & set(text)
    text.encode("ascii")
    assert json.loads(text) == json.loads(json.dumps(_without_infinities(value)))
    seen = _Seen(data_block(value, id="x"))
    assert [tag for tag, _ in seen.tags] == ["script"]


def _without_infinities(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_infinities(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_infinities(item) for item in value]
    return None if isinstance(value, float) and value in (float("inf"), float("-inf")) else value


def test_what_is_no_number_becomes_null() -> None:
    assert embedded_json({"a": [float("nan"), 1.5], "b": (float("inf"), 2)}) == (
        '{"a":[null,1.5],"b":[null,2]}'
    )


def test_elements_and_attributes() -> None:
    made = element("a", "x & y", None, element("br"), class_="one two", href="#z", hidden=True)
    assert made == '<a class="one two" href="#z" hidden>x &amp; y<br></a>'
    assert element("path", d="M0 0", stroke_width=1.25, opacity=None, x=False) == (
        '<path d="M0 0" stroke-width="1.25"></path>'
    )
    assert escaped(Markup("<b>")) == "<b>" and escaped("<b>") == "&lt;b&gt;"
    assert joined(["a<", None, Markup("<i>")], ", ") == "a&lt;, <i>"


@pytest.mark.parametrize(
    ("value", "text"), [(3.0, "3"), (0.5, "0.5"), (12.254, "12.25"), (-0.001, "0"), (-1.0, "-1")]
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text
