"""Chapter 6: the Transformer of 2017: its parts, its learning rate, and one that learns to reverse.

python -m examples.story.transformer
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from examples.story import style
from vitkit.models import EncoderDecoder
from vitkit.nn import record_attention

LETTERS, LENGTH, START = 10, 8, 1
"""Ten letters stand behind 0 (padding) and 1 (beginning)."""


def blocks() -> Figure:
    """Encoder and decoder: three attentions, of one class."""
    figure, axes = style.drawing(11.4, 7.4, inch=0.66)
    _tower(axes, 3.0, ("self attention", "MLP"), "source words + places")
    _tower(
        axes, 8.2, ("self attention,\ncausal", "cross attention", "MLP"), "target words + places"
    )
    style.arrow(axes, (3.0, 4.15), (3.0, 4.9))
    style.note(axes, (3.0, 5.1), "memory", color=style.INK)
    style.arrow(axes, (3.5, 5.1), (6.8, 3.65), colour=style.RED, width=2)
    style.note(axes, (5.3, 4.75), "keys, values", color=style.RED)
    style.box(axes, (8.2, 6.8), "linear, softmax: next word", width=3.2, colour=style.PINK)
    style.arrow(axes, (8.2, 5.55), (8.2, 6.4))
    return figure


def _tower(axes: Axes, x: float, parts: tuple[str, ...], words: str) -> None:
    style.box(axes, (x, 0.6), words, width=3.2, colour=style.GREEN)
    style.arrow(axes, (x, 0.95), (x, 1.85))
    for index, part in enumerate(parts):
        y = 2.25 + 1.4 * index
        colour = style.ORANGE if part == "MLP" else style.BLUE
        style.box(axes, (x, y), part, width=2.8, height=0.8, colour=colour)
        style.note(axes, (x + 2.0, y), "+ norm")
        if index:
            style.arrow(axes, (x, y - 1.0), (x, y - 0.4))
    style.note(axes, (x - 1.85, 3.0), "N x", color=style.INK)


def learning_rate(step: float, width: int = 512, warmup: int = 4000) -> float:
    """The paper's, section 5.3."""
    return width**-0.5 * min(step**-0.5, step * warmup**-1.5)


def schedule() -> Figure:
    """A rise of 4,000 steps, then the inverse root."""
    figure = Figure(figsize=(6.6, 2.6), layout="constrained")
    axes = figure.subplots()
    steps = list(range(1, 40001, 100))
    for width, colour in ((512, style.BLUE), (1024, style.ORANGE)):
        rates = [1e4 * learning_rate(step, width) for step in steps]
        axes.plot(steps, rates, color=colour, label=f"width {width}")
    axes.set(xlabel="step", ylabel="learning rate x 10,000")
    axes.legend()
    return figure


def pairs(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Random letters, int64 (count, LENGTH), and the same backwards behind a beginning."""
    draw = torch.Generator().manual_seed(seed)
    source = torch.randint(2, 2 + LETTERS, (count, LENGTH), generator=draw)
    start = torch.full((count, 1), START)
    return source, torch.cat([start, source.flip(1)], dim=1)


def reverser(steps: int) -> EncoderDecoder:
    """A small Transformer that has learned to write its source backwards."""
    torch.manual_seed(0)
    model = EncoderDecoder(
        2 + LETTERS,
        max_len=LENGTH + 1,
        embed_dim=64,
        depth=1,
        num_heads=2,
        norm_first=True,
        final_norm=True,
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min(1.0, (step + 1) / 50) * (1 - step / steps)
        source, target = pairs(128, seed=step)
        logits = model(source, target[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), target[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def crossed(model: EncoderDecoder) -> tuple[Tensor, float]:
    """Cross attention averaged over 200 new sources, (H, N, M), and the share of right letters."""
    source, target = pairs(200, seed=1_000_000)
    with torch.no_grad(), record_attention(model, ["decoder.0.cross_attn"]) as maps:
        guess = model(source, target[:, :-1]).argmax(-1)
    right = (guess == target[:, 1:]).float().mean()
    return maps["decoder.0.cross_attn"].mean(dim=0), float(right)


def reversed_map(weights: Tensor) -> Figure:
    """Where each letter that is written looks in the source."""
    figure = Figure(figsize=(6.0, 3.2), layout="constrained")
    for head, axes in enumerate(figure.subplots(1, 2)):
        style.heat(axes, weights[head], title=f"head {head + 1}", top=1.0)
        axes.set(xlabel="letter of the source", ylabel="letter written")
    return figure


def main(arguments: Sequence[str] = ()) -> dict[str, str]:
    """Draw all; returns the numbers that the page states."""
    options = style.options(arguments, __doc__)
    style.save(blocks(), options.out, "transformer-blocks")
    style.save(schedule(), options.out, "transformer-schedule")
    started = time.perf_counter()
    steps = 20 if options.quick else 800
    model = reverser(steps)
    weights, right = crossed(model)
    style.save(reversed_map(weights), options.out, "transformer-reversed")
    facts = {"right": f"{100 * right:.1f}", "steps": f"{steps}"}
    print(f"{facts['right']} % of new letters right after {time.perf_counter() - started:.0f} s")
    return style.keep(options, "transformer", facts)


if __name__ == "__main__":
    main(sys.argv[1:])
