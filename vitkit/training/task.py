"""The classification task: what Lightning calls, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitkit.evaluation.classification import ClassificationSums
from vitkit.training.distillation import distillation_loss
from vitkit.training.losses import classification_loss
from vitkit.training.mixing import mix_batch
from vitkit.training.summed import SummedTask
from vitkit.training.task_config import ClassificationConfig

__all__ = ["ClassificationTask", "stage_size"]

Batch = tuple[Tensor, Tensor, Tensor]


class ClassificationTask(SummedTask[ClassificationSums]):
    """Trains and validates any classifier, pictures or words, as a Lightning module.

    The model arrives built; what turns a stored batch into the model's input arrives as two
    functions, so the task knows neither data sets nor modalities.

    Args:
        model: input -> logits (B, classes).
        num_classes: width of the logits.
        task: loss and mixing.
        prepare_train: (images, positions, epoch) -> the model's input.
        prepare_eval: images -> the model's input.
        class_weights: float (classes,), or None.
        teacher: the model's input -> a teacher's logits (B, classes), or None.
        shared: arguments of :class:`TrainingTask`.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        num_classes: int,
        task: ClassificationConfig,
        prepare_train: Callable[[Tensor, Tensor, int], Tensor],
        prepare_eval: Callable[[Tensor], Tensor],
        class_weights: Tensor | None = None,
        teacher: Callable[[Tensor], Tensor] | None = None,
        **shared: Any,
    ) -> None:
        super().__init__(model, **shared)
        self.num_classes = num_classes
        self.task = task
        self.prepare_train, self.prepare_eval = prepare_train, prepare_eval
        self.teacher = teacher
        two_headed: Any = model
        if teacher is not None and hasattr(model, "set_distilled_training"):
            two_headed.set_distilled_training()
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", class_weights, persistent=False)

    @property
    def mixes(self) -> bool:
        """Whether images are mixed, which makes the training accuracy one of mixed images."""
        return self.task.mixup > 0.0 or self.task.cutmix > 0.0

    def forward(self, images: Tensor) -> Tensor:
        """Stored images (B, channels, height, width) uint8 -> logits (B, classes)."""
        logits: Tensor = self.model(self.prepare_eval(images))
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of one micro-batch."""
        images, targets, positions = batch
        inputs = self.prepare_train(images, positions, self.current_epoch)
        goal = targets
        if self.mixes:
            inputs, goal = mix_batch(
                inputs,
                targets,
                num_classes=self.num_classes,
                mixup=self.task.mixup,
                cutmix=self.task.cutmix,
                prob=self.task.mix_prob,
                switch_prob=self.task.mix_switch_prob,
                mode=self.task.mix_mode,
            )
        logits, loss = self._learn(inputs, goal)
        self.log_step(loss)
        self.learned().update(logits, targets, mean_loss=loss)
        return loss

    def _learn(self, inputs: Tensor, goal: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and loss: the labels' part and, with a teacher, the teacher's."""
        output = self.model(self._resized(inputs))
        logits, student = output if isinstance(output, tuple) else (output, output)
        loss = classification_loss(
            logits,
            goal,
            label_smoothing=self.task.label_smoothing,
            class_weights=self.class_weights,
        )
        if self.teacher is None:
            return logits, loss
        distill = self.task.distill
        taught = distillation_loss(
            student,
            self.teacher(inputs),
            hard=distill.kind == "hard",
            temperature=distill.temperature,
        )
        return logits, torch.lerp(loss, taught, distill.weight)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add one batch to the sums."""
        images, targets, _ = batch
        self.validated().update(self(images), targets)

    def new_sums(self) -> ClassificationSums:
        """Of loss and accuracy."""
        return ClassificationSums(self.device)

    def train_metrics(self, sums: ClassificationSums) -> dict[str, float]:
        """The mean loss, as it was trained on, and the accuracy."""
        name = "acc_mixed" if self.mixes else "acc"
        return super().train_metrics(sums) | {name: sums.metrics()["acc"]}

    def epoch_summary(self, metrics: Mapping[str, float]) -> list[str]:
        """Losses, and the validation accuracy."""
        said = super().epoch_summary(metrics)
        return said + ([f"val acc {metrics['val/acc']:.2%}"] if "val/acc" in metrics else [])

    def _resized(self, images: Tensor) -> Tensor:
        """Smaller images early in the training, where ``progressive_sizes`` asks for them."""
        done = self.plan.progress(self.global_step)
        sides = [side for until, side in self.task.progressive_sizes if done < until]
        if not sides:
            return images
        size = stage_size(images.shape[-2], images.shape[-1], sides[0])
        return F.interpolate(images, size, mode="bilinear", antialias=True)


def stage_size(height: int, width: int, side: int) -> tuple[int, int]:
    """(height, width) of images whose longer side becomes ``side``."""
    scale = side / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))
