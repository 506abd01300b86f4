"""The size that pictures are resized to before their centre is cut out: timm's, to the pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform

from vitkit.data.preprocess import Fit

PICTURES = [(300, 417), (517, 260), (224, 500)]


@pytest.mark.parametrize("mode", ["center", "squash"])
@pytest.mark.parametrize("share", [0.875, 0.9, 0.95, 1.0])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_pictures_are_fitted_as_timm_fits_them(interpolation: str, share: float, mode: str) -> None:
    theirs: Any = create_transform(
        (3, 224, 224),
        interpolation=interpolation,
        crop_pct=share,
        crop_mode=mode,
        use_prefetcher=True,  # bytes, as they are before they are normalised
    )
    fit = Fit((224, 224), interpolation, share, mode)
    rng = np.random.default_rng(0)
    for height, width in PICTURES:
        # No black and no white: what bicubic goes beyond them is cut off between the two axes, of
        # which Pillow takes now one and now the other first.
        pixels = rng.integers(80, 176, (height, width, 3), dtype=np.uint8)
        picture = Image.fromarray(pixels)
        columns, rows = theirs.transforms[0](picture).size
        assert fit.resized(height, width) == (rows, columns)
        want = np.array(theirs(picture).tolist())
        got = fit(torch.from_numpy(pixels).permute(2, 0, 1).contiguous()).numpy()
        assert got.shape == want.shape == (3, 224, 224)
        # Pillow and torch round differently; of noise, a pixel beside the right one is 32 away.
        assert np.abs(got - want).max() <= 2
        assert np.abs(got - want).mean() < 0.4


@pytest.mark.parametrize(
    ("side", "share", "resized"),
    [
        (224, 0.875, 256),
        (224, 0.9, 248),
        (224, 0.95, 235),
        (384, 1.0, 384),
        (224, 224 / 248, 248),
        (224, 224 / 242, 242),
        (40, 40 / 48, 48),
        (96, 0.8, 120),
    ],
)
def test_fractions_are_dropped_but_not_for_noise(side: int, share: float, resized: int) -> None:
    for mode in ("center", "squash"):
        fit = Fit((side, side), crop_pct=share, crop_mode=mode)
        assert fit.resized(1000, 1000) == (resized, resized)


def test_of_no_square_the_side_that_is_short_of_it_decides() -> None:
    fit = Fit((96, 64), crop_pct=0.8)
    assert fit.resized(100, 100) == (120, 120)
    assert fit.resized(100, 40) == (200, 80)
    assert fit.resized(50, 101) == (120, 242)
    assert Fit((96, 64), crop_pct=0.8, crop_mode="squash").resized(50, 101) == (120, 80)
