"""A run that stops and goes on equals one that never stopped, bit for bit."""

from __future__ import annotations

import csv
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from tensorboard.backend.event_processing import (  # type: ignore[import-untyped]
    event_accumulator,
)

from tests.small_data import write_pictures
from vitkit.app import assemble, resume, train
from vitkit.config import RunConfig
from vitkit.errors import Interrupted
from vitkit.models import VisionTransformer
from vitkit.training.progress import TrainingProgress
from vitkit.weights import read_checkpoint, read_file

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
"""Everything that draws random numbers or keeps state, on at once."""

Tiny = Callable[..., RunConfig]


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


def _stop_at(monkeypatch: pytest.MonkeyPatch, step: int, signum: int = signal.SIGTERM) -> None:
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


def _crash_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    original = assemble.make_callbacks
    monkeypatch.setattr(assemble, "make_callbacks", lambda *args: [CrashAt(step), *original(*args)])


def _stopped(monkeypatch: pytest.MonkeyPatch, config: RunConfig, step: int) -> Path:
    """The folder of a run that a signal has stopped after a step."""
    with monkeypatch.context() as patch:
        _stop_at(patch, step)
        with pytest.raises(Interrupted):
            train(config, progress=False)
    return Path(config.run.dir or "")


def _same(one: Any, two: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == two.dtype and torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(_same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(_same, one, two))
    return bool(one == two)


def _assert_equal_checkpoints(one: Path, two: Path) -> None:
    first, second = read_file(one), read_file(two)
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch"):
        assert _same(first[key], second[key]), key
    for key in ("averaged", "average_updates"):
        assert _same(first["vitkit"].get(key), second["vitkit"].get(key)), key


@pytest.mark.parametrize("step", [1, 2, 3, 4, 6, 8])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_resume_after_sigterm_is_exact(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, step: int, accumulate: int
) -> None:
    """Three steps an epoch: 3 and 6 stop at an epoch's end, the others in its middle."""
    more = (*LIVELY, f"trainer.accumulate_grad_batches={accumulate}")
    whole = train(tiny(*more, folder="whole"), progress=False)
    with monkeypatch.context() as patch:
        _stop_at(patch, step)
        with pytest.raises(Interrupted) as stopped:
            train(tiny(*more, folder="parts"), progress=False)
    assert stopped.value.exit_code == 128 + signal.SIGTERM
    folder = whole.folder.parent / "parts"
    assert read_checkpoint(folder / "checkpoints" / "last.ckpt").step == step
    parts = resume(folder, progress=False)
    _assert_equal_checkpoints(whole.checkpoint, parts.checkpoint)
    assert parts.metrics == whole.metrics
    assert _logged(parts.folder) == _logged(whole.folder)


def test_so_is_that_of_a_model_that_draws_from_python_and_numpy(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person's own may well."""
    plain = VisionTransformer.forward_features

    def noisy(self: VisionTransformer, x: torch.Tensor, **more: Any) -> torch.Tensor:
        scale = 1.0 + random.random() + np.random.rand() if self.training else 1.0
        return plain(self, x * scale, **more)

    monkeypatch.setattr(VisionTransformer, "forward_features", noisy)
    whole = train(tiny(folder="whole"), progress=False)
    folder = _stopped(monkeypatch, tiny(folder="parts"), 4)
    random.seed(7)
    np.random.seed(7)
    parts = resume(folder, progress=False)
    _assert_equal_checkpoints(whole.checkpoint, parts.checkpoint)


def _logged(folder: Path) -> list[dict[str, str]]:
    """All rows of a run's curves, but for how long they took."""
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        {k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in rows
    ]


@pytest.mark.parametrize("optimizer", ["sgd", "muon"])
def test_resume_from_a_periodic_checkpoint_is_exact(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    """The process dies without a word; the newest periodic checkpoint is older than that."""
    more = (
        *LIVELY,
        "trainer.save_every_n_steps=2",
        f"optimizer.name={optimizer}",
        "optimizer.lr=0.01",
        "task.progressive_sizes=[[0.5, 4]]",
        "model.dynamic_img_size=true",
    )
    whole = train(tiny(*more, folder="whole"), progress=False)

    with monkeypatch.context() as patch:
        _crash_at(patch, 5)
        with pytest.raises(MemoryError):
            train(tiny(*more, folder="parts"), progress=False)
    folder = whole.folder.parent / "parts"
    assert read_checkpoint(folder / "checkpoints" / "last.ckpt").step == 4
    (first,) = (folder / "tensorboard").glob("events.*")
    first.rename(first.with_name("events.out.tfevents.0"))  # their order is that of their names
    parts = resume(folder, progress=False)
    _assert_equal_checkpoints(whole.checkpoint, parts.checkpoint)
    # The step that was lost is logged once, and so are all others.
    assert _logged(folder) == _logged(whole.folder)
    assert _drawn(folder) == _drawn(whole.folder)


def _drawn(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of a run, but for how long it took."""
    events = event_accumulator.EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    names = set(events.Tags()["scalars"]) - {"seconds", "images_per_second"}
    assert {"train/loss", "val/loss", "lr"} <= names
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in names}


@pytest.mark.parametrize("step", [3, 4])
def test_so_is_that_of_streamed_pictures(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, step: int
) -> None:
    """A process of its own decodes them; three steps an epoch."""
    write_pictures(tmp_path / "pictures")
    more = (
        *LIVELY,
        "data.name=image_folder",
        f"data.root={tmp_path / 'pictures'}",
        "data.resident=never",
        "data.num_workers=1",
        "data.persistent_workers=false",
        "data.batch_size=4",
        "data.augment.crop_padding=0",
        "data.augment.resized_crop_scale=0.5",
        "trainer.max_epochs=2",
    )
    whole = train(tiny(*more, folder="whole"), progress=False)
    assert whole.record.facts["steps"] == 6
    folder = _stopped(monkeypatch, tiny(*more, folder="parts"), step)
    parts = resume(folder, progress=False)
    _assert_equal_checkpoints(whole.checkpoint, parts.checkpoint)
    assert parts.metrics == whole.metrics
    assert _logged(parts.folder) == _logged(whole.folder)


def test_so_is_that_of_a_checkpoint_of_the_first_version(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which counted images alone, kept no copies, and knew neither the sums of an epoch's first
    part nor whether its time was up.
    """
    more = ("trainer.max_time=100000", "schedule.name=constant", "schedule.warmup=0")
    whole = train(tiny(*more, folder="whole"), progress=False)
    folder = _stopped(monkeypatch, tiny(*more, folder="parts"), 4)
    last = folder / "checkpoints" / "last.ckpt"
    content = read_file(last)
    changed = set()
    for state in content["callbacks"].values():
        for key in ("kept", "best_metrics", "ended", "compiling"):
            if state.pop(key, None) is not None:
                changed.add(key)
        if "count" in state:
            state["images"] = state.pop("count")
            changed.add("count")
    assert {"kept", "best_metrics", "ended", "count"} <= changed
    assert content["vitkit"].pop("train_sums") is not None
    torch.save(content, last)
    counted: list[float] = []
    monkeypatch.setattr(
        TrainingProgress, "on_train_end", lambda self, *rest: counted.append(self.count)
    )
    parts = resume(folder, progress=False)
    _assert_equal_checkpoints(whole.checkpoint, parts.checkpoint)
    assert parts.metrics == whole.metrics
    assert counted == [9 * 16]  # of both parts


def test_interrupt_by_ctrl_c_gives_its_own_exit_code(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    _stop_at(monkeypatch, 2, signal.SIGINT)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted) as stopped:
        train(tiny(), progress=False)
    assert stopped.value.exit_code == 130
    assert signal.getsignal(signal.SIGINT) is before


def test_same_seed_same_weights_and_another_seed_others(tiny: Tiny) -> None:
    one = train(tiny(*LIVELY, folder="one"), progress=False)
    two = train(tiny(*LIVELY, folder="two"), progress=False)
    other = train(tiny(*LIVELY, "run.seed=1", folder="other"), progress=False)
    _assert_equal_checkpoints(one.checkpoint, two.checkpoint)
    states = [read_checkpoint(r.checkpoint).trained for r in (one, other)]
    assert not _same(states[0], states[1])


def test_the_log_has_each_step_once_after_resume(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    import csv

    folder = _stopped(monkeypatch, tiny(), 5)
    resume(folder, progress=False)
    with (folder / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["train/loss"]]
    assert [int(row["step"]) for row in rows] == list(range(9))
