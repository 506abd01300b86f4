"""What every task shares: optimiser, schedule, seeds, checkpoints, and a watch over the loss."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from vitkit.errors import TrainingError
from vitkit.training.budget import StepPlan
from vitkit.training.config import OptimizerConfig, ScheduleConfig
from vitkit.training.finetune import freeze_batch_norm_statistics
from vitkit.training.optimizers import build_optimizer
from vitkit.training.schedules import learning_rate_factor

__all__ = ["CHECKPOINT_KEY", "TrainingTask", "step_seed"]

CHECKPOINT_KEY = "vitkit"
"""Where our part of a Lightning checkpoint lies."""

CALMER = "try a lower optimizer.lr, a longer schedule.warmup, or trainer.gradient_clip=1"

WATCH_EVERY = 20
"""Steps between looks, on an accelerator or in several processes, at whether a loss was not finite:
each look waits."""

NEVER = torch.iinfo(torch.int64).max
"""Later than any step."""


class TrainingTask(LightningModule):
    """A Lightning module that trains a model; a task adds the steps.

    Args:
        model: arrives built.
        optimizer: name and settings.
        schedule: of the learning rate.
        plan: how long the training is.
        seed: of everything random in a training step.
        fused: see :func:`build_optimizer`.
        payload: plain values to put into each checkpoint under :data:`CHECKPOINT_KEY`.
    """

    _ddp_params_and_buffers_to_ignore = ("bad_step",)
    """Each process has its own, which torch would overwrite by the first one's before each step."""

    def __init__(
        self,
        model: nn.Module,
        *,
        optimizer: OptimizerConfig,
        schedule: ScheduleConfig,
        plan: StepPlan,
        seed: int = 0,
        fused: bool = True,
        payload: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.optimizer_config, self.schedule = optimizer, schedule
        self.plan = plan
        self.seed, self.fused = seed, fused
        self.payload = dict(payload or {})
        self.bad_step: Tensor
        # 0 while every loss was finite, else the first step (from 1) with one that was not. It
        # stays on the device, so that an accelerator need not wait for it at each step.
        self.register_buffer("bad_step", torch.zeros((), dtype=torch.int64), persistent=False)

    def on_train_start(self) -> None:
        """Frozen parts stay as they are, statistics and all: also where a run goes on in the middle
        of an epoch, whose start Lightning does not tell.
        """
        freeze_batch_norm_statistics(self.model)
        self._set_rates()

    def on_train_epoch_start(self) -> None:
        """Frozen parts stay as they are: a validation may have changed the mode of every part."""
        freeze_batch_norm_statistics(self.model)

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Leave the batch as it is: our loaders yield each tensor on the device that reads it."""
        return batch

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed whatever is random in this step by where the step is, not by what came before."""
        seed = step_seed(self.seed, self.current_epoch, batch_idx, self.global_rank)
        random.seed(seed)  # this and the next for models of a person's own
        np.random.seed(seed % 2**32)
        _seed_torch(seed, self.device.type)

    def configure_optimizers(self) -> Any:
        """One optimiser; the learning rate is a function of how far the training is."""
        optimizer = build_optimizer(
            self.model, self.optimizer_config, fused=self.fused, dtype=self._products()
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

    def _products(self) -> torch.dtype:
        """Number format of Muon's products: bfloat16 in a training in bfloat16, and wherever a CUDA
        device multiplies it, as the method's authors always have it; else float32.
        """
        fast = self.device.type == "cuda" and torch.cuda.is_bf16_supported(
            including_emulation=False
        )
        return torch.bfloat16 if fast or self.trainer.precision == "bf16-mixed" else torch.float32

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
        """Add what rebuilds and resumes the run: plain values only.

        Raises:
            TrainingError: a loss or a weight is not finite; the file is not written.
        """
        self._require_finite()
        own = checkpoint.setdefault(CHECKPOINT_KEY, {})
        own.update(self.payload)
        own["epoch"], own["step"] = self.current_epoch, self.global_step

    def epoch_summary(self, metrics: Mapping[str, float]) -> list[str]:
        """What the line of an epoch says, at its end.

        Args:
            metrics: of the validation, and of earlier epochs' training.
        """
        return [f"val loss {metrics['val/loss']:.4f}"] if "val/loss" in metrics else []

    def stop_if_not_finite(self) -> None:
        """Stop if any loss so far was not finite. Several processes ask together, and all raise the
        same: one that left alone would take its message with it.

        Raises:
            TrainingError: one was not.
        """
        step = self._first_bad_step()
        if step:
            epoch = (step - 1) // self.plan.steps_per_epoch + 1
            raise TrainingError(
                f"the loss became NaN or infinite at step {step} (epoch {epoch}); {CALMER}"
            )

    def _require_finite(self) -> None:
        """Raise :class:`TrainingError` if a loss or a weight is NaN or infinite, before the last
        good checkpoint is replaced: a finite loss may have a gradient that is not.
        """
        self.stop_if_not_finite()
        each = [p.detach().isfinite().all() for p in self.model.parameters()]
        finite = bool(torch.stack(each).all())
        if not self.trainer.strategy.reduce_boolean_decision(finite, all=True):
            raise TrainingError(
                f"weights became NaN or infinite by step {self.global_step}; {CALMER}"
            )

    def rate(self) -> float:
        """Learning rate of the first parameter group."""
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)
        return float(optimizer.param_groups[0]["lr"])

    def watch(self, loss: Tensor) -> None:
        """Stop the training if a loss is not finite: at once in a single process on a CPU, soon on
        an accelerator or in several processes.

        Raises:
            TrainingError: it is not.
        """
        finite = torch.isfinite(loss.detach())
        if self.device.type == "cpu" and self.trainer.world_size == 1:
            if not finite:
                self.bad_step.fill_(self.global_step + 1)
                self.stop_if_not_finite()
            return
        fresh = (self.bad_step == 0) & ~finite
        self.bad_step = torch.where(fresh, self.global_step + 1, self.bad_step)
        if (self.global_step + 1) % WATCH_EVERY == 0:
            self.stop_if_not_finite()

    def _first_bad_step(self) -> int:
        """The first step, from 1, with a loss that was not finite, over all processes; 0: none."""
        if self.trainer.world_size == 1:
            return int(self.bad_step.item())
        own = torch.where(self.bad_step == 0, NEVER, self.bad_step)
        first: Any = self.trainer.strategy.reduce(own, reduce_op="min")
        return 0 if int(first) == NEVER else int(first)

    def _set_rates(self) -> None:
        """The first learning rates are those of the plan as it is now, which may be longer than the
        one that the checkpoint's rates were computed from.
        """
        for config in self.trainer.lr_scheduler_configs:
            scheduler = config.scheduler
            assert isinstance(scheduler, torch.optim.lr_scheduler.LambdaLR)
            pairs = zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
            rates = [rate * factor(scheduler.last_epoch) for rate, factor in pairs]
            for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate
            scheduler._last_lr = rates


def _seed_torch(seed: int, device: str) -> None:
    """As ``torch.manual_seed``, which also asks for every other kind of accelerator, with a stack
    trace for each that has not been used.
    """
    if device not in ("cpu", "cuda", "mps"):
        torch.manual_seed(seed)
        return
    torch.default_generator.manual_seed(seed)
    if device == "cuda":
        for generator in torch.cuda.default_generators:
            generator.manual_seed(seed)
    elif device == "mps":
        torch.mps.manual_seed(seed)


def step_seed(seed: int, epoch: int, micro_batch: int, rank: int) -> int:
    """A 63-bit seed from where a training step is."""
    place = f"{seed}/{epoch}/{micro_batch}/{rank}".encode()
    return int.from_bytes(hashlib.blake2b(place, digest_size=8).digest(), "big") >> 1
