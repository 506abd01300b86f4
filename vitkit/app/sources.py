"""What a person may name as a model, what stands behind it, and which settings go with it.

Evaluation, inspection and probes ask here, so that what one takes, all take; so does prediction,
which names no data, and so takes no model of timm with a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitkit.app.runs import find_checkpoint
from vitkit.config import given_keys, override_words
from vitkit.config.files import parse_value
from vitkit.errors import ConfigError
from vitkit.weights import (
    HUB_PREFIX,
    TIMM_PREFIX,
    TORCHVISION_PREFIX,
    Checkpoint,
    own_checkpoint,
)

__all__ = [
    "MODEL",
    "OfTimm",
    "Opened",
    "Source",
    "Weights",
    "model_settings",
    "opened_source",
    "opened_weights",
    "require_data",
    "require_read",
    "short_name",
]

TIMM_SOURCE = "timm:"
"""In front of the name of one of timm's models."""

Source = str | Path | tuple[str, str | Path]
"""A run folder or checkpoint; a file or folder of weights; a model by name, as in
``hf-hub:<owner>/<model>``; ``timm:<name>`` with a file of weights."""

MODEL = "model."
NAMES = (HUB_PREFIX, TIMM_PREFIX, TORCHVISION_PREFIX)
"""Beginnings of models by name."""

SUFFIXES = (".safetensors", ".bin", ".pth", ".pt", ".npz")
"""Files that make a folder one of weights."""

OWN_FILES = ("last.ckpt", "best.ckpt", "config.yaml")
"""Files that make a folder one of checkpoints or a run's, whatever arrays lie beside them."""

READ = ("data.", "eval.", "trainer.accelerator", "run.report", "model.img_size")
"""How the settings begin that an evaluation of a checkpoint reads; it has the others itself."""

OF_TRAINING = (
    "data.augment",
    "data.batch_size",
    "data.persistent_workers",
    "data.prefetch_factor",
    "data.repeats",
    "data.sampling",
    "data.steps_per_epoch",
)
"""How those of data begin that a training alone reads."""


@dataclass(frozen=True)
class Weights:
    """Weights that are no checkpoint of ours.

    Attributes:
        place: a file, a folder, or a model by name, as :func:`~vitkit.app.pretrained.load_model`
            takes it.
    """

    place: str | Path


@dataclass(frozen=True)
class OfTimm:
    """Any model of timm, built by timm.

    Attributes:
        name: as timm calls it.
        weights: file of them.
    """

    name: str
    weights: str | Path

    @property
    def shown(self) -> str:
        """As a person wrote it."""
        return TIMM_SOURCE + self.name


Opened = Checkpoint | Weights | OfTimm
"""What stands behind a source."""


def opened_source(source: Source) -> Opened:
    """What a source stands for: a checkpoint is read, weights are not yet.

    Raises:
        ConfigError: a model of timm without weights, or weights for what has its own.
        RunError: nothing there.
        WeightsError: damaged or unsafe.
    """
    name, weights = source if isinstance(source, tuple) else (source, None)
    if str(name).startswith(TIMM_SOURCE):
        if weights is None:
            raise ConfigError(
                f"{name}: which weights? Put weights=FILE behind it (.safetensors, .pth, .bin)"
            )
        return OfTimm(str(name).removeprefix(TIMM_SOURCE), weights)
    if weights is not None:
        raise ConfigError(
            f"weights={weights}: {name} brings its own weights; only {TIMM_SOURCE}<name> needs a "
            "file"
        )
    return opened_weights(name)


def opened_weights(source: str | Path) -> Checkpoint | Weights:
    """As :func:`opened_source`, of all but models of timm with a file."""
    path = Path(source)
    if _holds_weights(path):
        return Weights(path)
    if str(source).startswith(NAMES) and not path.exists():
        return Weights(str(source))
    path = find_checkpoint(path)
    checkpoint = own_checkpoint(path)
    return Weights(path) if checkpoint is None else checkpoint


def _holds_weights(folder: Path) -> bool:
    """Whether a folder is one of weights, such as Hugging Face's, and none of ours."""
    if not folder.is_dir() or (folder / "checkpoints").is_dir():
        return False
    if (folder / "config.json").is_file():
        return True
    if any((folder / name).is_file() for name in OWN_FILES):
        return False
    return any(path.suffix in SUFFIXES for path in folder.iterdir())


def short_name(place: str | Path) -> str:
    """Weights by their name or file, for a folder's name: what is called as all are by its folder's
    name too.
    """
    path = Path(place)
    if not path.exists():
        return str(place)  # a name on a hub, in which a dot begins no suffix
    path = path.absolute()  # not resolved: files of a hub's cache are links to numbers
    stem = path.name if path.is_dir() else path.stem  # in a folder's name a dot begins none either
    usual = stem in ("model", "pytorch_model", "last", "best")
    return f"{path.parent.name}-{stem}" if usual else stem


def require_data(shown: str, overrides: Sequence[str], *, at_hand: bool = False) -> None:
    """See that somebody has said on which data.

    Args:
        shown: the source, for the message.
        overrides: ``"section.key=value"`` strings.
        at_hand: data were handed in.

    Raises:
        ConfigError: nobody has.
    """
    if not at_hand and "data.name" not in given_keys(overrides):
        raise ConfigError(f"{shown}: on which data? Say so, as in data.name=cifar10 data.root=data")


def require_read(
    overrides: Sequence[str], read: Sequence[str] = READ, *, own_statistics: bool = True
) -> None:
    """Refuse settings that would change nothing.

    Args:
        overrides: ``"section.key=value"`` strings.
        read: how those begin that change something.
        own_statistics: the model brings mean and deviation.

    Raises:
        ConfigError: there are some, all of them named.
    """
    keys = given_keys(overrides)
    allowed = ", ".join(f"{name}*" if name.endswith(".") else name for name in read)
    faults = [
        f"{key}: changes nothing here, where {allowed} are read; leave it out"
        for key in keys
        if not key.startswith(tuple(read))
    ]
    faults += [
        f"{key}: read in training alone; "
        + ("set data.eval_batch_size" if key == "data.batch_size" else "leave it out")
        for key in keys
        if key.startswith(OF_TRAINING) and key.startswith(tuple(read))
    ]
    if own_statistics and "data.normalize" in keys:
        faults.append(
            "data.normalize: mean and std are those of the model, or of a config.json beside its "
            "weights; leave it out"
        )
    if faults:
        raise ConfigError(faults)


def model_settings(overrides: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Fields of the model's section, and the other settings.

    Args:
        overrides: ``"section.key=value"`` strings.

    Raises:
        ConfigError: a value that is no YAML.
    """
    ours: dict[str, Any] = {}
    words = override_words(overrides)
    for word in words:
        key, _, text = word.partition("=")
        if key.startswith(MODEL):
            value, wrong = parse_value(text)
            if wrong:
                raise ConfigError(f"{key}: {fault}" for fault in wrong)
            ours[key.removeprefix(MODEL)] = value
    return ours, [word for word in words if not word.startswith(MODEL)]
