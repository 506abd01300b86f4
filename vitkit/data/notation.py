"""Policies as one word in a config, such as ``rand-m9-mstd0.5-inc1``. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["POLICIES", "RandAugment", "TimmRandAugment", "parse_policy"]

POLICIES = ("none", "randaugment", "autoaugment_cifar10", "trivialaugment", "three_augment")
"""Names of policies; ``randaugment`` takes options, and timm's notation begins with ``rand``."""

ALLOWED = (
    f"{', '.join(POLICIES)}; options as in randaugment-n2-m9-b31, or timm's notation as in "
    "rand-m9-mstd0.5-inc1"
)


@dataclass(frozen=True)
class RandAugment:
    """RandAugment in torchvision's parameters (Cubuk et al., arXiv 1909.13719).

    Attributes:
        num_ops: operations of an image, one after the other.
        magnitude: of all of them, from 0 to ``bins - 1``.
        bins: number of magnitudes.
    """

    num_ops: int = 2
    magnitude: int = 9
    bins: int = 31


@dataclass(frozen=True)
class TimmRandAugment:
    """RandAugment in timm's parameters.

    Attributes:
        num_ops: operations drawn for an image.
        magnitude: their mean strength; 10 is the full one.
        prob: chance that a drawn operation is applied.
        std: spread of the strength around its mean; above 100 it is uniform from 0 to the mean.
        most: largest strength.
        increasing: use the operations that all grow with the strength.
    """

    num_ops: int = 2
    magnitude: int = 10
    prob: float = 0.5
    std: float = 0.0
    most: int = 10
    increasing: bool = False


Notation = str | RandAugment | TimmRandAugment
OPTIONS = {"n": "1 to 100", "m": "0 up", "b": "2 up", "p": "0 to 1", "mstd": "0 up", "mmax": "1 up"}


def parse_policy(text: str) -> Notation:
    """A policy's name, or the parameters of a RandAugment.

    Raises:
        ValueError: what is allowed.
    """
    name, _, rest = text.partition("-")
    if name == "randaugment":
        given = _options(rest, ("n", "m", "b"))
        chosen = RandAugment(*(int(given.get(k, d)) for k, d in (("n", 2), ("m", 9), ("b", 31))))
        if chosen.magnitude >= chosen.bins:
            raise ValueError(f"m below the number of bins b, {chosen.bins}")
        return chosen
    if name == "rand":
        given = _options(rest, ("n", "m", "p", "mstd", "mmax", "inc"))
        return TimmRandAugment(
            num_ops=int(given.get("n", 2)),
            magnitude=int(given.get("m", 10)),
            prob=given.get("p", 0.5),
            std=given.get("mstd", 0.0),
            most=int(given.get("mmax", 10)),
            increasing=bool(given.get("inc", 0)),
        )
    if text not in POLICIES:
        raise ValueError(ALLOWED)
    return text


def _options(rest: str, known: tuple[str, ...]) -> Mapping[str, float]:
    """``m9-mstd0.5`` -> {"m": 9.0, "mstd": 0.5}."""
    given: dict[str, float] = {}
    for part in rest.split("-") if rest else []:
        match = re.fullmatch(r"([a-z]+)(\d+(?:\.\d+)?)", part)
        if match is None or match[1] not in known or match[1] in given:
            raise ValueError(f"each of the options {', '.join(known)} once, with a number")
        key, value = match[1], float(match[2])
        if key not in ("p", "mstd") and value != int(value):
            raise ValueError(f"a whole number for {key}")
        if not _in_range(key, value):
            raise ValueError(f"{key} from {OPTIONS.get(key, '0 to 1')}")
        given[key] = value
    return given


def _in_range(key: str, value: float) -> bool:
    least = {"n": 1.0, "b": 2.0, "mmax": 1.0}.get(key, 0.0)
    most = {"n": 100.0, "p": 1.0, "inc": 1.0}.get(key, float("inf"))
    return least <= value <= most
