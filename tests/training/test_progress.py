"""A long job is never silent: lines with rate and time left where there is no terminal."""

from __future__ import annotations

import re
from collections.abc import Callable
from unittest.mock import Mock

import pytest

from vitkit.app import train
from vitkit.config import RunConfig
from vitkit.training import progress
from vitkit.training.budget import StepPlan
from vitkit.training.progress import TrainingProgress


def test_plain_lines_tell_step_rate_and_time_left(
    tiny: Callable[..., RunConfig],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(progress, "PLAIN_LINE_SECONDS", 0.0)
    train(tiny("trainer.accumulate_grad_batches=2"))
    lines = capsys.readouterr().out.splitlines()
    steps = [line for line in lines if line.startswith("  step ")]
    assert steps and all(
        re.fullmatch(r"  step \d/9  [\d,.]+ images/s  \d+:\d\d left", line) for line in steps
    )
    epochs = [line for line in lines if line.startswith("epoch ")]
    assert len(epochs) == 3
    assert all("train loss" in line and "val acc" in line for line in epochs)


def test_starting_up_says_nothing_about_the_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that may take 100 s and began to train after 20 has 79 left after one second of it."""
    monkeypatch.setattr(progress, "PLAIN_LINE_SECONDS", 0.0)
    now = 20.0
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now)
    plan = StepPlan(steps_per_epoch=10_000, max_epochs=100)
    shown, trainer = TrainingProgress(plan, batch_size=8), Mock(global_step=0, is_global_zero=True)
    shown.on_train_start(trainer, Mock())
    plan.time_done = 0.2
    shown.on_train_batch_start(trainer, Mock(), None, 0)
    now, plan.time_done, trainer.global_step = 21.0, 0.21, 1
    shown.on_train_batch_end(trainer, Mock(), None, None, 0)
    assert capsys.readouterr().out == "  step 1  8.0 images/s  1:19 left\n"


def test_quiet_prints_nothing(
    tiny: Callable[..., RunConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    train(tiny("trainer.max_epochs=1"), progress=False)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


@pytest.mark.parametrize(
    ("rate", "text"), [(0.31, "0.3"), (9.94, "9.9"), (9.96, "10"), (1234.5, "1,234")]
)
def test_slow_rates_have_a_decimal(rate: float, text: str) -> None:
    assert progress.rate_text(rate) == text


@pytest.mark.parametrize(("seconds", "text"), [(5.4, "0:05"), (245, "4:05"), (3729.2, "1:02:09")])
def test_clock(seconds: float, text: str) -> None:
    assert progress.clock(seconds) == text
