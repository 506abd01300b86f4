"""How much of a training is done: in steps, or in time where it is given a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

__all__ = ["Clock", "StepPlan", "TimeKeeper"]


class Clock:
    """Seconds a run has taken, over all its parts.

    Args:
        since: seconds that had passed when the clock was made: starting Python, reading data.
    """

    def __init__(self, since: float = 0.0) -> None:
        self._start = time.perf_counter() - since

    def seconds(self) -> float:
        """Since the start of the run."""
        return time.perf_counter() - self._start

    def add(self, seconds: float) -> None:
        """Count what an earlier part of the run has taken."""
        self._start -= seconds


@dataclass
class StepPlan:
    """How long a training is.

    Attributes:
        steps_per_epoch: optimiser steps of one epoch.
        max_epochs: epochs of the whole training.
        time_done: share of the time that is used up, 0 to 1; stays 0 without a time limit.
    """

    steps_per_epoch: int
    max_epochs: int
    time_done: float = 0.0

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole training."""
        return self.steps_per_epoch * self.max_epochs

    def progress(self, step: int) -> float:
        """Share of the training that is done when ``step`` (from 0) is about to be taken.

        By steps or by time, whichever is further. Neither the first step's nor the last step's is
        an end point, where most schedules are zero.
        """
        return min(1.0, max((step + 1) / (self.total_steps + 1), self.time_done))


class TimeKeeper(Callback):
    """Counts a run's time over all its parts, and ends the training where it has a limit.

    With a limit it keeps ``plan.time_done``, by which the schedules go, and sets the end of the run
    (validation, test) aside: one evaluation pass is timed after a few steps, and the examples still
    to be evaluated are counted at that rate. Under several processes rank 0's clock is everyone's.

    Args:
        seconds: from the start of the run to its results; 0: no limit.
        clock: of the run.
        plan: whose ``time_done`` to keep.
        examples_after: examples (rows of a batch) evaluated after the last step.
        margin: further seconds set aside: checkpoint, results.
    """

    TIMED_AT_STEP = 8
    """Late enough for warm caches, early enough to matter little."""

    def __init__(
        self,
        seconds: float,
        clock: Clock,
        plan: StepPlan,
        *,
        examples_after: int,
        margin: float = 3.0,
    ) -> None:
        self.seconds, self.clock, self.plan = seconds, clock, plan
        self.examples_after, self.margin = examples_after, margin
        self._reserve: float | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The first learning rates go by what starting has taken."""
        if self.seconds:
            self._look(trainer)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Look at the clock; stop once the time is used up."""
        if not self.seconds:
            return
        if self._reserve is None and trainer.global_step >= self.TIMED_AT_STEP:
            inputs = batch[0]
            per_example = _seconds_of(lambda: pl_module(inputs), pl_module) / len(inputs)
            self._reserve = self.margin + per_example * self.examples_after
        self._look(trainer)
        if self.plan.time_done >= 1.0:
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log how long the run has taken, so that a curve can be drawn over time."""
        pl_module.log("seconds", self.clock.seconds(), rank_zero_only=True)

    def state_dict(self) -> dict[str, float]:
        """Seconds used so far, for a run that goes on later."""
        return {"seconds": self.clock.seconds()}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """See :meth:`state_dict`."""
        self.clock.add(float(state_dict["seconds"]))

    def _look(self, trainer: Trainer) -> None:
        reserve = self.margin if self._reserve is None else self._reserve
        share = self.clock.seconds() / max(self.seconds - reserve, 1e-9)
        if trainer.world_size > 1:
            told = torch.tensor([share], device=trainer.strategy.root_device)
            share = float(trainer.strategy.broadcast(told, src=0)[0])
        self.plan.time_done = min(1.0, share)


def _seconds_of(forward: Callable[[], Any], module: LightningModule) -> float:
    """Time of one evaluation pass, the second of two; every submodule keeps its mode."""
    modes = {child: child.training for child in module.modules()}
    module.eval()
    with torch.no_grad():
        forward()
        _wait(module.device)
        start = time.perf_counter()
        forward()
        _wait(module.device)
    for child, mode in modes.items():
        child.training = mode
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
