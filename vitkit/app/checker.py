"""Look through the data of a config before training."""

from __future__ import annotations

from vitkit.app.build import picture_section
from vitkit.app.progress import counted
from vitkit.config import RunConfig
from vitkit.data.check import DataReport
from vitkit.data.check import check_data as look_through

__all__ = ["check_data"]


def check_data(config: RunConfig, *, progress: bool = True) -> DataReport:
    """Counts, sizes, damaged files, duplicates and class balance of a config's data.

    Raises:
        DataError: the data set is absent or has no classes.
    """
    with counted("reading", "files", show=progress) as tell:
        return look_through(picture_section(config), tell)
