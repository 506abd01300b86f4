"""Average checkpoints of one run: which ones, and where the result goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vitkit.errors import ConfigError, RunError
from vitkit.training.checkpoints import numbered_checkpoints
from vitkit.weights import read_checkpoint
from vitkit.weights.average import average_files, require_new, write_checkpoint

__all__ = ["AverageResult", "average_checkpoints"]

USUAL_NAME = "averaged.ckpt"


@dataclass(frozen=True)
class AverageResult:
    """What an averaging left behind.

    Attributes:
        path: the new checkpoint.
        sources: those it is the mean of, oldest first.
        steps: optimiser steps of each.
    """

    path: Path
    sources: tuple[Path, ...]
    steps: tuple[int, ...]


def average_checkpoints(
    sources: Sequence[str | Path] | str | Path,
    *,
    last: int | None = None,
    output: str | Path | None = None,
) -> AverageResult:
    """Average the weights of checkpoints of one training into a checkpoint like any other.

    A run that is trained with ``trainer.keep_checkpoints=N`` leaves numbered ones. Weights are
    summed in float64 and cast back; so are the statistics of batch norm, which are not measured
    anew, and the moving average of a run with ``ema.enabled``. Integer buffers, and all that is no
    weight, are the newest checkpoint's.

    Source: section 6.1 of A. Vaswani et al., "Attention is all you need", arXiv 1706.03762.

    Args:
        sources: a run folder, whose numbered checkpoints are taken; or two or more files.
        last: only so many, the newest ones; None: all.
        output: a new file ending in ``.ckpt``; beside the newest, ``averaged.ckpt``, unless given.

    Raises:
        ConfigError: no source, ``last`` below 2, or another ending.
        RunError: no such run or file, or fewer checkpoints than asked for.
        WeightsError: of different trainings, damaged, or an output that exists already.
    """
    given = [Path(s) for s in ([sources] if isinstance(sources, str | Path) else sources)]
    if not given:
        raise ConfigError("nothing to average: name a run, or two checkpoints or more")
    if last is not None and last < 2:
        raise ConfigError(f"--last: given {last}, allowed: 2 and up")
    if output is not None and Path(output).suffix != ".ckpt":
        raise ConfigError(f"--output: given {output}, allowed: a name that ends in .ckpt")
    paths = _numbered_of(given[0]) if len(given) == 1 else _files(given)
    if last is not None:
        _require_enough(paths, last, given)
        paths = paths[-last:]
    target = paths[-1].with_name(USUAL_NAME) if output is None else Path(output)
    require_new(target)  # before the files are read
    content = average_files(paths)
    write_checkpoint(content, target)
    steps = tuple(content["vitkit"]["average_of_steps"])
    return AverageResult(target, tuple(paths), steps)


def _numbered_of(run: Path) -> list[Path]:
    """The numbered checkpoints of a run, oldest first.

    Raises:
        RunError: it has fewer than two, or is no run.
    """
    if run.is_file():
        raise RunError(f"{run} alone cannot be averaged; give two checkpoints or more, or a run")
    if not run.is_dir():
        raise RunError(f"no such run folder: {run}")
    folder = run / "checkpoints" if (run / "checkpoints").is_dir() else run
    paths = numbered_checkpoints(folder)
    if len(paths) < 2:
        raise RunError(
            f"{folder} has {len(paths)} numbered checkpoints (step-<n>.ckpt), two are needed; "
            "train with trainer.keep_checkpoints=5, or name files"
        )
    return paths


def _files(paths: Sequence[Path]) -> list[Path]:
    """Files by their steps, oldest first.

    Raises:
        RunError: one of them is none.
    """
    for path in paths:
        if path.is_dir():
            raise RunError(f"{path} is a folder; give one run, or checkpoint files")
        if not path.is_file():
            raise RunError(f"no such checkpoint: {path}")
    return sorted(paths, key=lambda path: read_checkpoint(path).step)


def _require_enough(paths: Sequence[Path], last: int, given: Sequence[Path]) -> None:
    if len(paths) < last:
        where = f"{given[0]} has" if len(given) == 1 else "there are"
        raise RunError(
            f"--last: given {last}, but {where} {len(paths)} checkpoints to average; lower it, or "
            f"train with trainer.keep_checkpoints={last}"
        )
