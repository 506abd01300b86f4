"""The classification task: what Lightning calls, batch by batch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from vitkit.errors import TrainingError
from vitkit.evaluation import ClassificationSums
from vitkit.training.budget import StepPlan
from vitkit.training.config import OptimizerConfig, ScheduleConfig, TaskConfig
from vitkit.training.distillation import distillation_loss
from vitkit.training.losses import classification_loss
from vitkit.training.mixing import mix_batch
from vitkit.training.optimizers import build_optimizer
from vitkit.training.schedules import learning_rate_factor

__all__ = ["CHECKPOINT_KEY", "ClassificationTask", "step_seed"]

CHECKPOINT_KEY = "vitkit"
"""Where our part of a Lightning checkpoint lies."""

Batch = tuple[Tensor, Tensor, Tensor]

WATCH_EVERY = 20
"""Steps between looks, on an accelerator, at whether a loss was not finite: each look waits."""


class ClassificationTask(LightningModule):
    """Trains and validates any classifier, pictures or words, as a Lightning module.

    The model arrives built; what turns a stored batch into the model's input arrives as two
    functions, so the task knows neither data sets nor modalities.

    Args:
        model: input -> logits (B, classes).
        num_classes: width of the logits.
        task: loss and mixing.
        optimizer: name and settings.
        schedule: of the learning rate.
        plan: how long the training is.
        prepare_train: (images, positions, epoch) -> the model's input.
        prepare_eval: images -> the model's input.
        class_weights: float (classes,), or None.
        teacher: the model's input -> a teacher's logits (B, classes), or None.
        seed: of everything random in a training step.
        fused: see :func:`build_optimizer`.
        payload: plain values to put into each checkpoint under :data:`CHECKPOINT_KEY`.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        num_classes: int,
        task: TaskConfig,
        optimizer: OptimizerConfig,
        schedule: ScheduleConfig,
        plan: StepPlan,
        prepare_train: Callable[[Tensor, Tensor, int], Tensor],
        prepare_eval: Callable[[Tensor], Tensor],
        class_weights: Tensor | None = None,
        teacher: Callable[[Tensor], Tensor] | None = None,
        seed: int = 0,
        fused: bool = True,
        payload: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.num_classes = num_classes
        self.task, self.optimizer_config, self.schedule = task, optimizer, schedule
        self.plan = plan
        self.prepare_train, self.prepare_eval = prepare_train, prepare_eval
        self.teacher = teacher
        two_headed: Any = model
        if teacher is not None and hasattr(model, "set_distilled_training"):
            two_headed.set_distilled_training()
        self.seed, self.fused = seed, fused
        self.payload = dict(payload or {})
        self.class_weights: Tensor | None
        self.bad_step: Tensor
        self.register_buffer("class_weights", class_weights, persistent=False)
        # 0 while every loss was finite, else the first step (from 1) with one that was not. It
        # stays on the device, so that an accelerator need not wait for it at each step.
        self.register_buffer("bad_step", torch.zeros((), dtype=torch.int64), persistent=False)
        self.train_sums: ClassificationSums | None = None
        self.val_sums: ClassificationSums | None = None

    @property
    def mixes(self) -> bool:
        """Whether images are mixed, which makes the training accuracy one of mixed images."""
        return self.task.mixup > 0.0 or self.task.cutmix > 0.0

    def forward(self, images: Tensor) -> Tensor:
        """Stored images (B, channels, height, width) uint8 -> logits (B, classes)."""
        logits: Tensor = self.model(self.prepare_eval(images))
        return logits

    def on_train_epoch_start(self) -> None:
        """Fresh sums; an epoch resumed in its middle reports the part since."""
        self.train_sums = ClassificationSums(self.device)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed whatever is random in this step by where the step is, not by what came before."""
        torch.manual_seed(step_seed(self.seed, self.current_epoch, batch_idx, self.global_rank))

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
                label_smoothing=self.task.label_smoothing,
            )
        logits, loss = self._learn(inputs, goal)
        self._watch(loss)
        self.log("train/loss", loss, on_step=True, on_epoch=False)
        self.log("lr", self._rate(), on_step=True, on_epoch=False)
        if self.train_sums is None:
            self.train_sums = ClassificationSums(self.device)
        self.train_sums.update(logits, targets, mean_loss=loss)
        return loss

    def _learn(self, inputs: Tensor, goal: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and loss: the labels' part and, with a teacher, the teacher's."""
        output = self.model(self._resized(inputs))
        logits, student = output if isinstance(output, tuple) else (output, output)
        loss = classification_loss(
            logits,
            goal,
            label_smoothing=0.0 if self.mixes else self.task.label_smoothing,
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

    def on_train_epoch_end(self) -> None:
        """Log the epoch's mean loss, as it was trained on, and its accuracy."""
        self.stop_if_not_finite()
        if self.train_sums is None:
            return
        metrics = self._reduced(self.train_sums).metrics()
        name = "train/acc_mixed" if self.mixes else "train/acc"
        self.log(name, metrics["acc"])
        self.log("train/loss_epoch", metrics["loss"])

    def on_validation_epoch_start(self) -> None:
        """Fresh sums."""
        self.val_sums = ClassificationSums(self.device)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add one batch to the sums."""
        images, targets, _ = batch
        assert self.val_sums is not None
        self.val_sums.update(self(images), targets)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of the whole split, each image counted once over all processes."""
        assert self.val_sums is not None
        for name, value in self._reduced(self.val_sums).metrics().items():
            self.log(f"val/{name}", value)

    def configure_optimizers(self) -> Any:
        """One optimiser; the learning rate is a function of how far the training is."""
        dtype = torch.bfloat16 if self.trainer.precision == "bf16-mixed" else torch.float32
        optimizer = build_optimizer(
            self.model, self.optimizer_config, fused=self.fused, dtype=dtype
        )
        schedule = self.schedule
        floor = schedule.min_lr / self.optimizer_config.lr

        def factor(step: int) -> float:
            return learning_rate_factor(
                self.plan.progress(step),
                kind=schedule.name,
                warmup=schedule.warmup,
                decay=schedule.decay,
                floor=floor,
            )

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by the norm of all gradients; Lightning's own refuses fused optimisers."""
        if gradient_clip_val:
            nn.utils.clip_grad_norm_(self.model.parameters(), gradient_clip_val)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what rebuilds and resumes the run: plain values only."""
        own = checkpoint.setdefault(CHECKPOINT_KEY, {})
        own.update(self.payload)
        own["epoch"], own["step"] = self.current_epoch, self.global_step
        sums = self.train_sums
        own["train_sums"] = None if sums is None else sums.sums.tolist()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the running sums of an epoch that was left in its middle."""
        saved = checkpoint.get(CHECKPOINT_KEY, {}).get("train_sums")
        if saved is not None:
            self.train_sums = ClassificationSums(self.device)
            self.train_sums.merge(torch.tensor(saved, dtype=self.train_sums.sums.dtype))

    def stop_if_not_finite(self) -> None:
        """Raise :class:`TrainingError` if any loss so far was not finite."""
        step = int(self.bad_step.item())
        if step:
            raise TrainingError(
                f"the loss became NaN or infinite at step {step}; the weights of the last "
                "checkpoint are still good. Try a lower optimizer.lr, a longer "
                "schedule.warmup, or trainer.gradient_clip=1"
            )

    def _resized(self, images: Tensor) -> Tensor:
        """Smaller images early in the training, where ``progressive_sizes`` asks for them."""
        done = self.plan.progress(self.global_step)
        sides = [side for until, side in self.task.progressive_sizes if done < until]
        if not sides:
            return images
        height, width = images.shape[-2:]
        scale = sides[0] / max(height, width)
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        return F.interpolate(images, size, mode="bilinear", antialias=True)

    def _rate(self) -> float:
        """Learning rate of the first parameter group."""
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)
        return float(optimizer.param_groups[0]["lr"])

    def _watch(self, loss: Tensor) -> None:
        finite = torch.isfinite(loss.detach())
        if self.device.type == "cpu":
            if not finite:
                self.bad_step.fill_(self.global_step + 1)
                self.stop_if_not_finite()
            return
        fresh = (self.bad_step == 0) & ~finite
        self.bad_step = torch.where(fresh, self.global_step + 1, self.bad_step)
        if (self.global_step + 1) % WATCH_EVERY == 0:
            self.stop_if_not_finite()

    def _reduced(self, sums: ClassificationSums) -> ClassificationSums:
        if self.trainer.world_size > 1:
            total = ClassificationSums(self.device)
            reduced = self.trainer.strategy.reduce(sums.sums.clone(), reduce_op="sum")
            total.merge(reduced, sums.num_classes)
            return total
        return sums


def step_seed(seed: int, epoch: int, micro_batch: int, rank: int) -> int:
    """A 63-bit seed from where a training step is."""
    place = f"{seed}/{epoch}/{micro_batch}/{rank}".encode()
    return int.from_bytes(hashlib.blake2b(place, digest_size=8).digest(), "big") >> 1
