"""What the tasks on words share: a loss a token, and sums over whole splits."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from vitkit.evaluation.text import TokenSums
from vitkit.training.losses import token_loss
from vitkit.training.summed import SummedTask

__all__ = ["WordTask"]


class WordTask(SummedTask[TokenSums]):
    """Trains and validates a model that predicts tokens; a task says how it reads a batch.

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

    @abstractmethod
    def predict_tokens(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Logits (B, N, vocab_size) of a batch and their targets, int64 (B, N), -100 for none."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Loss of one micro-batch."""
        logits, targets = self.predict_tokens(batch)
        loss = token_loss(logits, targets, label_smoothing=self.label_smoothing)
        self.log_step(loss)
        count = (targets >= 0).sum()
        self.learned().add(loss.detach() * count, count)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Add one batch to the sums."""
        self.validated().update(*self.predict_tokens(batch))

    def new_sums(self) -> TokenSums:
        """Of tokens and their loss."""
        return TokenSums(self.device)

    def val_metrics(self, sums: TokenSums) -> dict[str, float]:
        """Loss, perplexity and bits a character of the whole split."""
        return sums.metrics(self.characters_per_token)

    def epoch_summary(self, metrics: Mapping[str, float]) -> list[str]:
        """Losses and bits a character."""
        said, bits = super().epoch_summary(metrics), metrics.get("val/bits_per_char")
        return said if bits is None else [*said, f"val bits/char {bits:.4f}"]
