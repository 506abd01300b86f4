"""The command that averages checkpoints."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from vitkit.app.invocation import command_words
from vitkit.cli.options import Debug

__all__ = ["average"]


def average(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN|CHECKPOINT...", help="A run, or two or more checkpoints of one run."
        ),
    ],
    last: Annotated[
        int | None, typer.Option(metavar="N", help="Only the N newest; all by default.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A new .ckpt; averaged.ckpt beside the newest."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Average the weights of several checkpoints of one run into a new checkpoint.

    Of a run it takes the numbered checkpoints that trainer.keep_checkpoints=N left. The statistics
    of batch norm are averaged too, not measured anew. Every command takes the result as any other.
    Examples:

    \b
        vitkit average runs/multi30k/20260101-120000 --last 5
        vitkit average a/step-100.ckpt a/step-200.ckpt --output mean.ckpt
    """
    from vitkit.app import average_checkpoints

    result = average_checkpoints(sources, last=last, output=output)
    steps = ", ".join(f"{step:,}" for step in result.steps)
    print(f"{result.path}: the mean of {len(result.sources)} checkpoints, steps {steps}")
    print(f"next:    {' '.join(command_words('eval'))} {shlex.quote(str(result.path))}")
