"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["Debug", "Quiet"]

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print results only.")]
