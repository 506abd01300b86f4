"""What another library says becomes one line, whatever it says."""

from __future__ import annotations

import pytest

from vitkit.errors import first_line


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("no room", "no room"),
        ("no room\nTraceback", "no room"),
        ("\n\n  no room  \r\nmore", "no room  "),
        ("", "RuntimeError"),
        (" \n\n", "RuntimeError"),
    ],
)
def test_the_first_line_of_an_error_or_else_its_type(said: str, line: str) -> None:
    assert first_line(RuntimeError(said)) == line
    assert first_line(RuntimeError()) == "RuntimeError"
