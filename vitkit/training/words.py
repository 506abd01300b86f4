"""What the tasks on words share: a loss a token, and sums over whole splits."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vitkit.evaluation.text import TokenSums
from vitkit.training.base import CHECKPOINT_KEY, TrainingTask
from vitkit.training.losses import token_loss

__all__ = ["WordTask"]


class WordTask(TrainingTask):
    """Trains and validates a model that foretells words; a task says how it reads a batch.

    A step's loss is the mean over the tokens of its micro-batch; of several micro-batches, or
    processes, each counts the same. What is reported of a split is its sum over its tokens.

    Args:
        model: arrives built.
        label_smoothing: share of each target spread evenly over all tokens, in training alone.
        characters_per_token: of the validation split, for bits a character.
        shared: arguments of :class:`TrainingTask`.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        label_smoothing: float = 0.0,
        characters_per_token: float = 1.0,
        **shared: Any,
    ) -> None:
        super().__init__(model, **shared)
        self.label_smoothing = label_smoothing
        self.characters_per_token = characters_per_token
        self.train_sums: TokenSums | None = None
        self.val_sums: TokenSums | None = None

    @abstractmethod
    def foretell(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Logits (B, N, vocab_size) of a batch and their targets, int64 (B, N), -100 for none."""

    def on_train_epoch_start(self) -> None:
        """Fresh sums; an epoch resumed in its middle reports the part since."""
        super().on_train_epoch_start()
        self.train_sums = TokenSums(self.device)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Loss of one micro-batch."""
        logits, targets = self.foretell(batch)
        loss = token_loss(logits, targets, label_smoothing=self.label_smoothing)
        self.watch(loss)
        self.log("train/loss", loss, on_step=True, on_epoch=False)
        self.log("lr", self.rate(), on_step=True, on_epoch=False)
        if self.train_sums is None:
            self.train_sums = TokenSums(self.device)
        count = (targets >= 0).sum()
        self.train_sums.add(loss.detach() * count, count)
        return loss

    def on_train_epoch_end(self) -> None:
        """Log the epoch's mean loss, as it was trained on."""
        self.stop_if_not_finite()
        if self.train_sums is not None:
            self.log("train/loss_epoch", self._reduced(self.train_sums).metrics()["loss"])

    def on_validation_epoch_start(self) -> None:
        """Fresh sums."""
        self.val_sums = TokenSums(self.device)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Add one batch to the sums."""
        assert self.val_sums is not None
        self.val_sums.update(*self.foretell(batch))

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of the whole split, each token counted once over all processes."""
        assert self.val_sums is not None
        metrics = self._reduced(self.val_sums).metrics(self.characters_per_token)
        for name, value in metrics.items():
            self.log(f"val/{name}", value)

    def epoch_summary(self, metrics: Mapping[str, float]) -> list[str]:
        """Losses and bits a character."""
        sums, said = self.train_sums, []
        if sums is not None and sums.count:
            said.append(f"train loss {sums.metrics()['loss']:.4f}")
        said += super().epoch_summary(metrics)
        bits = metrics.get("val/bits_per_char")
        return said if bits is None else [*said, f"val bits/char {bits:.4f}"]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the running sums of this epoch too."""
        super().on_save_checkpoint(checkpoint)
        sums = self.train_sums
        checkpoint[CHECKPOINT_KEY]["train_sums"] = None if sums is None else sums.sums.tolist()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the running sums of an epoch that was left in its middle."""
        saved = checkpoint.get(CHECKPOINT_KEY, {}).get("train_sums")
        if saved is not None:
            self.train_sums = TokenSums(self.device)
            self.train_sums.sums = torch.tensor(saved, dtype=self.train_sums.sums.dtype)

    def _reduced(self, sums: TokenSums) -> TokenSums:
        if self.trainer.world_size == 1:
            return sums
        total = TokenSums(self.device)
        total.sums = self.trainer.strategy.reduce(sums.sums.clone(), reduce_op="sum")
        return total
