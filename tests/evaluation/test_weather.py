"""Weather by its formulas: the published steps once more in numpy and scipy, on the same random
numbers, and what is left of them on grey images and without chance.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from vitkit.evaluation.corruptions import filters, noise, weather
from vitkit.evaluation.corruptions.constants import CIFAR
from vitkit.evaluation.corruptions.randomness import Draws
from vitkit.evaluation.corruptions.textures import frost_textures, plasma

Array = NDArray[Any]

LUMA = np.array([0.299, 0.587, 0.114])
WATER = torch.tensor([175.0, 238.0, 238.0]) / 255
MUD = np.array([63.0, 42.0, 20.0]) / 255
SHAPE = (2, 3, 32, 32)


def _draws(what: str = "test") -> Draws:
    return Draws(0, torch.arange(SHAPE[0]), what, 1)


def _colours() -> Tensor:
    return torch.rand(SHAPE, generator=torch.Generator().manual_seed(0))


def _grey(level: float) -> Tensor:
    return torch.full(SHAPE, level)


def _fallen(draws: Draws, mean: float, deviation: float) -> Array:
    """N(mean, deviation) as the code draws it, (B, 1, 32, 32)."""
    return (draws.normal(0, 1, 32, 32) * deviation + mean).double().numpy()


def _liquid(draws: Draws, mean: float, deviation: float, blur: float) -> Array:
    """The same blurred, rounded as the code's."""
    drawn = _fallen(draws, mean, deviation)
    blurred = ndimage.gaussian_filter(drawn, (0, 0, blur, blur), mode="nearest")
    return np.asarray(blurred).astype(np.float32)


def test_noise_on_grey() -> None:
    shaken = 0.1 * _draws().normal(0, 3, 32, 32)
    for found in (
        noise.gaussian_noise(_grey(0.5), (0.1,), _draws()),
        noise.speckle_noise(_grey(0.5), (0.2,), _draws()),
    ):
        torch.testing.assert_close(found - 0.5, shaken)
    assert torch.equal(noise.speckle_noise(_grey(0.0), (0.2,), _draws()), _grey(0.0))


def test_a_cloud_by_loops() -> None:
    """Diamonds and squares, a point at a time; what lies outside is found on the other side."""
    size, decay, draws = 8, 1.7, _draws()
    found = plasma(draws, 0, size, decay).double().numpy()
    for image in range(len(found)):
        field = np.zeros((size, size))
        step, change, draw = size, 100.0, 0
        while step >= 2:
            half, cells = step // 2, size // step
            shakes = [
                draws.uniform(draw + i, cells, cells, low=-(change**2), high=change**2)[image]
                for i in range(3)
            ]
            for kind, (down, right) in enumerate(((half, half), (0, half), (half, 0))):
                # A centre has its corners beside it, the others two corners and two centres.
                away = ((-half, -half), (-half, half), (half, -half), (half, half))
                if kind:
                    away = ((-half, 0), (half, 0), (0, -half), (0, half))
                for i in range(cells):
                    for j in range(cells):
                        row, column = i * step + down, j * step + right
                        around = [field[(row + a) % size, (column + b) % size] for a, b in away]
                        field[row, column] = sum(around) / 4 + float(shakes[kind][i, j])
            step, change, draw = half, change / decay, draw + 3
        field -= field.min()
        np.testing.assert_allclose(found[image], field / field.max(), atol=1e-5)


@pytest.mark.parametrize("row", CIFAR["fog"])
def test_fog_on_grey_lies_between_its_ends(row: tuple[float, float]) -> None:
    """With a cloud from 0 to 1 over grey g: from g g / (g + s) to g."""
    level, strength = 0.6, row[0]
    out = weather.fog(_grey(level), row, _draws())
    ends = torch.stack([out.amin((1, 2, 3)), out.amax((1, 2, 3))])
    wanted = torch.tensor([[level * level / (level + strength)], [level]]).expand(2, SHAPE[0])
    torch.testing.assert_close(ends, wanted)
    x = _colours()
    cloud = plasma(_draws(), 0, 32, row[1])[:, None]
    most = x.amax((1, 2, 3), keepdim=True)
    wanted = (x + strength * cloud) * most / (most + strength)
    torch.testing.assert_close(weather.fog(x, row, _draws()), wanted)


@pytest.mark.parametrize("row", CIFAR["frost"])
def test_frost_is_a_sum_with_a_cutting_of_a_sheet(row: tuple[float, float]) -> None:
    draws, sheets = _draws(), frost_textures(64, torch.device("cpu"))
    which, top, left = draws.choice(0, 5), draws.choice(1, 32), draws.choice(2, 32)
    x = _colours()
    found = weather.frost(x, row, draws)
    for image, (sheet, up, across) in enumerate(
        zip(which.tolist(), top.tolist(), left.tolist(), strict=True)
    ):
        ice = sheets[sheet, :, up : up + 32, across : across + 32]
        torch.testing.assert_close(found[image], row[0] * x[image] + row[1] * ice)


def test_snow_without_chance() -> None:
    """All flakes of one size: none above the threshold, or all, which no wind changes."""
    x, mix = _colours(), 0.8
    luma = (x * torch.from_numpy(LUMA).float()[:, None, None]).sum(1, keepdim=True)
    paled = mix * x + (1 - mix) * torch.maximum(x, 1.5 * luma + 0.5)
    none = weather.snow(x, (0.5, 0.0, 1.25, 0.6, 8, 3, mix), _draws())
    torch.testing.assert_close(none, paled)
    level = int(0.7 * 255) / 255  # eight bits, cut off
    every = weather.snow(x, (0.7, 0.0, 1.25, 0.6, 8, 3, mix), _draws())
    torch.testing.assert_close(every, paled + 2 * level)


@pytest.mark.parametrize("row", CIFAR["snow"])
def test_snow_by_its_steps(row: tuple[float, ...]) -> None:
    mean, deviation, factor, threshold, radius, sigma, mix = row
    draws, x = _draws(), _colours()
    part = int(np.ceil(32 / factor))
    start = (32 - part) // 2
    # float32 where the code is, so that no flake falls to the other side of the threshold.
    flakes = np.zeros((SHAPE[0], 1, 32, 32), dtype=np.float32)
    for image, drawn in enumerate(_fallen(draws, mean, deviation)[:, 0]):
        larger = ndimage.zoom(drawn[start : start + part, start : start + part], factor, order=1)
        trim = (larger.shape[0] - 32) // 2
        flakes[image, 0] = larger[trim : trim + 32, trim : trim + 32]
    flakes[flakes < threshold] = 0
    flakes = np.floor(flakes.clip(0, 1) * 255 + 2.0**-10) / 255
    wind = draws.uniform(1, low=-135.0, high=-45.0)
    blown = filters.motion_blur(torch.from_numpy(flakes), radius, sigma, wind).numpy()
    pixels = x.double().numpy()
    luma = np.einsum("bchw,c->bhw", pixels, LUMA)[:, None]
    wanted = mix * pixels + (1 - mix) * np.maximum(pixels, 1.5 * luma + 0.5)
    wanted = wanted + blown + np.rot90(blown, 2, axes=(2, 3))
    assert blown.max() > 0.05
    found = weather.snow(x, row, draws).numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_mud_without_chance_covers_all_or_nothing() -> None:
    x = _colours()
    every = weather.spatter(x, (0.7, 0.0, 0.7, 0.69, 0.6, 1), _draws())
    wanted = torch.from_numpy(MUD).float()[:, None, None].expand(SHAPE)
    torch.testing.assert_close(every, wanted)
    for kind in (0, 1):  # water, mud
        none = weather.spatter(x, (0.6, 0.0, 0.7, 0.69, 0.6, kind), _draws())
        torch.testing.assert_close(none, x)


@pytest.mark.parametrize("row", CIFAR["spatter"][3:])
def test_mud_by_its_steps(row: tuple[float, ...]) -> None:
    mean, deviation, blur, threshold, softness, kind = row
    assert kind == 1
    draws, x = _draws(), _colours()
    drops = (_liquid(draws, mean, deviation, blur) > threshold).astype(float)
    mask = ndimage.gaussian_filter(drops, (0, 0, softness, softness), mode="nearest")
    mask[mask < 0.8] = 0
    wanted = x.double().numpy() * (1 - mask) + mask * MUD[:, None, None]
    assert 0 < mask.mean() < 0.9
    np.testing.assert_allclose(weather.spatter(x, row, draws).numpy(), wanted, atol=1e-5)


@pytest.mark.parametrize("row", CIFAR["spatter"][:3])
def test_water_has_its_colour_and_strength(row: tuple[float, ...]) -> None:
    """The brightest place of each image's drops shines by c4; where none are nothing changes."""
    mean, deviation, blur, threshold, strength, kind = row
    assert kind == 0
    draws, x = _draws(), _grey(0.25)
    shine = weather.spatter(x, row, draws) - x
    wanted = (strength * WATER).expand(SHAPE[0], 3)
    wet = shine.amax((1, 2, 3)) > 0
    assert wet.any()
    torch.testing.assert_close(shine[wet].amax((2, 3)), wanted[wet], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        shine / WATER[:, None, None], (shine[:, :1] / WATER[0]).expand(SHAPE), rtol=1e-5, atol=1e-6
    )
    dry = torch.from_numpy(_liquid(draws, mean, deviation, blur) < threshold - 1e-6).expand(SHAPE)
    assert dry.any() and (shine[dry] == 0).all()
