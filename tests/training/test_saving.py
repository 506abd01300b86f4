"""How often a training writes its checkpoint."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vitkit.app import train
from vitkit.config import RunConfig
from vitkit.training.checkpoints import Checkpoints
from vitkit.weights import read_checkpoint

Tiny = Callable[..., RunConfig]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Epochs, from 1, behind which ``last.ckpt`` was written."""
    epochs: list[int] = []
    original = Checkpoints._write_last

    def write(self: Checkpoints, trainer) -> None:  # type: ignore[no-untyped-def]
        epochs.append(trainer.current_epoch + 1)
        original(self, trainer)

    monkeypatch.setattr(Checkpoints, "_write_last", write)
    return epochs


def test_every_third_epoch_and_the_last_one(tiny: Tiny, written: list[int]) -> None:
    every = ("trainer.max_epochs=7", "trainer.save_every_n_epochs=3", "data.val_fraction=0")
    result = train(tiny(*every), progress=False)
    assert written == [3, 6, 7]
    assert read_checkpoint(result.checkpoint).step == result.record.facts["steps"]


def test_a_better_epoch_is_always_written(tiny: Tiny, written: list[int]) -> None:
    """At a rate that changes nothing the first epoch stays the best by accuracy."""
    still = ("trainer.max_epochs=4", "trainer.save_every_n_epochs=100", "optimizer.lr=1e-9")
    train(tiny(*still), progress=False)
    assert written == [1, 4]
