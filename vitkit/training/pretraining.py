"""What tasks without labels share: a loss averaged over a split, and the encoder's features."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vitkit.training.base import CHECKPOINT_KEY, TrainingTask

__all__ = ["MeanSums", "PretrainingTask", "pooled_features"]

Batch = tuple[Tensor, Tensor, Tensor]


def pooled_features(encoder: nn.Module, images: Tensor) -> Tensor:
    """What a head of the encoder would read.

    Args:
        encoder: with timm's ``forward_features`` and ``forward_head(..., pre_logits=True)``.
        images: its input, (B, channels, height, width).

    Returns:
        (B, C).
    """
    built: Any = encoder
    features: Tensor = built.forward_head(built.forward_features(images), pre_logits=True)
    return features


class MeanSums:
    """Sums over images, from which each mean is one division at the end.

    Args:
        names: of what is averaged.
        device: where the batches live.
    """

    def __init__(self, names: Sequence[str], device: torch.device | str = "cpu") -> None:
        # Some accelerators have no float64; float32 counts images exactly up to 16.7 million.
        dtype = torch.float32 if torch.device(device).type == "mps" else torch.float64
        self.names = tuple(names)
        self.sums = torch.zeros(1 + len(self.names), dtype=dtype, device=device)

    def update(self, means: Mapping[str, Tensor], count: int) -> None:
        """Add a batch of ``count`` images by its means, scalars."""
        values = torch.stack([means[name].detach().to(self.sums.dtype) for name in self.names])
        # What a checkpoint held was read before the model went to its device.
        self.sums = self.sums.to(values.device)
        self.sums[0] += count
        self.sums[1:] += values * count

    @property
    def count(self) -> int:
        """Images seen."""
        return int(self.sums[0].item())

    def means(self) -> dict[str, float]:
        """The mean of each over all images.

        Raises:
            ValueError: no image was seen.
        """
        count, *sums = self.sums.tolist()
        if count == 0:
            raise ValueError("no image was seen; the split is empty")
        return {name: value / count for name, value in zip(self.names, sums, strict=True)}


class PretrainingTask(TrainingTask):
    """Trains an encoder without labels; a child says by what :meth:`measure`.

    Args:
        model: what is trained.
        encoder: the part of it whose features are of use afterwards.
        prepare_eval: uint8 images -> the encoder's input.
        shared: arguments of :class:`TrainingTask`.
    """

    measures: ClassVar[tuple[str, ...]] = ("loss",)
    """Names of what is averaged over a split."""

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
        self.train_sums: MeanSums | None = None
        self.val_sums: MeanSums | None = None

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

    def on_train_epoch_start(self) -> None:
        """Fresh sums; an epoch resumed in its middle goes on with those it had."""
        super().on_train_epoch_start()
        self.train_sums = MeanSums(self.measures, self.device)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of one micro-batch."""
        images, _, positions = batch
        means = self.measure(images, positions, self.current_epoch, training=True)
        loss = means["loss"]
        self.watch(loss)
        for name, value in means.items():
            self.log(f"train/{name}", value, on_step=True, on_epoch=False)
        self.log("lr", self.rate(), on_step=True, on_epoch=False)
        if self.train_sums is None:
            self.train_sums = MeanSums(self.measures, self.device)
        self.train_sums.update(means, len(images))
        return loss

    def on_train_epoch_end(self) -> None:
        """Log the epoch's mean loss."""
        self.stop_if_not_finite()
        if self.train_sums is not None:
            self.log("train/loss_epoch", self._reduced(self.train_sums).means()["loss"])

    def on_validation_epoch_start(self) -> None:
        """Fresh sums."""
        self.val_sums = MeanSums(self.measures, self.device)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add one batch to the sums."""
        images, _, positions = batch
        assert self.val_sums is not None
        self.val_sums.update(self.measure(images, positions, 0, training=False), len(images))

    def on_validation_epoch_end(self) -> None:
        """Log the means of the whole split, each image counted once over all processes."""
        assert self.val_sums is not None
        for name, value in self._reduced(self.val_sums).means().items():
            self.log(f"val/{name}", value)

    def epoch_summary(self, metrics: Mapping[str, float]) -> list[str]:
        """Losses, and what else is watched."""
        sums, said = self.train_sums, []
        if sums is not None and sums.count:
            said.append(f"train loss {sums.means()['loss']:.4f}")
        said += super().epoch_summary(metrics)
        watched = [name for name in self.measures if name != "loss" and f"val/{name}" in metrics]
        words = [f"{name.replace('_', ' ')} {metrics[f'val/{name}']:.2f}" for name in watched]
        return said + words

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the running sums of this epoch too."""
        super().on_save_checkpoint(checkpoint)
        sums = self.train_sums
        checkpoint[CHECKPOINT_KEY]["train_sums"] = None if sums is None else sums.sums.tolist()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the running sums of an epoch that was left in its middle."""
        saved = checkpoint.get(CHECKPOINT_KEY, {}).get("train_sums")
        if saved is not None:
            self.train_sums = MeanSums(self.measures, self.device)
            self.train_sums.sums += self.train_sums.sums.new_tensor(saved)

    def _reduced(self, sums: MeanSums) -> MeanSums:
        if self.trainer.world_size == 1:
            return sums
        total = MeanSums(self.measures, self.device)
        total.sums += self.trainer.strategy.reduce(sums.sums.clone(), reduce_op="sum")
        return total
