"""``trainer.compile``: the same weights under the same names, one graph a shape.

The backend runs the graphs that torch captured as they are, so that no compiler is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from tests.small_words import pair_run
from vitkit.app import train
from vitkit.config import RunConfig
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
