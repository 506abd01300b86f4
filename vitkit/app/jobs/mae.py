"""Masked autoencoding of pictures, from the config to the results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vitkit.app.jobs.pretraining import PretrainingJob
from vitkit.data.random import position_uniforms
from vitkit.errors import ConfigError
from vitkit.models.config import validate_model
from vitkit.models.mae import DECODER_NAMES, MaskedAutoencoder
from vitkit.training.budget import StepPlan
from vitkit.training.mae import MaskedAutoencoderTask
from vitkit.training.task_config import MaskedAutoencoderConfig

__all__ = ["MaskedAutoencoderJob"]

MASK, VAL_MASK = 8000, 8001
"""The draws of an image that choose its patches, beside those of augmentation."""


class MaskedAutoencoderJob(PretrainingJob):
    """Trains a ViT to paint hidden patches; see :class:`~vitkit.app.jobs.base.Job`."""

    def encoder(self, section: Mapping[str, Any]) -> MaskedAutoencoder:
        """The ViT with a decoder.

        Raises:
            ConfigError: a mask that hides all or nothing, or a part that a mask does not go with.
        """
        settings = self.settings.model_dump(exclude={"name"})
        try:
            return MaskedAutoencoder(**settings, **validate_model(section).constructor_kwargs())
        except ValueError as error:
            raise ConfigError(f"task.name=mae, model.name={section['name']}: {error}") from error

    @property
    def settings(self) -> MaskedAutoencoderConfig:
        """The task's section."""
        task = self.config.task
        assert isinstance(task, MaskedAutoencoderConfig)
        return task

    def task(self, plan: StepPlan) -> MaskedAutoencoderTask:
        """The Lightning task."""
        model, seed = self.built.model, self.config.run.seed
        assert isinstance(model, MaskedAutoencoder)
        count = model.patches.num_patches

        def noise(positions: Tensor, epoch: int) -> Tensor:
            return position_uniforms(seed, epoch, positions, MASK, count)

        def val_noise(positions: Tensor) -> Tensor:
            return position_uniforms(seed, 0, positions, VAL_MASK, count)

        return MaskedAutoencoderTask(
            model,
            prepare_train=self.prepare_train(),
            prepare_eval=self.built.preprocessing,
            noise=noise,
            val_noise=val_noise,
            **self.shared(
                plan,
                **self.image_payload(),
                pretraining=dict.fromkeys(DECODER_NAMES, "the decoder of pre-training"),
            ),
        )
