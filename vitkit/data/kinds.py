"""Which config class knows a data section: pictures, unless the name says otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vitkit.data.config import DataConfig, ImageDataConfig
from vitkit.data.text.config import ParallelDataConfig, TextDataConfig

__all__ = ["DATA_CONFIGS", "data_class"]

DATA_CONFIGS: dict[str, type[DataConfig]] = {
    "text": TextDataConfig,
    "parallel": ParallelDataConfig,
}
"""Name -> config class, of data that are not pictures."""


def data_class(section: Mapping[str, Any]) -> type[DataConfig]:
    """The class that knows the keys of a data section.

    Args:
        section: what was given; without a name, or with a name that is not in
            :data:`DATA_CONFIGS`, it is pictures.
    """
    return DATA_CONFIGS.get(str(section.get("name")), ImageDataConfig)
