"""A task whose metrics are sums: saved in a checkpoint, and added over processes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from vitkit.evaluation.sums import Sums
from vitkit.training.base import CHECKPOINT_KEY, TrainingTask

__all__ = ["SummedTask"]

S = TypeVar("S", bound=Sums)


class SummedTask(TrainingTask, Generic[S]):
    """Logs ``train/loss_epoch`` and the validation metrics; a task says what it sums, and how.

    A task adds the batches of an epoch to :meth:`learned`, those of a validation to
    :meth:`validated`. Args as of :class:`TrainingTask`.
    """

    _train_sums: S | None = None
    _val_sums: S | None = None
    _step: Mapping[str, Tensor | float] = MappingProxyType({})
    """What is logged of the micro-batch that was learned from last."""

    @abstractmethod
    def new_sums(self) -> S:
        """Empty sums on the task's device."""

    def train_metrics(self, sums: S) -> dict[str, float]:
        """What is logged of an epoch under ``train/``, by its sums over all processes."""
        return {"loss_epoch": sums.metrics()["loss"]}

    def val_metrics(self, sums: S) -> dict[str, float]:
        """What is logged of a validation under ``val/``, by its sums over all processes."""
        return sums.metrics()

    def learned(self) -> S:
        """The sums of this epoch's training."""
        if self._train_sums is None:
            self._train_sums = self.new_sums()
        elif self._train_sums.sums.device != self.device:
            # What a checkpoint held was read before the model went to its device.
            self._train_sums = self.new_sums().with_sums(self._train_sums.sums)
        return self._train_sums

    def validated(self) -> S:
        """The sums of this validation."""
        assert self._val_sums is not None
        return self._val_sums

    def log_step(self, loss: Tensor, more: Mapping[str, Tensor] = MappingProxyType({})) -> None:
        """Watch a step's loss; :meth:`on_train_batch_end` logs it.

        Args:
            loss: scalar.
            more: what else to log of the step, by name: scalars.
        """
        self.watch(loss)
        others = {name: value.detach() for name, value in more.items()}
        self._step = {"train/loss": loss.detach(), "lr": self.rate(), **others}

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Log the step's loss and learning rate, if Lightning will write a row of it: logging takes
        time, and is thrown away otherwise. The callbacks, which may end the training with this very
        step, have been here before.
        """
        trainer: Any = self.trainer
        every = trainer.log_every_n_steps
        if every and (trainer.should_stop or trainer.global_step % every == 0):
            for name, value in self._step.items():
                self.log(name, _logged(value), on_step=True, on_epoch=False)

    def on_train_epoch_start(self) -> None:
        """Fresh sums."""
        super().on_train_epoch_start()
        self._train_sums = self.new_sums()

    def on_train_epoch_end(self) -> None:
        """Log the epoch, as it was trained on."""
        self.stop_if_not_finite()
        if self._train_sums is not None:
            for name, value in self.train_metrics(self._reduced(self.learned())).items():
                self.log(f"train/{name}", _logged(value))

    def on_validation_epoch_start(self) -> None:
        """Fresh sums."""
        self._val_sums = self.new_sums()

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of the whole split, each example counted once over all processes."""
        for name, value in self.val_metrics(self._reduced(self.validated())).items():
            self.log(f"val/{name}", _logged(value))

    def epoch_summary(self, metrics: Mapping[str, float]) -> list[str]:
        """Losses. Of several processes the training's is one's share."""
        said = super().epoch_summary(metrics)
        if self._train_sums is None or not self._train_sums.count:
            return said
        return [f"train loss {self._train_sums.metrics()['loss']:.4f}", *said]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the sums of this epoch."""
        super().on_save_checkpoint(checkpoint)
        sums = None if self._train_sums is None else self._reduced(self._train_sums).sums.tolist()
        checkpoint[CHECKPOINT_KEY]["train_sums"] = sums

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the sums of an epoch that was left in its middle: one process for all of them."""
        saved = checkpoint.get(CHECKPOINT_KEY, {}).get("train_sums")
        if saved is not None and self.global_rank == 0:
            fresh = self.new_sums()
            self._train_sums = fresh.with_sums(fresh.sums.new_tensor(saved))

    def _reduced(self, sums: S) -> S:
        if self.trainer.world_size == 1:
            return sums
        total: Any = self.trainer.strategy.reduce(sums.sums.clone(), reduce_op="sum")
        return sums.with_sums(total)


def _logged(value: Tensor | float) -> Tensor:
    """What Lightning is given: a tensor on the CPU for a number, which it would send to the device,
    and wait for.
    """
    return value if isinstance(value, Tensor) else torch.tensor(float(value))
