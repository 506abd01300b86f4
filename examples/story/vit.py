"""Chapter 8: the Vision Transformer and the shapes that flow through it.

python -m examples.story.vit
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from matplotlib.figure import Figure

import vitkit
from examples.story import style
from vitkit.explain import token_shapes

NAME = "vit_base_patch16_224"


def flow() -> Figure:
    """Every change of shape of ViT-Base, from pixels to classes."""
    with torch.device("meta"):
        steps = token_shapes(vitkit.create_model(NAME), torch.zeros(1, 3, 224, 224))
    shown = [("image", steps[0].given)]
    shown += [(step.name, step.made) for step in steps if step.given != step.made]
    figure, axes = style.drawing(2.75 * len(shown) + 0.4, 2.0, inch=0.62)
    for index, (name, shape) in enumerate(shown):
        x = 1.5 + 2.75 * index
        colour = style.GREEN if index == 0 else style.BLUE
        style.box(axes, (x, 0.85), " x ".join(f"{n}" for n in shape), width=2.0, colour=colour)
        style.note(axes, (x, 1.55), name, color=style.INK, fontsize=8)
        if index:
            style.arrow(axes, (x - 1.7, 0.85), (x - 1.05, 0.85))
    return figure


def block() -> Figure:
    """A block with its two residual branches, and the class token on its way."""
    figure, axes = style.drawing(12.4, 3.4, inch=0.66)
    parts = (
        *((1.2, "tokens\n(197, 768)", style.GREEN), (3.4, "norm", style.QUIET)),
        *((5.3, "attention", style.BLUE), (8.2, "norm", style.QUIET), (10.0, "MLP", style.ORANGE)),
    )
    for x, text, colour in parts:
        style.box(axes, (x, 1.2), text, width=1.5, height=0.9, colour=colour)
    for start, end in ((1.95, 2.65), (4.15, 4.55), (6.05, 6.6), (7.0, 7.45), (8.95, 9.25)):
        style.arrow(axes, (start, 1.2), (end, 1.2))
    style.arrow(axes, (10.75, 1.2), (11.2, 1.2))
    style.arrow(axes, (11.6, 1.2), (12.2, 1.2))
    for x in (6.8, 11.4):
        style.note(axes, (x, 1.2), "+", color=style.INK, fontsize=14)
    for start, end in ((2.3, 6.8), (7.2, 11.4)):
        axes.plot([start, start, end], [1.2, 2.5, 2.5], color=style.RED, linewidth=1.6)
        style.arrow(axes, (end, 2.5), (end, 1.45), colour=style.RED, width=1.6)
        style.note(axes, ((start + end) / 2, 2.75), "residual stream", color=style.RED)
    return figure


def main(arguments: Sequence[str] = ()) -> dict[str, str]:
    """Draw both; the page states no number of theirs."""
    options = style.options(arguments, __doc__)
    style.save(flow(), options.out, "vit-shapes")
    style.save(block(), options.out, "vit-block")
    return {}


if __name__ == "__main__":
    main(sys.argv[1:])
