"""Predict the classes of pictures with a trained model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from vitkit.app.build import build_from_checkpoint, require_classes
from vitkit.app.devices import best_device, memory_advice
from vitkit.app.pretrained import LoadedModel, load_classifier, published_names
from vitkit.app.sources import Weights, opened_weights
from vitkit.data.config import MAX_PIXELS
from vitkit.data.folder import READ_ERRORS, SUFFIXES, opened, pictures_in, what_is_wrong
from vitkit.data.preprocess import Picture, Preprocessing
from vitkit.errors import ConfigError, DataError
from vitkit.evaluation.scores import require_finite
from vitkit.weights import Checkpoint

__all__ = [
    "Prediction",
    "Predictor",
    "load",
    "picture_files",
    "predictor_of",
    "predictor_of_checkpoint",
    "read_picture",
]


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
        max_pixels: larger picture files are refused.
        notes: what a person should know about how the weights were read, a line each.
    """

    model: nn.Module
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    device: torch.device
    max_pixels: int = MAX_PIXELS
    notes: tuple[str, ...] = ()

    def with_limit(self, max_pixels: int) -> Predictor:
        """The same, for picture files of at most so many pixels.

        Raises:
            ConfigError: more than is ever opened.
        """
        if not 1 <= max_pixels <= 2 * MAX_PIXELS:
            raise ConfigError(f"max_pixels: given {max_pixels:,}, allowed: 1 to {2 * MAX_PIXELS:,}")
        return replace(self, max_pixels=max_pixels)

    def on(self, device: torch.device) -> Predictor:
        """The same, its model on a device."""
        return replace(self, model=self.model.to(device), device=device)

    def predict(
        self,
        pictures: Iterable[str | Path | Picture] | str | Path | Picture,
        *,
        top: int = 5,
        batch_size: int = 64,
        on_error: Callable[[DataError], None] | None = None,
    ) -> list[Prediction]:
        """The ``top`` classes of each picture.

        Args:
            pictures: one or several; each a file, a folder, a PIL image, a uint8 array (height,
                width[, channels]) or a uint8 tensor ([channels, ]height, width). An array or tensor
                with one axis more in front is several pictures.
            top: how many classes.
            batch_size: pictures at a time.
            on_error: told of each source that is missing or no readable picture, which is then left
                out.

        Raises:
            ConfigError: no class at all, or no picture at a time.
            DataError: there is such a source and no ``on_error``, or a folder without pictures.
            EvaluationError: logits that are not finite, or a batch that the device has no room for.
        """
        for name, given in (("top", top), ("batch_size", batch_size)):
            if given < 1:
                raise ConfigError(f"{name}: given {given}, allowed: >= 1")
        out: list[Prediction] = []
        fewer = f"{batch_size} pictures at a time are too many; give fewer, or a lower batch_size"
        for part in self._batches(_several(pictures), batch_size, on_error):
            images = torch.stack([image for _, image in part])
            with memory_advice(fewer):
                shares = self.probabilities(images)
            values, indices = shares.topk(min(top, len(self.class_names)))
            for (name, _), p, i in zip(part, values.tolist(), indices.tolist(), strict=True):
                best = tuple((self.class_names[k], v) for k, v in zip(i, p, strict=True))
                out.append(Prediction(name, best))
        return out

    def _batches(
        self,
        sources: Iterable[str | Path | Picture],
        size: int,
        on_error: Callable[[DataError], None] | None,
    ) -> Iterator[list[tuple[str, Tensor]]]:
        """Names and images of all sources that can be read, ``size`` at a time."""
        part: list[tuple[str, Tensor]] = []
        for name, picture in _expanded(sources):
            try:
                part.append((name, self._image(picture)))
            except DataError as error:
                if on_error is None:
                    raise
                on_error(error)
            if len(part) == size:
                yield part
                part = []
        if part:
            yield part

    def probabilities(self, images: Tensor) -> Tensor:
        """uint8 images (B, channels, height, width) -> float32 probabilities (B, classes), CPU.

        Raises:
            EvaluationError: logits that are not finite.
        """
        with torch.inference_mode():
            logits = self.model(self.preprocessing(images.to(self.device))).float().cpu()
            require_finite(logits, "of a batch")
            return logits.softmax(dim=-1)

    def _image(self, source: str | Path | Picture) -> Tensor:
        if not isinstance(source, str | Path):
            return self.preprocessing.prepare_image(source)
        return read_picture(source, self.preprocessing, self.max_pixels)


def read_picture(
    source: str | Path, preprocessing: Preprocessing, max_pixels: int = MAX_PIXELS
) -> Tensor:
    """A picture file as a model takes it: uint8 (channels, height, width).

    Raises:
        DataError: it is missing, no readable picture, or of more than ``max_pixels``.
    """
    if not Path(source).exists():
        raise DataError(f"no such picture or folder: {source}")
    try:
        with opened(source, max_pixels) as picture:
            return preprocessing.prepare_image(picture)
    except READ_ERRORS as error:
        raise DataError(f"cannot read the picture {source}: {what_is_wrong(error)}") from error


def load(source: str | Path, *, class_names: Sequence[str] = (), device: str = "auto") -> Predictor:
    """A trained model, ready to predict.

    Args:
        source: a run folder or checkpoint, or weights of another library: a file, a folder with
            ``config.json``, ``hf-hub:<owner>/<model>``, ``timm/<model>``, ``torchvision/<model>``.
        class_names: by index, in place of those that the source states; without either a class is
            called as ImageNet's in one of its published classifiers, else by its index.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Raises:
        VitkitError: nothing there, damaged, without classes, or other names than classes.
    """
    found = opened_weights(source)
    if isinstance(found, Weights):
        predictor = predictor_of(load_classifier(found.place), named=bool(class_names))
    else:
        predictor = predictor_of_checkpoint(found)
    if class_names and len(class_names) != len(predictor.class_names):
        raise DataError(
            f"{len(class_names)} class names for {source}, which tells "
            f"{len(predictor.class_names)} classes apart; give a name for each, in its order"
        )
    names = tuple(class_names) or predictor.class_names
    return replace(predictor, class_names=names).on(best_device(device))


def predictor_of_checkpoint(checkpoint: Checkpoint) -> Predictor:
    """A checkpoint of ours, on the CPU.

    Raises:
        WeightsError: a model without classes, or of words.
    """
    require_classes(checkpoint.model, checkpoint.path)
    model, preprocessing, info = build_from_checkpoint(checkpoint)
    limit = int(checkpoint.config["data"].get("max_pixels", MAX_PIXELS))
    return Predictor(model, info.class_names, preprocessing, torch.device("cpu"), limit)


def predictor_of(loaded: LoadedModel, *, named: bool = False) -> Predictor:
    """Weights with a classifier, on the CPU; classes without names are called as ImageNet's where
    they are these, and else by their index.

    Args:
        loaded: see :func:`~vitkit.app.pretrained.load_classifier`.
        named: the classes will be given other names, so theirs are not looked for.
    """
    count, notes = int(loaded.section["num_classes"]), list(loaded.report.notes)
    names = loaded.class_names
    if not (named or names) and (names := published_names(loaded)):
        what = loaded.report.published_as or loaded.report.format
        notes.append(f"classes are called as ImageNet's, as usual for {what}")
    return Predictor(
        loaded.model,
        names or tuple(f"class {index}" for index in range(count)),
        loaded.preprocessing,
        torch.device("cpu"),
        notes=tuple(notes),
    )


def picture_files(path: Path) -> list[Path]:
    """All pictures under a folder, sorted.

    Raises:
        DataError: none there.
    """
    found = pictures_in(path)
    if not found:
        raise DataError(f"no pictures in {path}; looked for {', '.join(sorted(SUFFIXES))}")
    return found


def _several(
    pictures: Iterable[str | Path | Picture] | str | Path | Picture,
) -> Iterable[str | Path | Picture]:
    """One source becomes a list of it."""
    if isinstance(pictures, Tensor | np.ndarray):
        return list(pictures) if pictures.ndim > 3 else [pictures]
    return [pictures] if isinstance(pictures, str | Path | Image.Image) else pictures


def _expanded(
    sources: Iterable[str | Path | Picture],
) -> Iterator[tuple[str, str | Path | Picture]]:
    """Name and picture; a folder becomes its files."""
    count = 0
    for source in sources:
        if not isinstance(source, str | Path):
            yield f"image {count}", source
            count += 1
        elif Path(source).is_dir():
            files = picture_files(Path(source))
            yield from ((str(path), path) for path in files)
            count += len(files)
        else:
            yield str(source), source
            count += 1
