"""Chapter 9: where a trained ViT looks on CIFAR-10's test pictures: a grid and an animation.

    python train.py configs/cifar10_cpu_30min_vit.yaml data.root=data data.val_fraction=0.1 \\
        run.dir=runs/story_vit
    python -m examples.story.attention_on_pictures runs/story_vit

With ``--quick`` it is a fresh model and noise.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from torch import Tensor

from examples.story import style
from examples.story.trained import measured, model_of, pictures_of
from vitkit.explain import attention_maps, mean_attention_distance

PICTURES = (1, 12, 13)
"""Numbers of the test pictures that are drawn."""
SIDE = 8
"""Patches along each side of a picture."""
QUERY = (4, 4)
"""(row, column) of the patch that asks in the still pictures."""
LAYER = -2
"""Of the animation: the last but one."""
WALK = [(2, column) for column in range(SIDE)] + [(5, column) for column in reversed(range(SIDE))]
"""(row, column) of the animation's queries."""


def grid(picture: Tensor, maps: Tensor) -> Figure:
    """One patch's look in every head: a row of maps for each layer, maps (L, H, N, N)."""
    layers, heads = maps.shape[:2]
    figure = Figure(figsize=(1.15 * (heads + 2.2), 1.15 * layers + 0.3))
    axes = figure.add_axes((0.02, 0.38, 0.30, 0.30))
    axes.imshow(picture.permute(1, 2, 0).numpy())
    patch = picture.shape[-1] // SIDE
    corner = (QUERY[1] * patch - 0.5, QUERY[0] * patch - 0.5)
    axes.add_patch(Rectangle(corner, patch, patch, fill=False, edgecolor=style.RED, lw=2.5))
    axes.set_title("the patch that asks", fontsize=9)
    axes.axis("off")
    for layer in range(layers):
        for head in range(heads):
            width, height = 0.62 / heads, 0.93 / layers
            place = (0.37 + head * width, 0.94 - (layer + 1) * height, 0.93 * width, 0.93 * height)
            seen = maps[layer, head, QUERY[0] * SIDE + QUERY[1]].view(SIDE, SIDE)
            cell = figure.add_axes(place)
            style.heat(cell, seen, title=f"head {head + 1}" if layer == 0 else "")
            if head == 0:
                cell.set_ylabel(f"layer {layer + 1}", fontsize=9)
    return figure


def animation(picture: Tensor, maps: Tensor, path: Path) -> None:
    """A walking query, and what each head of a layer takes from where; maps (H, N, N)."""
    frames = [_frame(picture, maps, place) for place in WALK]
    colours = _palette(frames[0])
    first, *others = [frame.quantize(palette=colours, dither=Image.Dither.NONE) for frame in frames]
    first.save(path, save_all=True, append_images=others, duration=350, loop=0, optimize=True)
    print(f"figure: {path}")


def _palette(frame: Image.Image) -> Image.Image:
    """Colours of a frame, and certainly the one that frames the query."""
    sheet = Image.new("RGB", (frame.width, 2 * frame.height), style.RED)
    sheet.paste(frame)
    return sheet.quantize(128)


def _frame(picture: Tensor, maps: Tensor, query: tuple[int, int], size: int = 128) -> Image.Image:
    """The picture with the query's patch framed, and a map a head beside it."""
    patch = size // SIDE
    shown = np.repeat(np.repeat(picture.permute(1, 2, 0).numpy(), 4, 0), 4, 1).copy()
    y, x = query[0] * patch, query[1] * patch
    framed = shown[y : y + patch, x : x + patch].copy()
    shown[y : y + patch, x : x + patch] = (213, 94, 0)
    shown[y + 2 : y + patch - 2, x + 2 : x + patch - 2] = framed[2:-2, 2:-2]
    panels = [shown]
    for weights in maps:
        seen = weights[query[0] * SIDE + query[1]].view(SIDE, SIDE)
        cells = (style.HEAT((seen / seen.max()).numpy())[:, :, :3] * 255).astype(np.uint8)
        cells = np.repeat(np.repeat(cells, patch, 0), patch, 1)
        panels += [np.full((size, 6, 3), 255, np.uint8), cells]
    return Image.fromarray(np.concatenate(panels, axis=1))


def main(arguments: Sequence[str] = ()) -> dict[str, str]:
    """Draw them; returns the numbers that the page states, and keeps them beside the figures."""
    options = style.options(arguments, __doc__, run=True)
    model = model_of(options, "vit_mini_patch4_32", embed_dim=64, depth=4)
    pictures, inputs = pictures_of(options, PICTURES, 32)
    maps = attention_maps(model, inputs)
    for number, picture, seen in zip(PICTURES, pictures, maps, strict=True):
        style.save(grid(picture, seen), options.out, f"attention-grid-{number}")
    animation(pictures[0], maps[0, LAYER], options.out / "attention-walk.gif")
    distances = mean_attention_distance(model, inputs).mean(dim=(0, 2)).tolist()
    facts = {f"layer {layer}": f"{pixels:.1f}" for layer, pixels in enumerate(distances, start=1)}
    for name, pixels in facts.items():
        print(f"{name}: heads look {pixels} pixels far on average")
    return style.keep(options, "attention_on_pictures", {**facts, **measured(options)})


if __name__ == "__main__":
    main(sys.argv[1:])
