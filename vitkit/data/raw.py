"""What a data source is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vitkit.data.config import ImageDataConfig
from vitkit.data.preprocess import Fit
from vitkit.data.splits import Split

__all__ = ["OnFile", "RawData", "Request", "Source"]

OnFile = Callable[[int, int], None]
"""Told (files done, files in all) while a source reads."""


@dataclass(frozen=True)
class Request:
    """What is wanted of a source.

    Attributes:
        config: the ``data`` section.
        img_size: (height, width) that the model wants; None: the data's own.
        in_chans: channels that the model wants; None: the data's own.
        on_file: to be told of progress by sources that take long; None: nobody listens.
    """

    config: ImageDataConfig
    img_size: tuple[int, int] | None = None
    in_chans: int | None = None
    on_file: OnFile | None = None

    def fit(self, size: tuple[int, int]) -> Fit:
        """How the config wants pictures brought to a size, (height, width)."""
        config = self.config
        return Fit(size, config.interpolation, config.crop_pct, config.crop_mode)


@dataclass(frozen=True)
class RawData:
    """What a source yields; size and channels are fitted to the model afterwards, if need be.

    Attributes:
        name: of the data set.
        class_names: by class index.
        train: training images, validation not yet cut from them unless ``val`` is given.
        val, test: as the source has them, or None.
        num_skipped: damaged files that were left out.
        fitted: pictures have the wanted size already.
    """

    name: str
    class_names: Sequence[str]
    train: Split
    val: Split | None = None
    test: Split | None = None
    num_skipped: int = 0
    fitted: bool = False


Source = Callable[[Request], RawData]
