"""For the reference: docstrings refer in Sphinx's way, and the pages show the plain name."""

from __future__ import annotations

import re
from typing import Any

import griffe


class PlainRoles(griffe.Extension):
    """``:func:`name` `` and its siblings become `` `name` ``."""

    def on_instance(self, *, obj: Any, **kwargs: Any) -> None:
        if obj.docstring:
            obj.docstring.value = re.sub(
                r":(?:mod|class|func|meth|attr|data|exc):`~?([^`]+)`", r"`\1`", obj.docstring.value
            )
