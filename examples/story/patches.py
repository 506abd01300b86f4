"""Chapter 7: a picture cut into patches, as a sentence is cut into words.

python -m examples.story.patches
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import Tensor

from examples.story import style


def digit(index: int = 5) -> Tensor:
    """A handwritten digit of scikit-learn's, (8, 8) from 0 to 1."""
    return torch.from_numpy(load_digits().images[index]).float() / 16


def cut() -> Figure:
    """The picture, its patches of 2 x 2 pixels, and the row that they become."""
    picture = digit()
    patches = picture.unfold(0, 2, 2).unfold(1, 2, 2).flatten(0, 1)
    figure = Figure(figsize=(8.4, 3.6))
    whole = figure.add_axes((0.02, 0.36, 0.24, 0.56))
    style.heat(whole, picture, title="8 x 8 pixels", top=1.0)
    for index, patch in enumerate(patches):
        row, column = divmod(index, 4)
        place = (0.34 + 0.062 * column, 0.79 - 0.142 * row, 0.055, 0.128)
        style.heat(figure.add_axes(place), patch, top=1.0)
        axes = figure.add_axes((0.02 + 0.0605 * index, 0.06, 0.055, 0.128))
        style.heat(axes, patch, top=1.0)
        axes.set_xlabel(str(index), fontsize=8)
    figure.text(0.458, 0.955, "16 patches", ha="center", fontsize=9)
    figure.text(0.02, 0.23, "a sentence of 16 words, each of 4 numbers", fontsize=9)
    figure.text(0.66, 0.72, "words: a row of the table\nper number in the vocabulary", fontsize=9)
    figure.text(0.66, 0.52, "patches: a product with one\nmatrix, for any pixels", fontsize=9)
    return figure


def doors() -> Figure:
    """Two front doors, one core."""
    figure, axes = style.drawing(12.3, 4.2, inch=0.66)
    for y, first, second, colour in (
        (3.2, "words", "row of a table", style.GREEN),
        (1.0, "pictures", "patches x matrix", style.ORANGE),
    ):
        style.box(axes, (1.3, y), first, colour=colour)
        style.arrow(axes, (2.1, y), (2.9, y))
        style.box(axes, (4.0, y), second, width=2.2, colour=colour)
        style.arrow(axes, (5.1, y), (6.1, 2.1 + 0.35 * (1 if y > 2 else -1)))
    style.box(axes, (7.6, 2.1), "blocks of\nvitkit.nn.Attention\nand MLPs", width=3.0, height=1.8)
    for y, text, colour in (
        (3.2, "next word, class", style.GREEN),
        (1.0, "class of the picture", style.ORANGE),
    ):
        style.arrow(axes, (9.1, 2.1 + 0.35 * (1 if y > 2 else -1)), (9.8, y))
        style.box(axes, (10.9, y), text, width=2.1, colour=colour, size=9)
    return figure


def main(arguments: Sequence[str] = ()) -> dict[str, str]:
    """Draw both; the page states no number of theirs."""
    options = style.options(arguments, __doc__)
    style.save(cut(), options.out, "patches-cut")
    style.save(doors(), options.out, "patches-doors")
    return {}


if __name__ == "__main__":
    main(sys.argv[1:])
