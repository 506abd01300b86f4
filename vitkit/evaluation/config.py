"""What a person may say about an evaluation, as a checked section. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field

__all__ = ["EvalConfig"]


def _numbers(value: Any) -> Any:
    """A list as a tuple of floats: YAML knows lists only, and strict tuples refuse them."""
    numbers = value if isinstance(value, list | tuple) else ()
    good = [isinstance(v, int | float) and not isinstance(v, bool) and v > 0 for v in numbers]
    if not good or not all(good):
        raise ValueError("should be a list of numbers above 0")
    return tuple(float(v) for v in numbers)


def _numbers_if_any(value: Any) -> Any:
    """The same, or an empty list: none of it."""
    return () if isinstance(value, list | tuple) and not value else _numbers(value)


class EvalConfig(BaseModel, extra="forbid", frozen=True, strict=True, allow_inf_nan=False):
    """How a finished model is measured; training does not look at it."""

    tta: Literal["none", "flip", "multicrop"] = Field(
        "none",
        description="predictions averaged over an image's views: itself, also mirrored, or both at "
        "three places; named in the result",
    )
    seed: int = Field(0, ge=0, description="seed of resampling, corruptions and attacks")
    resamples: int = Field(
        1000, ge=100, description="bootstrap samples behind a confidence interval"
    )
    confidence: float = Field(0.95, gt=0, lt=1, description="share that an interval should hold")
    shift_images: int = Field(
        0, ge=0, description="images that the shift suite changes, spread evenly; 0 = all"
    )
    attack_images: int = Field(
        1000, ge=1, description="images that are attacked, spread evenly over shift_images"
    )
    mce_baseline: Literal["none", "alexnet"] = Field(
        "none", description="alexnet: also the corruption error over AlexNet's, as for ImageNet-C"
    )
    epsilons: Annotated[tuple[float, ...], BeforeValidator(_numbers)] = Field(
        (2.0, 8.0), description="largest change of a pixel by an attack, in 255ths"
    )
    epsilons_l2: Annotated[tuple[float, ...], BeforeValidator(_numbers_if_any)] = Field(
        (0.5,),
        description="longest change of a whole image by an attack (Euclidean, 1 = one value from "
        "black to white); [] = no such attack",
    )
    pgd_steps: int = Field(20, ge=1, description="steps of projected gradient descent")
    cifar10_1: str | None = Field(None, description="folder of CIFAR-10.1's npy files")
    cifar10h: str | None = Field(None, description="file cifar10h-counts.npy, or its folder")
    imagenet_real: str | None = Field(
        None, description="folder with real.json and ImageNet's validation pictures"
    )
    imagenet_v2: str | None = Field(None, description="folder of ImageNetV2, a folder a class")
    imagenet_a: str | None = Field(None, description="folder of ImageNet-A")
    imagenet_r: str | None = Field(None, description="folder of ImageNet-R")
    imagenet_sketch: str | None = Field(None, description="folder of ImageNet-Sketch")
    cifar_c: str | None = Field(
        None, description="folder of CIFAR-10-C's or CIFAR-100-C's npy files, as published"
    )
    imagenet_c: str | None = Field(
        None, description="folder of ImageNet-C's corruptions, as published"
    )
    compile: bool = Field(False, description="also measure the speed of the compiled model")
    speed_seconds: float = Field(1.0, gt=0, description="length of each measurement of speed")
    speed_max_batch: int = Field(
        256, ge=1, description="largest batch that the search for the fastest one tries"
    )
