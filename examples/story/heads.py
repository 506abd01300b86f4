"""Chapter 4: several heads: what splitting means, what order means, what it costs.

python -m examples.story.heads
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from matplotlib.figure import Figure

from examples.story import style
from vitkit.nn import Attention

BATCH, TOKENS, WIDTH = 32, 1024, 512


def multiply_adds(*, output: bool) -> int:
    """Of self attention on (32, 1024, 512): the number of heads does not enter."""
    projections = (4 if output else 3) * TOKENS * WIDTH**2
    return BATCH * (projections + 2 * TOKENS**2 * WIDTH)


def split() -> Figure:
    """(1, 1, 0, 1) parted between two heads is a product with blocks of an identity."""
    figure, axes = style.drawing(13.0, 3.7, inch=0.62)
    query, eye = torch.tensor([[1.0, 1.0, 0.0, 1.0]]), torch.eye(4)
    for head, colour in enumerate((style.BLUE, style.GREEN)):
        left, columns = 0.3 + 6.3 * head, slice(2 * head, 2 * head + 2)
        shown: dict[str, Any] = {"cell": 0.6, "form": "{:.0f}", "colour": colour}
        style.matrix(axes, (left, 2.0), query, title="q", **shown | {"colour": style.ORANGE})
        block, part = eye[:, columns], query[:, columns]
        style.note(axes, (left + 2.75, 1.7), "\N{MULTIPLICATION SIGN}", fontsize=12)
        style.matrix(axes, (left + 3.1, 2.9), block, title=f"block {head + 1}", **shown)
        style.note(axes, (left + 4.55, 1.7), "=", fontsize=12)
        style.matrix(axes, (left + 4.8, 2.0), part, title=f"head {head + 1}", **shown)
    return figure


def swapped() -> Figure:
    """Outputs of three tokens, before and after the second and the third change places."""
    torch.manual_seed(0)
    core = Attention(2, 1)
    tokens = 4 * torch.randn(1, 3, 2)  # wide enough apart to differ in the first digits
    with torch.no_grad():
        before, after = core(tokens)[0], core(tokens[:, [0, 2, 1]])[0]
    figure, axes = style.drawing(9.6, 3.4, inch=0.7)
    for x, order, outputs in ((0.9, (1, 2, 3), before), (5.7, (1, 3, 2), after)):
        for row, token in enumerate(order):
            colour = (style.BLUE, style.ORANGE, style.GREEN)[token - 1]
            y = 2.9 - row
            style.box(axes, (x, y), f"a{token}", width=0.8, height=0.6, colour=colour)
            style.arrow(axes, (x + 0.45, y), (x + 1.25, y))
            text = ", ".join(f"{value:.2f}" for value in outputs[row].tolist())
            style.box(axes, (x + 2.25, y), f"({text})", width=1.9, height=0.6, colour=colour)
    style.note(axes, (4.6, 1.9), "swap")
    style.arrow(axes, (4.2, 1.6), (5.0, 1.6))
    return figure


def cost() -> Figure:
    """One head without an output projection beside eight heads with it."""
    figure = Figure(figsize=(7.4, 2.2), layout="constrained")
    axes = figure.subplots()
    projections = BATCH * TOKENS * WIDTH**2 / 1e9
    products = 2 * BATCH * TOKENS**2 * WIDTH / 1e9
    parts = (
        ("q, k, v", 3 * projections, 3 * projections, style.ORANGE),
        ("scores and mixing", products, products, style.BLUE),
        ("output projection", 0.0, projections, style.GREEN),
    )
    left = [0.0, 0.0]
    for name, one, eight, colour in parts:
        axes.barh((1, 0), (one, eight), left=left, color=colour, label=name, height=0.6)
        left = [left[0] + one, left[1] + eight]
    axes.set_yticks((1, 0), ("1 head, no output projection", "8 heads, with it"))
    axes.set(xlabel="multiply-adds, billions")
    figure.legend(loc="outside upper right", ncols=3)
    return figure


def main(arguments: Sequence[str] = ()) -> dict[str, str]:
    """Draw all three; returns the numbers that the page states."""
    options = style.options(arguments, __doc__)
    style.save(split(), options.out, "heads-split")
    style.save(swapped(), options.out, "heads-order")
    style.save(cost(), options.out, "heads-cost")
    facts = {
        "one head": f"{multiply_adds(output=False) / 1e9:.2f}",
        "eight heads": f"{multiply_adds(output=True) / 1e9:.2f}",
    }
    for name, value in facts.items():
        print(f"{name}: {value} G multiply-adds")
    return style.keep(options, "heads", facts)


if __name__ == "__main__":
    main(sys.argv[1:])
