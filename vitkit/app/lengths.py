"""How long a run is, and whether it can be made longer."""

from __future__ import annotations

import json
from pathlib import Path

from vitkit.config import RunConfig
from vitkit.errors import ConfigError, RunError
from vitkit.records import write_text
from vitkit.weights import Checkpoint, read_checkpoint

__all__ = ["as_extended", "longer", "note_length", "obstacle"]

NOTE = "extended.json"
"""In a run's folder: the length that it was extended to, until a checkpoint has it."""


def obstacle(config: RunConfig, checkpoint: Path | Checkpoint) -> str | None:
    """What ends a run in place of its epochs, so that more of them would not make it longer.

    Args:
        config: of the run.
        checkpoint: its last one, which is read only if need be, or was read already.
    """
    if config.trainer.max_time:
        return (
            f"a run with a time limit (trainer.max_time={config.trainer.max_time:g}) ends within "
            "it, and cannot be extended"
        )
    if config.trainer.early_stopping_patience and _has_lost_patience(checkpoint):
        return "this run has stopped early; more epochs would not make it longer"
    return None


def _has_lost_patience(checkpoint: Path | Checkpoint) -> bool:
    """Whether early stopping has ended the training that wrote a checkpoint."""
    if isinstance(checkpoint, Path):
        return checkpoint.is_file() and read_checkpoint(checkpoint).lost_patience
    return checkpoint.lost_patience


def longer(config: RunConfig, epochs: int, checkpoint: Checkpoint, *, finished: bool) -> RunConfig:
    """The config of the same run with more epochs.

    Args:
        config: of the run.
        epochs: in all.
        checkpoint: its last one.
        finished: it has its results.

    Raises:
        ConfigError: they are no more, or are not what ends the run.
    """
    planned = config.trainer.max_epochs
    if reason := obstacle(config, checkpoint):
        raise ConfigError(reason)
    if epochs < planned or (epochs == planned and finished):
        raise ConfigError(f"cannot extend to {epochs:,} epochs: the run has {planned:,}; give more")
    return _with_epochs(config, epochs)


def note_length(folder: Path, config: RunConfig) -> None:
    """Note how long a run has been made.

    Args:
        folder: of the run.
        config: the longer one.
    """
    write_text(folder / NOTE, json.dumps({"max_epochs": config.trainer.max_epochs}) + "\n")


def as_extended(config: RunConfig, folder: Path) -> RunConfig:
    """The config of a checkpoint with the epochs that its run has been given since.

    Args:
        config: of the checkpoint.
        folder: of the run.

    Raises:
        RunError: the note of it is damaged.
    """
    note = folder / NOTE
    if not note.is_file():
        return config
    try:
        epochs = int(json.loads(note.read_text(encoding="utf-8"))["max_epochs"])
    except (ValueError, TypeError, KeyError) as error:
        raise RunError(f"{note} is damaged; extend the run again, or remove the file") from error
    return _with_epochs(config, max(epochs, config.trainer.max_epochs))


def _with_epochs(config: RunConfig, epochs: int) -> RunConfig:
    trainer = config.trainer.model_copy(update={"max_epochs": epochs})
    return config.model_copy(update={"trainer": trainer})
