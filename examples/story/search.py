"""Chapter 2: attention as a search, drawn; and how the scale makes it soft or hard.

python -m examples.story.search
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from matplotlib.figure import Figure

from examples.story import style
from vitkit.nn import attention_weights

WORDS = ("the", "cat", "sat", "on", "it")
KEYS = torch.tensor([[0.0, 0.2], [1.0, 1.0], [0.3, 0.9], [-0.5, 0.1], [0.4, 0.2]])
QUERY = torch.tensor([[1.2, 1.0]])
SCALES = (0.5, 2.0, 8.0)


def weights(scale: float) -> torch.Tensor:
    """Of the query on each key, (5,)."""
    return attention_weights(QUERY[None, None], KEYS[None, None], scale=scale)[0, 0, 0]


def searched() -> Figure:
    """A query meets five keys; what it takes from the values is as thick as the match is good."""
    figure, axes = style.drawing(11.2, 5.2)
    found = weights(2.0)
    style.box(axes, (1.3, 2.6), "query\nof 'it'", width=1.7, height=1.0, colour=style.ORANGE)
    style.box(axes, (9.9, 2.6), "answer:\nmix of values", width=2.0, height=1.0)
    for row, (word, weight) in enumerate(zip(WORDS, found.tolist(), strict=True)):
        y = 4.6 - row
        style.box(axes, (4.6, y), f"key of '{word}'", width=2.0, colour=style.GREEN, size=9)
        style.box(axes, (6.9, y), "value", width=1.2, colour=style.SKY, size=9)
        style.arrow(axes, (2.15, 2.6), (3.6, y), width=0.8)
        style.arrow(axes, (7.5, y), (8.9, 2.6), colour=style.BLUE, width=0.5 + 6 * weight)
        style.note(axes, (5.95, y), f"{weight:.2f}", color=style.INK)
    return figure


def softened() -> Figure:
    """The same query, more and more decided."""
    figure = Figure(figsize=(7.6, 2.6), layout="constrained")
    for axes, scale in zip(figure.subplots(1, len(SCALES), sharey=True), SCALES, strict=True):
        axes.bar(WORDS, weights(scale).tolist(), color=style.BLUE, width=0.7)
        axes.set(title=f"scores times {scale:g}", ylim=(0, 1))
    return figure


def main(arguments: Sequence[str] = ()) -> dict[str, str]:
    """Draw both; returns the numbers that the page states."""
    options = style.options(arguments, __doc__)
    style.save(searched(), options.out, "attention-search")
    style.save(softened(), options.out, "attention-soft")
    facts = {f"{scale:g}": f"{float(weights(scale)[1]):.2f}" for scale in SCALES}
    for scale, share in facts.items():
        print(f"scores times {scale}: {share} of the answer comes from 'cat'")
    return style.keep(options, "search", facts)


if __name__ == "__main__":
    main(sys.argv[1:])
