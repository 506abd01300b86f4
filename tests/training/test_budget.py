"""A run that is given a time ends its schedule, its evaluation and its results within it."""

from __future__ import annotations

import csv
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.test_resume import _stop_at
from vitkit.app import process_seconds, resume, train
from vitkit.app.jobs.classification import ClassificationJob
from vitkit.config import RunConfig
from vitkit.errors import Interrupted
from vitkit.training import budget
from vitkit.training.budget import Clock, TimeKeeper
from vitkit.weights import read_checkpoint

Tiny = Callable[..., RunConfig]


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that moves on by one second whenever a step looks at it."""
    spent = [0.0]

    def seconds(self: Clock) -> float:
        return spent[0]

    def add(self: Clock, earlier: float) -> None:
        spent[0] += earlier

    original = TimeKeeper.on_train_batch_end

    def step(self, *args):  # type: ignore[no-untyped-def]
        spent[0] += 1.0
        original(self, *args)

    monkeypatch.setattr(Clock, "seconds", seconds)
    monkeypatch.setattr(Clock, "add", add)
    monkeypatch.setattr(TimeKeeper, "on_train_batch_end", step)
    monkeypatch.setattr(TimeKeeper, "TIMED_AFTER_STEPS", ())
    return spent


def _rates(folder) -> list[float]:  # type: ignore[no-untyped-def]
    with (folder / "metrics.csv").open() as file:
        return [float(row["lr"]) for row in csv.DictReader(file) if row["lr"]]


def test_the_schedule_ends_with_the_time(tiny: Tiny, ticks: list[float]) -> None:
    """8 seconds, 3 of them set aside, a second a step: 5 of the 300 steps, linear to zero."""
    more = ("trainer.max_epochs=100", "trainer.max_time=8", "schedule.name=linear")
    result = train(tiny(*more, "optimizer.lr=1.0", "optimizer.name=sgd"), progress=False)
    assert result.record.facts["steps"] == 5
    assert result.record.facts["epochs"] == round(5 / 3, 2)
    assert "test/acc" in result.metrics
    # A rate is set before its step's second has passed, but for the first.
    assert _rates(result.folder) == pytest.approx([300 / 301, 299 / 301, 0.8, 0.6, 0.4], abs=1e-6)


def test_a_resumed_run_has_only_the_time_that_is_left(
    tiny: Tiny, ticks: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        _stop_at(patch, 2, signal.SIGINT)
        with pytest.raises(Interrupted):
            train(tiny("trainer.max_epochs=100", "trainer.max_time=9", folder="x"), progress=False)
    ticks[0] = 0.5  # a new process has been starting for half a second
    folder = str(tiny(folder="x").run.dir)
    result = resume(folder, progress=False)
    # 2 of 6 seconds were used, and half a second more: a fourth step would end too late.
    assert result.record.facts["steps"] == 5
    assert float(str(result.record.facts["wall_seconds"])) == 5.5


def test_what_had_used_up_its_time_trains_no_more(
    tiny: Tiny, ticks: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in its test, when more was set aside than a resumed run knows of."""
    config = tiny("trainer.max_epochs=100", "trainer.max_time=30", folder="x")
    end_step = TimeKeeper._end_step

    def set_aside(self: TimeKeeper, *arguments: Any) -> None:
        end_step(self, *arguments)
        self._reserve = 19.0

    with monkeypatch.context() as patch:
        patch.setattr(TimeKeeper, "_end_step", set_aside)
        patch.setattr(ClassificationJob, "test", _interrupted)
        with pytest.raises(Interrupted):
            train(config, progress=False)
    assert config.run.dir is not None
    steps = read_checkpoint(Path(config.run.dir) / "checkpoints" / "last.ckpt").step
    assert steps == 11
    ticks[0] = 0.0
    result = resume(config.run.dir, progress=False)
    assert result.record.facts["steps"] == steps and "val/acc" in result.metrics


def _interrupted(*arguments: object, **options: object) -> None:
    raise KeyboardInterrupt


def test_evaluation_is_timed_and_set_aside(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[TimeKeeper] = []
    original = TimeKeeper.on_train_batch_end
    modes: list[bool] = []

    def spy(self, trainer, module, *args):  # type: ignore[no-untyped-def]
        original(self, trainer, module, *args)
        kept.append(self)
        modes.append(module.model.training)

    monkeypatch.setattr(TimeKeeper, "on_train_batch_end", spy)
    monkeypatch.setattr(TimeKeeper, "TIMED_AFTER_STEPS", (2,))
    train(tiny("trainer.max_time=1000", "model.proj_drop_rate=0.1"), progress=False)
    reserve = kept[-1]._reserve
    assert reserve is not None and kept[-1].margin < reserve < kept[-1].margin + 10
    assert all(modes)


def test_a_training_of_few_long_steps_sets_its_evaluation_aside_too(
    tiny: Tiny, ticks: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tenth of a second an image is known after the first step."""
    monkeypatch.setattr(TimeKeeper, "TIMED_AFTER_STEPS", (1, 8))
    monkeypatch.setattr(budget, "_seconds_of", lambda *_: 1.6)  # for a batch of 16
    result = train(tiny("trainer.max_epochs=100", "trainer.max_time=10"), progress=False)
    data = read_checkpoint(result.checkpoint).data
    evaluation = 0.1 * (data["num_val"] + data["num_test"])
    assert evaluation > 1
    steps = int(str(result.record.facts["steps"]))
    assert steps == int(10 - 3 - evaluation) < 8
    assert ticks[0] + evaluation + 3 <= 10


def test_no_step_begins_that_validation_has_left_no_time_for(
    tiny: Tiny, ticks: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """3 steps of a second, 2.5 seconds of validation: of 6 seconds half a one is left."""
    original = TimeKeeper.on_train_epoch_end

    def validated(self, *args):  # type: ignore[no-untyped-def]
        ticks[0] += 2.5
        original(self, *args)

    monkeypatch.setattr(TimeKeeper, "on_train_epoch_end", validated)
    result = train(tiny("trainer.max_epochs=100", "trainer.max_time=9"), progress=False)
    assert result.record.facts["steps"] == 3 and ticks[0] == 5.5


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_is_as_long_as_its_micro_batches(
    tiny: Tiny, ticks: list[float], accumulate: int
) -> None:
    """A second a micro-batch: of 5 seconds 5 steps of one or 2 of two, and none begun in vain."""
    more = ("trainer.max_epochs=100", "trainer.max_time=8")
    accumulated = f"trainer.accumulate_grad_batches={accumulate}"
    result = train(tiny(*more, accumulated), progress=False)
    assert result.record.facts["steps"] == 5 // accumulate
    assert ticks[0] == 5 // accumulate * accumulate


def test_a_time_that_is_too_short_for_anything_still_takes_a_step(
    tiny: Tiny, ticks: list[float]
) -> None:
    result = train(tiny("trainer.max_epochs=100", "trainer.max_time=0.5"), progress=False)
    assert result.record.facts["steps"] == 1


def test_timing_an_evaluation_changes_no_bit_of_the_training(tiny: Tiny) -> None:
    more = ("model.drop_path_rate=0.2", "model.proj_drop_rate=0.1", "trainer.max_epochs=5")
    plain = train(tiny(*more, folder="plain"), progress=False)
    timed = train(tiny(*more, "trainer.max_time=100000", folder="timed"), progress=False)
    assert plain.metrics == timed.metrics


def test_the_process_has_been_running_for_longer_than_torch_takes_to_import() -> None:
    assert torch.__version__
    assert 0.5 < process_seconds() < 3600
