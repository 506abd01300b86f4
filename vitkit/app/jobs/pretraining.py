"""What tasks share that train an encoder of pictures without their labels."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vitkit.app.batches import features_of
from vitkit.app.build import Built, build, build_from_checkpoint, picture_section
from vitkit.app.devices import best_device
from vitkit.app.jobs.images import ImageJob
from vitkit.config import RunConfig
from vitkit.data.preprocess import Preprocessing
from vitkit.data.splits import ImageData, Split, labelled_part
from vitkit.errors import ConfigError
from vitkit.evaluation.neighbours import neighbour_accuracies
from vitkit.models.presets import FAMILIES, family_of
from vitkit.nn import pooled_features
from vitkit.records import Plain
from vitkit.weights import read_checkpoint

__all__ = ["PretrainingJob"]

NEIGHBOURS = 20


class PretrainingJob(ImageJob):
    """Pre-trains a plain ViT on all training images; see :class:`~vitkit.app.jobs.base.Job`.

    Its checkpoints hold the ViT without a head, for ``model.weights`` of another run.
    """

    @abstractmethod
    def encoder(self, section: Mapping[str, Any]) -> nn.Module:
        """The ViT of a model section without classes, or a child of it.

        Raises:
            ConfigError: it is not fit for the task.
        """

    def build(self, config: RunConfig, data: ImageData | None, *, progress: bool) -> Built:
        """The encoder, and all images whatever share of them has labels.

        Raises:
            ConfigError: the model is no plain ViT, or has no features of an image.
        """
        name, task = config.model.name, config.task.name
        if family_of(name) != "vit":
            raise ConfigError(
                f"task.name={task} pre-trains a plain ViT, such as vit_tiny_patch4_32; model.name="
                f"{name} is another kind: {FAMILIES.get(family_of(name), 'one of your own')}"
            )
        if config.model.constructor_kwargs().get("global_pool") == "":
            raise ConfigError(
                f"model.global_pool='': task.name={task} needs one vector an image: token or avg"
            )
        if config.optimizer.head_lr_factor != 1.0:
            raise ConfigError(
                f"optimizer.head_lr_factor: task.name={task} trains no classifier; leave it out"
            )
        everything = picture_section(config).model_copy(update={"label_fraction": 1.0})
        whole = config.model_copy(update={"data": everything})
        return build(whole, data, encoder=self.encoder, progress=progress)

    @property
    def num_tested(self) -> int:
        """All images whose features are compared in the end."""
        asked = sum(len(split) for split in self._asked().values())
        return asked + len(self._labelled()) if asked else 0

    def test(self, checkpoint: Path, *, show: bool) -> tuple[dict[str, float], dict[str, Plain]]:
        """How often an image's nearest training images have its class, by cosine of features.

        The accuracy of k-nearest neighbours on validation and test images; the training images that
        vote are those with labels. Nothing where there are no classes or no images to ask about.
        """
        asked = self._asked()
        if not asked:
            return {}, {}
        kept = read_checkpoint(checkpoint)
        encoder, preprocessing, info = build_from_checkpoint(kept)
        device = best_device(self.config.trainer.accelerator)
        encoder.to(device)
        known = self._features(encoder, preprocessing, self._labelled(), "training", show)
        neighbours = min(NEIGHBOURS, len(known[1]))
        metrics = {}
        for name, split in asked.items():
            right = neighbour_accuracies(
                known,
                self._features(encoder, preprocessing, split, name, show),
                info.num_classes,
                ks=(neighbours,),
            )
            metrics[f"{name}/knn_acc"] = right[neighbours]
        return metrics, {"weights": kept.weights_name, "neighbours": neighbours}

    def _asked(self) -> dict[str, Split]:
        """The splits whose images' classes are asked for."""
        data = self.built.data
        splits = {"val": data.val, "test": data.test}
        several = data.info.num_classes > 1
        return {k: v for k, v in splits.items() if several and v is not None and len(v)}

    def _labelled(self) -> Split:
        settings = self.images
        return labelled_part(self.built.data.train, settings.label_fraction, settings.split_seed)

    def _features(
        self,
        encoder: nn.Module,
        preprocessing: Preprocessing,
        split: Split,
        what: str,
        show: bool,
    ) -> tuple[Tensor, Tensor]:
        """Features (N, C) and targets (N,), where the encoder is."""
        device = next(encoder.parameters()).device

        def features(images: Tensor) -> Tensor:
            return pooled_features(encoder, preprocessing(images))

        found, targets = features_of(features, split, self.images, device, what, progress=show)
        return found.to(device), targets.to(device)
