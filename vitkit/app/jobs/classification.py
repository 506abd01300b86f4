"""Classification of pictures, from the config to the test accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from vitkit.app.build import Built
from vitkit.app.evaluator import evaluate_checkpoint
from vitkit.app.jobs.images import ImageJob
from vitkit.app.teacher import build_teacher
from vitkit.config import RunConfig
from vitkit.data.splits import ImageData
from vitkit.errors import ConfigError, DataError, UnknownNameError, first_line
from vitkit.nn import evaluating
from vitkit.records import Plain, Table
from vitkit.training.budget import StepPlan
from vitkit.training.losses import balanced_class_weights
from vitkit.training.task import ClassificationTask, stage_size
from vitkit.training.task_config import ClassificationConfig

__all__ = ["ClassificationJob"]


class ClassificationJob(ImageJob):
    """Trains any classifier of pictures; see :class:`~vitkit.app.jobs.base.Job`."""

    def build(self, config: RunConfig, data: ImageData | None, *, progress: bool) -> Built:
        """Model and data.

        Raises:
            DataError: the data have fewer than two classes.
            UnknownNameError: a weight for a class that they do not have.
        """
        built = super().build(config, data, progress=progress)
        if built.info.num_classes < 2:
            raise DataError(
                f"{built.info.name} has one class only; task.name=classification needs two or more."
                " Pre-train on it with task.name=mae or task.name=dino"
            )
        task = config.task
        assert isinstance(task, ClassificationConfig)
        _require_stages(built, task.progressive_sizes)
        if not isinstance(task.class_weights, str):
            names = built.info.class_names
            unknown = sorted(set(task.class_weights).difference(names))
            if unknown:
                raise UnknownNameError("class", unknown[0], names, "(task.class_weights)")
        return built

    def task(self, plan: StepPlan) -> ClassificationTask:
        """The Lightning task."""
        config, built = self.config, self.built
        task = config.task
        assert isinstance(task, ClassificationConfig)
        return ClassificationTask(
            built.model,
            num_classes=built.info.num_classes,
            task=task,
            prepare_train=self.prepare_train(),
            prepare_eval=built.preprocessing,
            class_weights=self._class_weights(),
            teacher=build_teacher(task.distill, built),
            **self.shared(plan, **self.image_payload()),
        )

    def lines(self) -> list[str]:
        """As of every task on pictures, and what its classes weigh."""
        lines, weights = super().lines(), self._class_weights()
        if weights is not None:
            present = weights[weights > 0]
            lines.append(
                f"loss   classes weighed {float(present.min()):.2g} to {float(present.max()):.2g}"
            )
        return lines

    def _class_weights(self) -> Tensor | None:
        """By ``task.class_weights``."""
        task, info = self.config.task, self.built.info
        assert isinstance(task, ClassificationConfig)
        if isinstance(task.class_weights, str):
            balanced = task.class_weights == "balanced"
            return balanced_class_weights(info.class_counts) if balanced else None
        return torch.tensor([task.class_weights.get(name, 1.0) for name in info.class_names])

    def tables(self) -> dict[str, Table]:
        """How many images of each class it learned from."""
        info = self.built.info
        return {
            "training_classes": {
                "class": list(info.class_names),
                "images": list(info.class_counts),
            }
        }

    def test(self, checkpoint: Path, *, show: bool) -> tuple[dict[str, float], dict[str, Plain]]:
        """Loss and accuracy on the test images; nothing where there are none."""
        data = self.built.data
        if data.test is None:
            return {}, {}
        outcome = evaluate_checkpoint(checkpoint, data=data, progress=show)
        self.tested = outcome.tested
        facts: dict[str, Plain] = {"weights": outcome.weights_name}
        if self.built.info.num_skipped:
            facts["images_skipped"] = self.built.info.num_skipped
        return outcome.metrics, facts


def _require_stages(built: Built, stages: Sequence[tuple[float, int]]) -> None:
    """See that the model reads the images of each stage, rather now than in the middle.

    Raises:
        ConfigError: it does not; the message says why.
    """
    height, width = built.preprocessing.img_size
    for _, side in stages:
        size = stage_size(height, width, side)
        if size[0] > height or size[1] > width:
            raise ConfigError(
                f"task.progressive_sizes: given {side}, but the images are {height} x {width}; "
                "stages before the full size have smaller ones"
            )
        try:
            with evaluating(built.model), torch.no_grad():
                built.model(torch.zeros(1, built.info.in_chans, *size))
        except (ValueError, RuntimeError) as error:
            raise ConfigError(
                f"task.progressive_sizes: {built.section['name']} cannot read images of "
                f"{size[0]} x {size[1]} ({first_line(error)})"
            ) from error
