"""Policies: magnitudes are torchvision's and timm's, level by level; draws are fair."""

from __future__ import annotations

import random
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
import torch
from timm.data import auto_augment as timm
from torchvision.transforms import v2
from torchvision.transforms.v2 import InterpolationMode

from tests.data.test_ops import INEXACT, ORACLES, assert_alike, pictures
from vitkit.data.augment import Augment
from vitkit.data.config import AugmentConfig
from vitkit.data.notation import RandAugment, TimmRandAugment, parse_policy
from vitkit.data.ops import CODES, OPERATIONS
from vitkit.data.policies import (
    ChosenPairs,
    ColorJitter,
    Policy,
    RandomChoice,
    Strength,
    amounts,
    make_policy,
)

SIZE = (24, 32)
POLICIES = (
    "randaugment",
    "randaugment-n3-m14-b15",
    "rand-m9-mstd0.5-inc1",
    "rand-m7-n1-p1-mstd101",
    "autoaugment_cifar10",
    "trivialaugment",
    "three_augment",
)

NAMES = {
    "Identity": "none",
    "ShearX": "shear_x",
    "ShearY": "shear_y",
    "TranslateX": "translate_x",
    "TranslateY": "translate_y",
    "TranslateXRel": "translate_x",
    "TranslateYRel": "translate_y",
    "Rotate": "rotate",
    "Brightness": "brightness",
    "Color": "saturation",
    "Contrast": "contrast",
    "Sharpness": "sharpness",
    "Posterize": "posterize",
    "Solarize": "solarize",
    "SolarizeAdd": "solarize_add",
    "AutoContrast": "autocontrast",
    "Equalize": "equalize",
    "Invert": "invert",
}
"""torchvision's and timm's names -> ours; timm adds ``Increasing`` to some."""
FACTORS = ("brightness", "saturation", "contrast", "sharpness")


def made(name: str) -> Any:
    policy = make_policy(name)
    assert policy is not None
    return policy


def amount(strength: Strength, level: float, sign: float = 1.0) -> float:
    one, zero = np.ones(1), np.zeros(1, dtype=np.int64)
    return float(amounts([strength], zero, level * one, sign * one, SIZE)[0])


@pytest.mark.parametrize(
    ("name", "reference", "bins"),
    [
        ("randaugment", v2.RandAugment, 31),
        ("randaugment-m5-b10", v2.RandAugment, 10),
        ("trivialaugment", v2.TrivialAugmentWide, 31),
        ("autoaugment_cifar10", v2.AutoAugment, 10),
    ],
)
def test_magnitudes_are_torchvisions(name: str, reference: Any, bins: int) -> None:
    """What torchvision's classes hand to their functions, for each operation, level and sign."""
    ours = {strength.op: strength for strength in made(name).strengths}
    space = reference._AUGMENTATION_SPACE
    assert set(ours) == {NAMES[op] for op in space}
    for op, (magnitudes, signed) in space.items():
        strength, table = ours[NAMES[op]], magnitudes(bins, *SIZE)
        assert strength.signed == signed
        for index in range(bins):
            for sign in (1.0, -1.0):
                magnitude = 0.0 if table is None else float(table[index])
                magnitude *= sign if signed else 1.0
                if op.startswith("Translate"):
                    # TrivialAugment's 16 pixels are 15.999999 in float32 and so 15 in torchvision.
                    magnitude = int(round(magnitude, 4))
                wanted = {"Solarize": 255.0 * magnitude}.get(op, magnitude)
                wanted += 1.0 if NAMES[op] in FACTORS else 0.0
                got = amount(strength, index / (bins - 1), sign)
                # torchvision's tables are float32.
                assert got == pytest.approx(wanted, rel=1e-6, abs=1e-5), (op, index)


def test_autoaugments_pairs_are_torchvisions() -> None:
    policy = made("autoaugment_cifar10")
    assert isinstance(policy, ChosenPairs)
    reference = v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)._policies
    assert len(policy.pairs) == len(reference) == 25
    for pair, wanted in zip(policy.pairs, reference, strict=True):
        for step, (op, prob, index) in zip(pair, wanted, strict=True):
            assert policy.strengths[step.strength].op == NAMES[op]
            assert step.prob == prob
            assert step.level == pytest.approx((index or 0) / 9)


@pytest.mark.parametrize("increasing", [0, 1])
def test_magnitudes_are_timms(increasing: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """timm's own functions from a level to an argument, with its coin held fast."""
    reference = timm.rand_augment_transform(f"rand-inc{increasing}", {}).ops
    ours = {strength.op: strength for strength in made(f"rand-inc{increasing}").strengths}
    assert set(ours) == {NAMES[op.name.removesuffix("Increasing")] for op in reference}
    assert len(ours) == len(reference)
    for op in reference:
        name = NAMES[op.name.removesuffix("Increasing")]
        for level in np.arange(0.0, 20.5, 0.5):
            for sign, coin in ((1.0, 0.0), (-1.0, 1.0)):
                monkeypatch.setattr(random, "random", lambda coin=coin: coin)
                given = op.level_fn(level, {}) if op.level_fn else (0.0,)
                wanted = float(given[0])
                if name.startswith("translate"):
                    wanted *= SIZE[1 if name.endswith("x") else 0]
                # Beyond level 10 timm's fewer than 0 bits mean none; Pillow refuses them.
                wanted = max(wanted, 0.0) if name == "posterize" else wanted
                got = amount(ours[name], level / 10, sign)
                assert got == pytest.approx(wanted, rel=1e-12, abs=1e-12), (op.name, level)


def test_three_augment_is_timms() -> None:
    policy = made("three_augment")
    solarize, desaturate, blur = (one[0] for one in timm.auto_augment_policy_3a({}))
    ours = {strength.op: strength for strength in policy.strengths}
    assert len(ours) == 3
    threshold = solarize.level_fn(solarize.magnitude, {})[0]
    assert amount(ours["solarize"], 0.3) == threshold == 128
    factor = desaturate.level_fn(desaturate.magnitude, {})[0]
    assert amount(ours["saturation"], 0.3) == max(0.0, 1.0 - factor)
    assert blur.level_fn(blur.magnitude, {})[0] == 1.0  # of its range, 0.1 to 2
    assert (amount(ours["blur"], 0.0), amount(ours["blur"], 1.0)) == (0.1, 2.0)


@pytest.mark.parametrize(
    "text",
    ["rand", "rand-m9-mstd0.5-inc1", "rand-m15-n3-p0.8-mmax20", "rand-mstd101-m7", "rand-inc0-n1"],
)
def test_timms_notation_means_what_it_means_to_timm(text: str) -> None:
    reference = timm.rand_augment_transform(text, {})
    ours = parse_policy(text)
    assert isinstance(ours, TimmRandAugment)
    op = reference.ops[0]
    assert ours.num_ops == reference.num_layers
    assert (ours.magnitude, ours.prob) == (op.magnitude, op.prob)
    assert ours.most == (op.magnitude_max or 10)
    assert (float("inf") if ours.std > 100 else ours.std) == op.magnitude_std
    increasing = any(op.name.endswith("Increasing") for op in reference.ops)
    assert ours.increasing == increasing


def test_timms_levels_are_normal_and_cut_off() -> None:
    numbers = np.linspace(0.0, 1.0, 400, endpoint=False)
    wanted = [NormalDist(9, 0.5).inv_cdf(u) if u else 0.0 for u in numbers]
    level = made("rand-m9-mstd0.5").level
    np.testing.assert_allclose(level(numbers), np.clip(wanted, 0, 10) / 10, rtol=1e-9)
    np.testing.assert_allclose(made("rand-m7-mstd101").level(numbers), numbers * 0.7)
    assert made("rand-m15").level(numbers).tolist() == [1.0] * 400
    assert made("rand-m15-mmax20").level(numbers).tolist() == [1.5] * 400


def test_torchvisions_parameters() -> None:
    assert parse_policy("randaugment-n3-m4-b10") == RandAugment(3, 4, 10)
    assert made("randaugment-n3").draws == 12
    assert made("randaugment-m4-b9").level(np.zeros(2)).tolist() == [0.5, 0.5]


@pytest.mark.parametrize("name", POLICIES)
def test_choices_are_fair(name: str) -> None:
    """Operations as often as they should be, and both signs; 5 standard deviations of leeway."""
    policy: Policy = made(name)
    numbers = np.random.default_rng(0).random((policy.draws, 40_000))
    codes, strong = policy(numbers, SIZE)
    assert codes.shape == strong.shape
    shares = np.zeros(len(OPERATIONS))
    if isinstance(policy, RandomChoice):
        for strength in policy.strengths:
            shares[CODES[strength.op]] += policy.prob / len(policy.strengths)
    else:
        assert isinstance(policy, ChosenPairs)
        for pair in policy.pairs:
            for step in pair:
                shares[CODES[policy.strengths[step.strength].op]] += step.prob / 50
    shares[0] = 1.0 - shares[1:].sum()
    seen = np.bincount(codes.flatten(), minlength=len(OPERATIONS)) / codes.size
    leeway = 5 * np.sqrt(shares * (1 - shares) / codes.size)
    assert (np.abs(seen - shares) <= leeway).all()
    signed = strong[(codes == CODES["rotate"]) & (strong != 0)]
    if len(signed):
        assert abs((signed > 0).mean() - 0.5) < 2.5 / np.sqrt(len(signed))


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("channels", [1, 3])
def test_images_get_what_was_drawn_for_them(name: str, channels: int) -> None:
    """The whole way from a config's word to pixels, by torchvision's functions one by one."""
    images, places = pictures(64, channels, *SIZE), torch.arange(500, 564)
    mean = (0.4, 0.5, 0.6)[:channels]
    augment = Augment(AugmentConfig(policy=name), seed=3, mean=mean)
    out = augment(images, places, epoch=2)
    policy: Policy = made(name)
    codes, strong = policy(augment._numbers(2, places, 2000, policy.draws), SIZE)
    smooth = name.startswith("rand-")
    assert policy.like_timm == smooth
    fill = torch.tensor([round(255 * m) if smooth else 0 for m in mean])[:, None, None]
    mode = InterpolationMode.BILINEAR if smooth else InterpolationMode.NEAREST
    wanted = []
    for i, image in enumerate(images):
        for code, a in zip(codes[:, i], strong[:, i].tolist(), strict=True):
            op = OPERATIONS[code]
            if op in ("shear_x", "shear_y", "translate_x", "translate_y", "rotate"):
                # By torchvision's on floats, see test_outside_shows_the_fill.
                moved = ORACLES[op](image.float() - fill, a, mode) + fill
                image = moved.round().to(torch.uint8)
            else:
                image = ORACLES[op](image, a, mode)
        wanted.append(image)
    gap = (out.int() - torch.stack(wanted).int()).abs()
    # A level more or less in one layer may be a threshold's two sides in the next.
    assert (gap > 0).float().mean() <= INEXACT["blur"]
    assert (out != images).flatten(1).any(1).float().mean() > 0.4


@pytest.mark.parametrize(("strength", "hue"), [(0.3, 0.0), (0.4, 0.1), (0.0, 0.5)])
def test_color_jitter_is_torchvisions_in_any_order(strength: float, hue: float) -> None:
    images, places = pictures(200, 3, 8, 8), torch.arange(200)
    augment = Augment(AugmentConfig(color_jitter=strength, color_jitter_hue=hue))
    out = augment(images, places, epoch=0)
    jitter = ColorJitter(strength, hue)
    codes, strong = jitter(augment._numbers(0, places, 3000, jitter.draws), (8, 8))
    reference = v2.ColorJitter(strength, strength, strength, hue)
    orders = set()
    for i, image in enumerate(images):
        names = tuple(OPERATIONS[code] for code in codes[:, i])
        orders.add(names)
        for op, a in zip(names, strong[:, i].tolist(), strict=True):
            low, high = getattr(reference, op)
            assert low <= a <= high
            image = ORACLES[op](image, a, InterpolationMode.NEAREST)
        assert_alike(out[i], image, 0.02 if hue else 0.0)
    ops = (3 if strength else 0) + (1 if hue else 0)
    assert len(orders) == {1: 1, 3: 6, 4: 24}[ops]
    assert {len(set(order)) for order in orders} == {ops}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rand-m9-x3", "each of the options n, m, p, mstd, mmax, inc once"),
        ("rand-m9-m8", "once"),
        ("rand-n0", "n from 1 to 100"),
        ("rand-p1.5", "p from 0 to 1"),
        ("rand-m9.5", "a whole number for m"),
        ("rand-tweights", "each of the options"),
        ("randaugment-m31", "m below the number of bins b, 31"),
        ("randaugment-p0.5", "each of the options n, m, b once"),
        ("autoaugment", "autoaugment_cifar10"),
        ("", "none, randaugment"),
    ],
)
def test_wrong_words_are_told_what_is_allowed(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]+$") as error:
        parse_policy(text)
    assert message in str(error.value)
