"""The task of painting hidden patches.

Source: He et al., "Masked autoencoders are scalable vision learners", arXiv 2111.06377.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from vitkit.training.pretraining import PretrainingTask

__all__ = ["MaskedAutoencoderTask"]


class MaskedAutoencoderTask(PretrainingTask):
    """Trains a masked autoencoder; which patches are hidden is a function of the place.

    Args:
        model: (images, noise (B, N)) -> the loss of each image (B,); it is its own encoder.
        prepare_train: (uint8 images, positions, epoch) -> the model's input, randomly changed.
        noise: (positions, epoch) -> (B, N), whose order chooses the patches in training.
        val_noise: positions -> the same for validation, alike in all epochs.
        shared: arguments of :class:`PretrainingTask`.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        prepare_train: Callable[[Tensor, Tensor, int], Tensor],
        noise: Callable[[Tensor, int], Tensor],
        val_noise: Callable[[Tensor], Tensor],
        **shared: Any,
    ) -> None:
        super().__init__(model, encoder=model, **shared)
        self.prepare_train = prepare_train
        self.noise, self.val_noise = noise, val_noise

    def measure(
        self, images: Tensor, positions: Tensor, epoch: int, *, training: bool
    ) -> dict[str, Tensor]:
        """The mean loss of a batch."""
        places = positions.to(images.device, non_blocking=True)
        if training:
            inputs = self.prepare_train(images, positions, epoch)
            noise = self.noise(places, epoch)
        else:
            inputs, noise = self.prepare_eval(images), self.val_noise(places)
        return {"loss": self.model(inputs, noise).mean()}
