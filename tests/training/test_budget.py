"""A run that is given a time ends its schedule, its evaluation and its results within it."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning import LightningModule

from tests.conftest import TINY, Command
from tests.interrupted import stop_at, stopped_run
from tests.training.test_pretraining import DINO
from vitkit.app import resume, train
from vitkit.app.jobs.classification import ClassificationJob
from vitkit.config import RunConfig
from vitkit.errors import Interrupted
from vitkit.records import Record
from vitkit.training import budget
from vitkit.training.budget import Clock, StepPlan, TimeKeeper
from vitkit.training.pretraining import PretrainingTask
from vitkit.training.task import ClassificationTask
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


def test_the_step_that_the_time_ends_with_is_logged_as_it_is(
    tiny: Tiny, ticks: list[float]
) -> None:
    """The fifth, with a row every fourth."""
    more = ("trainer.max_epochs=100", "trainer.max_time=8", "schedule.name=linear")
    fourth = "trainer.log_every_n_steps=4"
    result = train(tiny(*more, fourth, "optimizer.lr=1.0", "optimizer.name=sgd"), progress=False)
    assert result.record.facts["steps"] == 5
    assert _rates(result.folder) == pytest.approx([0.6, 0.4], abs=1e-6)


def test_a_resumed_run_has_only_the_time_that_is_left(
    tiny: Tiny, ticks: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, 2, signal.SIGINT)
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
    original, measure = TimeKeeper.on_train_batch_end, budget._seconds_of
    modes: list[bool] = []
    taken: list[float] = []

    def spy(self, trainer, module, *args):  # type: ignore[no-untyped-def]
        original(self, trainer, module, *args)
        kept.append(self)
        modes.append(module.model.training)

    def timed(*arguments: Any) -> float:
        taken.append(measure(*arguments))
        return taken[-1]

    monkeypatch.setattr(TimeKeeper, "on_train_batch_end", spy)
    monkeypatch.setattr(TimeKeeper, "TIMED_AFTER_STEPS", (2,))
    monkeypatch.setattr(budget, "_seconds_of", timed)
    result = train(tiny("trainer.max_time=1000", "model.proj_drop_rate=0.1"), progress=False)
    data = read_checkpoint(result.checkpoint).data
    assert len(taken) == 2 and min(taken) > 0
    seconds = (taken[0] * data["num_val"] + taken[1] * data["num_test"]) / 16
    assert kept[-1]._reserve == pytest.approx(kept[-1].margin + seconds, rel=1e-9)
    assert all(modes)


@pytest.mark.parametrize(
    ("task", "more", "tested"), [(ClassificationTask, (), 16), (PretrainingTask, DINO, 80)]
)
def test_validation_and_test_are_timed_as_they_will_be(
    tiny: Tiny,
    monkeypatch: pytest.MonkeyPatch,
    task: type[ClassificationTask | PretrainingTask],
    more: tuple[str, ...],
    tested: int,
) -> None:
    """The one by its own step in bfloat16, the other by a pass in float32."""
    keepers: list[TimeKeeper] = []
    validated: list[Any] = []
    timed: list[tuple[bool, bool]] = []
    step, end_step = task.validation_step, TimeKeeper._end_step

    def validation_step(self: Any, batch: Any, index: int) -> None:
        validated.append(batch)
        step(self, batch, index)

    def keep(self: TimeKeeper, *arguments: Any) -> None:
        keepers.append(self)
        end_step(self, *arguments)

    def seconds_of(forward: Callable[[], Any], module: LightningModule) -> float:
        before = len(validated)
        forward()
        timed.append((len(validated) > before, torch.is_autocast_enabled("cpu")))
        return 0.5 if timed[-1][0] else 0.25

    monkeypatch.setattr(task, "validation_step", validation_step)
    monkeypatch.setattr(TimeKeeper, "_end_step", keep)
    monkeypatch.setattr(TimeKeeper, "TIMED_AFTER_STEPS", (1,))
    monkeypatch.setattr(budget, "_seconds_of", seconds_of)
    limited = ("trainer.max_time=1000", "trainer.precision=bf16-mixed", "trainer.max_epochs=1")
    train(tiny(*more, *limited), progress=False)
    assert timed == [(True, True), (False, False)]
    assert keepers[-1]._reserve == pytest.approx(3 + (0.5 * 12 + 0.25 * tested) / 16)


def test_of_two_evaluation_passes_the_second_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one warms up."""
    now, passes = [0.0], [100.0, 0.25]
    monkeypatch.setattr(budget, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def forward() -> None:
        now[0] += passes.pop(0)

    assert budget._seconds_of(forward, LightningModule()) == 0.25 and not passes


@pytest.mark.parametrize(
    ("shares", "spent", "ends"), [([0.5, 1.5], 0.0, True), ([0.5, 0.9], 1000.0, False)]
)
def test_the_clock_of_the_first_process_is_everyones(
    monkeypatch: pytest.MonkeyPatch, shares: list[float], spent: float, ends: bool
) -> None:
    """What this one's own says of the time for another step is the opposite."""
    told_by: list[int] = []

    def broadcast(own: list[float], src: int) -> list[float]:
        told_by.append(src)
        return [*shares, 1.0]

    strategy = SimpleNamespace(broadcast=broadcast)
    trainer: Any = SimpleNamespace(
        world_size=2, global_step=0, should_stop=False, strategy=strategy
    )
    monkeypatch.setattr(Clock, "seconds", lambda self: spent)
    plan = StepPlan(steps_per_epoch=10, max_epochs=10)
    keeper = TimeKeeper(100, Clock(), plan, num_validated=0, num_tested=0, examples_in=len)
    keeper.on_train_batch_end(trainer, LightningModule(), None, None, 0)
    assert told_by == [0]
    assert plan.time_done == 0.5 and trainer.should_stop == ends


@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize(
    ("step_seconds", "seconds", "looks"),
    [
        (2.0, 10.0, range(1, 6)),
        (0.25, 10.0, [*range(1, 38, 4), 40]),
        (1 / 64, 2.0, [*range(1, 122, 20), 128]),
    ],
)
def test_several_processes_look_at_the_clock_once_a_second_and_end_in_time(
    monkeypatch: pytest.MonkeyPatch,
    step_seconds: float,
    seconds: float,
    looks: list[int],
    micro_batches: int,
) -> None:
    """At most 20 steps lie between, and no look within a step."""
    now, asked = [0.0], []

    def broadcast(own: list[float], src: int) -> list[float]:
        asked.append(trainer.global_step)
        return own

    trainer: Any = SimpleNamespace(
        world_size=2,
        global_step=0,
        should_stop=False,
        strategy=SimpleNamespace(broadcast=broadcast),
    )
    monkeypatch.setattr(Clock, "seconds", lambda self: now[0])
    monkeypatch.setattr(TimeKeeper, "TIMED_AFTER_STEPS", ())
    plan = StepPlan(steps_per_epoch=1000, max_epochs=10)
    keeper = TimeKeeper(
        seconds, Clock(), plan, num_validated=0, num_tested=0, examples_in=len, margin=0.0
    )
    keeper.on_train_start(trainer, LightningModule())
    while not trainer.should_stop:
        for micro_batch in range(1, micro_batches + 1):
            keeper.on_train_batch_start(trainer, LightningModule(), None, 0)
            now[0] += step_seconds / micro_batches
            trainer.global_step += micro_batch == micro_batches
            keeper.on_train_batch_end(trainer, LightningModule(), None, None, 0)
    assert asked == [0, *looks]
    assert now[0] == seconds and plan.time_done == 1.0


def test_starting_python_counts_in_a_new_run_and_in_one_that_goes_on(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, vitkit_command: Command
) -> None:
    """The process of each had been running for a quarter of an hour."""
    monkeypatch.setattr("vitkit.app.process_seconds", lambda: 900.0)
    folder = Path(str(tiny().run.dir))
    assert vitkit_command("train", *TINY, f"run.dir={folder}", "-q")[0] == 0
    assert 900 < float(str(Record.read(folder / "results.json").facts["wall_seconds"])) < 1800
    stopped = stopped_run(monkeypatch, tiny(folder="stopped"), 4)
    assert vitkit_command("train", "--resume", stopped, "-q")[0] == 0
    assert 900 < float(str(Record.read(stopped / "results.json").facts["wall_seconds"])) < 1800


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


def test_a_process_has_been_running_since_before_its_first_line() -> None:
    """And no longer than its parent waits for it; a clock tick is a hundredth of a second."""
    lines = ["import time", "began = time.perf_counter()", "time.sleep(0.5)"]
    load = "from vitkit.app import process_seconds"
    # Where the system does not tell, the import is what it is counted from.
    lines = [*lines, load] if Path("/proc/self/stat").exists() else [load, *lines]
    code = "\n".join([*lines, "print(time.perf_counter() - began, process_seconds())"])
    before = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    waited = time.perf_counter() - before
    since_first_line, told = map(float, done.stdout.split())
    assert 0.5 <= since_first_line < told < waited + 0.02
