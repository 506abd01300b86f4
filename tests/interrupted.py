"""Runs that are stopped on the way, and whether what goes on equals what was never stopped."""

from __future__ import annotations

import csv
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from vitkit.app import assemble, train
from vitkit.config import RunConfig
from vitkit.errors import Interrupted
from vitkit.weights import read_file

__all__ = [
    "LIVELY",
    "CrashAt",
    "StopAt",
    "assert_equal_checkpoints",
    "crash_at",
    "logged_rows",
    "same",
    "stop_at",
    "stopped_run",
]

LIVELY = (
    "ema.enabled=true",
    "task.mixup=0.4",
    "task.cutmix=1.0",
    "data.augment.crop_padding=1",
    "data.augment.flip=alternate",
    "data.augment.policy=rand-m9-mstd0.5-inc1",
    "data.augment.color_jitter=0.2",
    "data.augment.erase_prob=0.3",
    "model.drop_path_rate=0.2",
    "model.proj_drop_rate=0.1",
    "schedule.warmup=0.3",
)
"""Everything that draws random numbers or keeps state in a model of any kind, on at once."""


class StopAt(Callback):
    """Sends a signal to this very process after an optimiser step."""

    def __init__(self, step: int, signum: int) -> None:
        self.step, self.signum = step, signum
        self.sent = False  # a second signal would kill, as it should

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.step - 1 and not self.sent:
            self.sent = True
            signal.raise_signal(self.signum)  # os.kill would end the tests on Windows


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int, signum: int = signal.SIGTERM) -> None:
    """Every training from here on is sent a signal after a step."""
    original = assemble.make_callbacks
    monkeypatch.setattr(
        assemble, "make_callbacks", lambda *args: [StopAt(step, signum), *original(*args)]
    )


class CrashAt(Callback):
    """Ends the process, as far as the training can see, when so many optimiser steps are done."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.step:
            raise MemoryError("gone")


def crash_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Every training from here on crashes when so many steps are done."""
    original = assemble.make_callbacks
    monkeypatch.setattr(assemble, "make_callbacks", lambda *args: [CrashAt(step), *original(*args)])


def stopped_run(monkeypatch: pytest.MonkeyPatch, config: RunConfig, step: int) -> Path:
    """The folder of a run that a signal has stopped after a step."""
    with monkeypatch.context() as patch:
        stop_at(patch, step)
        with pytest.raises(Interrupted):
            train(config, progress=False)
    return Path(config.run.dir or "")


def same(one: Any, two: Any) -> bool:
    """Whether two values of a checkpoint are equal to the bit."""
    if isinstance(one, torch.Tensor):
        return one.dtype == two.dtype and torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return bool(one == two)


def assert_equal_checkpoints(one: Path, two: Path) -> None:
    """Weights, optimiser, schedule and averages of two checkpoints are equal to the bit."""
    first, second = read_file(one), read_file(two)
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch"):
        assert same(first[key], second[key]), key
    for key in ("averaged", "average_updates"):
        assert same(first["vitkit"].get(key), second["vitkit"].get(key)), key


def logged_rows(folder: Path) -> list[dict[str, str]]:
    """All rows of a run's curves, but for how long they took."""
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        {k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in rows
    ]
