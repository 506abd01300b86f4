"""Chapter 3: two tokens through attention, every number shown.

python -m examples.story.two_tokens
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from examples.story import style
from vitkit.nn import attention, attention_weights

TOKENS = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
W_Q = torch.tensor([[1.0, 1.0], [0.0, 1.0]])
W_K = W_V = torch.tensor([[0.0, 1.0], [1.0, -1.0]])


def steps() -> dict[str, torch.Tensor]:
    """Every table on the way from tokens to outputs."""
    q, k, v = TOKENS @ W_Q, TOKENS @ W_K, TOKENS @ W_V
    weights = attention_weights(q[None, None], k[None, None])[0, 0]
    out = attention(q[None, None], k[None, None], v[None, None])[0, 0]
    return {
        "tokens": TOKENS,
        "q": q,
        "k": k,
        "v": v,
        "scores": q @ k.T / 2**0.5,
        "weights": weights,
        "outputs": out,
    }


def table(
    axes: Axes, place: tuple[float, float], name: str, title: str, colour: str | None
) -> None:
    """One of the steps."""
    values = steps()[name]
    form = "{:.0f}" if colour in (style.GREEN, style.ORANGE, style.SKY, style.QUIET) else "{:.2f}"
    style.matrix(axes, place, values, cell=0.8, title=title, form=form, colour=colour)


def drawn() -> Figure:
    """From left to right: tokens, their queries, keys and values, scores, weights, outputs."""
    figure, axes = style.drawing(14.6, 6.8, inch=0.6)
    table(axes, (0.4, 3.95), "tokens", "tokens a", style.QUIET)
    table(axes, (3.4, 6.2), "q", "queries  q = a Wq", style.ORANGE)
    table(axes, (3.4, 3.95), "k", "keys  k = a Wk", style.GREEN)
    table(axes, (3.4, 1.7), "v", "values  v = a Wv", style.SKY)
    for y in (5.4, 3.15, 0.9):
        style.arrow(axes, (2.1, 3.15), (3.3, y))
    table(axes, (6.6, 5.1), "scores", "q k / √2", style.PINK)
    style.arrow(axes, (5.1, 5.4), (6.5, 4.6))
    style.arrow(axes, (5.1, 3.15), (6.5, 4.0))
    table(axes, (9.5, 5.1), "weights", "softmax of each row", None)
    style.arrow(axes, (8.3, 4.3), (9.4, 4.3))
    table(axes, (12.5, 3.4), "outputs", "outputs b", style.BLUE)
    style.arrow(axes, (11.2, 4.1), (12.4, 3.0))
    style.arrow(axes, (5.1, 0.9), (12.4, 2.2))
    return figure


def main(arguments: Sequence[str] = ()) -> dict[str, str]:
    """Draw it; returns the numbers that the page states."""
    options = style.options(arguments, __doc__)
    style.save(drawn(), options.out, "two-tokens")
    facts = {}
    for index, row in enumerate(steps()["outputs"].tolist(), start=1):
        facts[f"b{index}"] = ", ".join(f"{value:.2f}" for value in row)
        print(f"b{index} = ({facts[f'b{index}']})")
    return style.keep(options, "two_tokens", facts)


if __name__ == "__main__":
    main(sys.argv[1:])
