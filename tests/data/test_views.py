"""Views of images: torchvision's pixels, the chance of each change, and only the place counts."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as tv

from tests.data.test_ops import pictures
from vitkit.data.augment import BOX_DRAWS, crop_boxes
from vitkit.data.random import position_uniform, position_uniforms, uniform_table
from vitkit.data.views import CROP_RATIO, DRAWS_A_VIEW, FIRST_DRAW, ViewRecipe, Views

PLAIN = ViewRecipe(
    global_scale=(0.4, 1.0),
    local_scale=(0.1, 0.4),
    local_count=3,
    local_size=(8, 10),
    flip_prob=0.0,
    jitter_prob=0.0,
    gray_prob=0.0,
    blur_prob=0.0,
    solarize_prob=0.0,
)
LIVELY = dataclasses.replace(
    PLAIN, flip_prob=0.5, jitter_prob=0.8, gray_prob=0.2, blur_prob=0.3, solarize_prob=0.4
)


@given(st.integers(1, 11), st.integers(0, 3), st.sampled_from([1, 3]))
def test_only_the_place_counts(cut: int, epoch: int, channels: int) -> None:
    """A batch in two parts gives the same bits, view by view."""
    images, places, make = pictures(12, channels, 16, 20), torch.arange(50, 62), Views(LIVELY, 3)
    whole = [part.unflatten(0, (-1, 12)) for part in make(images, places, epoch)]
    for part in (slice(0, cut), slice(cut, 12)):
        got = make(images[part], places[part], epoch)
        for some, all_of_them in zip(got, whole, strict=True):
            assert torch.equal(some.unflatten(0, (len(all_of_them), -1)), all_of_them[:, part])


def test_shapes_and_that_all_views_differ() -> None:
    images, places = pictures(6, 3, 16, 20), torch.arange(6)
    large, small = Views(PLAIN)(images, places, 0)
    assert small is not None
    assert large.shape == (12, 3, 16, 20)
    assert small.shape == (18, 3, 8, 10)
    assert large.dtype == small.dtype == torch.uint8
    assert len({tuple(x.flatten().tolist()) for x in large}) == 12
    assert len({tuple(x.flatten().tolist()) for x in small}) == 18
    alone, none = Views(dataclasses.replace(PLAIN, local_count=0))(images, places, 0)
    assert none is None
    assert torch.equal(alone, large)
    for seed, epoch, shift in ((1, 0, 0), (0, 1, 0), (0, 0, 6)):
        other, _ = Views(PLAIN, seed)(images, places + shift, epoch)
        assert not (other == large).flatten(1).all(1).any()


def test_boxes_are_cut_out_as_torchvision_does() -> None:
    """Small views are enlarged to the image's size first, then reduced."""
    images, places, count = pictures(8, 3, 24, 30), torch.arange(8), 8
    recipe = dataclasses.replace(PLAIN, local_size=(12, 15))
    large, small = Views(recipe, 5)(images, places, 2)
    assert small is not None
    for view in range(5):
        first = FIRST_DRAW + DRAWS_A_VIEW * view
        numbers = uniform_table(5, 2, places.numpy(), range(first, first + BOX_DRAWS))
        scale = recipe.global_scale if view < 2 else recipe.local_scale
        boxes = crop_boxes(numbers, (24, 30), scale, CROP_RATIO)
        shares = boxes[:, 2] * boxes[:, 3] / (24 * 30)
        assert (shares > scale[0] - 0.05).all()
        assert (shares < scale[1] + 0.05).all()
        got = (large if view < 2 else small)[view * count if view < 2 else (view - 2) * count :]
        for image, box, seen in zip(images, boxes, got[:count], strict=True):
            want = tv.resized_crop(image, *map(int, box), size=[24, 30])
            if view >= 2:
                want = tv.resize(want, [12, 15], antialias=True)
            assert (want.int() - seen.int()).abs().max() <= 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("global_scale", (0.9, 1.0)),
        ("local_scale", (0.3, 0.4)),
        ("local_count", 2),
        ("local_size", (6, 6)),
        ("flip_prob", 1.0),
        ("jitter_prob", 1.0),
        ("gray_prob", 1.0),
        ("blur_prob", 1.0),
        ("solarize_prob", 1.0),
    ],
)
def test_every_setting_is_felt(field: str, value: object) -> None:
    images, places = pictures(16, 3, 16, 20), torch.arange(16)
    plain = torch.cat([x.flatten().float() for x in Views(PLAIN)(images, places, 0)])
    changed = dataclasses.replace(PLAIN, **{field: value})
    other = torch.cat([x.flatten().float() for x in Views(changed)(images, places, 0)])
    assert plain.shape != other.shape or not torch.equal(plain, other)


@pytest.mark.parametrize("field", ["color_jitter", "color_jitter_hue"])
def test_the_strength_of_the_colours_is_felt(field: str) -> None:
    images, places = pictures(16, 3, 16, 20), torch.arange(16)
    base = dataclasses.replace(PLAIN, jitter_prob=1.0, color_jitter=0.3, color_jitter_hue=0.1)
    one, _ = Views(base)(images, places, 0)
    two, _ = Views(dataclasses.replace(base, **{field: 0.0}))(images, places, 0)
    assert not torch.equal(one, two)


@pytest.mark.parametrize(("field", "share"), [("flip_prob", 0.3), ("gray_prob", 0.25)])
def test_chances_are_kept(field: str, share: float) -> None:
    images, places = pictures(1, 3, 8, 8).expand(2000, -1, -1, -1), torch.arange(2000)
    plain, _ = Views(PLAIN)(images, places, 0)
    some, _ = Views(dataclasses.replace(PLAIN, **{field: share}))(images, places, 0)
    hit = (some != plain).flatten(1).any(1)
    assert hit.float().mean().item() == pytest.approx(share, abs=4 * (share / 4000) ** 0.5)
    for view in hit.unflatten(0, (2, -1)):  # each view by itself
        assert view.float().mean().item() == pytest.approx(share, abs=4 * (share / 2000) ** 0.5)
    if field == "flip_prob":
        assert torch.equal(some[hit], plain[hit].flip(3))
    else:
        assert (some[hit].amax(1) == some[hit].amin(1)).all()


def test_the_second_large_view_alone_is_solarised() -> None:
    images, places = pictures(10, 3, 16, 20), torch.arange(10)
    plain = Views(PLAIN)(images, places, 0)
    large, small = Views(dataclasses.replace(PLAIN, solarize_prob=1.0))(images, places, 0)
    assert torch.equal(large[:10], plain[0][:10])
    assert torch.equal(large[10:], tv.solarize(plain[0][10:], 128))
    assert torch.equal(small, plain[1])


def test_rows_of_uniform_numbers() -> None:
    """Even, independent between patches and images, and the same for an image in any batch."""
    places = torch.arange(3000)
    rows = position_uniforms(1, 2, places, 8000, 16)
    assert rows.shape == (3000, 16)
    assert rows.dtype == torch.float32
    assert ((rows >= 0) & (rows < 1)).all()
    assert torch.equal(position_uniforms(1, 2, places[70:90], 8000, 16), rows[70:90])
    counts = torch.histc(rows, 20, 0, 1)
    expected = rows.numel() / 20
    assert ((counts - expected) ** 2 / expected).sum() < 50  # 19 degrees of freedom
    correlations = torch.corrcoef(rows.T) - torch.eye(16)
    assert correlations.abs().max() < 5 / 3000**0.5
    between = torch.corrcoef(torch.stack([rows[:-1].flatten(), rows[1:].flatten()]))
    assert between[0, 1].abs() < 5 / (3000 * 16) ** 0.5
    for other in (
        position_uniforms(2, 2, places, 8000, 16),
        position_uniforms(1, 3, places, 8000, 16),
        position_uniforms(1, 2, places, 8001, 16),
    ):
        assert (other == rows).float().mean() < 0.001
    assert not torch.equal(rows[:, 0], position_uniform(1, 2, places, 8001))


def test_each_patch_is_seen_as_often_as_the_others() -> None:
    rows = position_uniforms(0, 0, torch.arange(4000), 8000, 16)
    seen = rows.argsort(dim=1, stable=True)[:, :4]
    shares = torch.bincount(seen.flatten(), minlength=16) / 4000
    assert np.abs(shares.numpy() - 0.25).max() < 5 * (0.25 * 0.75 / 4000) ** 0.5
