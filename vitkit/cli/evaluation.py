"""The command that evaluates models."""

from __future__ import annotations

from typing import Annotated

import typer

from vitkit.cli.arguments import models_and_settings
from vitkit.cli.options import Debug, Quiet
from vitkit.cli.output import tell_notes

__all__ = ["evaluate"]


def evaluate(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN|CHECKPOINT|WEIGHTS|timm:NAME...",
            help="What to evaluate, one or several, then settings such as eval.tta=flip.",
        ),
    ],
    suite: Annotated[str, typer.Option(help="standard, shift, others, speed or all.")] = "standard",
    split: Annotated[
        str,
        typer.Option(help="train, val, test, all; auto: test, or val where there is no test."),
    ] = "auto",
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Evaluate runs, checkpoints, or weights of others; print a table, write eval.json beside each.

    All it needs is in the checkpoint; data.KEY=VALUE settings evaluate it on other data. Of a run
    folder it takes the weights that the run itself tested: the last ones (averaged, with
    ema.enabled), or the best with early stopping. Weights (a file, a folder, hf-hub:OWNER/MODEL)
    need data.name; so does a model of timm, which takes weights=FILE behind its name. With --split
    all each split has a column, and files of its own. --suite others measures the test sets alone
    that are named, as in eval.cifar10_1=FOLDER. Examples:

    \b
        python eval.py runs/flowers/20260101-120000
        python eval.py runs/flowers/20260101-120000/checkpoints/best.ckpt
        python eval.py runs/a/1 runs/b/1 --suite all eval.tta=flip
        python eval.py runs/flowers/20260101-120000 --split all
        python eval.py vit.safetensors data.name=image_folder data.root=flowers
        python eval.py timm:resnet18 weights=a.pth data.name=cifar10
    """
    from vitkit.app import compare
    from vitkit.cli.tables import comparison_table, metric_table, paired_lines, split_table

    models, overrides = models_and_settings(sources)
    comparison = compare(models, overrides, split=split, suite=suite, progress=not quiet)
    results = comparison.results
    for number, result in enumerate(results, 1):
        if result.unfinished:
            print(f"note: {result.unfinished}")
        mark = f"{number}  " if len(results) > 1 else ""
        tell_notes(mark + note for note in result.notes)
        counted = f"{result.count:,} {result.split} {result.unit}"
        step = result.record.facts.get("step")
        of_step = "" if step is None else f" of step {int(str(step)):,}"
        print(f"{mark}{result.checkpoint} ({result.weights_name} weights{of_step}), {counted}")
    if len(results) == 1:
        print(metric_table(results[0].metrics))
    elif split == "all":
        print(split_table([(result.split, result.metrics) for result in results]))
    else:
        print(comparison_table([result.metrics for result in results]))
    of_all = split == "all"  # else each is held against the first
    splits = [result.split if of_all else "" for result in results]
    for line in paired_lines(comparison.paired, splits):
        print(line)
    for result in results:
        if result.page is not None and not quiet:
            print(f"report: {result.page}")
