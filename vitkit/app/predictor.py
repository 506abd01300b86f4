"""Predict the classes of pictures with a trained checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from vitkit.app.build import build_from_checkpoint
from vitkit.app.devices import best_device
from vitkit.app.runs import find_checkpoint
from vitkit.data.preprocess import Picture, Preprocessing
from vitkit.errors import DataError
from vitkit.weights import read_checkpoint

__all__ = ["Prediction", "Predictor", "load", "picture_files"]

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}


@dataclass(frozen=True)
class Prediction:
    """The best classes of one picture.

    Attributes:
        source: the file, or the picture's number.
        top: (class name, probability in [0, 1]), best first.
    """

    source: str
    top: tuple[tuple[str, float], ...]

    @property
    def label(self) -> str:
        """The most likely class."""
        return self.top[0][0]


@dataclass(frozen=True)
class Predictor:
    """A trained model with its class names and preprocessing.

    Attributes:
        model: in evaluation mode.
        class_names: by index.
        preprocessing: from a picture to the model's input.
        device: where the model is.
    """

    model: nn.Module
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    device: torch.device

    def predict(
        self,
        pictures: Iterable[str | Path | Picture] | str | Path | Picture,
        *,
        top: int = 5,
        batch_size: int = 64,
    ) -> list[Prediction]:
        """The ``top`` classes of each picture.

        Args:
            pictures: one or several; each a file, a folder, a PIL image, a uint8 array (height,
                width[, channels]) or a uint8 tensor ([channels, ]height, width). An array or tensor
                with one axis more in front is several pictures.
            top: how many classes.
            batch_size: pictures at a time.

        Raises:
            DataError: a file is missing or is no readable picture.
        """
        sources = list(_expanded(_several(pictures)))
        out: list[Prediction] = []
        numbered = list(enumerate(sources))
        for start in range(0, len(numbered), batch_size):
            part = numbered[start : start + batch_size]
            images = torch.stack([self._image(source) for _, source in part])
            values, indices = self.probabilities(images).topk(min(top, len(self.class_names)))
            for (number, source), p, i in zip(part, values.tolist(), indices.tolist(), strict=True):
                name = str(source) if isinstance(source, str | Path) else f"image {number}"
                best = tuple((self.class_names[k], v) for k, v in zip(i, p, strict=True))
                out.append(Prediction(name, best))
        return out

    def probabilities(self, images: Tensor) -> Tensor:
        """uint8 images (B, channels, height, width) -> float32 probabilities (B, classes), CPU."""
        with torch.inference_mode():
            logits = self.model(self.preprocessing(images.to(self.device)))
            return logits.float().softmax(dim=-1).cpu()

    def _image(self, source: str | Path | Picture) -> Tensor:
        if not isinstance(source, str | Path):
            return self.preprocessing.prepare_image(source)
        try:
            with Image.open(source) as picture:
                return self.preprocessing.prepare_image(picture)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise DataError(f"cannot read the picture {source}: {error}") from error


def load(source: str | Path, *, device: str = "auto") -> Predictor:
    """A trained model, ready to predict, from a run folder or checkpoint.

    Args:
        source: a run folder or checkpoint file.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
    """
    checkpoint = read_checkpoint(find_checkpoint(source))
    model, preprocessing, info = build_from_checkpoint(checkpoint)
    place = best_device(device)
    return Predictor(model.to(place), info.class_names, preprocessing, place)


def picture_files(path: Path) -> list[Path]:
    """A picture itself, or all pictures under a folder, sorted.

    Raises:
        DataError: nothing there.
    """
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
        if not found:
            raise DataError(f"no pictures in {path}; looked for {', '.join(sorted(SUFFIXES))}")
        return found
    if not path.exists():
        raise DataError(f"no such picture or folder: {path}")
    return [path]


def _several(
    pictures: Iterable[str | Path | Picture] | str | Path | Picture,
) -> Iterable[str | Path | Picture]:
    """One source becomes a list of it."""
    if isinstance(pictures, Tensor | np.ndarray):
        return list(pictures) if pictures.ndim > 3 else [pictures]
    return [pictures] if isinstance(pictures, str | Path | Image.Image) else pictures


def _expanded(pictures: Iterable[str | Path | Picture]) -> Iterator[str | Path | Picture]:
    for picture in pictures:
        if isinstance(picture, str | Path):
            yield from picture_files(Path(picture))
        else:
            yield picture
