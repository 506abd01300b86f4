"""Batched operations against torchvision's functions on the same images, one by one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from timm.data.auto_augment import solarize_add
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from vitkit.data.geometry import erase, pick, resized_crop
from vitkit.data.ops import CODES, GEOMETRIC, OPERATIONS, operate

COUNT = 48


def pictures(count: int, channels: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Noise and smooth pictures in turn: operations differ on the two."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randint(0, 256, (count, channels, height, width), generator=generator)
    coarse = 40 + torch.rand(count, channels, 4, 4, generator=generator) * 170
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    noise[::2] = smooth[::2].clamp(30, 230).long()
    return noise.to(torch.uint8)


def _affine(image: Tensor, mode: InterpolationMode, **change: Any) -> Tensor:
    plain: dict[str, Any] = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]}
    return tv.affine(image, **(plain | change), interpolation=mode)


def _slope(amount: float) -> float:
    return math.degrees(math.atan(amount))


def _solarize_add(image: Tensor, amount: float, mode: object) -> Tensor:
    pixels = np.asarray(image.permute(1, 2, 0))
    grey = pixels.shape[2] == 1
    picture = Image.fromarray(pixels[..., 0] if grey else pixels)
    out = torch.from_numpy(np.array(solarize_add(picture, int(amount))))
    return out[None] if grey else out.permute(2, 0, 1)


ORACLES: dict[str, Callable[[Tensor, float, InterpolationMode], Tensor]] = {
    "none": lambda i, a, m: i,
    "shear_x": lambda i, a, m: _affine(i, m, shear=[_slope(a), 0.0], center=[0, 0]),
    "shear_y": lambda i, a, m: _affine(i, m, shear=[0.0, _slope(a)], center=[0, 0]),
    "translate_x": lambda i, a, m: _affine(i, m, translate=[a, 0]),
    "translate_y": lambda i, a, m: _affine(i, m, translate=[0, a]),
    "rotate": lambda i, a, m: tv.rotate(i, a, interpolation=m),
    "invert": lambda i, a, m: tv.invert(i),
    "posterize": lambda i, a, m: tv.posterize(i, int(a)),
    "solarize": lambda i, a, m: tv.solarize(i, a),
    "solarize_add": _solarize_add,
    "brightness": lambda i, a, m: tv.adjust_brightness(i, a),
    "contrast": lambda i, a, m: tv.adjust_contrast(i, a),
    "saturation": lambda i, a, m: tv.adjust_saturation(i, a),
    "autocontrast": lambda i, a, m: tv.autocontrast(i),
    "equalize": lambda i, a, m: tv.equalize(i),
    "sharpness": lambda i, a, m: tv.adjust_sharpness(i, a),
    "blur": lambda i, a, m: tv.gaussian_blur(i, [13, 13], [a, a]),
    "hue": lambda i, a, m: tv.adjust_hue(i, a),
}
RANGES = {
    "shear_x": (-1.0, 1.0),
    "shear_y": (-1.0, 1.0),
    "translate_x": (-20.0, 20.0),
    "translate_y": (-20.0, 20.0),
    "rotate": (-135.0, 135.0),
    "posterize": (0.0, 9.0),
    "solarize": (0.0, 255.0),
    "solarize_add": (0.0, 128.0),
    "brightness": (0.0, 2.0),
    "contrast": (0.0, 2.0),
    "saturation": (0.0, 2.0),
    "sharpness": (0.0, 2.0),
    "blur": (0.1, 2.0),
    "hue": (-0.5, 0.5),
}
INEXACT = {
    # Blends of four neighbours in float32, whose places differ in the last bit: torchvision's
    # comes from a matrix product. Seen: 1e-5.
    "bilinear": 1e-4,
    # Two passes where torchvision makes one with the product of the kernels. Seen: 4e-5.
    "blur": 3e-4,
    # Pixels stay in 0 ... 255 where torchvision goes through 0 ... 1. Seen: 2e-5.
    "hue": 2e-4,
}
"""Largest share of pixels that may differ, by one level of grey; all else is equal."""


def amounts(op: str, count: int, seed: int = 0) -> np.ndarray:
    low, high = RANGES.get(op, (0.0, 0.0))
    drawn = np.random.default_rng(seed).uniform(low, high, count)
    return np.floor(drawn) if op in ("posterize", "solarize_add") else drawn


def assert_alike(out: Tensor, wanted: Tensor, share: float) -> None:
    assert out.dtype == wanted.dtype == torch.uint8
    gap = (out.int() - wanted.int()).abs()
    assert gap.max() <= (1 if share else 0)
    assert (gap > 0).float().mean() <= share


CASES = [(op, False) for op in OPERATIONS] + [(op, True) for op in GEOMETRIC]


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (3, 20, 26)], ids=str)
@pytest.mark.parametrize(("op", "bilinear"), CASES)
def test_operation_equals_torchvisions(
    op: str, bilinear: bool, shape: tuple[int, int, int]
) -> None:
    images, strong = pictures(COUNT, *shape), amounts(op, COUNT)
    out = operate(images, np.full(COUNT, CODES[op]), strong, bilinear=bilinear)
    mode = InterpolationMode.BILINEAR if bilinear else InterpolationMode.NEAREST
    wanted = [ORACLES[op](image, float(a), mode) for image, a in zip(images, strong, strict=True)]
    assert_alike(out, torch.stack(wanted), INEXACT.get("bilinear" if bilinear else op, 0.0))
    changed = (out != images).flatten(1).any(1)
    idle = op == "none" or (shape[0] == 1 and op in ("saturation", "hue"))
    assert not changed.any() if idle else changed.float().mean() > 0.4


def test_every_operation_has_an_oracle_and_a_code_of_its_own() -> None:
    assert set(ORACLES) == set(OPERATIONS) == set(CODES)
    assert [CODES[op] for op in OPERATIONS] == list(range(len(OPERATIONS)))


def test_saturation_zero_is_greyscale() -> None:
    images = pictures(COUNT, 3, 16, 16)
    out = operate(images, np.full(COUNT, CODES["saturation"]), np.zeros(COUNT))
    assert torch.equal(out, tv.rgb_to_grayscale(images, num_output_channels=3))


@pytest.mark.parametrize("bilinear", [False, True])
def test_outside_shows_the_fill(bilinear: bool) -> None:
    images, fill = pictures(COUNT, 3, 32, 32), [124, 116, 104]
    strong = amounts("rotate", COUNT)
    code = np.full(COUNT, CODES["rotate"])
    out = operate(images, code, strong, fill=fill, bilinear=bilinear)
    if not bilinear:
        wanted = [tv.rotate(i, a, fill=fill) for i, a in zip(images, strong.tolist(), strict=True)]
        assert_alike(out, torch.stack(wanted), 0.0)
        return
    # torchvision weighs a border pixel twice by how much of it lies inside. Its own function on
    # the image less the fill weighs it once.
    floats = images.float() - torch.tensor(fill)[:, None, None]
    mode = InterpolationMode.BILINEAR
    wanted = [tv.rotate(i, a, mode) for i, a in zip(floats, strong.tolist(), strict=True)]
    whole = torch.stack(wanted) + torch.tensor(fill)[:, None, None]
    assert_alike(out, whole.round().to(torch.uint8), INEXACT["bilinear"])


def test_right_angles_and_whole_steps_move_pixels_only() -> None:
    images = pictures(4, 3, 16, 16)
    codes = np.array([CODES["rotate"]] * 3 + [CODES["translate_x"]])
    for bilinear in (False, True):
        out = operate(images, codes, np.array([90.0, 180.0, -90.0, 3.0]), bilinear=bilinear)
        for turns, image, turned in zip((1, 2, 3), images, out, strict=False):
            assert torch.equal(turned, image.rot90(turns, (1, 2)))
        assert torch.equal(out[3, :, :, 3:], images[3, :, :, :-3])
        assert not out[3, :, :, :3].any()


@given(st.integers(0, 1000), st.integers(1, 40), st.sampled_from([1, 3]), st.booleans())
def test_a_mixed_batch_is_its_images_one_by_one(
    seed: int, count: int, channels: int, bilinear: bool
) -> None:
    images = pictures(count, channels, 9, 12, seed)
    codes = np.random.default_rng(seed).integers(0, len(OPERATIONS), count)
    strong = np.array([amounts(OPERATIONS[c], 1, seed + i)[0] for i, c in enumerate(codes)])
    out = operate(images, codes, strong, fill=(7,), bilinear=bilinear)
    alone = [
        operate(
            images[i : i + 1], codes[i : i + 1], strong[i : i + 1], fill=(7,), bilinear=bilinear
        )
        for i in range(count)
    ]
    assert torch.equal(out, torch.cat(alone))


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (3, 3), (7, 1)], ids=str)
def test_tiny_images(size: tuple[int, int]) -> None:
    images = pictures(len(OPERATIONS), 3, *size)
    strong = np.array([amounts(op, 1, 5)[0] for op in OPERATIONS])
    out = operate(images, np.arange(len(OPERATIONS)), strong)
    nearest = InterpolationMode.NEAREST
    for op, image, a, got in zip(OPERATIONS, images, strong.tolist(), out, strict=True):
        if op == "blur":  # torchvision cannot mirror more than the image holds
            assert got.shape == image.shape
        else:
            assert_alike(got, ORACLES[op](image, a, nearest), INEXACT.get(op, 0.0))


@pytest.mark.parametrize("op", ["equalize", "autocontrast"])
def test_images_of_few_levels(op: str) -> None:
    """One level, two levels, a gradient, and one bright pixel: where the divisors are zero."""
    images = torch.zeros(4, 3, 16, 16, dtype=torch.uint8)
    images[0] = 77
    images[1, :, :8] = 200
    images[2] = torch.arange(256, dtype=torch.uint8).view(16, 16)
    images[3, 0, 3, 4] = 255
    out = operate(images, np.full(4, CODES[op]), np.zeros(4))
    oracle = ORACLES[op]
    assert torch.equal(
        out, torch.stack([oracle(i, 0.0, InterpolationMode.NEAREST) for i in images])
    )


@pytest.mark.parametrize("size", [(32, 32), (37, 24)], ids=str)
def test_resized_crop_equals_torchvisions(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    images = pictures(COUNT, 3, *size)
    sides = np.stack([rng.integers(1, side + 1, COUNT) for side in size], 1)
    corners = np.stack([rng.integers(0, size[i] - sides[:, i] + 1) for i in range(2)], 1)
    boxes = np.concatenate((corners, sides), 1)
    boxes[0] = (0, 0, *size)
    out = resized_crop(images, boxes)
    wanted = [
        tv.resized_crop(image, *map(int, box), size=list(size), antialias=True)
        for image, box in zip(images, boxes, strict=True)
    ]
    # torchvision rounds in whole numbers, as we do, only where torch has such a kernel.
    native = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    assert_alike(out, torch.stack(wanted), 0.0 if native else 0.1)
    assert torch.equal(out[0], images[0])


@given(st.integers(0, 1000), st.sampled_from([torch.uint8, torch.float32]))
def test_erase_equals_torchvisions(seed: int, dtype: torch.dtype) -> None:
    rng = np.random.default_rng(seed)
    images = pictures(5, 3, 9, 7, seed).to(dtype)
    boxes = rng.integers(0, 8, (5, 4))
    out = erase(images, boxes)
    for image, (top, left, height, width), got in zip(images, boxes, out, strict=True):
        zero = torch.zeros((), dtype=dtype)
        assert torch.equal(got, tv.erase(image, top, left, height, width, zero))
    counted = erase(images, boxes, lambda image, element: image * 1000 + element)
    same = torch.arange(3 * 9 * 7).view(3, 9, 7) + 1000 * torch.arange(5)[:, None, None, None]
    inside = erase(torch.ones(5, 3, 9, 7), boxes) == 0
    assert torch.equal(counted, torch.where(inside, same.to(dtype), images))


def test_pick_takes_rows_and_columns() -> None:
    images = pictures(3, 3, 6, 5).float()
    rows, columns = torch.tensor([[5, 0]] * 3), torch.tensor([[1, 1, 4]] * 3)
    assert torch.equal(pick(images, rows, columns), images[:, :, [5, 0]][..., [1, 1, 4]])
