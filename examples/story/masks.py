"""Chapter 5: four masks, and three ways to say where a token is.

python -m examples.story.masks
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from matplotlib.figure import Figure

from examples.story import style
from vitkit.nn import Alibi, Rotary1d, causal_mask, padding_mask, sincos_1d, window_mask

WORDS = 8


def masks() -> Figure:
    """Rows ask, columns are asked; dark = may attend."""
    padding = padding_mask(torch.tensor([5]), WORDS)[0, 0].expand(WORDS, WORDS)
    causal = causal_mask(WORDS)
    shown = {
        "all": torch.ones(WORDS, WORDS, dtype=torch.bool),
        "padding: 5 real words": padding,
        "causal": causal,
        "window: itself, 2 before": window_mask(WORDS, before=2),
        "causal and padding": causal & padding,
    }
    figure = Figure(figsize=(8.4, 2.2), layout="constrained")
    for axes, (name, mask) in zip(figure.subplots(1, len(shown)), shown.items(), strict=True):
        style.heat(axes, mask.float() * 0.66, title=name.replace(": ", ":\n"), top=1.0)
        axes.set_xticks(torch.arange(WORDS - 1).numpy() + 0.5, minor=True)
        axes.set_yticks(torch.arange(WORDS - 1).numpy() + 0.5, minor=True)
        axes.grid(which="minor", color=style.FAINT, linewidth=0.8)
        axes.tick_params(which="minor", length=0)
    return figure


def positions() -> Figure:
    """A table that is added, angles that turn, and distances taken off the scores."""
    figure = Figure(figsize=(8.4, 3.0), layout="constrained")
    table, rotary, alibi = figure.subplots(1, 3)
    sincos = sincos_1d(64, 64)
    table.imshow(sincos.numpy(), cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
    table.set(title="sin-cos: added", xlabel="channel", ylabel="place")
    likeness = rotary_likeness(64)
    rotary.plot(likeness.numpy(), color=style.BLUE)
    rotary.set(title="rotary: turned", xlabel="distance", ylabel="score of equal words")
    bias = Alibi(4)(64)[0, :, -1].flip(-1)
    for head in range(4):
        rotary_colour = (style.BLUE, style.ORANGE, style.GREEN, style.RED)[head]
        alibi.plot(bias[head].numpy(), color=rotary_colour, label=f"head {head + 1}")
    alibi.set(title="ALiBi: taken off", xlabel="distance", ylabel="added to the score")
    alibi.legend(fontsize=8)
    return figure


def rotary_likeness(length: int) -> torch.Tensor:
    """Scaled product of the same vector of ones at two places, by their distance: (length,)."""
    width = 64
    ones = torch.ones(1, 1, length, width)
    turned = Rotary1d(width)(torch.arange(length))(ones)[0, 0]
    return turned @ turned[0] / width


def main(arguments: Sequence[str] = ()) -> dict[str, str]:
    """Draw both; returns the numbers that the page states."""
    options = style.options(arguments, __doc__)
    style.save(masks(), options.out, "masks")
    style.save(positions(), options.out, "positions")
    likeness = rotary_likeness(64)
    facts = {"near": f"{float(likeness[1]):.2f}", "far": f"{float(likeness[63]):.2f}"}
    print(f"rotary, equal words: {facts['near']} one place away, {facts['far']} 63 places away")
    return style.keep(options, "masks", facts)


if __name__ == "__main__":
    main(sys.argv[1:])
