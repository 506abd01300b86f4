"""How often a training writes its checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vitkit.app import resume, train
from vitkit.config import RunConfig
from vitkit.training.checkpoints import Checkpoints, numbered_checkpoints
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


def test_steps_of_their_own_count_at_epoch_ends_too(tiny: Tiny, written: list[int]) -> None:
    """Four steps an epoch, every sixth written: the twelfth is an epoch's last."""
    steps = ("trainer.save_every_n_steps=6", "trainer.save_every_n_epochs=100")
    kept = ("trainer.max_epochs=5", "data.val_fraction=0", "trainer.keep_checkpoints=9")
    result = train(tiny(*steps, *kept), progress=False)
    assert written == [2, 3, 5, 5]
    copies = [path.name for path in numbered_checkpoints(result.folder / "checkpoints")]
    assert copies == ["step-6.ckpt", "step-12.ckpt", "step-18.ckpt"]
    assert read_checkpoint(result.checkpoint).step == 20


def test_steps_of_their_own_leave_epoch_ends_as_they_are(tiny: Tiny, written: list[int]) -> None:
    steps = ("trainer.save_every_n_steps=6", "trainer.max_epochs=2", "data.val_fraction=0")
    train(tiny(*steps), progress=False)
    assert written == [1, 2, 2]


def test_copies_are_equally_far_apart_whatever_was_better(tiny: Tiny, written: list[int]) -> None:
    rare = ("trainer.save_every_n_epochs=3", "trainer.keep_checkpoints=9")
    result = train(tiny("trainer.max_epochs=5", "optimizer.lr=1e-9", *rare), progress=False)
    assert written == [1, 3, 5]
    copies = [path.name for path in numbered_checkpoints(result.folder / "checkpoints")]
    assert copies == ["step-9.ckpt"]


def test_a_better_epoch_is_always_written(tiny: Tiny, written: list[int]) -> None:
    """At a rate that changes nothing the first epoch stays the best by accuracy."""
    still = ("trainer.max_epochs=4", "trainer.save_every_n_epochs=100", "optimizer.lr=1e-9")
    train(tiny(*still), progress=False)
    assert written == [1, 4]


@pytest.mark.parametrize("epochs", [1, 3])
def test_copies_that_were_never_made_are_made_where_the_run_goes_on(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, epochs: int
) -> None:
    """Killed between the first epoch's checkpoint and its copies; no later one is better. With one
    epoch nothing is left to train.
    """
    kept = ("trainer.keep_checkpoints=1", "trainer.keep_best=true", "optimizer.lr=1e-9")
    config = tiny(f"trainer.max_epochs={epochs}", *kept)

    def killed(self: Checkpoints, path: Path) -> None:
        raise MemoryError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "_copy_last", killed)
        with pytest.raises(MemoryError):
            train(config, progress=False)
    folder = Path(str(config.run.dir)) / "checkpoints"
    assert [path.name for path in folder.iterdir()] == ["last.ckpt"]
    resume(folder.parent, progress=False)
    for name in ("best.ckpt", "step-3.ckpt"):
        copy = read_checkpoint(folder / name)
        assert (copy.epoch, copy.step) == (0, 3), name


def test_a_best_copy_of_an_earlier_epoch_is_replaced_where_the_run_goes_on(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny("trainer.max_epochs=9", "trainer.monitor=val/loss")
    copy, copied = Checkpoints._copy_last, list[Path]()

    def killed_at_the_second(self: Checkpoints, path: Path) -> None:
        copied.append(path)
        if len(copied) == 2:
            raise MemoryError("gone")
        copy(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "_copy_last", killed_at_the_second)
        with pytest.raises(MemoryError):
            train(config, progress=False)
    folder = Path(str(config.run.dir)) / "checkpoints"
    better = read_checkpoint(folder / "last.ckpt").epoch
    assert read_checkpoint(folder / "best.ckpt").epoch < better
    seen: list[int] = []
    started = Checkpoints.on_train_start

    def look(self: Checkpoints, *arguments: Any) -> None:
        seen.append(read_checkpoint(self.best_path).epoch)
        started(self, *arguments)

    monkeypatch.setattr(Checkpoints, "on_train_start", look)
    resume(folder.parent, progress=False)
    assert seen == [better]
