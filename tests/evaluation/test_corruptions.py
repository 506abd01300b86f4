"""The 19 corruptions: more damage with severity, the same in any batch, and what others make."""

from __future__ import annotations

import colorsys
import io
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage, stats
from sklearn.datasets import load_sample_images
from torch import Tensor

from vitkit.evaluation.corruptions import blurs, digital, filters, noise, weather
from vitkit.evaluation.corruptions.catalogue import (
    CORRUPTIONS,
    EXTRA_CORRUPTIONS,
    SEVERITIES,
    TEST_CORRUPTIONS,
    corrupt,
)
from vitkit.evaluation.corruptions.constants import CIFAR, IMAGENET, constants_for
from vitkit.evaluation.corruptions.randomness import Draws
from vitkit.evaluation.corruptions.textures import frost_textures, plasma
from vitkit.evaluation.robustness import (
    ALEXNET_CLEAN_ERROR,
    ALEXNET_ERRORS,
    mean_corruption_error,
    relative_corruption_error,
)

NOT_MONOTONE = {"glass_blur", "motion_blur", "frost", "elastic_transform", "saturate"}
"""Whose constants trade one kind of damage for another on the way from 1 to 5, such as a wider blur
for fewer rounds of it. The last is still worse than the first, except for the elastic one, which
goes from tilting the image to crumpling it."""


@cache
def photographs(size: int, count: int = 16) -> Tensor:
    """Cuttings of two photographs that ship with scikit-learn, uint8 (count, 3, size, size)."""
    parts = []
    for picture in load_sample_images().images:
        small = Image.fromarray(picture).resize((320, 214))
        tensor = torch.from_numpy(np.array(small)).permute(2, 0, 1)
        cut = tensor.unfold(1, size, size).unfold(2, size, size)
        parts.append(cut.permute(1, 2, 0, 3, 4).flatten(0, 1)[: count // 2])
    return torch.cat(parts).contiguous()


def _floats(size: int = 32) -> Tensor:
    return photographs(size).float() / 255


def _draws(count: int, what: str = "test", severity: int = 1) -> Draws:
    return Draws(0, torch.arange(count), what, severity)


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_damage_grows_and_batches_do_not_show(name: str, size: int) -> None:
    images = photographs(size, 120 if size == 32 else 30)
    indices = torch.arange(100, 100 + len(images))
    damage = []
    for severity in SEVERITIES:
        out = corrupt(images, name, severity, indices=indices, seed=4)
        assert out.dtype == torch.uint8 and out.shape == images.shape
        again = corrupt(images[3:8], name, severity, indices=indices[3:8], seed=4)
        assert torch.equal(out[3:8], again)
        alone = corrupt(images[5:6], name, severity, indices=indices[5:6], seed=4)
        assert torch.equal(out[5:6], alone)
        damage.append(float((out.float() - images.float()).square().mean()))
    assert damage[0] > 0
    assert damage[4] > damage[0] or name == "elastic_transform"
    if name not in NOT_MONOTONE:
        assert damage == sorted(damage) and len(set(damage)) == 5, damage


RANDOM = sorted(
    set(CORRUPTIONS)
    - {"defocus_blur", "zoom_blur", "gaussian_blur", "brightness", "contrast", "saturate"}
    - {"pixelate", "jpeg_compression"}
)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_seed_and_the_place_set_the_random_numbers(name: str) -> None:
    images = photographs(32)[:1].expand(6, -1, -1, -1).contiguous()
    first = corrupt(images, name, 5, indices=torch.arange(6), seed=0)
    other = corrupt(images, name, 5, indices=torch.arange(6), seed=1)
    assert torch.equal(first, corrupt(images, name, 5, indices=torch.arange(6), seed=0))
    assert torch.equal(first, other) == (name not in RANDOM)
    assert torch.equal(first[0], first[1]) == (name not in RANDOM)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_grey_images_and_oblong_ones(name: str) -> None:
    grey = photographs(64)[:2, :1, :40].contiguous()
    out = corrupt(grey, name, 3, indices=torch.arange(2))
    assert out.shape == grey.shape
    assert torch.equal(out, grey) == (name == "saturate")  # grey has none to raise
    colour = photographs(64)[:2, :, :32].contiguous()
    assert corrupt(colour, name, 3, indices=torch.arange(2)).shape == colour.shape


def test_what_is_refused() -> None:
    images, one = photographs(32)[:1], torch.zeros(1, dtype=torch.int64)
    for wrong, text in (
        (lambda: corrupt(images, "rain", 1, indices=one), "unknown corruption 'rain'"),
        (lambda: corrupt(images, "fog", 6, indices=one), "allowed: 1 to 5"),
        (lambda: corrupt(images[..., :31], "fog", 1, indices=one), "32 pixels"),
        (lambda: corrupt(images.float(), "fog", 1, indices=one), "uint8"),
        (lambda: corrupt(images[:, :2], "fog", 1, indices=one), "1 or 3"),
    ):
        with pytest.raises(ValueError, match=text):
            wrong()


def test_the_list_is_complete_and_the_size_picks_the_constants() -> None:
    assert (len(TEST_CORRUPTIONS), len(EXTRA_CORRUPTIONS)) == (15, 4)
    assert set(CIFAR) == set(IMAGENET) == set(CORRUPTIONS)
    assert constants_for("gaussian_noise", 5, (32, 32)) == (0.10,)
    assert constants_for("gaussian_noise", 5, (224, 224)) == (0.38,)
    lasts = [round(row[-1], 2) for row in CIFAR["zoom_blur"]]
    assert lasts == [1.06, 1.11, 1.15, 1.20, 1.25]
    lasts = [round(row[-1], 2) for row in IMAGENET["zoom_blur"]]
    assert lasts == [1.11, 1.15, 1.20, 1.24, 1.30]
    assert [len(row) for row in IMAGENET["zoom_blur"]] == [12, 16, 11, 13, 11]


def test_random_numbers_are_distributed_as_they_say() -> None:
    draws = _draws(50)
    normal = draws.normal(0, 4000).flatten().numpy()
    assert stats.kstest(normal, "norm").pvalue > 1e-3
    assert abs(normal.std() - 1) < 0.01
    uniform = draws.uniform(1, 4000, low=-2.0, high=3.0).flatten().numpy()
    assert stats.kstest(uniform, stats.uniform(-2, 5).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(normal, uniform)[0, 1]) < 0.01
    chosen = draws.choice(2, 7, 4000).flatten().bincount(minlength=7).numpy()
    assert stats.chisquare(chosen).pvalue > 1e-3
    order = draws.order(3, 16)
    assert torch.equal(order.sort(1).values, torch.arange(16).expand(50, -1))
    rows = draws.uniform(0, 4000)
    assert abs(np.corrcoef(rows[0].numpy(), rows[1].numpy())[0, 1]) < 0.06


@pytest.mark.parametrize("rate", [3.0, 60.0, 500.0])
def test_shot_noise_is_poissons(rate: float) -> None:
    levels = (0, 1, 100, 255)
    x = torch.tensor(levels)[:, None, None, None].expand(-1, 1, 100, 100).float() / 255
    counts = (noise.shot_noise(x, (rate,), _draws(4)) * rate).round()
    assert counts[0].abs().max() == 0
    for level, found in zip(levels[1:], counts[1:], strict=True):
        law = stats.poisson(level / 255 * rate)
        values = found.flatten().long().bincount(minlength=int(rate * 2) + 40).numpy()
        expected = law.pmf(np.arange(len(values))) * 10_000
        often = expected > 20
        seen = np.append(values[often], values[~often].sum())
        due = np.append(expected[often], 10_000 - expected[often].sum())
        assert stats.chisquare(seen, due).pvalue > 1e-3


def test_impulse_noise_hits_its_share() -> None:
    x = torch.full((20, 3, 100, 100), 0.5)
    out = noise.impulse_noise(x, (0.1,), _draws(20))
    for value in (0.0, 1.0):
        assert float((out == value).float().mean()) == pytest.approx(0.05, abs=0.002)


@pytest.mark.parametrize("sigma", [0.05, 0.4, 1.0, 6.0])
def test_gaussian_blur_is_scipys(sigma: float) -> None:
    x = _floats(64)[:2]
    found = filters.gaussian_blur(x, sigma)
    want = ndimage.gaussian_filter(x.numpy(), (0, 0, sigma, sigma), mode="nearest")
    np.testing.assert_allclose(found.numpy(), want, atol=2e-6)
    found = filters.gaussian_blur(x, sigma, mode="symmetric", truncate=3.0)
    want = ndimage.gaussian_filter(x.numpy(), (0, 0, sigma, sigma), mode="reflect", truncate=3.0)
    np.testing.assert_allclose(found.numpy(), want, atol=2e-6)


@pytest.mark.parametrize("row", [*CIFAR["defocus_blur"], *IMAGENET["defocus_blur"]])
def test_defocus_is_scipys_correlation_with_a_disk(row: tuple[float, float]) -> None:
    radius, alias = row
    side, reach = (8, 1) if radius <= 8 else (int(radius), 2)
    y, x = np.mgrid[-side : side + 1, -side : side + 1]
    disk = ((x**2 + y**2) <= radius**2).astype(float)
    taps = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * alias**2))
    taps /= taps.sum()
    kernel = disk / disk.sum()
    for axis in (0, 1):
        kernel = ndimage.correlate1d(kernel, taps, axis=axis, mode="mirror")
    images = _floats(64)[:2]
    found = blurs.defocus_blur(images, row, _draws(2))
    for image, out in zip(images.flatten(0, 1), found.flatten(0, 1), strict=True):
        want = ndimage.correlate(image.double().numpy(), kernel, mode="mirror")
        np.testing.assert_allclose(out.numpy(), want, atol=5e-6)


@pytest.mark.parametrize("factor", [1.0, 1.01, 1.06, 1.25, 2.25])
def test_zoom_is_scipys(factor: float) -> None:
    image = _floats()[0, 0].double().numpy()
    part = int(np.ceil(32 / factor))
    start = (32 - part) // 2
    middle = image[start : start + part, start : start + part]
    larger = ndimage.zoom(middle, factor, order=1)
    trim = (larger.shape[0] - 32) // 2
    found = filters.zoom(torch.from_numpy(image), factor).numpy()
    np.testing.assert_allclose(found, larger[trim : trim + 32, trim : trim + 32], atol=1e-12)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_glass_blur_is_the_sequential_walk(severity: int) -> None:
    x = _floats()[:2]
    draws = _draws(2)
    sigma, reach, rounds = CIFAR["glass_blur"][severity - 1]
    reach = int(reach)

    def blur(images: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(images, (0, 0, sigma, sigma), mode="nearest")

    walked = np.floor(blur(x.double().numpy()) * 255 + 2.0**-10) / 255
    for turn in range(int(rounds)):
        down = (draws.choice(2 * turn, 2 * reach, 32, 32) - reach).numpy()
        right = (draws.choice(2 * turn + 1, 2 * reach, 32, 32) - reach).numpy()
        for b in range(2):
            for h in range(32 - reach, reach, -1):
                for w in range(32 - reach, reach, -1):
                    source = (h + down[b, h, w], w + right[b, h, w])
                    walked[b, :, h, w] = walked[b, :, source[0], source[1]]
    found = blurs.glass_blur(x, CIFAR["glass_blur"][severity - 1], draws)
    np.testing.assert_allclose(found.numpy(), blur(walked), atol=1e-6)


def test_motion_blur_of_a_point_is_half_a_gaussian_along_a_line() -> None:
    x = torch.zeros(2, 1, 41, 41)
    x[:, :, 20, 20] = 1.0
    out = filters.motion_blur(x, 6, 2.0, torch.tensor([0.0, -90.0]))
    weights = np.exp(-(np.arange(13) ** 2) / 8)
    weights /= weights.sum()
    # A pixel takes from its right (0 degrees), so a point is drawn out to its left.
    np.testing.assert_allclose(out[0, 0, 20, 8:21].flip(0).numpy(), weights, atol=2e-5)
    np.testing.assert_allclose(out[1, 0, 20:33, 20].numpy(), weights, atol=2e-5)
    np.testing.assert_allclose(out.sum((1, 2, 3)).numpy(), 1.0, atol=1e-6)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_brightness_and_saturation_are_those_of_colorsys(severity: int) -> None:
    x = _floats()[:1].clone()
    x[0, :, 0, 0], x[0, :, 0, 1] = 0.0, 0.5  # black and grey
    (add,) = CIFAR["brightness"][severity - 1]
    times, plus = CIFAR["saturate"][severity - 1]
    bright = digital.brightness(x, (add,), _draws(1))
    vivid = digital.saturate(x, (times, plus), _draws(1))
    for row in range(0, 32, 3):
        for column in range(32):
            h, s, v = colorsys.rgb_to_hsv(*x[0, :, row, column].double().tolist())
            want = colorsys.hsv_to_rgb(h, s, min(v + add, 1.0))
            np.testing.assert_allclose(bright[0, :, row, column].numpy(), want, atol=1e-6)
            want = colorsys.hsv_to_rgb(h, min(max(s * times + plus, 0.0), 1.0), v)
            np.testing.assert_allclose(vivid[0, :, row, column].numpy(), want, atol=1e-6)


def test_contrast_by_its_formula() -> None:
    x = _floats()
    mean = x.double().mean((2, 3), keepdim=True)
    want = (x.double() - mean) * 0.4 + mean
    np.testing.assert_allclose(digital.contrast(x, (0.4,), _draws(1)).numpy(), want, atol=1e-6)


@pytest.mark.parametrize(("size", "share"), [(32, 0.95), (32, 0.65), (64, 0.6), (64, 0.25)])
def test_pixelate_is_pillows(size: int, share: float) -> None:
    few = int(size * share)
    for image in photographs(size)[:4]:
        picture = Image.fromarray(image.permute(1, 2, 0).numpy())
        small = picture.resize((few, few), Image.Resampling.BOX)
        want = np.array(small.resize((size, size), Image.Resampling.BOX))
        found = digital.pixelate(image[None].float() / 255, (share,), _draws(1)) * 255
        difference = np.abs(found[0].permute(1, 2, 0).round().numpy() - want)
        assert difference.max() <= 1 and (difference > 0).mean() < 0.01  # seen: none


def test_jpeg_is_pillows() -> None:
    image = photographs(32)[0]
    file = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=40)
    want = np.array(Image.open(file))
    found = corrupt(image[None], "jpeg_compression", 5, indices=torch.zeros(1, dtype=torch.int64))
    assert np.array_equal(found[0].permute(1, 2, 0).numpy(), want)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_elastic_is_scipys_map(severity: int) -> None:
    x, draws = _floats()[:2], _draws(2)
    alpha, sigma, jitter = CIFAR["elastic_transform"][severity - 1]
    moved = draws.uniform(0, 3, 2, low=-jitter, high=jitter).double().numpy()
    start = np.array([[26, 26], [26, 6], [6, 6]], dtype=float)
    found = digital.elastic_transform(x, (alpha, sigma, jitter), draws)
    fields = draws.uniform(1, 2, 32, 32, low=-1.0, high=1.0).double().numpy()
    y, c = np.mgrid[:32, :32].astype(float)
    for b in range(2):
        there = np.hstack([start + moved[b], np.ones((3, 1))])
        back = np.linalg.solve(there, start)
        columns, rows = (back[0, i] * c + back[1, i] * y + back[2, i] for i in (0, 1))
        for channel in range(3):
            plane = x[b, channel].double().numpy()
            want = ndimage.map_coordinates(plane, [rows, columns], order=1, mode="mirror")
            if alpha:
                right, down = (
                    ndimage.gaussian_filter(f, sigma, mode="reflect", truncate=3.0) * alpha
                    for f in fields[b]
                )
                places = [y + down, c + right]
                want = ndimage.map_coordinates(want, places, order=1, mode="reflect")
            np.testing.assert_allclose(found[b, channel].numpy(), want, atol=2e-4)


def test_clouds_are_rougher_with_less_decay_and_periodic() -> None:
    def roughness(decay: float) -> float:
        field = plasma(_draws(8), 0, 64, decay)
        assert float(field.amin()) == 0.0 and float(field.amax()) == 1.0
        steps = (field - field.roll(1, 2)).abs()
        assert float(steps[..., 0].mean()) < 2 * float(steps[..., 1:].mean())
        return float(steps.mean())

    rough = [roughness(decay) for decay in (1.4, 1.75, 2.0, 3.0)]
    assert rough == sorted(rough, reverse=True)


def test_fog_keeps_the_brightest_and_frost_is_bright() -> None:
    x = _floats()
    for row in CIFAR["fog"]:
        out = weather.fog(x, row, _draws(len(x)))
        assert (out.amax((1, 2, 3)) <= x.amax((1, 2, 3)) + 1e-6).all()
    sheets = frost_textures(64, torch.device("cpu"))
    assert sheets.shape == (5, 3, 64, 64)
    assert 0.2 < float(sheets.mean()) < 0.8 and float(sheets.std()) > 0.08


def test_drops_cover_a_part_of_the_image() -> None:
    x = torch.full((16, 3, 32, 32), 0.4)
    for severity, lighter in ((3, True), (5, False)):
        out = weather.spatter(x, CIFAR["spatter"][severity - 1], _draws(16))
        changed = (out != x).float().mean()
        assert 0.01 < float(changed) < 0.9
        assert (float(out.mean()) > 0.4) == lighter  # water shines, mud does not


def test_mean_corruption_error() -> None:
    alexnet = {name: [error] * 5 for name, error in ALEXNET_ERRORS.items()}
    assert set(ALEXNET_ERRORS) == set(TEST_CORRUPTIONS)
    assert mean_corruption_error(alexnet, ALEXNET_ERRORS) == pytest.approx(1.0)
    assert mean_corruption_error(alexnet) == pytest.approx(0.78899, abs=1e-5)
    extra = {**alexnet, "spatter": [0.0] * 5}
    assert mean_corruption_error(extra) == mean_corruption_error(alexnet)
    halved = {name: [0.0, error, error / 2] for name, error in ALEXNET_ERRORS.items()}
    assert mean_corruption_error(halved, ALEXNET_ERRORS) == pytest.approx(0.5)
    del alexnet["fog"]
    with pytest.raises(ValueError, match="no errors under fog"):
        mean_corruption_error(alexnet)


def test_relative_corruption_error() -> None:
    """What is added to the clean error, by hand; AlexNet's own is one by definition."""
    assert ALEXNET_CLEAN_ERROR == 0.4348
    of_alexnet = (ALEXNET_ERRORS, ALEXNET_CLEAN_ERROR)
    own = {name: [error - 0.1, error + 0.1] for name, error in ALEXNET_ERRORS.items()}
    assert relative_corruption_error(own, 0.4348, *of_alexnet) == pytest.approx(1.0)
    # Worse everywhere by the same amount: as robust as it, though its errors are larger.
    worse = {name: [error + 0.05] for name, error in ALEXNET_ERRORS.items()}
    assert relative_corruption_error(worse, 0.4848, *of_alexnet) == pytest.approx(1.0)
    assert mean_corruption_error(worse, ALEXNET_ERRORS) > 1.0
    fog = {name: [0.2] for name in ALEXNET_ERRORS} | {"fog": [0.2, 0.6], "spatter": [1.0]}
    want = (0.4 - 0.2) / (0.819324 - 0.4348) / 15
    assert relative_corruption_error(fog, 0.2, *of_alexnet) == pytest.approx(want)
    del fog["fog"]
    with pytest.raises(ValueError, match="no errors under fog"):
        relative_corruption_error(fog, 0.2, *of_alexnet)
