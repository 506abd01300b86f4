"""What a person may say about data, as a checked section. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, model_validator

from vitkit.data.notation import parse_policy

__all__ = ["AugmentConfig", "DataConfig", "ImageDataConfig"]

MAX_PIXELS = 89_478_485
"""Pillow's: a quarter of a gibibyte of three bytes a pixel; twice as much it refuses by itself."""

OWN_VALIDATION = frozenset({"image_folder"})
"""Sources that may bring validation images of their own."""


def _size(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    if (
        isinstance(value, list | tuple)
        and len(value) == 2
        and all(isinstance(v, int) and not isinstance(v, bool) and v >= 1 for v in value)
    ):
        return tuple(value)
    raise ValueError("should be a whole number from 1 up or a pair [height, width] of them")


Size = Annotated[int | tuple[int, int], BeforeValidator(_size)]


def _shares(value: Any) -> Any:
    """A list of two shares as a tuple: YAML knows lists only, and strict tuples refuse them."""
    pair = tuple(value) if isinstance(value, list | tuple) else ()
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in pair)
    if len(pair) != 2 or not numbers or not 0 < pair[0] <= pair[1] <= 1:
        raise ValueError("should be a list of two shares above 0 and up to 1, the smaller first")
    return pair


def _flip(value: Any) -> Any:
    """true and false are the older way to say random and none."""
    return {True: "random", False: "none"}[value] if isinstance(value, bool) else value


def _policy(value: str) -> str:
    parse_policy(value)
    return value


Share = Annotated[float, Field(gt=0, le=1)]


class AugmentConfig(BaseModel, extra="forbid", frozen=True, strict=True, allow_inf_nan=False):
    """Random changes of the training images; each image draws its own. In this order."""

    crop_padding: int = Field(
        0, ge=0, description="pixels of padding around the image before a random crop; 0 = off"
    )
    padding_mode: Literal["zero", "reflect"] = Field(
        "zero", description="what the padding shows: black, or the image mirrored at its border"
    )
    resized_crop_scale: float = Field(
        0.0,
        ge=0,
        le=1,
        description="smallest share of the area that a random crop keeps; it is resized back to "
        "the whole; 0 = off",
    )
    resized_crop_largest: Share = Field(
        1.0, description="largest share of the area that a random crop keeps"
    )
    resized_crop_ratio: Share = Field(
        0.75, description="smallest width over height of that crop; the largest is its inverse"
    )
    flip: Annotated[Literal["none", "random", "alternate"], BeforeValidator(_flip)] = Field(
        "none",
        description="mirror left and right: never, by chance, or by chance in the first epoch and "
        "then in turn; true = random",
    )
    policy: Annotated[str, AfterValidator(_policy)] = Field(
        "none",
        description="none, randaugment, autoaugment_cifar10, trivialaugment, three_augment, or "
        "timm's notation such as rand-m9-mstd0.5-inc1",
    )
    color_jitter: float = Field(
        0.0,
        ge=0,
        description="largest change of brightness, contrast and saturation, as a share; 0 = off",
    )
    color_jitter_hue: float = Field(
        0.0, ge=0, le=0.5, description="largest turn of the hue, as a share of the circle; 0 = off"
    )
    cutout: int = Field(
        0, ge=0, description="side in pixels of a square set to the mean colour; 0 = off"
    )
    erase_prob: float = Field(
        0.0, ge=0, le=1, description="probability that a random rectangle is erased"
    )
    erase_scale: Annotated[tuple[float, float], BeforeValidator(_shares)] = Field(
        (0.02, 1 / 3), description="smallest and largest share of the area that is erased"
    )
    erase_ratio: Share = Field(
        0.3, description="smallest height over width of that rectangle; the largest is its inverse"
    )
    erase_mode: Literal["constant", "pixel"] = Field(
        "pixel", description="erase to the mean colour, or to normal noise in each pixel"
    )

    @model_validator(mode="after")
    def _no_contradiction(self) -> AugmentConfig:
        if self.crop_padding and self.resized_crop_scale:
            raise ValueError(
                "crop_padding and resized_crop_scale are two kinds of random crop; set one of "
                "them to 0"
            )
        if self.resized_crop_largest < self.resized_crop_scale:
            raise ValueError(
                "resized_crop_scale is the smallest share that a crop keeps, resized_crop_largest "
                "the largest; raise the latter"
            )
        return self


class DataConfig(BaseModel, extra="forbid", frozen=True, strict=True, allow_inf_nan=False):
    """What all data take; :func:`~vitkit.data.kinds.data_class` finds the class of the right kind.

    Attributes:
        kind: what an example is, for tasks that learn from one kind only.
    """

    kind: ClassVar[str] = "images"

    name: str = Field(
        "digits",
        description="digits, cifar10, cifar100, image_folder, unlabelled (pictures in any folders, "
        "for pre-training), synthetic or a registered one; of words: text, parallel",
    )
    root: str = Field("data", description="folder of the data set's files")
    batch_size: int = Field(128, ge=1, description="images of one optimiser step, over all devices")
    eval_batch_size: int | None = Field(256, ge=1, description="images of one evaluation batch")

    @property
    def may_validate(self) -> bool:
        """Whether there may be something to validate on."""
        return True


class ImageDataConfig(DataConfig):
    """Which pictures, how they are split, and how they reach the model."""

    eval_batch_size: int = Field(256, ge=1, description="images of one evaluation batch")
    val_fraction: float = Field(
        0.1, ge=0, lt=1, description="share of the training images kept for validation; 0 = none"
    )
    split_seed: int = Field(0, ge=0, description="seed of the splits; independent of run.seed")
    label_fraction: Share = Field(
        1.0,
        description="share of each class's training images whose labels are used, drawn by "
        "split_seed; the others are left out, but pre-training sees them all",
    )
    download: bool | str = Field(
        False, description="fetch the files if they are absent: true, or the address of a mirror"
    )
    sampling: Literal["shuffle", "balanced"] = Field(
        "shuffle",
        description="training images of an epoch: each once, or as many of every class: the images "
        "of rare ones several times",
    )
    repeats: int = Field(
        1, ge=1, description="times that each image appears in an epoch, each time changed anew"
    )
    img_size: Size | None = Field(
        None,
        description="resize to this side in pixels, or [height, width]; model.img_size by default",
    )
    interpolation: Literal["bicubic", "bilinear"] = Field(
        "bicubic", description="how pictures are resized; with antialiasing"
    )
    crop_pct: Share = Field(
        1.0, description="share of the resized picture that its centre crop keeps"
    )
    crop_mode: Literal["center", "squash"] = Field(
        "center",
        description="pictures of other proportions: cut out their centre, or squash them",
    )
    resident: Literal["auto", "always", "never"] = Field(
        "auto",
        description="hold all images on the training device at the model's size; auto = if they "
        "fit the budget",
    )
    resident_budget_mb: int = Field(
        2048, ge=0, description="largest data set held on the device, in MiB of uint8 pixels"
    )
    num_workers: int = Field(
        2, ge=0, description="processes that decode images; only for data that is not resident"
    )
    prefetch_factor: int = Field(
        2, ge=1, description="training: batches that each of these processes prepares ahead"
    )
    persistent_workers: bool = Field(
        True,
        description="training: keep these processes from one epoch to the next; false starts them "
        "anew each time, and gives their memory back",
    )
    normalize: Literal["auto", "dataset", "imagenet", "half", "none"] = Field(
        "auto",
        description="mean and std: of the training images (auto), ImageNet's, 0.5, or 0 and 1",
    )
    on_bad_image: Literal["stop", "skip", "trust"] = Field(
        "stop",
        description="folders of pictures: stop at unreadable files, or leave them out; trust = do "
        "not look at files that are not held in memory before they are needed",
    )
    max_pixels: int = Field(
        MAX_PIXELS,
        ge=1,
        le=2 * MAX_PIXELS,
        description="pictures in files: refuse larger ones, in pixels",
    )
    synthetic_size: int = Field(1000, ge=1, description="synthetic: number of images of all splits")
    synthetic_classes: int = Field(10, ge=2, description="synthetic: number of classes")
    augment: AugmentConfig = Field(AugmentConfig(), description="random changes in training")

    @model_validator(mode="after")
    def _turns_need_each_image_once(self) -> ImageDataConfig:
        if self.sampling == "balanced" and self.augment.flip == "alternate":
            raise ValueError(
                "augment.flip=alternate mirrors each image in every other epoch, and "
                "sampling=balanced does not show each once in an epoch; set augment.flip=random"
            )
        return self

    @property
    def may_validate(self) -> bool:
        """Whether validation images are set aside, or the source may bring its own."""
        return self.val_fraction > 0 or self.name in OWN_VALIDATION

    def may_hold(self, values: int) -> bool:
        """Whether so many uint8 values may be held in memory."""
        if self.resident == "auto":
            return values <= self.resident_budget_mb * 2**20
        return self.resident == "always"
