"""The constants of the published corrupted sets, one by one, as their authors' code has them."""

from __future__ import annotations

import numpy as np
import pytest

from vitkit.evaluation.corruptions.catalogue import SEVERITIES
from vitkit.evaluation.corruptions.constants import CIFAR, IMAGENET, constants_for
from vitkit.evaluation.robustness import ALEXNET_ERRORS

CIFAR_C = """
gaussian_noise     .04 | .06 | .08 | .09 | .10
shot_noise         500 | 250 | 100 | 75 | 50
impulse_noise      .01 | .02 | .03 | .05 | .07
defocus_blur       .3,.4 | .4,.5 | .5,.6 | 1,.2 | 1.5,.1
glass_blur         .05,1,1 | .25,1,1 | .4,1,1 | .25,1,2 | .4,1,2
motion_blur        6,1 | 6,1.5 | 6,2 | 8,2 | 9,2.5
zoom_blur          1.06,.01 | 1.11,.01 | 1.16,.01 | 1.21,.01 | 1.26,.01
snow               .1,.2,1,.6,8,3,.95 | .1,.2,1,.5,10,4,.9 | .15,.3,1.75,.55,10,4,.9 |
                   .25,.3,2.25,.6,12,6,.85 | .3,.3,1.25,.65,14,12,.8
frost              1,.2 | 1,.3 | .9,.4 | .85,.4 | .75,.45
fog                .2,3 | .5,3 | .75,2.5 | 1,2 | 1.5,1.75
brightness         .05 | .1 | .15 | .2 | .3
contrast           .75 | .5 | .4 | .3 | .15
elastic_transform  0,0,.08 | .05,.2,.07 | .08,.06,.06 | .1,.04,.05 | .1,.03,.03
pixelate           .95 | .9 | .85 | .75 | .65
jpeg_compression   80 | 65 | 58 | 50 | 40
speckle_noise      .06 | .1 | .12 | .16 | .2
gaussian_blur      .4 | .6 | .7 | .8 | 1
spatter            .62,.1,.7,.7,.5,0 | .65,.1,.8,.7,.5,0 | .65,.3,1,.69,.5,0 |
                   .65,.1,.7,.69,.6,1 | .65,.1,.5,.68,.6,1
saturate           .3,0 | .1,0 | 1.5,0 | 2,.1 | 2.5,.2
"""
"""Elastic ones in widths of an image; zooms as the end and the step of a range."""

IMAGENET_C = """
gaussian_noise     .08 | .12 | .18 | .26 | .38
shot_noise         60 | 25 | 12 | 5 | 3
impulse_noise      .03 | .06 | .09 | .17 | .27
defocus_blur       3,.1 | 4,.5 | 6,.5 | 8,.5 | 10,.5
glass_blur         .7,1,2 | .9,2,1 | 1,2,3 | 1.1,3,2 | 1.5,4,2
motion_blur        10,3 | 15,5 | 15,8 | 15,12 | 20,15
zoom_blur          1.11,.01 | 1.16,.01 | 1.21,.02 | 1.26,.02 | 1.31,.03
snow               .1,.3,3,.5,10,4,.8 | .2,.3,2,.5,12,4,.7 | .55,.3,4,.9,12,8,.7 |
                   .55,.3,4.5,.85,12,8,.65 | .55,.3,2.5,.85,12,12,.55
frost              1,.4 | .8,.6 | .7,.7 | .65,.7 | .6,.75
fog                1.5,2 | 2,2 | 2.5,1.7 | 2.5,1.5 | 3,1.4
brightness         .1 | .2 | .3 | .4 | .5
contrast           .4 | .3 | .2 | .1 | .05
elastic_transform  2,.7,.1 | 2,.08,.2 | .05,.01,.02 | .07,.01,.02 | .12,.01,.02
pixelate           .6 | .5 | .4 | .3 | .25
jpeg_compression   25 | 18 | 15 | 10 | 7
speckle_noise      .15 | .2 | .35 | .45 | .6
gaussian_blur      1 | 2 | 3 | 4 | 6
spatter            .65,.3,4,.69,.6,0 | .65,.3,3,.68,.6,0 | .65,.3,2,.68,.5,0 |
                   .65,.3,1,.65,1.5,1 | .67,.4,1,.65,1.5,1
saturate           .3,0 | .1,0 | 2,0 | 5,.1 | 20,.2
"""

WIDTHS = {"cifar": 32, "imagenet": 244}
"""What elastic constants are multiplied by: 244 stands in the authors' code, for images of 224."""

ERRORS = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}


def _published(text: str, width: int) -> dict[str, list[list[float]]]:
    """Corruption -> five rows of constants."""
    found: dict[str, list[list[float]]] = {}
    for line in text.replace("|\n", "|").strip().splitlines():
        name, _, cells = line.partition(" ")
        rows = [[float(number) for number in cell.split(",")] for cell in cells.split("|")]
        if name == "zoom_blur":  # numpy's range of floats, whose end is sometimes in it
            rows = [np.arange(1, end, step).tolist() for end, step in rows]
        if name == "elastic_transform":
            rows = [[width * value for value in row] for row in rows]
        found[name] = rows
    return found


PUBLISHED = {
    (side, name): rows
    for kind, side, text in (("cifar", 32, CIFAR_C), ("imagenet", 224, IMAGENET_C))
    for name, rows in _published(text, WIDTHS[kind]).items()
}


@pytest.mark.parametrize(("side", "name"), PUBLISHED)
def test_constants_are_the_published_ones(side: int, name: str) -> None:
    rows = PUBLISHED[side, name]
    assert len(rows) == len(SEVERITIES)
    for severity, row in zip(SEVERITIES, rows, strict=True):
        found = constants_for(name, severity, (side, side))
        assert found == pytest.approx(row, rel=1e-12), severity


def test_the_tables_hold_these_and_no_others() -> None:
    for side, table in ((32, CIFAR), (224, IMAGENET)):
        assert set(table) == {name for at, name in PUBLISHED if at == side}
    assert len(PUBLISHED) == 2 * 19
    assert constants_for("fog", 1, (32, 224)) == CIFAR["fog"][0]  # the shorter side decides
    assert constants_for("fog", 1, (33, 33)) == IMAGENET["fog"][0]


def test_alexnets_errors_are_the_published_ones() -> None:
    assert ALEXNET_ERRORS == ERRORS
