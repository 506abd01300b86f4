"""The command that looks inside a model, and its tables."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitkit.cli.arguments import models_and_settings
from vitkit.cli.options import Debug, Quiet
from vitkit.cli.output import results_are_on_disk
from vitkit.errors import ConfigError

if TYPE_CHECKING:
    from vitkit.app.inspection import BlockSummary, Inspection

__all__ = ["block_table", "inspect", "shape_table"]

WIDTH = 80


def inspect(
    source: Annotated[
        str, typer.Argument(metavar="RUN|CHECKPOINT|WEIGHTS|timm:NAME", help="A trained model.")
    ],
    pictures: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PICTURE|FOLDER]...",
            help="Pictures to look at, then settings such as data.name=cifar10; of a run only with "
            "--embedding.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where to; inspect/ in the run, or under runs/eval/."),
    ] = None,
    layers: Annotated[
        str, typer.Option(help="Attention layers to show, such as 0,5,-1; all by default.")
    ] = "",
    target: Annotated[
        str | None,
        typer.Option(metavar="CLASS", help="Class to explain; the predicted one by default."),
    ] = None,
    fusion: Annotated[
        str | None,
        typer.Option(help="Heads of a layer in the rollout: mean, max, min; mean by default."),
    ] = None,
    discard: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE", help="Smallest entries left out by the rollout, such as 0.9."
        ),
    ] = None,
    embedding: Annotated[
        str | None,
        typer.Option(help="Map of the data's test images: pca, tsne or umap."),
    ] = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Look inside a model: where it looks, what for, and what becomes of its tokens.

    Writes pictures, inspect.npz and inspect.json: attention of every layer and head, rollout,
    relevance and Grad-CAM for a class, likeness to the class token, lengths of tokens, how far and
    how widely heads look; without a picture what depends on the weights alone, filters and
    positions. A model of timm takes weights=FILE behind its name, and needs data.name. Examples:

    \b
        vitkit inspect runs/flowers/20260101-120000 rose.jpg
        vitkit inspect runs/flowers/20260101-120000 rose.jpg --target tulip
        vitkit inspect runs/flowers/20260101-120000 --embedding tsne
        vitkit inspect vit.safetensors rose.jpg
        vitkit inspect timm:NAME weights=a.pth data.name=cifar10 model.img_size=32
    """
    from vitkit.app import inspect as look_inside

    files, settings = _files_and_settings(pictures or [])
    models, settings = models_and_settings([source, *settings])
    if not models:
        raise ConfigError(f"{source}: name a run, a checkpoint, weights or timm:<name> first")
    found = look_inside(
        models[0],
        files,
        settings,
        out=out,
        layers=_numbers(layers),
        target=target,
        fusion=fusion,
        discard=discard,
        embedding=embedding,
        progress=not quiet,
    )
    results_are_on_disk()
    for line in _lines(found):
        print(line)


def shape_table(steps: Sequence[tuple[str, Sequence[int], Sequence[int]]]) -> list[str]:
    """A line a step: its name and the shape behind it.

    Args:
        steps: name, shape before, shape behind; blocks that follow each other with one shape behind
            them share a line.
    """
    rows: list[tuple[str, list[int]]] = [("picture", list(steps[0][1]))] if steps else []
    first = ""
    for name, given, made in steps:
        same = list(given) == list(made) == rows[-1][1]
        if same and name.startswith("blocks.") and first:
            rows[-1] = (f"{first} to {name}", list(made))
            continue
        first = name if name.startswith("blocks.") else ""
        rows.append((name, list(made)))
    width = max((len(name) for name, _ in rows), default=0)
    return [f"{name:<{width}}  {shape}" for name, shape in rows]


def block_table(blocks: Sequence[BlockSummary]) -> list[str]:
    """A line a block: lengths of its tokens, and how far its heads look in pixels."""
    if not blocks:
        return []
    lines = [
        f"{'':5}{'length of':>11}{'longest':>11}{'class':>11}{'attention distance, px':>31}",
        f"{'block':5}{'patches':>11}{'patch':>11}{'token':>11}{'mean':>11}"
        f"{'nearest':>10}{'farthest':>10}",
    ]
    for one in blocks:
        class_norm = "-" if one.class_norm is None else f"{one.class_norm:.2f}"
        far = one.distances
        summary = (sum(far) / len(far), min(far), max(far)) if far else ()
        mean, nearest, farthest = [f"{pixels:.1f}" for pixels in summary] or ["-"] * 3
        lines.append(
            f"{one.block:5}{one.patch_norm:>11.2f}{one.largest_norm:>11.2f}{class_norm:>11}"
            f"{mean:>11}{nearest:>10}{farthest:>10}"
        )
    return lines


def _lines(found: Inspection) -> list[str]:
    lines = [f"{found.checkpoint} ({found.model}, {found.weights_name} weights)", ""]
    for one in found.pictures:
        said = ", ".join(f"{name} {share:.1%}" for name, share in one.top)
        lines += [one.source, *_wrapped(f"{said}; explained: {one.explained}", "  ")]
    if found.pictures:
        lines.append("")
    lines += shape_table([(step.name, step.given, step.made) for step in found.shapes])
    if found.blocks:
        lines += ["", *block_table(found.blocks)]
    lines.append("")
    for note in found.notes:
        lines += _wrapped(f"note: {note}")
    lines.append(f"{len(found.written)} files in {found.folder}")
    return lines


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=indent, subsequent_indent=f"{indent}  ", break_long_words=False
    )


def _files_and_settings(words: Sequence[str]) -> tuple[list[str], list[str]]:
    from vitkit.config import is_setting

    settings = [word for word in words if is_setting(word)]
    return [word for word in words if word not in settings], settings


def _numbers(text: str) -> list[int] | None:
    """``0,5,-1`` as numbers; None of an empty text."""
    if not text.strip():
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(
            f"--layers: given {text!r}, expected whole numbers such as 0,5,-1"
        ) from error
