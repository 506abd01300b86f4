"""What a training asks of its kind of task, from the config to the results."""

from __future__ import annotations

from abc import ABC, abstractmethod
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

from pytorch_lightning import Trainer
from torch import nn

from vitkit.app.reporter import Tested
from vitkit.config import RunConfig, to_plain
from vitkit.evaluation.cost import count_parameters
from vitkit.records import Plain, Table
from vitkit.training.base import TrainingTask
from vitkit.training.budget import StepPlan
from vitkit.weights import FORMAT_VERSION, Checkpoint

__all__ = ["JOBS", "Job", "job_class"]

JOBS = {
    "classification": "vitkit.app.jobs.classification.ClassificationJob",
    "mae": "vitkit.app.jobs.mae.MaskedAutoencoderJob",
    "dino": "vitkit.app.jobs.dino.DinoJob",
    "language_model": "vitkit.app.jobs.language_model.LanguageModelJob",
    "translation": "vitkit.app.jobs.translation.TranslationJob",
}
"""Name of a task -> its class, imported when it is asked for."""


class Job(ABC):
    """One training's model and data, and what its kind of task makes of them.

    Args:
        config: resolved.
        data: data of a person's own in place of the config's.
        resumed: the checkpoint that the training goes on from: its weights come later, but what
            else it knows (statistics, tokenisers) holds.
        progress: show bars while data are read.

    Attributes:
        config: as given.
        model: on the CPU.
        section: the model section that rebuilds it, complete.
        tested: after :meth:`test`, the model and what it said of each image, where it classifies
            images; for the report.
    """

    unit: ClassVar[str] = "images"
    """What rates are counted in."""

    shapes_vary: ClassVar[bool] = False
    """Whether a batch may have any shape: then graphs are compiled for any."""

    model: nn.Module
    section: dict[str, Any]
    tested: Tested | None = None

    def __init__(
        self,
        config: RunConfig,
        data: Any = None,
        *,
        resumed: Checkpoint | None = None,
        progress: bool = False,
    ) -> None:
        self.config = config

    @property
    def num_parameters(self) -> int:
        """Numbers in all parameters of the model."""
        return count_parameters(self.model)

    @property
    @abstractmethod
    def steps_per_epoch(self) -> int:
        """Optimiser steps of one epoch."""

    @property
    def units_per_step(self) -> float:
        """Images, or what :attr:`unit` says, of one optimiser step over all processes."""
        return self.config.data.batch_size

    @property
    def data_name(self) -> str:
        """Of the data, for results; data that are handed in have a name of their own."""
        return self.config.data.name

    @property
    @abstractmethod
    def validates(self) -> bool:
        """Whether there is anything to validate on."""

    @property
    @abstractmethod
    def num_validated(self) -> int:
        """Examples, as :meth:`examples_in` counts them, of a validation."""

    @property
    @abstractmethod
    def num_tested(self) -> int:
        """Examples that pass the model in :meth:`test`, as often as they pass."""

    def examples_in(self, batch: Any) -> int:
        """How many examples a batch holds: its rows."""
        return len(batch[0])

    @abstractmethod
    def loaders(self, trainer: Trainer) -> tuple[Any, Any]:
        """(training loader of this process, with ``load_state_dict``; validation loader or None).

        Raises:
            DataError: an epoch would have no step.
        """

    @abstractmethod
    def task(self, plan: StepPlan) -> TrainingTask:
        """The Lightning task; what it needs of the data is handed in as functions and values."""

    @abstractmethod
    def lines(self) -> list[str]:
        """What to say of data and weights before the training, a line each."""

    @abstractmethod
    def test(self, checkpoint: Path, *, show: bool) -> tuple[dict[str, float], dict[str, Plain]]:
        """(metrics, facts) of a finished training's checkpoint, for ``results.json``.

        Args:
            checkpoint: whose weights to test.
            show: a bar on a terminal.
        """

    def tables(self) -> dict[str, Table]:
        """What has rows, for ``results.json``."""
        return {}

    def shared(self, plan: StepPlan, **payload: Any) -> dict[str, Any]:
        """The arguments of every :class:`TrainingTask`.

        Args:
            plan: how long the training is.
            payload: what checkpoints hold of this kind of task, plain values.
        """
        config = self.config
        return {
            "optimizer": config.optimizer,
            "schedule": config.schedule,
            "plan": plan,
            "seed": config.run.seed,
            "fused": config.trainer.precision != "16-mixed",
            "payload": {
                "format_version": FORMAT_VERSION,
                "config": to_plain(config),
                "model": self.section,
                **payload,
            },
        }


def job_class(config: RunConfig) -> type[Job]:
    """The class of a config's kind of task."""
    module, _, name = JOBS[config.task.name].rpartition(".")
    found: type[Job] = getattr(import_module(module), name)
    return found


def place_of(trainer: Trainer) -> dict[str, Any]:
    """What a loader must know of this process."""
    return {
        "rank": trainer.global_rank,
        "world_size": trainer.world_size,
        "device": trainer.strategy.root_device,
    }
