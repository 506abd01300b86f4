"""How much of a training is done: in steps, or in time where it is given a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from vitkit.evaluation.speed import synchronize
from vitkit.nn import evaluating

__all__ = ["Clock", "StepPlan", "TimeKeeper"]

LOOK_EVERY = 20
"""Most steps between looks at the clock in several processes: for each look all wait."""

LOOK_SECONDS = 1.0
"""Most time between them, where a step is not longer."""


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
    (validation, test) aside: a pass of either kind is timed after the first step and again a few
    steps later, and the examples still to be evaluated are counted at these rates. No step is begun
    that would not end in time if it took as long as the last one; the first is always taken. What
    compiling took is no progress, and says nothing of the next step. Under several processes rank
    0's clock is everyone's; they look at it between steps, about once a second.

    Args:
        seconds: from the start of the run to its results; 0: no limit.
        clock: of the run.
        plan: whose ``time_done`` to keep.
        num_validated: examples of a validation, which has the training's number format.
        num_tested: examples that pass the model in float32 after it, as often as they pass.
        examples_in: how many examples a batch holds.
        margin: further seconds set aside: checkpoint, results.
        graphs: how many were compiled so far; None: nothing is.
    """

    TIMED_AFTER_STEPS = (1, 8)
    """At once, for steps may be long and few; and with warm caches, which may be much faster."""

    def __init__(
        self,
        seconds: float,
        clock: Clock,
        plan: StepPlan,
        *,
        num_validated: int,
        num_tested: int,
        examples_in: Callable[[Any], int],
        margin: float = 3.0,
        graphs: Callable[[], int] | None = None,
    ) -> None:
        self.seconds, self.clock, self.plan = seconds, clock, plan
        self.num_validated, self.num_tested = num_validated, num_tested
        self.examples_in = examples_in
        self.margin, self.graphs = margin, graphs
        self._known_graphs, self._compiling = 0, 0.0
        self._reserve: float | None = None
        self._steps_here, self._seen_step = 0, 0
        self._step_began: float | None = None
        self._step_seconds = 0.0
        self._validation_began = 0.0
        self._ended = False
        self._next_look = 0
        """In several processes the step, alike in all, behind which they look at the clock next."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The first learning rates go by what starting has taken. What had used up its time and was
        stopped in its test stays ended: how much time that needs is not known yet.
        """
        self._seen_step = trainer.global_step
        self._known_graphs = self.graphs() if self.graphs else 0
        trainer.should_stop |= self._ended
        if self.seconds:
            self._look(trainer)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """A step begins with its first micro-batch."""
        if self._step_began is None:
            self._step_began = self.clock.seconds()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Look at the clock; stop once the time is used up, or too short for another step."""
        if not self.seconds:
            return
        if trainer.global_step != self._seen_step:
            self._end_step(trainer, pl_module, batch)
        if trainer.world_size == 1 or self._all_look(trainer):
            self._stop_in_time(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the time: the first validations may compile too."""
        self._validation_began = self.clock.seconds()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See :meth:`on_validation_start`."""
        self._note_compiling(self.clock.seconds() - self._validation_began)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log how long the run has taken, so that a curve can be drawn over time; validation may
        have left too little of it for another step.
        """
        # As a tensor, which stays on the CPU.
        pl_module.log("seconds", torch.tensor(self.clock.seconds()), rank_zero_only=True)
        if self.seconds:
            self._stop_in_time(trainer)

    def state_dict(self) -> dict[str, float]:
        """Seconds used so far, and whether that was all, for a run that goes on later."""
        return {
            "seconds": self.clock.seconds(),
            "ended": float(self._ended),
            "compiling": self._compiling,
        }

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """See :meth:`state_dict`."""
        self.clock.add(float(state_dict["seconds"]))
        self._ended = bool(state_dict.get("ended", False))
        self._compiling = float(state_dict.get("compiling", 0.0))

    def _end_step(self, trainer: Trainer, pl_module: LightningModule, batch: Any) -> None:
        """Time the step that has ended, and after some of them an evaluation pass."""
        self._seen_step = trainer.global_step
        self._steps_here += 1
        if self._step_began is not None:
            took = self.clock.seconds() - self._step_began
            self._step_seconds = 0.0 if self._note_compiling(took) else took
            self._step_began = None
        goes_on = self.clock.seconds() + self._step_seconds <= self.seconds - self.margin
        if goes_on and self._steps_here in self.TIMED_AFTER_STEPS:
            self._reserve = self.margin + self._evaluation(trainer, pl_module, batch)

    def _evaluation(self, trainer: Trainer, pl_module: LightningModule, batch: Any) -> float:
        """Seconds that validation and test will take, by a pass of each over a training batch."""
        seconds = 0.0
        if self.num_validated:
            pl_module.on_validation_epoch_start()  # into sums that the next validation throws away
            with trainer.precision_plugin.val_step_context():
                seconds += self.num_validated * _seconds_of(
                    lambda: pl_module.validation_step(batch, 0), pl_module
                )
        if self.num_tested:
            seconds += self.num_tested * _seconds_of(lambda: pl_module(batch[0]), pl_module)
        return seconds / self.examples_in(batch)

    def _note_compiling(self, seconds: float) -> bool:
        """Whether something was compiled in so many seconds, which are no progress then."""
        graphs = self.graphs() if self.graphs else 0
        if graphs == self._known_graphs:
            return False
        self._known_graphs = graphs
        self._compiling += seconds
        return True

    def _all_look(self, trainer: Trainer) -> bool:
        """Whether it is time for several processes to look at the clock: between steps alone."""
        return self._step_began is None and trainer.global_step >= self._next_look

    def _stop_in_time(self, trainer: Trainer) -> None:
        """End the training if its time is used up, or would be within another step."""
        with_another = self._look(trainer)
        between_steps = self._step_began is None
        if self.plan.time_done >= 1.0 or (between_steps and with_another > 1.0):
            self._ended = trainer.should_stop = True

    def _look(self, trainer: Trainer) -> float:
        """Set how much of the time is used; returns how much will be with another step."""
        reserve = self.margin if self._reserve is None else self._reserve
        budget = max(self.seconds - reserve - self._compiling, 1e-9)
        spent = self.clock.seconds() - self._compiling
        shares = [spent / budget, (spent + self._step_seconds) / budget]
        if trainer.world_size > 1:
            own = [*shares, float(self._steps_to_next_look(budget - spent))]
            *shares, steps = trainer.strategy.broadcast(own, src=0)
            self._next_look = trainer.global_step + int(steps)
        self.plan.time_done = min(1.0, float(shares[0]))
        return float(shares[1])

    def _steps_to_next_look(self, left: float) -> int:
        """Steps that fit into a second, and into the time that is left; one if none does, or if it
        is not known how long a step takes.
        """
        if not self._step_seconds:
            return 1
        return max(1, min(LOOK_EVERY, int(min(LOOK_SECONDS, left) / self._step_seconds)))


def _seconds_of(forward: Callable[[], Any], module: LightningModule) -> float:
    """Time of a pass of validation or test, the second of two; every submodule keeps its mode.

    A compiled network is not compiled once more for it: the test's is not compiled either.
    """
    network: Any = getattr(module, "model", module)
    compiled, network._compiled_call_impl = network._compiled_call_impl, None
    try:
        with evaluating(module), torch.no_grad():
            forward()
            synchronize(module.device)
            start = time.perf_counter()
            forward()
            synchronize(module.device)
            return time.perf_counter() - start
    finally:
        network._compiled_call_impl = compiled
