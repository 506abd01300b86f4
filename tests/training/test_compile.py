"""``trainer.compile``: the same weights under the same names, one graph a shape.

The backend runs the graphs that torch captured as they are, so that no compiler is needed.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from tests.small_words import pair_run
from vitkit.app import assemble, train
from vitkit.config import RunConfig
from vitkit.training.budget import Clock, StepPlan, TimeKeeper
from vitkit.weights import read_checkpoint

Tiny = Callable[..., RunConfig]


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> CompileCounterWithBackend:
    """Counts what is compiled, by a backend that traces the backward pass too."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    original = nn.Module.compile

    def compile_with(self: nn.Module, **options: Any) -> None:
        original(self, backend=counter, **options)

    monkeypatch.setattr(nn.Module, "compile", compile_with)
    return counter


def test_a_compiled_network_learns_the_same(tiny: Tiny, graphs: CompileCounterWithBackend) -> None:
    plain = train(tiny("model.depth=1", folder="plain"), progress=False)
    assert graphs.frame_count == 0
    compiled = train(
        tiny("model.depth=1", "trainer.compile=true", folder="compiled"), progress=False
    )
    # One to train; to validate, one of whole batches and one of the last short one or of none.
    assert 2 <= graphs.frame_count <= 3
    one, two = (read_checkpoint(result.checkpoint).trained for result in (plain, compiled))
    assert one.keys() == two.keys()  # no _orig_mod
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-4, atol=1e-5, msg=name)
    assert compiled.metrics["test/acc"] == plain.metrics["test/acc"]


def test_pairs_of_any_length_share_graphs(
    tmp_path: Path, graphs: CompileCounterWithBackend
) -> None:
    plain = [*("model.proj_drop_rate=0", "model.pos_drop_rate=0"), "trainer.max_epochs=3"]
    one = train(pair_run(tmp_path / "one", *plain), progress=False)
    two = train(pair_run(tmp_path / "two", *plain, "trainer.compile=true"), progress=False)
    assert two.record.facts["recompiled_graphs"] == 0
    assert two.metrics["val/loss"] == pytest.approx(one.metrics["val/loss"], rel=1e-4)


def test_a_run_says_how_often_it_was_compiled(
    tiny: Tiny, graphs: CompileCounterWithBackend, capsys: pytest.CaptureFixture[str]
) -> None:
    """A short last batch of the validation is compiled in the first epoch, as all else."""
    more = ("model.depth=1", "data.eval_batch_size=8", "trainer.compile=true")
    result = train(tiny(*more))
    facts = result.record.facts
    assert facts["compiled_graphs"] == graphs.frame_count >= 2
    assert facts["recompiled_graphs"] == 0
    said = f"compile {graphs.frame_count} graphs, 0 of them after the first epoch"
    assert said in capsys.readouterr().out
    assert "compiled_graphs" not in train(tiny(folder="plain"), progress=False).record.facts


def test_growing_images_are_compiled_once_a_size(
    tiny: Tiny, graphs: CompileCounterWithBackend
) -> None:
    """The smaller size and the validation's whole one in the first epoch, then that of training."""
    more = ("model.depth=1", "model.dynamic_img_size=true", "trainer.max_epochs=4")
    sizes = "task.progressive_sizes=[[0.5, 4]]"
    result = train(tiny(*more, sizes, "trainer.compile=true"), progress=False)
    facts = result.record.facts
    assert facts["compiled_graphs"] == graphs.frame_count
    assert facts["recompiled_graphs"] == 1


def test_what_compiling_took_is_no_progress(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """20 seconds, 3 set aside; the first step compiles for 9, the others take one: 8 steps."""
    spent, keepers = [0.0], list[TimeKeeper]()
    steps = TimeKeeper.on_train_batch_end

    def step(self: TimeKeeper, *arguments: Any) -> None:
        spent[0] += 1.0 if keepers else 9.0
        keepers.append(self)
        steps(self, *arguments)

    monkeypatch.setattr(Clock, "seconds", lambda clock: spent[0])
    monkeypatch.setattr(TimeKeeper, "TIMED_AFTER_STEPS", ())
    monkeypatch.setattr(TimeKeeper, "on_train_batch_end", step)
    monkeypatch.setattr(assemble, "compiled_graphs", lambda: int(bool(keepers)))
    monkeypatch.setattr(assemble, "compile_network", lambda network, any_shape: None)
    more = ("trainer.max_epochs=100", "trainer.max_time=20", "trainer.compile=true")
    result = train(tiny(*more, "schedule.name=linear"), progress=False)
    assert result.record.facts["steps"] == 1 + 8
    with (result.folder / "metrics.csv").open() as file:
        rates = [float(row["lr"]) for row in csv.DictReader(file) if row["lr"]]
    # Behind the step that compiled the rate is as if it had taken no time.
    fall = [rate / rates[0] for rate in rates[1:]]
    assert fall == pytest.approx([299 / 300, *(1 - n / 8 for n in range(8))][: len(fall)], abs=0.01)


def test_neither_is_what_the_first_validation_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    spent, graphs = [5.0], [0]
    plan = StepPlan(3, 100)
    keeper = TimeKeeper(
        103.0,
        Clock(),
        plan,
        num_validated=0,
        num_tested=0,
        examples_in=len,
        graphs=lambda: graphs[0],
    )
    monkeypatch.setattr(Clock, "seconds", lambda clock: spent[0])
    trainer: Any = SimpleNamespace(global_step=0, should_stop=False, world_size=1)
    module: Any = None
    keeper.on_train_start(trainer, module)
    assert plan.time_done == 0.05
    keeper.on_validation_start(trainer, module)
    spent[0], graphs[0] = 45.0, 2
    keeper.on_validation_end(trainer, module)
    keeper._look(trainer)
    assert plan.time_done == pytest.approx(5 / 60)


def test_the_timed_evaluation_compiles_nothing(
    tiny: Tiny, graphs: CompileCounterWithBackend
) -> None:
    settings = ("model.depth=1", "trainer.compile=true", "data.val_fraction=0")
    train(tiny(*settings, folder="plain"), progress=False)
    once = graphs.frame_count
    torch._dynamo.reset()
    train(tiny(*settings, "trainer.max_time=600", folder="timed"), progress=False)
    assert graphs.frame_count == 2 * once
