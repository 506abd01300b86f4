"""From a stored picture to what a model expects; travels with the model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from vitkit.errors import DataError

__all__ = [
    "Box",
    "Choose",
    "Fit",
    "Picture",
    "Preprocessing",
    "as_image",
    "picture_to_tensor",
    "resize_images",
    "to_channels",
]

Picture = Image.Image | np.ndarray[Any, Any] | Tensor
"""A picture in memory: of PIL, a uint8 array (height, width[, channels]) or a uint8 tensor
([channels, ]height, width)."""

Box = tuple[int, int, int, int]
"""Top, left, height and width of a part of a picture, in pixels."""

Choose = Callable[[tuple[int, int]], Box]
"""(height, width) of a picture -> a part of it."""

THINNEST = 16
"""Times longer than what is wanted of it that a picture is resized whole."""


@lru_cache(maxsize=64)
def _scale_and_shift(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    """What a pixel is multiplied by and what is added then, float32 (channels, 1, 1) each.

    Kept, for sending them anew with each batch would wait for all that is queued on the device.
    """
    with torch.inference_mode(False):  # or they could be used in no training
        scale = torch.tensor([1.0 / (255.0 * s) for s in std], device=device)
        shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=device)
    return scale[:, None, None], shift[:, None, None]


NOT_BYTES = (
    "pictures must be uint8 with values from 0 to 255, given {}; drop ToTensor/normalisation"
)


@dataclass(frozen=True)
class Fit:
    """How pictures of any size become images of one.

    Attributes:
        size: (height, width) in pixels.
        interpolation: ``bicubic`` or ``bilinear``, antialiased.
        crop_pct: share of the resized picture that the centre crop keeps.
        crop_mode: ``center`` keeps a picture's proportions and cuts off what is over; ``squash``
            does not keep them, as some published weights want it.
    """

    size: tuple[int, int]
    interpolation: str = "bicubic"
    crop_pct: float = 1.0
    crop_mode: str = "center"

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 (..., channels, height, width): the shorter side is resized to :attr:`size` over
        ``crop_pct``, then the centre is cut out.
        """
        if self.crop_mode != "squash":
            images = _not_too_thin(images, self.size[0] / self.size[1])
        larger = self.resized(int(images.shape[-2]), int(images.shape[-1]))
        batch = images if images.ndim > 3 else images[None]
        fitted = tv.center_crop(resize_images(batch, larger, self.interpolation), list(self.size))
        return fitted if images.ndim > 3 else fitted[0]

    def resized(self, rows: int, columns: int) -> tuple[int, int]:
        """(height, width) of a picture before its centre is cut out, in whole pixels: what is over
        is dropped, as timm and torchvision do.

        Args:
            rows, columns: height and width of the picture.
        """
        height, width = (_whole_pixels(side / self.crop_pct) for side in self.size)
        if self.crop_mode == "squash":
            return height, width
        if height * columns >= width * rows:
            return height, height * columns // rows
        return width * rows // columns, width

    def cropped(self, image: Tensor, choose: Choose) -> Tensor:
        """A part of an image, brought to :attr:`size` with or without its proportions.

        Args:
            image: uint8 (channels, height, width).
            choose: of which size of picture -> the part. Where pictures are squashed it is a part
                of the squashed one, cut out of the image before that costs pixels.
        """
        rows, columns = int(image.shape[-2]), int(image.shape[-1])
        seen = self.size if self.crop_mode == "squash" else (rows, columns)
        top, left, height, width = choose(seen)
        y, x = _span(top, height, seen[0], rows), _span(left, width, seen[1], columns)
        part = image[:, y, x]
        return resize_images(part.contiguous()[None], self.size, self.interpolation)[0]


@dataclass(frozen=True)
class Preprocessing:
    """Size, channels and statistics that a model was trained with.

    Attributes:
        img_size: (height, width) in pixels.
        mean, std: per channel, of pixels scaled to [0, 1].
        in_chans: 1 (grey) or 3 (RGB).
        interpolation, crop_pct, crop_mode: as of :class:`Fit`.
    """

    img_size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    in_chans: int = 3
    interpolation: str = "bicubic"
    crop_pct: float = 1.0
    crop_mode: str = "center"

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 (B, channels, height, width) -> float32, (pixel / 255 - mean) / std.

        Raises:
            DataError: images of another type, which may be normalised already.
        """
        if images.dtype != torch.uint8:
            raise DataError(NOT_BYTES.format(images.dtype))
        return self.scaled(images)

    def scaled(self, images: Tensor) -> Tensor:
        """The same of images (B, channels, height, width) of any type, from 0 to 255."""
        scale, shift = _scale_and_shift(self.mean, self.std, images.device)
        return torch.addcmul(shift, images.to(torch.float32), scale)

    def prepare_image(self, picture: Picture) -> Tensor:
        """A picture of any size and kind -> uint8 (channels, height, width); as EXIF turns it."""
        return self.fit(as_image(picture, self.in_chans))

    @property
    def fit(self) -> Fit:
        """How a picture is brought to the model's size."""
        return Fit(self.img_size, self.interpolation, self.crop_pct, self.crop_mode)

    def to_dict(self) -> dict[str, Any]:
        """Plain values: lists in the place of tuples."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preprocessing:
        """The inverse of :meth:`to_dict`."""
        plain: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        return cls(**plain)


def as_image(picture: Any, in_chans: int | None = None) -> Tensor:
    """A :data:`Picture` -> uint8 (channels, height, width).

    Args:
        picture: the picture.
        in_chans: channels wanted; its own if None.

    Raises:
        DataError: it is no such picture.
    """
    if isinstance(picture, Image.Image):
        own = 1 if picture.mode in ("1", "L") else 3
        return picture_to_tensor(picture, in_chans or own)
    if not isinstance(picture, Tensor | np.ndarray):
        raise DataError(
            f"given a {type(picture).__name__}; a picture is one of PIL, or a uint8 array or tensor"
        )
    if str(picture.dtype).removeprefix("torch.") != "uint8":
        raise DataError(NOT_BYTES.format(picture.dtype))
    tensor = picture if isinstance(picture, Tensor) else torch.from_numpy(np.array(picture))
    shape = tuple(tensor.shape)
    if tensor.ndim not in (2, 3) or not tensor.numel():
        raise DataError(f"a picture has 2 or 3 axes and a size, given the shape {shape}")
    if tensor.ndim == 2:
        tensor = tensor[None]
    elif isinstance(picture, np.ndarray):
        if shape[0] in (1, 3) and shape[2] > 4:
            raise DataError(
                f"an array is (height, width, channels), given the shape {shape}; transpose it, or "
                "give a tensor, which is (channels, height, width)"
            )
        tensor = tensor.permute(2, 0, 1)
    if in_chans is None or tensor.shape[0] == in_chans:
        return tensor.contiguous()
    if tensor.shape[0] not in (1, 3) or in_chans not in (1, 3):
        raise DataError(f"{tensor.shape[0]} channels given, {in_chans} are needed")
    return to_channels(tensor[None], in_chans)[0]


def picture_to_tensor(picture: Image.Image, in_chans: int) -> Tensor:
    """Any PIL picture -> uint8 (channels, height, width), rotated as its EXIF says.

    16-bit greys are scaled to 8 bits, palettes and CMYK converted, transparency laid on black.
    """
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I") or picture.mode == "F":
        values = np.asarray(picture, dtype=np.float64)
        peak = 65535.0 if picture.mode.startswith("I") else max(float(values.max()), 1e-12)
        scaled = (values / peak * 255.0).round().clip(0, 255).astype(np.uint8)
        picture = Image.fromarray(scaled)
    if picture.mode in ("RGBA", "LA", "PA", "P"):
        picture = picture.convert("RGBA")
        black = Image.new("RGBA", picture.size, (0, 0, 0, 255))
        picture = Image.alpha_composite(black, picture)
    array = np.array(picture.convert("L" if in_chans == 1 else "RGB"))
    tensor = torch.from_numpy(array)
    return tensor[None] if in_chans == 1 else tensor.permute(2, 0, 1).contiguous()


def _span(start: int, length: int, seen: int, own: int) -> slice:
    """Which of a side's ``own`` pixels some of the ``seen`` ones cover."""
    return slice(start * own // seen, -(-(start + length) * own // seen))


def _whole_pixels(side: float) -> int:
    """Rounded down, but not for the noise of a division: 224 / (224 / 248) is 248."""
    return math.floor(side + 1e-6)


def _not_too_thin(image: Tensor, aspect: float) -> Tensor:
    """Without the far ends of a strip, which the centre crop cuts off: resized whole, it would fill
    the memory.

    Args:
        image: (..., channels, height, width).
        aspect: height over width of what is wanted of it.
    """
    rows, columns = image.shape[-2:]
    longest = (math.ceil(THINNEST * aspect * columns), math.ceil(THINNEST * rows / aspect))
    if rows <= longest[0] and columns <= longest[1]:
        return image
    return tv.center_crop(image, [min(rows, longest[0]), min(columns, longest[1])])


def resize_images(images: Tensor, size: tuple[int, int], interpolation: str = "bicubic") -> Tensor:
    """uint8 (N, channels, height, width) resized with antialiasing, in chunks of bounded memory."""
    if tuple(images.shape[-2:]) == tuple(size):
        return images
    if not len(images):
        return images.new_empty(0, images.shape[1], *size)
    mode = InterpolationMode(interpolation)
    parts = _chunks(images, images.shape[1] * size[0] * size[1])
    return torch.cat([tv.resize(part, list(size), mode, antialias=True) for part in parts])


def to_channels(images: Tensor, in_chans: int) -> Tensor:
    """uint8 (N, channels, height, width) with 1 or 3 channels -> with ``in_chans``.

    Raises:
        DataError: other channels are wanted than 1, 3 or the images' own.
    """
    if images.shape[1] == in_chans:
        return images
    if in_chans not in (1, 3):
        raise DataError(
            f"images of {images.shape[1]} channels for a model of {in_chans}; allowed: "
            "model.in_chans=1 (grey) or 3 (colour)"
        )
    if in_chans == 1:
        return torch.cat([tv.rgb_to_grayscale(part) for part in _chunks(images)])
    return images.expand(-1, in_chans, -1, -1).contiguous()


def _chunks(images: Tensor, becomes: int = 1, values: int = 1 << 24) -> Iterator[Tensor]:
    """Some images at a time.

    Args:
        images: (N, ...).
        becomes: values that each is made to, if they are more than it has.
        values: most of a chunk, before and after.
    """
    count = max(1, values // max(1, becomes, images[0].numel()))
    yield from images.split(count)
