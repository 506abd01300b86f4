"""Blocks recomputed in the backward pass, and what memory a training says it took."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vitkit.app import train
from vitkit.config import RunConfig
from vitkit.errors import ConfigError
from vitkit.nn.blocks import Block
from vitkit.weights import read_checkpoint

Tiny = Callable[..., RunConfig]


def test_recomputing_blocks_changes_no_bit(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """With dropout and stochastic depth on, whose draws must be the same again."""
    forward, ran = Block.forward, []

    def spy(self: Block, *args: object, **kwargs: object) -> object:
        ran.append(self.training)
        return forward(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Block, "forward", spy)
    weights, counts = [], []
    for on in ("false", "true"):
        ran.clear()
        config = tiny(
            f"trainer.grad_checkpointing={on}",
            "model.proj_drop_rate=0.2",
            "model.drop_path_rate=0.2",
            # the class token's last block is read for one token, by another way
            "model.class_token=false",
            "model.global_pool=avg",
            folder=on,
        )
        weights.append(read_checkpoint(train(config, progress=False).checkpoint).trained)
        counts.append(sum(ran))
    assert counts == [2 * 9, 2 * 2 * 9]  # blocks x steps, and each twice
    for name, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][name]), name


def test_a_model_that_cannot_is_named(tmp_path: Path) -> None:
    settings = ["model.name=resnet20_32", "data.name=synthetic", f"run.dir={tmp_path}"]
    settings += ["trainer.accelerator=cpu", "trainer.grad_checkpointing=true"]
    with pytest.raises(ConfigError, match=r"trainer\.grad_checkpointing: resnet20_32 cannot"):
        train(None, settings, progress=False)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell")
def test_a_training_says_what_memory_it_took(tiny: Tiny) -> None:
    import resource

    facts = train(tiny("trainer.max_epochs=1"), progress=False).record.facts
    said = float(str(facts["peak_memory_mb"])) * 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    assert 1e8 < said <= after + 1e6  # torch alone takes more than the first
