"""Chapter 10: what the token-mixing units of a trained MLP-Mixer read, place by place.

    python train.py configs/nb03_mixer_cifar10.yaml data.root=data run.dir=runs/story_mixer
    python -m examples.story.token_mixing runs/story_mixer

With ``--quick`` it is a fresh model.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

import vitkit
from examples.story import style
from examples.story.trained import measured, model_of

SIDE = 8
"""Patches along each side of a picture, and units along each side of a sheet."""


def units(model: nn.Module, block: int) -> Tensor:
    """Weights of a block's token-mixing units on the grid of places, (units, SIDE, SIDE)."""
    weight = model.blocks[block].mlp_tokens.fc1.weight.detach()  # type: ignore[index,union-attr]
    return weight.view(-1, SIDE, SIDE)


def smoothness(weights: Tensor) -> float:
    """Correlation of a weight with that of the place to its right, over all units."""
    pairs = torch.stack([weights[:, :, :-1].flatten(), weights[:, :, 1:].flatten()])
    return torch.corrcoef(pairs)[0, 1].item()


def drawn(weights: dict[str, Tensor]) -> Figure:
    """A sheet for each, a square for each unit: blue reads with plus, orange with minus."""
    figure = Figure(figsize=(9.2, 3.4), layout="constrained")
    for axes, (name, maps) in zip(figure.subplots(1, len(weights)), weights.items(), strict=True):
        maps = maps / maps.abs().amax(dim=(1, 2), keepdim=True)
        style.signed(axes, style.sheet(maps, SIDE), title=name)
    return figure


def main(arguments: Sequence[str] = ()) -> dict[str, str]:
    """Draw them; returns the numbers that the page states."""
    options = style.options(arguments, __doc__, run=True)
    torch.manual_seed(0)
    fresh = vitkit.create_model("nb03_mixer")
    trained = model_of(options, "nb03_mixer")
    weights = {"before training": units(fresh, 0)}
    weights |= {f"trained, block {block + 1}": units(trained, block) for block in range(2)}
    facts = {name: f"{smoothness(maps):.2f}" for name, maps in weights.items()}
    for name, value in facts.items():
        print(f"{name}: neighbours' weights correlate by {value}")
    facts |= measured(options)
    style.save(drawn(weights), options.out, "mixers-units")
    return style.keep(options, "token_mixing", facts)


if __name__ == "__main__":
    main(sys.argv[1:])
