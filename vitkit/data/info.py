"""What a model must know about the data it was trained on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["DataInfo"]


@dataclass(frozen=True)
class DataInfo:
    """Facts about a data set, plain values only: they travel in the checkpoint.

    Attributes:
        name: of the data set.
        class_names: by class index.
        in_chans: channels of an image.
        img_size: (height, width) in pixels, as the model sees them.
        mean, std: per channel, of pixels scaled to [0, 1].
        num_train, num_val, num_test: images of each split.
        class_counts: training images of each class.
        num_skipped: damaged files that were left out.
        pictures: digest of which pictures are trained on, in which order; empty if unknown.
        interpolation, crop_pct, crop_mode: how pictures are brought to ``img_size``; see
            :class:`~vitkit.data.preprocess.Fit`.
    """

    name: str
    class_names: tuple[str, ...]
    in_chans: int
    img_size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    num_train: int = 0
    num_val: int = 0
    num_test: int = 0
    class_counts: tuple[int, ...] = ()
    num_skipped: int = 0
    pictures: str = ""
    interpolation: str = "bicubic"
    crop_pct: float = 1.0
    crop_mode: str = "center"

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def to_dict(self) -> dict[str, Any]:
        """Plain values: lists in the place of tuples."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DataInfo:
        """The inverse of :meth:`to_dict`."""
        plain: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        return cls(**plain)
