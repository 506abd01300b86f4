"""The pictures of a page: which images were kept, what was said of them, and where they lie."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitkit.records import ExampleRecord, PredictionRecord
from vitkit.report.files import Run
from vitkit.report.pictures import Sheet, heat_uri, picture_uri, sheet_of

__all__ = ["Answers", "Gallery", "Scene", "gallery_of"]

CHUNK = 4_000_000
"""Logits whose exponentials are held at a time."""

COARSE = 64
"""Pixels of a picture's longer side up to which they are shown as squares."""


@dataclass(frozen=True)
class Answers:
    """What the model said of every image.

    Attributes:
        predicted: (N,) classes.
        confidence: (N,) probability of that class.
        of_target: (N,) probability of the right class.
    """

    predicted: NDArray[np.int64]
    confidence: NDArray[np.float64]
    of_target: NDArray[np.float64]

    @classmethod
    def of(cls, record: PredictionRecord) -> Answers:
        """By the softmax of the logits; ties go to the lower class."""
        count, classes = record.logits.shape
        predicted = record.logits.argmax(1)
        best, own = np.empty(count), np.empty(count)
        step = max(1, CHUNK // classes)
        for start in range(0, count, step):
            some = slice(start, start + step)
            logits = record.logits[some].astype(np.float64)
            logits -= logits.max(1, keepdims=True)
            total = np.exp(logits).sum(1)
            rows = np.arange(len(logits))
            best[some] = 1.0 / total
            own[some] = np.exp(logits[rows, record.targets[some]]) / total
        return cls(predicted, best, own)


@dataclass(frozen=True)
class Scene:
    """A picture that was looked at closely.

    Attributes:
        number: among the scenes.
        index: its place in the split.
        target, predicted: right and predicted class.
        confidence, of_target: probabilities of these.
        uri: the picture.
        heat: where the prediction comes from, as a picture to lay over; empty if not known.
        height, width: of the picture in pixels.
    """

    number: int
    index: int
    target: int
    predicted: int
    confidence: float
    of_target: float
    uri: str
    heat: str
    height: int
    width: int


@dataclass(frozen=True)
class Gallery:
    """The pictures of a page and what was said of them.

    Attributes:
        record: their pixels and maps.
        predictions: of the split.
    """

    record: ExampleRecord
    predictions: PredictionRecord

    @cached_property
    def answers(self) -> Answers:
        """What the model said of every image of the split."""
        return Answers.of(self.predictions)

    @cached_property
    def sheet(self) -> Sheet | None:
        """All thumbnails in one picture; None where there are none."""
        return sheet_of(self.record.pictures) if len(self.record.pictures) else None

    @cached_property
    def thumbnails(self) -> list[list[Any]]:
        """Of each thumbnail: place in the split, right class, predicted class, its probability."""
        places = self._places(self.record.indices)
        answers = self.answers
        return [
            [
                int(self.record.indices[i]),
                int(self.record.targets[i]),
                int(answers.predicted[place]),
                round(float(answers.confidence[place]), 4),
            ]
            for i, place in enumerate(places)
        ]

    @cached_property
    def scenes(self) -> list[Scene]:
        """Those looked at closely, in the order in which they are kept."""
        record, answers = self.record, self.answers
        places = self._places(record.studied)
        height, width = record.scenes.shape[1:3]
        return [
            Scene(
                number=number,
                index=int(record.studied[number]),
                target=int(self.predictions.targets[place]),
                predicted=int(answers.predicted[place]),
                confidence=float(answers.confidence[place]),
                of_target=float(answers.of_target[place]),
                uri=picture_uri(record.scenes[number]),
                heat=heat_uri(record.relevance[number]) if record.relevance.size else "",
                height=int(height),
                width=int(width),
            )
            for number, place in enumerate(places)
        ]

    @property
    def style(self) -> str:
        """Rules that hold the pixels, each once: windows on the sheet, and the scenes."""
        rules = []
        if self.sheet is not None:
            sheet = self.sheet
            rules.append(
                f".thumb{{background-image:url({sheet.uri});--columns:{sheet.columns};"
                f"--rows:{sheet.rows};{_shape(sheet.width, sheet.height)}}}"
            )
        for scene in self.scenes[:1]:
            rules.append(f".scene{{{_shape(scene.width, scene.height)}}}")
        rules += [f".scene-{s.number}{{background-image:url({s.uri})}}" for s in self.scenes]
        return "".join(rules)

    def _places(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows of the predictions, which are ordered by place."""
        return np.searchsorted(self.predictions.indices, indices).astype(np.int64)


def gallery_of(run: Run) -> Gallery | None:
    """The pictures of a run; None where there are none."""
    if run.examples is None or run.predictions is None:
        return None
    return Gallery(run.examples, run.predictions)


def _shape(width: int, height: int) -> str:
    coarse = max(width, height) <= COARSE
    return f"aspect-ratio:{width}/{height};image-rendering:{'pixelated' if coarse else 'auto'}"
