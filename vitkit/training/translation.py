"""The translator's task: what Lightning calls, batch of sentence pairs by batch."""

from __future__ import annotations

from torch import Tensor

from vitkit.training.words import WordTask

__all__ = ["TranslationTask"]

Batch = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


class TranslationTask(WordTask):
    """Trains a model to predict each token of a translation by its source and those before it.

    The model: (source, target, source lengths) -> logits (B, N, vocab_size) of the token behind
    each of the target. A batch: (source, source lengths, inputs, targets, positions). Arguments as
    of :class:`WordTask`.
    """

    def forward(
        self, source: Tensor, target: Tensor | None = None, lengths: Tensor | None = None
    ) -> Tensor:
        """Source (B, M) and target (B, N) -> logits (B, N, vocab_size).

        Without a target the source stands for it too: a pass of the usual cost, which can be timed.
        """
        logits: Tensor = self.model(source, source if target is None else target, lengths)
        return logits

    def predict_tokens(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """See :meth:`WordTask.predict_tokens`."""
        source, lengths, inputs, targets, _ = batch
        return self(source, inputs, lengths), targets
