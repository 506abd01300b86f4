"""What is looked into: a checkpoint of ours, or a model of timm with a file of weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vitkit.app.build import build_from_checkpoint, require_classes
from vitkit.app.devices import best_device
from vitkit.app.predictor import Predictor
from vitkit.app.runs import find_checkpoint
from vitkit.app.subjects import (
    Source,
    Subject,
    folder_of,
    is_of_timm,
    open_subject,
    subject_of_checkpoint,
)
from vitkit.data.config import MAX_PIXELS
from vitkit.weights import Checkpoint, read_checkpoint

__all__ = ["Inspected", "opened_to_inspect"]


@dataclass(frozen=True)
class Inspected:
    """A model to look into.

    Attributes:
        predictor: the model with its class names and preprocessing.
        path: file of its weights.
        weights_name: ``trained`` or ``averaged``.
        name: of the model.
        data: name of the data that its classes are of.
        folder: where records about it go.
        source: the checkpoint, or the model of timm with its data.
    """

    predictor: Predictor
    path: Path
    weights_name: str
    name: str
    data: str
    folder: Path
    source: Checkpoint | Subject

    def subject(self, overrides: Sequence[str], *, progress: bool) -> Subject:
        """The model with its data, read now if they have not been.

        Args:
            overrides: ``"data.key=value"`` strings.
            progress: show a bar on a terminal.
        """
        if isinstance(self.source, Subject):
            return self.source
        return subject_of_checkpoint(self.source, overrides, progress=progress)


def opened_to_inspect(
    source: Source, overrides: Sequence[str] = (), *, progress: bool = True
) -> Inspected:
    """The model that a source stands for.

    Args:
        source: a run folder or checkpoint; ``("timm:<name>", <file of weights>)``.
        overrides: ``"data.key=value"`` strings: of timm's models, whose classes are the data's.
        progress: show a bar on a terminal while data are read.

    Raises:
        VitkitError: nothing there, damaged, or weights that do not fit the data's classes.
    """
    if isinstance(source, tuple) or is_of_timm(source):
        return _of_subject(open_subject(source, overrides, progress=progress))
    checkpoint = read_checkpoint(find_checkpoint(source))
    require_classes(checkpoint.model, checkpoint.path)
    model, preprocessing, info = build_from_checkpoint(checkpoint)
    device = best_device("auto")
    limit = int(checkpoint.config["data"].get("max_pixels", MAX_PIXELS))
    return Inspected(
        predictor=Predictor(model.to(device), info.class_names, preprocessing, device, limit),
        path=checkpoint.path,
        weights_name=checkpoint.weights_name,
        name=str(checkpoint.model["name"]),
        data=info.name,
        folder=folder_of(checkpoint.path),
        source=checkpoint,
    )


def _of_subject(subject: Subject) -> Inspected:
    info = subject.data.info
    return Inspected(
        predictor=Predictor(
            subject.model,
            tuple(info.class_names),
            subject.preprocessing,
            subject.device,
            subject.pictures.max_pixels,
        ),
        path=subject.path,
        weights_name=subject.weights_name,
        name=str(subject.facts["model"]),
        data=info.name,
        folder=subject.folder,
        source=subject,
    )
