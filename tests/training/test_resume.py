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
from tensorboard.backend.event_processing import (  # type: ignore[import-untyped]
    event_accumulator,
)

from tests.interrupted import (
    LIVELY,
    assert_equal_checkpoints,
    crash_at,
    logged_rows,
    same,
    stop_at,
    stopped_run,
)
from tests.small_data import write_pictures
from vitkit.app import TrainResult, resume, train
from vitkit.config import RunConfig
from vitkit.errors import Interrupted
from vitkit.models import VisionTransformer
from vitkit.training.progress import TrainingProgress
from vitkit.weights import read_checkpoint, read_file

LIVELY_VIT = (
    *LIVELY,
    "model.patch_drop_rate=0.3",
    "model.attn_drop_rate=0.1",
    "model.pos_drop_rate=0.1",
    "trainer.gradient_clip=0.1",
)
"""The same of a ViT: patches and positions drop out too, and gradients are cut."""

Tiny = Callable[..., RunConfig]


@pytest.mark.parametrize("step", [1, 2, 3, 4, 6, 8])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_resume_after_sigterm_is_exact(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, step: int, accumulate: int
) -> None:
    """Three steps an epoch: 3 and 6 stop at an epoch's end, the others in its middle."""
    more = (*LIVELY_VIT, f"trainer.accumulate_grad_batches={accumulate}")
    whole = train(tiny(*more, folder="whole"), progress=False)
    with monkeypatch.context() as patch:
        stop_at(patch, step)
        with pytest.raises(Interrupted) as stopped:
            train(tiny(*more, folder="parts"), progress=False)
    assert stopped.value.exit_code == 128 + signal.SIGTERM
    folder = whole.folder.parent / "parts"
    assert read_checkpoint(folder / "checkpoints" / "last.ckpt").step == step
    _assert_equal_runs(whole, resume(folder, progress=False))


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
    folder = stopped_run(monkeypatch, tiny(folder="parts"), 4)
    random.seed(7)
    np.random.seed(7)
    parts = resume(folder, progress=False)
    assert_equal_checkpoints(whole.checkpoint, parts.checkpoint)


@pytest.mark.parametrize("optimizer", ["sgd", "muon"])
def test_resume_from_a_periodic_checkpoint_is_exact(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    """The process dies without a word; the newest periodic checkpoint is older than that."""
    more = (
        *LIVELY_VIT,
        "trainer.save_every_n_steps=2",
        f"optimizer.name={optimizer}",
        "optimizer.lr=0.01",
        "task.progressive_sizes=[[0.5, 4]]",
        "model.dynamic_img_size=true",
    )
    whole = train(tiny(*more, folder="whole"), progress=False)

    with monkeypatch.context() as patch:
        crash_at(patch, 5)
        with pytest.raises(MemoryError):
            train(tiny(*more, folder="parts"), progress=False)
    folder = whole.folder.parent / "parts"
    assert read_checkpoint(folder / "checkpoints" / "last.ckpt").step == 4
    (first,) = (folder / "tensorboard").glob("events.*")
    first.rename(first.with_name("events.out.tfevents.0"))  # their order is that of their names
    parts = resume(folder, progress=False)
    assert_equal_checkpoints(whole.checkpoint, parts.checkpoint)
    # The step that was lost is logged once, and so are all others.
    assert logged_rows(folder) == logged_rows(whole.folder)
    assert _drawn(folder) == _drawn(whole.folder)


def _whole_and_in_parts(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...], step: int
) -> tuple[TrainResult, TrainResult]:
    """The same training, once without a stop and once stopped after a step and resumed."""
    whole = train(tiny(*more, folder="whole"), progress=False)
    folder = stopped_run(monkeypatch, tiny(*more, folder="parts"), step)
    return whole, resume(folder, progress=False)


def _assert_equal_runs(whole: TrainResult, parts: TrainResult) -> None:
    """Weights, results and curves of a run that was stopped are those of one that was not."""
    assert_equal_checkpoints(whole.checkpoint, parts.checkpoint)
    assert parts.metrics == whole.metrics
    assert logged_rows(parts.folder) == logged_rows(whole.folder)


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
        *LIVELY_VIT,
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
    whole, parts = _whole_and_in_parts(tiny, monkeypatch, more, step)
    assert whole.record.facts["steps"] == 6
    _assert_equal_runs(whole, parts)


@pytest.mark.parametrize("step", [6, 8])
def test_so_is_that_of_repeated_images_of_evened_out_classes(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Six steps an epoch: of 52 images of three classes, twice."""
    more = (
        *LIVELY_VIT,
        "data.synthetic_classes=3",
        "data.repeats=2",
        "data.sampling=balanced",
        "data.augment.flip=random",
        "trainer.max_epochs=2",
    )
    whole, parts = _whole_and_in_parts(tiny, monkeypatch, more, step)
    assert whole.record.facts["steps"] == 12
    _assert_equal_runs(whole, parts)


def test_so_is_that_of_a_checkpoint_of_the_first_version(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which counted images alone, kept no copies, and knew neither the sums of an epoch's first
    part nor whether its time was up.
    """
    more = ("trainer.max_time=100000", "schedule.name=constant", "schedule.warmup=0")
    whole = train(tiny(*more, folder="whole"), progress=False)
    folder = stopped_run(monkeypatch, tiny(*more, folder="parts"), 4)
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
    assert_equal_checkpoints(whole.checkpoint, parts.checkpoint)
    assert parts.metrics == whole.metrics
    assert counted == [9 * 16]  # of both parts


def test_interrupt_by_ctrl_c_gives_its_own_exit_code(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_at(monkeypatch, 2, signal.SIGINT)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted) as stopped:
        train(tiny(), progress=False)
    assert stopped.value.exit_code == 130
    assert signal.getsignal(signal.SIGINT) is before


def test_same_seed_same_weights_and_another_seed_others(tiny: Tiny) -> None:
    one = train(tiny(*LIVELY_VIT, folder="one"), progress=False)
    two = train(tiny(*LIVELY_VIT, folder="two"), progress=False)
    other = train(tiny(*LIVELY_VIT, "run.seed=1", folder="other"), progress=False)
    assert_equal_checkpoints(one.checkpoint, two.checkpoint)
    states = [read_checkpoint(r.checkpoint).trained for r in (one, other)]
    assert not same(states[0], states[1])


def test_the_log_has_each_step_once_after_resume(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = stopped_run(monkeypatch, tiny(), 5)
    resume(folder, progress=False)
    with (folder / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["train/loss"]]
    assert [int(row["step"]) for row in rows] == list(range(9))
