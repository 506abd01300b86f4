"""Self-distillation on pictures, from the config to the results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from vitkit.app.build import Built, build_model
from vitkit.app.jobs.pretraining import PretrainingJob
from vitkit.config import RunConfig
from vitkit.data.config import AugmentConfig
from vitkit.data.splits import ImageData
from vitkit.data.views import ViewRecipe, Views
from vitkit.errors import ConfigError
from vitkit.models.vit import VisionTransformer
from vitkit.training.budget import StepPlan
from vitkit.training.dino import DinoTask, ProjectionHead, SelfDistilled
from vitkit.training.task_config import DinoConfig

__all__ = ["DinoJob"]


class DinoJob(PretrainingJob):
    """Trains a ViT against its own average; see :class:`~vitkit.app.jobs.base.Job`.

    Attributes:
        recipe: how views are made.
    """

    recipe: ViewRecipe

    def build(self, config: RunConfig, data: ImageData | None, *, progress: bool) -> Built:
        """The encoder with a projection head, and the data.

        Raises:
            ConfigError: settings that would mean nothing here, or views that the model cannot read.
        """
        _refuse_idle(config, self.images.augment)
        built = super().build(config, data, progress=progress)
        backbone, task = built.model, self.settings
        assert isinstance(backbone, VisionTransformer)
        head = ProjectionHead(
            backbone.num_features,
            hidden_dim=task.head_hidden_dim,
            bottleneck_dim=task.head_bottleneck_dim,
            out_dim=task.out_dim,
        )
        built.model = SelfDistilled(backbone, head)
        self.recipe = self._recipe(backbone, built.info.img_size)
        return built

    def encoder(self, section: Mapping[str, Any]) -> nn.Module:
        """The ViT, which takes views of any size; no parameter depends on that."""
        return build_model({**section, "dynamic_img_size": True})

    @property
    def settings(self) -> DinoConfig:
        """The task's section."""
        task = self.config.task
        assert isinstance(task, DinoConfig)
        return task

    def task(self, plan: StepPlan) -> DinoTask:
        """The Lightning task."""
        model, preprocessing = self.built.model, self.built.preprocessing
        assert isinstance(model, SelfDistilled)
        make = Views(self.recipe, self.config.run.seed)

        def views(images: Tensor, positions: Tensor, epoch: int) -> tuple[Tensor, Tensor | None]:
            large, small = make(images, positions, epoch)
            return preprocessing(large), None if small is None else preprocessing(small)

        return DinoTask(
            model,
            task=self.settings,
            views=views,
            prepare_eval=preprocessing,
            **self.shared(plan, **self.image_payload()),
        )

    def _recipe(self, backbone: VisionTransformer, img_size: tuple[int, int]) -> ViewRecipe:
        """How views are made, the small ones of a size that the model takes."""
        task = self.settings
        side = task.local_crops_size
        size = (side, side) if side else _half(backbone, img_size)
        if task.local_crops_number:
            if size[0] > img_size[0] or size[1] > img_size[1]:
                raise ConfigError(
                    f"task.local_crops_size: given {side}, allowed: up to {min(img_size)}, the "
                    "side of the images"
                )
            try:
                backbone.patch_embed.grid_of(*size)
            except ValueError as error:
                raise ConfigError(f"task.local_crops_size: {error}") from error
        return ViewRecipe(
            global_scale=task.global_crops_scale,
            local_scale=task.local_crops_scale,
            local_count=task.local_crops_number,
            local_size=size,
            flip_prob=task.flip_prob,
            jitter_prob=task.jitter_prob,
            gray_prob=task.gray_prob,
            blur_prob=task.blur_prob,
            solarize_prob=task.solarize_prob,
            color_jitter=task.color_jitter,
            color_jitter_hue=task.color_jitter_hue,
        )


def _half(backbone: VisionTransformer, img_size: tuple[int, int]) -> tuple[int, int]:
    """Half of the image, in whole patches."""
    rows, columns = backbone.patch_embed.grid_size
    patch = (img_size[0] // rows, img_size[1] // columns)
    return max(1, rows // 2) * patch[0], max(1, columns // 2) * patch[1]


def _refuse_idle(config: RunConfig, augment: AugmentConfig) -> None:
    """Settings of other tasks that nothing here would read."""
    faults = []
    if augment != AugmentConfig():
        faults.append("data.augment: task.name=dino makes its own views; leave it out")
    if config.ema.enabled:
        faults.append("ema.enabled: the teacher of task.name=dino is an average already; set false")
    if faults:
        raise ConfigError(faults)
