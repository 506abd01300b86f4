"""Chapter 1: a recurrence unrolled, and how much of the gradient reaches far tokens.

python -m examples.story.recurrence
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

import vitkit
from examples.sequence_mixers import gradient_by_distance
from examples.story import style

WORDS = 24
DISTANCE = 32
"""From the last word, of the numbers that the page states."""
FLOOR = 1e-12
"""Below it nothing is drawn."""
MIXERS = {
    "RNN": ("lstm_music", {"cell": "rnn", "embed_dim": 64, "hidden_dim": 288}),
    "LSTM": ("lstm_music", {"cell": "lstm", "embed_dim": 64, "hidden_dim": 128}),
    "attention": ("lm_char_mini", {"embed_dim": 64, "depth": 2, "num_heads": 4}),
}


def unrolled() -> Figure:
    """One cell, drawn once for each step; the long way from the last output to the first word."""
    figure, axes = style.drawing(11.2, 4.4)
    for step in range(5):
        x = 1.4 + 2.1 * step
        style.box(axes, (x, 0.6), f"x{step + 1}", width=0.9, colour=style.GREEN)
        style.box(axes, (x, 2.0), f"h{step + 1}", width=1.1)
        style.box(axes, (x, 3.4), f"y{step + 1}", width=0.9, colour=style.ORANGE)
        style.arrow(axes, (x, 0.95), (x, 1.65))
        style.arrow(axes, (x, 2.35), (x, 3.05))
        if step < 4:
            style.arrow(axes, (x + 0.55, 2.0), (x + 1.55, 2.0), colour=style.BLUE, width=2)
            style.note(axes, (x + 1.05, 2.25), "W", color=style.BLUE)
    style.note(axes, (5.6, 4.05), "every word passes through all later states to reach the end")
    return figure


def gradients(length: int) -> dict[str, Tensor]:
    """Of fresh models: gradient of the last answer by the word at each distance, nearest = 1."""
    found = {}
    for name, (model, settings) in MIXERS.items():
        torch.manual_seed(0)
        if name == "attention":
            settings = {**settings, "max_len": length}
        made = vitkit.create_model(model, vocab_size=WORDS, **settings)
        norms = gradient_by_distance(made, length)
        found[name] = norms / norms[0]
    return found


def faded(found: dict[str, Tensor]) -> Figure:
    """The same as curves."""
    figure = Figure(figsize=(7.2, 3.6), layout="constrained")
    axes = figure.subplots()
    for (name, norms), colour in zip(
        found.items(), (style.RED, style.ORANGE, style.BLUE), strict=True
    ):
        seen = torch.where(norms > FLOOR, norms, torch.nan)
        axes.semilogy(range(len(seen)), seen.numpy(), color=colour, label=name, linewidth=1.8)
    axes.set(xlabel="words between a word and the answer", ylabel="gradient, nearest word = 1")
    axes.set_ylim(FLOOR, 3)
    axes.legend()
    return figure


def main(arguments: Sequence[str] = ()) -> dict[str, str]:
    """Draw both; returns the numbers that the page states."""
    options = style.options(arguments, __doc__)
    style.save(unrolled(), options.out, "recurrence-unrolled")
    found = gradients(64)
    style.save(faded(found), options.out, "recurrence-gradient")
    facts = {name: f"{norms[DISTANCE]:.0e}" for name, norms in found.items()}
    for name, share in facts.items():
        print(f"{name}: {share} of the gradient at distance {DISTANCE}")
    facts["distance"] = f"{DISTANCE}"
    return style.keep(options, "recurrence", facts)


if __name__ == "__main__":
    main(sys.argv[1:])
