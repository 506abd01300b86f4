"""What is looked into: a checkpoint of ours, weights of any layout, or any model of timm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vitkit.app.devices import best_device
from vitkit.app.predictor import Predictor, predictor_of, predictor_of_checkpoint
from vitkit.app.pretrained import load_classifier
from vitkit.app.sources import (
    OfTimm,
    Opened,
    Source,
    Weights,
    model_settings,
    opened_source,
    require_read,
    short_name,
)
from vitkit.app.subjects import Subject, folder_elsewhere, folder_of, open_subject
from vitkit.config import given_keys, load_config
from vitkit.weights import Checkpoint

__all__ = ["Inspected", "opened_to_inspect"]

READ = ("model.", "data.", "run.root", "trainer.accelerator")
"""How the settings begin that are read of weights."""


@dataclass(frozen=True)
class Inspected:
    """A model to look into.

    Attributes:
        predictor: the model with its class names and preprocessing.
        path: file of its weights.
        weights_name: ``trained`` or ``averaged``.
        name: of the model.
        data: name of the data that its classes are of; empty where weights do not say it.
        folder: where records about it go.
        source: the checkpoint or the weights; or the model with its data, where these were read.
    """

    predictor: Predictor
    path: Path
    weights_name: str
    name: str
    data: str
    folder: Path
    source: Checkpoint | Weights | Subject

    def subject(self, overrides: Sequence[str], *, progress: bool) -> Subject:
        """The model with its data, read now if they have not been.

        Args:
            overrides: ``"data.key=value"`` strings.
            progress: show a bar on a terminal.
        """
        if isinstance(self.source, Subject):
            return self.source
        return open_subject(self.source, overrides, progress=progress)


def opened_to_inspect(
    source: Source | Opened,
    overrides: Sequence[str] = (),
    *,
    with_data: bool = False,
    progress: bool = True,
) -> Inspected:
    """The model that a source stands for.

    Args:
        source: see :data:`~vitkit.app.sources.Source`; or what was opened of one.
        overrides: ``"section.key=value"`` strings: the data of weights, which a model of timm
            cannot do without, for its classes are theirs; ``model.*`` that weights do not say.
        with_data: the data will be looked at.
        progress: show a bar on a terminal while data are read.

    Raises:
        VitkitError: nothing there, damaged, or weights that do not fit the data's classes.
    """
    opened = source if isinstance(source, Opened) else opened_source(source)
    if isinstance(opened, Checkpoint):
        return _of_checkpoint(opened)
    named = any(key.startswith("data.") for key in given_keys(overrides))
    if isinstance(opened, OfTimm) or with_data or named:
        return _of_subject(open_subject(opened, overrides, progress=progress))
    return _of_weights(opened, overrides)


def _of_checkpoint(checkpoint: Checkpoint) -> Inspected:
    return Inspected(
        predictor=predictor_of_checkpoint(checkpoint).on(best_device("auto")),
        path=checkpoint.path,
        weights_name=checkpoint.weights_name,
        name=str(checkpoint.model["name"]),
        data=str(checkpoint.data["name"]),
        folder=folder_of(checkpoint.path),
        source=checkpoint,
    )


def _of_weights(weights: Weights, overrides: Sequence[str]) -> Inspected:
    """Without data: classes are called as the weights call them."""
    require_read(overrides, READ)
    ours, others = model_settings(overrides)
    config = load_config(base={}, overrides=others)
    loaded = load_classifier(weights.place, **ours)
    return Inspected(
        predictor=predictor_of(loaded).on(best_device(config.trainer.accelerator)),
        path=Path(weights.place),
        weights_name="trained",
        name=str(loaded.section["name"]),
        data="",
        folder=folder_elsewhere(config, short_name(weights.place)),
        source=weights,
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
            subject.notes,
        ),
        path=subject.path,
        weights_name=subject.weights_name,
        name=str(subject.facts["model"]),
        data=info.name,
        folder=subject.folder,
        source=subject,
    )
