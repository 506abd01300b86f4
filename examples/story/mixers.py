"""Chapter 10: attention, MLP-Mixer and ConvMixer side by side, and the sizes of the notebooks.

python -m examples.story.mixers
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import nn

import vitkit
from examples.story import style
from vitkit.nn import BlockContext, ConvMixerBlock, MixerBlock

SIDE = 8
NOTEBOOKS = (
    *("nb01_vit", "nb02_mixer", "nb03_mixer", "nb03_vit1", "nb03_vit2", "nb03_mixer_vit"),
    *("nb03_2mixer_vit", "nb04_mixer", "nb04_convmixer", "nb04_convmixer_mixer"),
)


def blocks() -> Figure:
    """What mixes tokens, and what mixes channels, in each of three blocks."""
    figure, axes = style.drawing(11.6, 4.4, inch=0.66)
    rows = (
        ("ViT", "attention:\nby what the tokens hold", "MLP"),
        ("MLP-Mixer", "MLP over tokens:\nweights that belong to places", "MLP"),
        ("ConvMixer", "depthwise convolution:\none weight per neighbour", "1 x 1 convolution"),
    )
    style.note(axes, (5.0, 4.15), "mixes tokens", color=style.INK)
    style.note(axes, (9.4, 4.15), "mixes channels", color=style.INK)
    for index, (name, tokens, channels) in enumerate(rows):
        y = 3.4 - 1.25 * index
        style.note(axes, (1.1, y), name, color=style.INK, fontsize=11)
        style.arrow(axes, (2.1, y), (2.9, y))
        style.box(axes, (5.0, y), tokens, width=4.2, height=0.95, colour=style.BLUE)
        style.arrow(axes, (7.1, y), (7.7, y))
        style.box(axes, (9.4, y), channels, width=3.2, height=0.95, colour=style.ORANGE)
    return figure


def reach() -> Figure:
    """Which tokens move when one token is changed, in a fresh block of each kind."""
    torch.manual_seed(0)
    model = vitkit.create_model("nb03_vit2", blocks=["attention"])
    kinds: dict[str, nn.Module] = {
        "attention": model.blocks[0],
        "MLP-Mixer": MixerBlock(128, SIDE**2, tokens_dim=64, channels_dim=64),
        "ConvMixer, kernel 5": ConvMixerBlock(128, kernel_size=5),
    }
    figure = Figure(figsize=(7.2, 2.6), layout="constrained")
    for axes, (name, block) in zip(figure.subplots(1, len(kinds)), kinds.items(), strict=True):
        style.heat(axes, moved(block.eval()).clamp(min=1e-3).log10() + 3, title=name)
    return figure


@torch.no_grad()
def moved(block: nn.Module) -> torch.Tensor:
    """How much each token's output changes with token (3, 3), (SIDE, SIDE), largest = 1."""
    tokens = torch.randn(1, SIDE**2, 128)
    other = tokens.clone()
    other[0, 3 * SIDE + 3] = torch.randn(128)
    context = BlockContext(grid=(SIDE, SIDE))
    change = (block(tokens, context) - block(other, context))[0].norm(dim=-1).view(SIDE, SIDE)
    return change / change.max()


def sizes() -> dict[str, int]:
    """Trainable parameters of the notebooks' models."""
    with torch.device("meta"):
        models = {name: vitkit.create_model(name) for name in NOTEBOOKS}
    return {name: sum(p.numel() for p in model.parameters()) for name, model in models.items()}


def counted(found: dict[str, int]) -> Figure:
    """As bars, on a logarithmic scale."""
    figure = Figure(figsize=(7.6, 3.6), layout="constrained")
    axes = figure.subplots()
    names = list(found)[::-1]
    axes.barh(names, [found[name] for name in names], color=style.BLUE, height=0.65)
    axes.set_xscale("log")
    axes.set(xlabel="trainable parameters", xlim=(500, 2e8))
    for row, name in enumerate(names):
        axes.text(found[name] * 1.15, row, f"{found[name]:,}", va="center", fontsize=9)
    return figure


def main(arguments: Sequence[str] = ()) -> dict[str, str]:
    """Draw all; returns the numbers that the page states."""
    options = style.options(arguments, __doc__)
    style.save(blocks(), options.out, "mixers-blocks")
    style.save(reach(), options.out, "mixers-reach")
    found = sizes()
    style.save(counted(found), options.out, "mixers-sizes")
    for name, count in found.items():
        print(f"{name}: {count:,}")
    facts = {name: f"{count:,}" for name, count in found.items()}
    return style.keep(options, "mixers", facts)


if __name__ == "__main__":
    main(sys.argv[1:])
