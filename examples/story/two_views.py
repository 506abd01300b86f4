"""Chapter 11: two pictures through one encoder and two decoders that read each other.

python -m examples.story.two_views
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from matplotlib.figure import Figure

from examples.story import style


def drawn() -> Figure:
    """DUSt3R's wiring."""
    figure, axes = style.drawing(13.4, 4.6, inch=0.66)
    for y, view, colour in ((3.6, 1, style.GREEN), (1.0, 2, style.ORANGE)):
        style.box(axes, (1.1, y), f"view {view}", width=1.5, colour=colour)
        style.arrow(axes, (1.85, y), (2.6, y))
        style.box(axes, (3.6, y), "encoder", width=1.9, height=0.9)
        for step, x in enumerate((6.3, 8.9)):
            style.arrow(axes, (4.55 if step == 0 else 7.2, y), (x - 0.95, y))
            text = f"decoder {view}\nblock {step + 1}"
            style.box(axes, (x, y), text, width=1.8, height=1.0, colour=style.SKY)
        style.arrow(axes, (9.8, y), (10.7, y))
        style.box(axes, (12.0, y), "a point in space\nfor each pixel", width=2.5, height=1.0)
    style.note(axes, (3.6, 2.3), "the same weights")
    for x in (4.75, 7.4):
        style.arrow(axes, (x, 3.5), (x + 1.0, 1.45), colour=style.RED, width=1.5)
        style.arrow(axes, (x, 1.1), (x + 1.0, 3.15), colour=style.RED, width=1.5)
    style.note(axes, (9.0, 2.3), "cross attention", color=style.RED)
    return figure


def main(arguments: Sequence[str] = ()) -> dict[str, str]:
    """Draw it; the page states no number of its."""
    options = style.options(arguments, __doc__)
    style.save(drawn(), options.out, "two-views")
    return {}


if __name__ == "__main__":
    main(sys.argv[1:])
