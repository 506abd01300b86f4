"""What a person may say about data, as a checked section. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field

__all__ = ["AugmentConfig", "DataConfig"]


def _size(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    if (
        isinstance(value, list | tuple)
        and len(value) == 2
        and all(isinstance(v, int) for v in value)
    ):
        return tuple(value)
    raise ValueError("should be a whole number from 1 up or a pair [height, width] of them")


Size = Annotated[int | tuple[int, int], BeforeValidator(_size)]


class AugmentConfig(BaseModel, extra="forbid", frozen=True, strict=True):
    """Random changes of the training images; each image draws its own."""

    crop_padding: int = Field(
        0, ge=0, description="pixels of padding around the image before a random crop; 0 = off"
    )
    padding_mode: Literal["zero", "reflect"] = Field(
        "zero", description="what the padding shows: black, or the image mirrored at its border"
    )
    flip: bool = Field(False, description="mirror left and right with probability one half")


class DataConfig(BaseModel, extra="forbid", frozen=True, strict=True):
    """Which data, how they are split, and how they reach the model."""

    name: str = Field(
        "digits",
        description="digits, cifar10, cifar100, image_folder, synthetic or a registered one",
    )
    root: str = Field("data", description="folder of the data set's files")
    download: bool = Field(False, description="fetch the files if they are absent")
    val_fraction: float = Field(
        0.1, ge=0, lt=1, description="share of the training images kept for validation; 0 = none"
    )
    split_seed: int = Field(0, ge=0, description="seed of the splits; independent of run.seed")
    batch_size: int = Field(128, ge=1, description="images of one optimiser step, over all devices")
    eval_batch_size: int = Field(256, ge=1, description="images of one evaluation batch")
    img_size: Size | None = Field(
        None,
        description="resize to this side in pixels, or [height, width]; model.img_size by default",
    )
    resident: Literal["auto", "always", "never"] = Field(
        "auto", description="hold all images on the training device; auto = if they fit the budget"
    )
    resident_budget_mb: int = Field(
        2048, ge=0, description="largest data set held on the device, in MiB of uint8 pixels"
    )
    num_workers: int = Field(
        2, ge=0, description="processes that decode images; only for data that is not resident"
    )
    normalize: Literal["auto", "dataset", "imagenet", "half", "none"] = Field(
        "auto",
        description="mean and std: of the training images (auto), ImageNet's, 0.5, or 0 and 1",
    )
    on_bad_image: Literal["stop", "skip"] = Field(
        "stop", description="image_folder: stop at unreadable files, or leave them out"
    )
    max_pixels: int = Field(
        89_478_485, ge=1, description="image_folder: refuse larger images, in pixels"
    )
    synthetic_size: int = Field(1000, ge=1, description="synthetic: number of images of all splits")
    synthetic_classes: int = Field(10, ge=2, description="synthetic: number of classes")
    augment: AugmentConfig = Field(AugmentConfig(), description="random changes in training")
