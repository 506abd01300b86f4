"""From what a training is given to a config in which the precision is decided too."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vitkit.app.devices import best_device, concrete_precision
from vitkit.config import Overrides, RunConfig, given_keys, load_config, to_plain
from vitkit.errors import ConfigError

__all__ = ["concrete", "require_read_with_own_data", "resolve_config"]

READ_WITH_OWN_DATA = tuple(
    f"data.{key}"
    for key in (
        "augment",
        "batch_size",
        "eval_batch_size",
        "name",
        "normalize",
        "num_workers",
        "persistent_workers",
        "prefetch_factor",
        "repeats",
        "sampling",
    )
)
"""Settings of data that mean something for data that are handed in as well: the name leaves the
embedded default's recipe, and ``normalize`` decides between the data's statistics and those of
weights."""


def resolve_config(
    config: RunConfig | Mapping[str, Any] | str | Path | None, overrides: Overrides
) -> RunConfig:
    """The config that a training was given in one form or another, with its overrides.

    Args:
        config, overrides: as of :func:`vitkit.train`.

    Raises:
        ConfigError: every fault there is.
    """
    if isinstance(config, RunConfig):
        return load_config(base=to_plain(config), overrides=overrides) if overrides else config
    if isinstance(config, str | Path):
        return load_config([config], overrides)
    return load_config([], overrides, base=config)


def require_read_with_own_data(overrides: Overrides) -> None:
    """Refuse settings that come too late for data which are there already.

    Raises:
        ConfigError: there are some, all of them named.
    """
    keys = given_keys(overrides)
    faults = [
        f"{key}: comes too late for data that are handed in; give it to data_from_datasets(config=)"
        for key in keys
        if key.startswith("data.") and not key.startswith(READ_WITH_OWN_DATA)
    ]
    if faults:
        raise ConfigError(faults)


def concrete(config: RunConfig) -> RunConfig:
    """The config with its precision decided, so that the run's own files say what ran.

    Raises:
        ConfigError: no such device here, or a precision that it does not train in.
    """
    device = best_device(config.trainer.accelerator)
    precision = concrete_precision(config.trainer.precision, device)
    trainer = config.trainer.model_copy(update={"precision": precision})
    return config.model_copy(update={"trainer": trainer})
