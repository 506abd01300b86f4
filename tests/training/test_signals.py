"""Signals that end a training: one that another process got, and a second one."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from vitkit.app.runs import discard_run_folder
from vitkit.errors import Interrupted
from vitkit.training.checkpoints import ASK_EVERY, Checkpoints, StopSignals


class OfTwo:
    """Lightning's Trainer in one of two processes, behind a step at which they ask."""

    world_size, global_step, current_epoch, num_training_batches = 2, ASK_EVERY, 0, 30

    def __init__(self, rank: int, other: bool) -> None:
        """``other``: whether the other process was told to stop."""
        self.is_global_zero = rank == 0
        self.asked: list[tuple[bool, bool]] = []
        self.save_checkpoint = Mock(side_effect=lambda path: path.write_bytes(b"all of it"))
        self.strategy = SimpleNamespace(reduce_boolean_decision=self._reduce)
        self.other = other

    def _reduce(self, told: bool, all: bool = True) -> bool:
        self.asked.append((told, all))
        return told and self.other if all else told or self.other


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("here", [True, False])
@pytest.mark.parametrize("other", [True, False])
def test_a_signal_to_one_process_stops_both_at_the_same_step(
    tmp_path: Path, rank: int, here: bool, other: bool
) -> None:
    trainer: Any = OfTwo(rank, other)
    callback = Checkpoints(tmp_path, monitor=None)
    callback.signals.received = signal.SIGINT if here else 0
    callback.on_train_batch_end(trainer, Mock(), None, None, ASK_EVERY - 1)
    assert trainer.asked == [(here, False)]  # also where none was told: all must take part
    # On each rank: it is collective.
    assert trainer.save_checkpoint.call_count == int(here or other)
    assert callback.last_path.exists() == ((here or other) and rank == 0)
    if here or other:
        with pytest.raises(Interrupted, match=rf"after step {ASK_EVERY} ") as stopped:
            callback.on_train_batch_start(trainer, Mock(), None, ASK_EVERY)
        assert stopped.value.exit_code == 128 + (signal.SIGINT if here else signal.SIGTERM)
    else:
        callback.on_train_batch_start(trainer, Mock(), None, ASK_EVERY)


@pytest.mark.parametrize("ends", [True, False])
def test_processes_ask_each_other_from_time_to_time_and_where_an_epoch_ends(
    tmp_path: Path, ends: bool
) -> None:
    """Told to stop before the first step of all; the epoch has 3 or 30."""
    trainer: Any = OfTwo(0, other=False)
    trainer.num_training_batches = 3 if ends else 30
    callback = Checkpoints(tmp_path, monitor=None)
    callback.signals.received = signal.SIGTERM
    stop = 3 if ends else ASK_EVERY
    for trainer.global_step in range(1, stop + 1):
        assert not trainer.asked and not trainer.save_checkpoint.called
        step = trainer.global_step
        callback.on_train_batch_start(trainer, Mock(), None, step - 1)
        callback.on_train_batch_end(trainer, Mock(), None, None, step - 1)
    if ends:
        assert not trainer.asked
        callback.on_train_epoch_end(trainer, Mock())
    assert trainer.asked == [(True, False)] and trainer.save_checkpoint.call_count == 1
    with pytest.raises(Interrupted, match=rf"after step {stop} "):
        callback.on_train_batch_start(trainer, Mock(), None, stop)


def test_only_the_first_process_clears_a_folder_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    discard_run_folder(tmp_path)
    assert tmp_path.exists()
    monkeypatch.setenv("LOCAL_RANK", "0")
    discard_run_folder(tmp_path)
    assert not tmp_path.exists()


def test_a_second_signal_kills_as_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in the middle of a step that takes long."""
    killed: list[tuple[int, int, object]] = []
    monkeypatch.setattr(os, "kill", lambda *sent: killed.append((*sent, signal.getsignal(sent[1]))))
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    signals = StopSignals()
    signals.watch()
    try:
        signal.raise_signal(signal.SIGINT)
        assert signals.received == signal.SIGINT and not killed
        signal.raise_signal(signal.SIGTERM)
        # What it sends itself is no longer caught.
        assert killed == [(os.getpid(), signal.SIGTERM, signal.SIG_DFL)]
    finally:
        signals.restore()
    assert {one: signal.getsignal(one) for one in before} == before
