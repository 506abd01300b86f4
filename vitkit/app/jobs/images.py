"""What tasks on pictures share: the model and data of a config, and the loaders."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

from pytorch_lightning import Trainer
from torch import Tensor

from vitkit.app.build import Built, build, picture_section, require_same_classes
from vitkit.app.jobs.base import Job, place_of
from vitkit.config import RunConfig
from vitkit.data.augment import Augment
from vitkit.data.crops import RandomCrop, crop_of
from vitkit.data.info import DataInfo
from vitkit.data.loaders import EvalLoader, TrainLoader
from vitkit.data.preprocess import Preprocessing
from vitkit.data.splits import ImageData
from vitkit.errors import DataError
from vitkit.weights import Checkpoint

__all__ = ["ImageJob"]


class ImageJob(Job):
    """A task on pictures. Args as of :class:`Job`.

    Attributes:
        built: model and data.

    Raises:
        ConfigError: the config's data are no pictures, or contradict its model.
        DataError: no training images, or others than the run that goes on began with.
    """

    built: Built

    def __init__(
        self,
        config: RunConfig,
        data: ImageData | None = None,
        *,
        resumed: Checkpoint | None = None,
        progress: bool = False,
    ) -> None:
        super().__init__(config)
        self.images = picture_section(config)
        self.built = self.build(config, data, progress=progress)
        if not len(self.built.data.train):
            raise DataError(
                f"{self.built.info.name} has no training images; to train, data.root needs a "
                "folder train, or a folder per class"
            )
        if resumed is not None:
            _require_same_data(DataInfo.from_dict(resumed.data), self.built.info)
            # The weights that the run began with may have had statistics of their own.
            self.built.preprocessing = Preprocessing.from_dict(resumed.preprocessing)
        self.model, self.section = self.built.model, self.built.section

    def build(self, config: RunConfig, data: ImageData | None, *, progress: bool) -> Built:
        """Model and data; a task with a model of another kind builds its own."""
        return build(config, data, progress=progress)

    @property
    def steps_per_epoch(self) -> int:
        """Every image ``data.repeats`` times; what does not fill a step is left out."""
        return len(self.built.data.train) * self.images.repeats // self.images.batch_size

    @property
    def data_name(self) -> str:
        """See :attr:`Job.data_name`."""
        return self.built.info.name

    @property
    def validates(self) -> bool:
        """Whether there are validation images."""
        return self.built.data.val is not None

    @property
    def num_validated(self) -> int:
        """Validation images."""
        return self.built.info.num_val

    @property
    def num_tested(self) -> int:
        """Test images."""
        return self.built.info.num_test

    @cached_property
    def crop(self) -> RandomCrop | None:
        """Of pictures as they are decoded for training; None where batches are cropped, if any."""
        return crop_of(self.built.data.train, self.images.augment, self.config.run.seed)

    def loaders(self, trainer: Trainer) -> tuple[TrainLoader, EvalLoader | None]:
        """The training loader of this process, and the validation loader if there are images."""
        data, place = self.built.data, place_of(trainer)
        for setting in ("num_workers", "prefetch_factor", "persistent_workers"):
            place[setting] = getattr(self.images, setting)
        train_loader = TrainLoader(
            data.train,
            batch_size=self.images.batch_size,
            micro_batches=self.config.trainer.accumulate_grad_batches,
            seed=self.config.run.seed,
            repeats=self.images.repeats,
            balanced=self.images.sampling == "balanced",
            crop=self.crop,
            **place,
        )
        if data.val is None:
            return train_loader, None
        return train_loader, EvalLoader(data.val, batch_size=self.images.eval_batch_size, **place)

    def lines(self) -> list[str]:
        """The data set, and what became of the weights it starts from."""
        info, report = self.built.info, self.built.report
        lines = [
            f"data   {info.name}: {info.num_train:,} train, {info.num_val:,} val, "
            f"{info.num_test:,} test images of {info.img_size[0]} x {info.img_size[1]}, "
            f"{info.num_classes} classes"
        ]
        if info.num_skipped:
            skipped = f"{info.num_skipped:,} damaged files left out"
            where = f"data.name={info.name} data.root={self.images.root}"
            lines.append(f"note   {skipped}; `vitkit check-data --all {where}` names them")
        if report is not None:
            lines += ["weights", *(f"  {line}" for line in report.lines())]
        return lines

    def prepare_train(self) -> Callable[[Tensor, Tensor, int], Tensor]:
        """(uint8 images, positions, epoch) -> the model's input, randomly changed."""
        preprocessing, changes = self.built.preprocessing, self.images.augment
        if self.crop is not None:  # the loader's images are crops already
            changes = changes.model_copy(update={"resized_crop_scale": 0.0})
        augment = Augment(
            changes,
            self.config.run.seed,
            mean=preprocessing.mean,
            size=len(self.built.data.train),
            repeats=self.images.repeats,
        )
        return lambda images, positions, epoch: augment.erase(
            preprocessing(augment(images, positions, epoch)), positions, epoch
        )

    def image_payload(self) -> dict[str, Any]:
        """What a checkpoint holds of the data, plain values."""
        return {
            "data": self.built.info.to_dict(),
            "preprocessing": self.built.preprocessing.to_dict(),
        }


def _require_same_data(before: DataInfo, now: DataInfo) -> None:
    """A run that goes on sees what it would have seen.

    Raises:
        DataError: other classes, or other training images, than when it stopped.
    """
    require_same_classes(before, now)
    if before.num_train != now.num_train:
        raise DataError(
            f"the run began with {before.num_train:,} training images, {now.name} has "
            f"{now.num_train:,} now; give it the same data, or start a new run with "
            "model.weights=<its last.ckpt>"
        )
    if before.pictures and before.pictures != now.pictures:
        raise DataError(
            f"the training images of {now.name} are not those that the run began with: a file was "
            "added, changed or renamed; give it the same data, or start a new run with "
            "model.weights=<its last.ckpt>"
        )
