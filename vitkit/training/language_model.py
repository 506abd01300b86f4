"""The language model's task: what Lightning calls, window by window."""

from __future__ import annotations

from torch import Tensor

from vitkit.training.words import WordTask

__all__ = ["LanguageModelTask"]

Batch = tuple[Tensor, Tensor, Tensor]


class LanguageModelTask(WordTask):
    """Trains a model to predict each token of a text by those before it.

    The model: ids int64 (B, N) -> logits (B, N, vocab_size) of the token behind each. A batch:
    (inputs, targets, positions). Arguments as of :class:`WordTask`.
    """

    def forward(self, ids: Tensor) -> Tensor:
        """Ids (B, N) -> logits (B, N, vocab_size)."""
        logits: Tensor = self.model(ids)
        return logits

    def predict_tokens(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """See :meth:`WordTask.predict_tokens`."""
        inputs, targets, _ = batch
        return self(inputs), targets
