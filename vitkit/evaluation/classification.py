"""Accuracy and loss of a classifier, as ratios of sums over a whole split."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitkit.errors import EvaluationError
from vitkit.evaluation.sums import NO_IMAGE, Sums

__all__ = ["ClassificationSums", "Predictions", "predict_all"]

HELD = 1 << 22
"""Logits, images x classes, that are worked on at a time: 32 MiB in float64."""


class ClassificationSums(Sums):
    """Images seen, their loss, and how often the right class came first, or among the first five.

    Args:
        device: where the batches live.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        super().__init__(4, device)
        self.num_classes = 0

    def update(self, logits: Tensor, targets: Tensor, mean_loss: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            logits: (B, classes).
            targets: int64 (B,).
            mean_loss: of the batch, where it is another one than the cross-entropy of the targets.
        """
        self.num_classes = logits.shape[1]
        logits = logits.detach()
        count = self.sums.new_full((), len(targets))
        if mean_loss is None:
            loss = F.cross_entropy(logits.to(self.sums.dtype), targets, reduction="sum")
        else:
            loss = mean_loss.detach().to(self.sums.dtype) * count
        ranks = rank_of_target(logits, targets)
        self.sums += torch.stack([count, loss, (ranks < 1).sum(), (ranks < 5).sum()])

    def metrics(self) -> dict[str, float]:
        """``loss`` (nats an image), ``acc`` and ``acc5`` as fractions in [0, 1].

        Up to five classes there is no ``acc5``: it would be 1 whatever the model says.

        Raises:
            EvaluationError: no image was seen.
        """
        count, loss, top1, top5 = self.sums.tolist()
        if count == 0:
            raise EvaluationError(NO_IMAGE)
        metrics = {"loss": loss / count, "acc": top1 / count}
        return metrics if 0 < self.num_classes <= 5 else metrics | {"acc5": top5 / count}


def rank_of_target(logits: Tensor, targets: Tensor) -> Tensor:
    """How many classes come before the right one, int64 (B,).

    Ties go to the lower class index, as in ``argmax``; a NaN anywhere puts the target last.
    """
    own = logits.gather(1, targets[:, None])
    lower = torch.arange(logits.shape[1], device=logits.device) < targets[:, None]
    ahead = (logits > own) | ((logits == own) & lower)
    ranks = ahead.sum(dim=1)
    return torch.where(logits.isnan().any(dim=1), logits.shape[1], ranks)


@dataclass(frozen=True)
class Predictions:
    """What a model said about every image of a split.

    Attributes:
        logits: float32 (N, classes), on the CPU, ordered by ``indices``.
        targets: int64 (N,).
        indices: int64 (N,), ascending: the images' places in the split.
    """

    logits: Tensor
    targets: Tensor
    indices: Tensor

    def metrics(self) -> dict[str, float]:
        """As :meth:`ClassificationSums.metrics`."""
        sums = ClassificationSums()
        rows = max(1, HELD // max(1, self.logits.shape[1]))
        for logits, targets in zip(self.logits.split(rows), self.targets.split(rows), strict=True):
            sums.update(logits, targets)
        return sums.metrics()


def predict_all(
    predict: Callable[[Tensor], Tensor],
    batches: Iterable[tuple[Tensor, Tensor, Tensor] | tuple[Tensor, Tensor]],
    on_batch: Callable[[int], None] | None = None,
) -> Predictions:
    """Run a model over a split.

    Args:
        predict: images -> logits (B, classes); a module is in evaluation mode meanwhile.
        batches: (images, targets, indices) in any order and size; of (images, targets) the order
            is the split's.
        on_batch: told after each batch how many images are done.

    Raises:
        EvaluationError: no image came, or one twice, as from a sampler that fills up shares.
    """
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    done, several = 0, cast("Iterable[tuple[Any, ...]]", batches)
    with torch.inference_mode(), _evaluating(predict):
        for images, targets, *places in several:
            indices = places[0] if places else torch.arange(done, done + len(targets))
            logits = predict(images).float()
            parts.append((logits.cpu(), targets.cpu(), indices.cpu()))
            done += len(targets)
            if on_batch is not None:
                on_batch(done)
    if not parts:
        raise EvaluationError(NO_IMAGE)
    logits, targets, indices = (torch.cat(part) for part in zip(*parts, strict=True))
    twice = len(indices) - len(indices.unique())
    if twice:
        raise EvaluationError(f"{twice} images came twice: the figures would not be the split's")
    order = indices.argsort()
    return Predictions(logits[order], targets[order], indices[order])


@contextmanager
def _evaluating(predict: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """A module in evaluation mode, every part of it back in its own afterwards."""
    parts = list(predict.modules()) if isinstance(predict, nn.Module) else []
    modes = [part.training for part in parts]
    for part in parts:
        part.training = False
    try:
        yield
    finally:
        for part, mode in zip(parts, modes, strict=True):
            part.training = mode
