"""Policies: which operation each image gets, and how strong.

A policy turns an image's random numbers into layers of (code, amount), for the whole batch at
once. Sources: RandAugment, arXiv 1909.13719; AutoAugment, arXiv 1805.09501; TrivialAugment, arXiv
2103.10158; 3-Augment, arXiv 2204.07118. Magnitudes are torchvision's and timm's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from vitkit.data.notation import RandAugment, TimmRandAugment, parse_policy
from vitkit.data.ops import CODES

__all__ = [
    "ChosenPairs",
    "ColorJitter",
    "Layers",
    "Policy",
    "RandomChoice",
    "Strength",
    "amounts",
    "make_policy",
]


Numbers = NDArray[np.float64]
Codes = NDArray[np.int64]


class Layers(NamedTuple):
    """What each image of a batch gets, one layer after the other.

    Attributes:
        codes: int64 (layers, B), indices into :data:`~vitkit.data.ops.OPERATIONS`.
        amounts: float64 (layers, B), see :func:`~vitkit.data.ops.operate`.
    """

    codes: Codes
    amounts: Numbers


class Policy(Protocol):
    """What all policies can do."""

    @property
    def draws(self) -> int:
        """Random numbers that an image needs."""
        ...

    @property
    def like_timm(self) -> bool:
        """Geometry reads bilinear, on the mean colour, as timm's; else the nearest, on black."""
        ...

    def __call__(self, numbers: Numbers, size: tuple[int, int]) -> Layers:
        """Layers from float64 numbers in [0, 1), (draws, B), for images of (height, width)."""
        ...


WHOLE = ("no", "cut", "round")


@dataclass(frozen=True)
class Strength:
    """An operation, and how its amount follows from a level: from ``start`` to ``end``.

    Attributes:
        op: a name of :data:`~vitkit.data.ops.OPERATIONS`.
        start, end: amount at level 0 and at level 1.
        signed: the way from start may also be gone backwards, with equal chance.
        whole: the distance from ``start`` is cut to a whole number (``cut``), rounded to one
            (``round``) or kept (``no``).
        of_side: start and end are shares of the image's width (its height, for y).
        least, most: where amounts are cut off.
    """

    op: str
    start: float = 0.0
    end: float = 0.0
    signed: bool = False
    whole: Literal["no", "cut", "round"] = "no"
    of_side: bool = False
    least: float = -math.inf
    most: float = math.inf


def amounts(
    strengths: Sequence[Strength],
    chosen: Codes,
    level: Numbers,
    sign: Numbers,
    size: tuple[int, int],
) -> Numbers:
    """The amounts of chosen operations.

    Args:
        strengths: to choose from.
        chosen: indices into ``strengths``, any shape.
        level: 0 is the start and 1 the end; of the same shape.
        sign: 1 or -1; of the same shape.
        size: (height, width) of the images.
    """
    sides = [size[0 if s.op.endswith("_y") else 1] if s.of_side else 1 for s in strengths]
    rows = [
        (s.start * side, (s.end - s.start) * side, s.signed, WHOLE.index(s.whole), s.least, s.most)
        for s, side in zip(strengths, sides, strict=True)
    ]
    start, way, signed, whole, least, most = np.array(rows).T[:, chosen]
    way = way * level
    way = np.where(whole == 1, np.trunc(way), np.where(whole == 2, np.round(way), way))
    return np.clip(start + way * np.where(signed > 0, sign, 1.0), least, most)


@dataclass(frozen=True)
class RandomChoice:
    """One of some operations in each layer, at random.

    Attributes:
        strengths: to choose from, all with equal chance.
        level: random number -> level.
        layers: operations of an image.
        prob: chance that a chosen operation is applied.
        like_timm: see :class:`Policy`.
    """

    strengths: tuple[Strength, ...]
    level: Callable[[Numbers], Numbers]
    layers: int = 1
    prob: float = 1.0
    like_timm: bool = False

    @property
    def draws(self) -> int:
        """Choice, level, sign and whether at all, in each layer."""
        return 4 * self.layers

    def __call__(self, numbers: Numbers, size: tuple[int, int]) -> Layers:
        """See :class:`Policy`."""
        choice, level, sign, apply = numbers.reshape(4, self.layers, -1)
        chosen = (choice * len(self.strengths)).astype(np.int64)
        codes = _codes(s.op for s in self.strengths)[chosen]
        return Layers(
            np.where(apply < self.prob, codes, CODES["none"]),
            amounts(self.strengths, chosen, self.level(level), _sign(sign), size),
        )


class Step(NamedTuple):
    """Half of a pair: a strength's index, its chance, its level."""

    strength: int
    prob: float
    level: float


@dataclass(frozen=True)
class ChosenPairs:
    """One of some pairs of operations, at random; each operation has its own chance and level.

    Attributes:
        strengths: what the pairs refer to.
        pairs: all with equal chance.
    """

    strengths: tuple[Strength, ...]
    pairs: tuple[tuple[Step, Step], ...]

    draws = 5
    like_timm = False

    def __call__(self, numbers: Numbers, size: tuple[int, int]) -> Layers:
        """See :class:`Policy`."""
        pair = (numbers[0] * len(self.pairs)).astype(np.int64)
        chosen, prob, level = np.array(self.pairs)[pair].T
        chosen = chosen.astype(np.int64)
        codes = _codes(s.op for s in self.strengths)[chosen]
        return Layers(
            np.where(numbers[1:3] < prob, codes, CODES["none"]),
            amounts(self.strengths, chosen, level, _sign(numbers[3:5]), size),
        )


@dataclass(frozen=True)
class ColorJitter:
    """Brightness, contrast, saturation and hue of every image, in an order of its own.

    Attributes:
        strength: largest change of the first three, as a share.
        hue: largest turn, as a share of the circle.
    """

    strength: float
    hue: float

    like_timm = False

    @property
    def ops(self) -> tuple[str, ...]:
        """The operations that change anything."""
        first = ("brightness", "contrast", "saturation") if self.strength else ()
        return (*first, "hue") if self.hue else first

    @property
    def draws(self) -> int:
        """Place in the order and amount, of each operation."""
        return 2 * len(self.ops)

    def __call__(self, numbers: Numbers, size: tuple[int, int]) -> Layers:
        """See :class:`Policy`."""
        places, drawn = numbers.reshape(2, len(self.ops), -1)
        order = np.argsort(places, axis=0)
        factors = (max(0.0, 1.0 - self.strength), 1.0 + self.strength)
        ranges = [(-self.hue, self.hue) if op == "hue" else factors for op in self.ops]
        least, most = np.array(ranges).T[:, :, None]
        scaled = least + (most - least) * drawn
        return Layers(_codes(self.ops)[order], np.take_along_axis(scaled, order, axis=0))


def make_policy(name: str) -> Policy | None:
    """A policy from its word in a config; None for ``none``.

    Raises:
        ValueError: see :func:`~vitkit.data.notation.parse_policy`.
    """
    notation = parse_policy(name)
    if isinstance(notation, RandAugment):
        level = notation.magnitude / (notation.bins - 1)
        return RandomChoice(
            (Strength("none"), *_torchvision()),
            lambda numbers: np.full_like(numbers, level),
            notation.num_ops,
        )
    if isinstance(notation, TimmRandAugment):
        return RandomChoice(
            TIMM_INCREASING if notation.increasing else TIMM,
            _timm_level(notation),
            notation.num_ops,
            notation.prob,
            like_timm=True,
        )
    return NAMED[notation]


def _codes(names: Iterable[str]) -> Codes:
    return np.array([CODES[name] for name in names])


def _sign(numbers: Numbers) -> Numbers:
    return np.where(numbers < 0.5, -1.0, 1.0)


def _torchvision(
    shear: float = 0.3,
    translate: float = 150 / 331,
    of_side: bool = True,
    rotate: float = 30.0,
    factor: float = 0.9,
    bits: int = 4,
) -> tuple[Strength, ...]:
    """The operations of torchvision's policies, from no effect to the given ones."""
    return (
        Strength("shear_x", 0.0, shear, signed=True),
        Strength("shear_y", 0.0, shear, signed=True),
        Strength("translate_x", 0.0, translate, signed=True, whole="cut", of_side=of_side),
        Strength("translate_y", 0.0, translate, signed=True, whole="cut", of_side=of_side),
        Strength("rotate", 0.0, rotate, signed=True),
        Strength("brightness", 1.0, 1.0 + factor, signed=True),
        Strength("saturation", 1.0, 1.0 + factor, signed=True),
        Strength("contrast", 1.0, 1.0 + factor, signed=True),
        Strength("sharpness", 1.0, 1.0 + factor, signed=True),
        Strength("posterize", 8, 8 - bits, whole="round"),
        Strength("solarize", 255.0, 0.0),
        Strength("autocontrast"),
        Strength("equalize"),
    )


TIMM_INCREASING = (
    Strength("autocontrast"),
    Strength("equalize"),
    Strength("invert"),
    Strength("rotate", 0.0, 30.0, signed=True),
    Strength("posterize", 4, 0, whole="cut", least=0),
    Strength("solarize", 256, 0, whole="cut", least=0),
    Strength("solarize_add", 0, 110, whole="cut", most=128),
    Strength("saturation", 1.0, 1.9, signed=True, least=0.1),
    Strength("contrast", 1.0, 1.9, signed=True, least=0.1),
    Strength("brightness", 1.0, 1.9, signed=True, least=0.1),
    Strength("sharpness", 1.0, 1.9, signed=True, least=0.1),
    Strength("shear_x", 0.0, 0.3, signed=True),
    Strength("shear_y", 0.0, 0.3, signed=True),
    Strength("translate_x", 0.0, 0.45, signed=True, of_side=True),
    Strength("translate_y", 0.0, 0.45, signed=True, of_side=True),
)
"""timm's operations with ``inc1``: a higher level is always a stronger change."""

TIMM = (
    *TIMM_INCREASING[:4],
    Strength("posterize", 0, 4, whole="cut", most=8),
    Strength("solarize", 0, 256, whole="cut", most=256),
    TIMM_INCREASING[6],
    *(Strength(op, 0.1, 1.9) for op in ("saturation", "contrast", "brightness", "sharpness")),
    *TIMM_INCREASING[11:],
)
"""timm's operations without ``inc1``: posterize and solarize weaken, factors rise from 0.1."""


def _timm_level(notation: TimmRandAugment) -> Callable[[Numbers], Numbers]:
    mean, std, most = notation.magnitude, notation.std, float(notation.most)

    def level(numbers: Numbers) -> Numbers:
        if std > 100:
            drawn = numbers * mean
        elif std > 0:
            drawn = mean + std * torch.special.ndtri(torch.from_numpy(numbers)).numpy()
        else:
            drawn = np.full_like(numbers, mean)
        return np.clip(drawn, 0.0, most) / 10.0

    return level


CIFAR10_PAIRS = """
invert 0.1 0 contrast 0.2 6
rotate 0.7 2 translate_x 0.3 9
sharpness 0.8 1 sharpness 0.9 3
shear_y 0.5 8 translate_y 0.7 9
autocontrast 0.5 0 equalize 0.9 0
shear_y 0.2 7 posterize 0.3 7
saturation 0.4 3 brightness 0.6 7
sharpness 0.3 9 brightness 0.7 9
equalize 0.6 0 equalize 0.5 0
contrast 0.6 7 sharpness 0.6 5
saturation 0.7 7 translate_x 0.5 8
equalize 0.3 0 autocontrast 0.4 0
translate_y 0.4 3 sharpness 0.2 6
brightness 0.9 6 saturation 0.2 8
solarize 0.5 2 invert 0.0 0
equalize 0.2 0 autocontrast 0.6 0
equalize 0.2 0 equalize 0.6 0
saturation 0.9 9 equalize 0.6 0
autocontrast 0.8 0 solarize 0.2 8
brightness 0.1 3 saturation 0.7 0
solarize 0.4 5 autocontrast 0.9 0
translate_y 0.9 9 translate_y 0.7 9
autocontrast 0.9 0 solarize 0.8 3
equalize 0.8 0 invert 0.1 0
translate_y 0.7 9 autocontrast 0.9 0
"""
"""AutoAugment's policy for CIFAR-10, as pairs of operation, chance, level from 0 to 9."""


def _cifar10() -> ChosenPairs:
    strengths = (*_torchvision(), Strength("invert"))
    index = {s.op: i for i, s in enumerate(strengths)}
    pairs = []
    for line in CIFAR10_PAIRS.strip().splitlines():
        words = line.split()
        one, two = (
            Step(index[op], float(prob), int(level) / 9)
            for op, prob, level in (words[:3], words[3:])
        )
        pairs.append((one, two))
    return ChosenPairs(strengths, tuple(pairs))


TRIVIAL = (
    Strength("none"),
    *_torchvision(shear=0.99, translate=32.0, of_side=False, rotate=135.0, factor=0.99, bits=6),
)
TRIVIAL_BINS = 31

THREE = (
    Strength("saturation", 0.0, 0.0),
    Strength("solarize", 128, 128),
    Strength("blur", 0.1, 2.0),
)

NAMED: dict[str, Policy | None] = {
    "none": None,
    "autoaugment_cifar10": _cifar10(),
    "trivialaugment": RandomChoice(
        TRIVIAL, lambda numbers: np.floor(numbers * TRIVIAL_BINS) / (TRIVIAL_BINS - 1)
    ),
    "three_augment": RandomChoice(THREE, lambda numbers: numbers),
}
"""Name -> policy, of those without parameters."""
