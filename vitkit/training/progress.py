"""How training is going: a bar with images/s and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from vitkit.training.base import TrainingTask
from vitkit.training.budget import StepPlan

__all__ = ["PLAIN_LINE_SECONDS", "TrainingProgress", "clock", "progress_bar", "rate_text"]

PLAIN_LINE_SECONDS = 30.0
"""Where there is no terminal, a line at least this often: a silent job looks like a dead one."""


def progress_bar(console: Console | None = None) -> Progress:
    """A bar: what, how far, images/s, time left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[done]}"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(compact=True),
        console=console or Console(stderr=True),
        transient=True,
    )


class TrainingProgress(Callback):
    """Prints one line an epoch; in between a live bar on a terminal, else a line now and then.

    It also measures: ``per_second`` is the rate of the training, from step to step, over all parts
    of a run that was resumed; validation is left out.

    Args:
        plan: how long the training is.
        batch_size: images, or other units, of one optimiser step, over all processes.
        accumulate: micro-batches of one optimiser step.
        show: False measures and prints nothing.
        unit: what is counted.
    """

    def __init__(
        self,
        plan: StepPlan,
        batch_size: float,
        accumulate: int = 1,
        show: bool = True,
        unit: str = "images",
    ) -> None:
        self.plan = plan
        self.batch_size, self.accumulate, self.show = batch_size, accumulate, show
        self.unit = unit
        self.count = 0.0
        self.seconds = 0.0
        self._started: float | None = None
        """When the step before ended, or this one or its epoch began."""
        self._epoch_count, self._epoch_seconds = 0.0, 0.0
        self._bar: Progress | None = None
        self._bar_task: TaskID | None = None
        self._shown_at = 0.0
        # When this part of the run took its first step, and how far it was: starting up uses
        # some of a time limit and says nothing about the pace.
        self._began: tuple[float, float] | None = None

    @property
    def per_second(self) -> float:
        """Images, or other units, a second in training; validation left out."""
        return self.count / self.seconds if self.seconds else 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the bar, where there is a terminal."""
        self._began, self._shown_at = None, time.perf_counter()
        if not self.show or not trainer.is_global_zero or not sys.stderr.isatty():
            return
        self._bar = progress_bar()
        done = round(1000 * self.plan.progress(trainer.global_step))
        self._bar_task = self._bar.add_task(
            "training", total=1000, completed=done, rate="", done=""
        )
        self._bar.start()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock: waiting for images counts."""
        self._started = time.perf_counter()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start the clock of the first step of a run that goes on within an epoch."""
        now = time.perf_counter()
        if self._started is None:
            self._started = now
        if self._began is None:
            self._began = now, self.plan.progress(trainer.global_step)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Read the clock; show how far it is.

        From the end of a step to the end of the next: an accelerator may still be at work on both,
        but what it does is waited for sooner or later.
        """
        now = time.perf_counter()
        count, seconds = self.batch_size / self.accumulate, now - (self._started or now)
        self._started = now
        self._epoch_count += count
        self._epoch_seconds += seconds
        self.count += count
        self.seconds += seconds
        if self.show and trainer.is_global_zero:
            self._show(trainer.global_step, now)

    def _show(self, step: int, now: float) -> None:
        """Refresh the bar at most ten times a second; without one, a line every half minute."""
        rate = f"{rate_text(self._epoch_count / max(self._epoch_seconds, 1e-9))} {self.unit}/s"
        done = self.plan.progress(step)
        steps = f"step {step:,}" + ("" if self.plan.time_done else f"/{self.plan.total_steps:,}")
        if self._bar is not None and self._bar_task is not None:
            if now - self._shown_at > 0.1:
                self._shown_at = now
                self._bar.update(
                    self._bar_task, completed=round(1000 * done), rate=rate, done=steps
                )
        elif now - self._shown_at > PLAIN_LINE_SECONDS and self._began is not None:
            began_at, began_with = self._began
            if done > began_with:
                self._shown_at = now
                left = (now - began_at) / (done - began_with) * (1.0 - done)
                print(f"  {steps}  {rate}  {clock(left)} left", flush=True)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """One line: losses, accuracies, rate."""
        self._started = None
        if self._epoch_seconds:
            rate = self._epoch_count / self._epoch_seconds
            # As a tensor, which stays on the CPU.
            pl_module.log(f"{self.unit}_per_second", torch.tensor(rate), rank_zero_only=True)
        else:
            rate = 0.0
        self._epoch_count = self._epoch_seconds = 0.0
        if self.show and trainer.is_global_zero:
            self._shown_at = time.perf_counter()
            line = self._epoch_line(trainer, pl_module, rate)
            if self._bar is not None:
                self._bar.console.print(line, highlight=False)
            else:
                print(line, flush=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar."""
        self._close()

    def state_dict(self) -> dict[str, float]:
        """What was measured so far, for a run that goes on later."""
        return {"count": self.count, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """See :meth:`state_dict`."""
        # Checkpoints of version 0.1.0 counted images only, and said so.
        count = state_dict.get("count", state_dict.get("images", 0.0))
        self.count, self.seconds = float(count), float(state_dict["seconds"])

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Close the bar, so that the message stands alone."""
        self._close()

    def _epoch_line(self, trainer: Trainer, pl_module: LightningModule, rate: float) -> str:
        timed = self.plan.time_done > 0
        epoch = f"epoch {trainer.current_epoch + 1:>3}" + (
            "" if timed else f"/{trainer.max_epochs}"
        )
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        # The module logs its training metrics after this hook. Of several processes: one's share.
        said = pl_module.epoch_summary(metrics) if isinstance(pl_module, TrainingTask) else []
        return "  ".join([epoch, *said, f"{rate_text(rate)} {self.unit}/s"])

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def rate_text(rate: float) -> str:
    """A rate as people read it: below ten with a decimal."""
    return f"{rate:,.1f}" if rate < 9.95 else f"{rate:,.0f}"


def clock(seconds: float) -> str:
    """Such as 4:05 or 1:02:09."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
