"""Drawings: colours where they belong, sizes as stated."""

from __future__ import annotations

import numpy as np
from PIL import Image

from vitkit.explain.pictures import GAP, GLOW, TWO_SIDED, as_picture, heat, overlay, points, tiles


def test_heat_runs_from_the_first_colour_to_the_last() -> None:
    values = np.array([[0.0, 0.5], [0.25, 1.0]])
    picture = heat(values, (20, 40))
    assert picture.size == (40, 20)
    pixels = np.asarray(picture)
    assert tuple(pixels[2, 2]) == GLOW[0] and tuple(pixels[15, 35]) == GLOW[-1]
    assert (pixels[:10, :20] == GLOW[0]).all()  # flat squares
    brightness = [pixels[y, x].sum() for y, x in ((2, 2), (15, 5), (2, 35), (15, 35))]
    assert brightness == sorted(brightness) and len(set(brightness)) == 4
    even = heat(values * 7, (20, 40))
    assert np.array_equal(np.asarray(even), pixels)  # scaled by the largest
    signed = np.asarray(heat(np.array([[-1.0, 0.0, 1.0]]), (4, 12), low=-1, colors=TWO_SIDED))
    assert [tuple(signed[1, x]) for x in (1, 6, 10)] == list(TWO_SIDED)
    assert np.asarray(heat(np.zeros((2, 2)), (4, 4))).max(axis=(0, 1)).tolist() == list(GLOW[0])


def test_overlay_glows_where_the_map_is_largest() -> None:
    picture = Image.new("RGB", (64, 64), (0, 0, 0))
    values = np.zeros((4, 4))
    values[0, 3] = 2.0
    pixels = np.asarray(overlay(picture, values)).sum(axis=-1)
    assert pixels.shape == (64, 64)
    y, x = np.unravel_index(pixels.argmax(), pixels.shape)
    assert y < 16 and x >= 48
    assert pixels[60, 4] == 0  # cold places stay as they are


def test_pictures_are_enlarged_by_whole_pixels() -> None:
    image = np.arange(3 * 2 * 4, dtype=np.uint8).reshape(3, 2, 4)
    picture = as_picture(image, least=10)
    assert picture.size == (20, 10)
    assert np.array_equal(np.asarray(picture)[::5, ::5], image.transpose(1, 2, 0))
    large = np.zeros((3, 120, 130), dtype=np.uint8)
    assert as_picture(large).size == (260, 240)  # whole pixels, so more than was asked for
    assert as_picture(large, least=120).size == (130, 120)
    grey = np.asarray(as_picture(image[:1], least=1))
    assert (grey == image[0][..., None]).all() and grey.shape == (2, 4, 3)


def test_tiles_stand_in_rows_and_do_not_overlap() -> None:
    colors = {"red": (255, 0, 0), "lime": (0, 255, 0), "blue": (0, 0, 255)}
    red, lime, blue = (Image.new("RGB", (30, 20), name) for name in colors)
    page = np.asarray(tiles([[red, lime], [blue, red]], ["one", "two"], ["a", "b"]))
    found = [np.argwhere((page == color).all(axis=-1)) for color in colors.values()]
    assert [len(places) for places in found] == [2 * 30 * 20, 30 * 20, 30 * 20]
    (top, left), beside, below = (places[0].tolist() for places in found)
    assert beside == [top, left + 30 + GAP]
    assert below == [top + 20 + GAP, left]
    bare = tiles([[red]])
    assert bare.width < page.shape[1]
    odd = tiles([[red]], ["größer λ"])  # a font need not have every letter
    assert odd.width > bare.width


def test_points_have_the_colour_of_their_group() -> None:
    places = np.array([[0.0, 0.0], [1.0, 1.0], [1.0, 0.0]])
    page = points(places, [0, 1, 1], ["left", "right"], labels=("x", "y"))
    pixels = np.asarray(page).reshape(-1, 3)
    colours = {tuple(p) for p in pixels if p.max() - p.min() > 150}
    assert len(colours) == 2
    many = points(places, [0, 30, 59], [f"class {i}" for i in range(60)], labels=("x", "y"))
    assert many.height == page.height  # a long list is cut
    same = points(np.ones((3, 2)), [0, 0, 0], ["all"], labels=("x", "y"))
    assert same.width < page.width  # one group needs no list


def test_points_lie_to_the_right_of_smaller_ones_and_above_lower_ones() -> None:
    """Of three groups the colours are red, green and blue: the brightest channel tells which."""
    places = np.array([[0.0, 0.0], [1.0, 1.0], [1.0, 0.5]])
    page = points(places, [0, 1, 2], ["a", "b", "c"], labels=("x", "y"), size=(100, 200))
    pixels = np.asarray(page)[:, : 48 + 200].astype(int)  # the list of names is to the right
    colored = pixels.max(axis=-1) - pixels.min(axis=-1) > 150
    means = [
        np.argwhere(colored & (pixels.argmax(axis=-1) == group)).mean(axis=0) for group in range(3)
    ]
    wanted = [(48 + 94, 48 + 6), (48 + 6, 48 + 194), (48 + 50, 48 + 194)]
    np.testing.assert_allclose(means, wanted, atol=1)
