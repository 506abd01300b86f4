"""The program itself, and the commands without a module of their own.

Heavy imports wait inside all commands, so that ``--help`` is quick.
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from vitkit.cli.options import Debug
from vitkit.cli.output import tell_notes
from vitkit.errors import ConfigError, VitkitError

__all__ = ["export", "models", "predict", "vitkit"]


def vitkit(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    """Train, evaluate and use Vision Transformers (and the text Transformers they came from)."""
    if version:
        print(f"vitkit {metadata.version('vitkit')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


def predict(
    source: Annotated[
        str,
        typer.Argument(metavar="RUN|WEIGHTS", help="A run, checkpoint, file of weights or hub id."),
    ],
    pictures: Annotated[list[Path], typer.Argument(metavar="PICTURE|FOLDER...")],
    classes: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Class names: JSON, or text, a line each.")
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="One line a picture and class.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="A list of objects.")] = False,
    top: Annotated[int, typer.Option(min=1, help="How many classes to show.")] = 5,
    max_pixels: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Refuse larger pictures.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Name the most likely classes of pictures, with probabilities.

    A file that cannot be read is reported and left out; the exit code is 1 then.
    """
    from vitkit.app import load, read_class_names

    if as_csv and as_json:
        raise ConfigError("--csv and --json exclude each other; choose one")
    unread: list[str] = []

    def tell(error: VitkitError) -> None:
        unread.append(str(error))
        print(f"error: {error}", file=sys.stderr, flush=True)

    names = () if classes is None else read_class_names(classes)
    predictor = load(source, class_names=names)
    tell_notes(predictor.notes)
    if max_pixels is not None:
        predictor = predictor.with_limit(max_pixels)
    predictions = predictor.predict(pictures, top=top, on_error=tell)
    if as_json:
        rows = [
            {"file": p.source, "top": [{"class": c, "probability": v} for c, v in p.top]}
            for p in predictions
        ]
        print(json.dumps(rows, indent=2))
    elif as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(["file", "rank", "class", "probability"])
        for p in predictions:
            writer.writerows(
                [p.source, rank, name, f"{value:.6f}"]
                for rank, (name, value) in enumerate(p.top, 1)
            )
    else:
        for p in predictions:
            print(p.source)
            for name, value in p.top:
                print(f"  {value:7.2%}  {name}")
    if unread:
        raise typer.Exit(1)


def export(
    source: Annotated[str, typer.Argument(metavar="RUN|CHECKPOINT", help="What to export.")],
    format: Annotated[
        str, typer.Option(help="safetensors, timm, hf, onnx or torch-export.")
    ] = "safetensors",
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where to; export-FORMAT in the run by default."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Write a trained model as a folder that other libraries read.

    It holds the weights, config.json, preprocessor_config.json and a model card with the measured
    results. timm and Hugging Face load it with their own functions and give the same logits; the
    programs of onnx and torch-export are run at three batch sizes before they are kept. Examples:

    \b
        vitkit export runs/flowers/20260101-120000 --format timm
        vitkit export runs/flowers/20260101-120000 --format onnx --out served
    """
    from vitkit.app import export as export_run

    result = export_run(source, format, out)
    for file in result.files:
        print(f"{file}  {file.stat().st_size / 1e3:,.1f} kB")
    if result.error is not None:
        print(f"checked: the program's logits differ by at most {result.error:.1e} (relative)")


def models(
    pattern: Annotated[str, typer.Argument(help="Such as 'vit_*_32' or 'timm/*tiny*'.")] = "*",
    debug: Debug = False,
) -> None:
    """List the models that model.name may be."""
    from vitkit.app import model_rows
    from vitkit.cli.tables import model_lines

    rows = model_rows(pattern)
    if not rows:
        raise ConfigError(f"no model matches {pattern!r}; `vitkit models` lists all")
    # A terminal would break long lines anywhere; a pipe gets one line a model, whole.
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in model_lines(rows, width):
        print(line)
