"""Chapter 9: one picture, and where each of its 144 patches looks in a trained ViT of one block.

    python train.py configs/nb01_vit_cifar10.yaml data.root=data trainer.precision=auto \\
        run.dir=runs/story_notebook
    python -m examples.story.every_query runs/story_notebook

With ``--quick`` it is a fresh model and noise.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from matplotlib.figure import Figure
from torch import Tensor

from examples.story import style
from examples.story.trained import measured, model_of, pictures_of
from vitkit.explain import attention_maps

PICTURE = 1
"""Number of the test picture that is drawn."""
SHADES = 15
"""Steps from white to dark: few, so that the file is small."""
SIDE = 12
"""Patches along each side of the picture."""


def every_look(picture: Tensor, maps: Tensor) -> Figure:
    """The picture, and a sheet a head with one map for each query; maps (H, N, N)."""
    figure = Figure(figsize=(9.2, 7.6), layout="constrained")
    axes = figure.subplot_mosaic([["picture", 0, 1], ["picture", 2, 3]], width_ratios=[1, 2, 2])
    axes["picture"].imshow(picture.permute(1, 2, 0).numpy())
    axes["picture"].set_title("the picture", fontsize=9)
    axes["picture"].axis("off")
    for head, weights in enumerate(maps):
        looks = weights.view(-1, SIDE, SIDE)
        looks = looks / looks.amax(dim=(1, 2), keepdim=True)
        looks = (SHADES * looks).round() / SHADES
        style.heat(axes[head], style.sheet(looks, SIDE), title=f"head {head + 1}")
    return figure


def main(arguments: Sequence[str] = ()) -> dict[str, str]:
    """Draw it; returns the numbers that the page states."""
    options = style.options(arguments, __doc__, run=True)
    model = model_of(options, "nb01_vit")
    pictures, inputs = pictures_of(options, [PICTURE], 72)
    maps = attention_maps(model, inputs)
    facts = {"queries": str(maps.shape[-1]), **measured(options)}
    style.save(every_look(pictures[0], maps[0, 0]), options.out, "attention-every-query")
    print(f"{facts['queries']} queries in each of {maps.shape[2]} heads")
    return style.keep(options, "every_query", facts)


if __name__ == "__main__":
    main(sys.argv[1:])
