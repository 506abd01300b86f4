"""What tasks without labels share: a loss averaged over a split, and the encoder's features."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vitkit.errors import EvaluationError
from vitkit.evaluation.sums import NO_IMAGE, Sums
from vitkit.nn import pooled_features
from vitkit.training.summed import SummedTask

__all__ = ["MeanSums", "PretrainingTask"]

Batch = tuple[Tensor, Tensor, Tensor]


class MeanSums(Sums):
    """Sums over images, of which each mean is wanted.

    Args:
        names: of what is averaged.
        device: where the batches live.
    """

    def __init__(self, names: Sequence[str], device: torch.device | str = "cpu") -> None:
        super().__init__(1 + len(names), device)
        self.names = tuple(names)

    def update(self, means: Mapping[str, Tensor], count: int) -> None:
        """Add a batch of ``count`` images by its means, scalars."""
        values = torch.stack([means[name].detach().to(self.sums.dtype) for name in self.names])
        self.sums[0] += count
        self.sums[1:] += values * count

    def metrics(self) -> dict[str, float]:
        """The mean of each over all images.

        Raises:
            EvaluationError: no image was seen.
        """
        count, *sums = self.sums.tolist()
        if count == 0:
            raise EvaluationError(NO_IMAGE)
        return {name: value / count for name, value in zip(self.names, sums, strict=True)}


class PretrainingTask(SummedTask[MeanSums]):
    """Trains an encoder without labels; a child says by what :meth:`measure`.

    Args:
        model: what is trained.
        encoder: the part of it whose features are of use afterwards.
        prepare_eval: uint8 images -> the encoder's input.
        shared: arguments of :class:`TrainingTask`.
    """

    measures: ClassVar[tuple[str, ...]] = ("loss",)
    """Names of what is averaged over a split, the loss first."""

    def __init__(
        self,
        model: nn.Module,
        *,
        encoder: nn.Module,
        prepare_eval: Callable[[Tensor], Tensor],
        **shared: Any,
    ) -> None:
        super().__init__(model, **shared)
        # In a tuple, which registers nothing: its parameters are the model's.
        self._encoder = (encoder,)
        self.prepare_eval = prepare_eval

    @abstractmethod
    def measure(
        self, images: Tensor, positions: Tensor, epoch: int, *, training: bool
    ) -> dict[str, Tensor]:
        """Means of a batch: :attr:`measures`, the loss with its gradient.

        Args:
            images: uint8 (B, channels, height, width).
            positions: int64 (B,), what the random numbers are a function of, with the epoch.
            epoch: from 0; in validation always 0, so that all epochs are measured alike.
            training: change the images at random, and keep what is learned beside the weights.
        """

    def forward(self, images: Tensor) -> Tensor:
        """Stored images (B, channels, height, width) uint8 -> the encoder's features (B, C)."""
        return pooled_features(self._encoder[0], self.prepare_eval(images))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of one micro-batch."""
        images, _, positions = batch
        means = self.measure(images, positions, self.current_epoch, training=True)
        loss = means["loss"]
        self.log_step(loss, {f"train/{name}": means[name] for name in self.measures[1:]})
        self.learned().update(means, len(images))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add one batch to the sums."""
        images, _, positions = batch
        means = self.measure(images, positions, 0, training=False)
        self.validated().update(means, len(images))

    def new_sums(self) -> MeanSums:
        """Of :attr:`measures`."""
        return MeanSums(self.measures, self.device)

    def epoch_summary(self, metrics: Mapping[str, float]) -> list[str]:
        """Losses, and what else is watched."""
        watched = [name for name in self.measures[1:] if f"val/{name}" in metrics]
        words = [f"{name.replace('_', ' ')} {metrics[f'val/{name}']:.2f}" for name in watched]
        return super().epoch_summary(metrics) + words
