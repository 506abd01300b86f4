"""The commands that make pages of what runs left behind. They need no model and no data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitkit.cli.options import Debug

__all__ = ["compare", "report"]


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")],
    debug: Debug = False,
) -> None:
    """Write report/index.html of a run from its files.

    A training and an evaluation write it too, with pictures of the test set and what the model
    looks at in them; this makes it again from what they left. Example:

    \b
        vitkit report runs/flowers/20260101-120000
    """
    from vitkit.app import report_run

    print(f"report: {report_run(run)}")


def compare(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN RUN...", help="Folders of runs, or of seeds.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The page.")] = Path("compare.html"),
    debug: Debug = False,
) -> None:
    """Write one page about several runs from their files, the first held against each other one.

    Curves over each other, results side by side, settings that differ, and paired tests where
    vitkit eval has left predictions of the same images. Of recipes that train --seeds has trained
    it holds the means against each other (Welch's test). Examples:

    \b
        vitkit compare runs/flowers/20260101-120000 runs/flowers/20260102-120000
        vitkit compare runs/cct/seeds runs/vit/seeds
    """
    from vitkit.app import report_comparison

    print(f"report: {report_comparison(runs, out)}")
