"""`last.ckpt`, `best.ckpt`, numbered copies, and leaving in good order on Ctrl-C or SIGTERM.

Why not Lightning's own callback: a checkpoint here must be a place from which training goes on bit
for bit, also in the middle of an epoch and after a signal, must never be half-written, and must
keep its name. See docs/decisions/0004-own-last-checkpoint-callback.md.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint

from vitkit.errors import Interrupted, RunError
from vitkit.records import write_beside
from vitkit.training.base import CHECKPOINT_KEY

__all__ = ["Checkpoints", "StopSignals", "numbered_checkpoints"]

ASK_EVERY = 5
"""Steps between questions among several processes whether one was told to stop: each waits. Few, as
who stops a training kills it soon after."""

LAST = "last.ckpt"
NUMBERED = re.compile(r"step-(\d+)\.ckpt")


class StopSignals:
    """Remembers the first SIGINT, SIGTERM or SIGHUP; a second one kills as usual.

    SIGHUP says that the terminal was closed; ignored, as under ``nohup``, it stays so.
    """

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[int, Any] = {}

    def watch(self) -> None:
        """Take over the signals, where the process may (only its main thread can)."""
        if threading.current_thread() is not threading.main_thread():
            return
        signums = [signal.SIGINT, signal.SIGTERM]
        hangup: signal.Signals | None = getattr(signal, "SIGHUP", None)  # not on Windows
        if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:
            signums.append(hangup)
        for signum in signums:
            self._before[signum] = signal.signal(signum, self._on_signal)

    def restore(self) -> None:
        """Give the signals back."""
        for signum, handler in self._before.items():
            signal.signal(signum, handler if handler is not None else signal.SIG_DFL)
        self._before = {}

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if self.received:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
        self.received = signum


class Checkpoints(Checkpoint):
    """Writes ``last.ckpt`` at epoch ends and every n steps, ``best.ckpt`` on improvement.

    Numbered copies of ``last.ckpt`` are equally far apart: with ``every_n_steps`` each n steps,
    else at epoch ends. With ``keep_best`` they are those of the epochs with the best metric.

    On SIGINT, SIGTERM or SIGHUP it writes ``last.ckpt`` at the next boundary between optimiser
    steps and raises :class:`Interrupted`; after the last step of an epoch that is after its
    validation. Several processes, of which one may have got the signal, ask each other at every
    fifth such boundary and at an epoch's end.

    Args:
        folder: where the files go; made if absent.
        monitor: metric that decides the best; None keeps no best.
        maximize: whether more of it is better.
        every_n_steps: also write ``last.ckpt`` every n optimiser steps; 0: at epoch ends only.
        every_n_epochs: of the epoch ends, those behind every n-th epoch; the training's last one
            and one that improved in any case.
        keep: numbered copies to keep.
        keep_best: the best ones by ``monitor``, in place of the newest ones.
        resume_hint: how to go on, shown when a signal stops the run.
    """

    def __init__(
        self,
        folder: Path,
        *,
        monitor: str | None,
        maximize: bool = True,
        every_n_steps: int = 0,
        every_n_epochs: int = 1,
        keep: int = 0,
        keep_best: bool = False,
        resume_hint: str = "",
    ) -> None:
        self.folder = folder
        self.monitor, self.maximize = monitor, maximize
        self.every_n_steps, self.every_n_epochs = every_n_steps, every_n_epochs
        self.keep, self.keep_best = keep, keep_best
        self.resume_hint = resume_hint
        self.best_score: float | None = None
        self.best_epoch: int | None = None
        self.best_metrics: dict[str, float] = {}
        """All that its validation measured."""
        self._kept: dict[int, float] = {}
        """Step of each copy that ``keep_best`` keeps, and its metric."""
        self.signals = StopSignals()
        self._seen_step = 0
        self._stop_epoch: int | None = None
        """Epoch, from 1, in or behind which a signal is obeyed; None: none came."""
        self._taken_up: tuple[int, int] | None = None
        """Epoch, from 0, and step of the checkpoint that the run goes on from."""

    @property
    def last_path(self) -> Path:
        """The newest checkpoint."""
        return self.folder / LAST

    @property
    def best_path(self) -> Path:
        """The checkpoint with the best validation metric so far."""
        return self.folder / "best.ckpt"

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Note which one it is."""
        self._taken_up = int(checkpoint[CHECKPOINT_KEY]["epoch"]), int(checkpoint["global_step"])

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the best copies of the checkpoint that the run goes on from: the process may have
        been killed, or the disk full, after ``last.ckpt`` was written and before they were.
        """
        if self._taken_up is None or not trainer.is_global_zero:
            return
        epoch, step = self._taken_up
        if epoch == self.best_epoch:
            self._copy_last(self.best_path)
        if step in self._kept:
            self._keep_good_copies(step)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Watch the signals from here on."""
        self._seen_step = trainer.global_step
        self.signals.watch()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the signals back, however training ended."""
        self.signals.restore()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Give the signals back: Lightning calls no teardown after an error."""
        self.signals.restore()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """At a boundary between optimiser steps: stop if asked to, write if it is time."""
        step = trainer.global_step
        between_micro_batches, self._seen_step = step == self._seen_step, step
        if between_micro_batches or batch_idx + 1 >= trainer.num_training_batches:
            return  # at an epoch's end on_train_epoch_end does it, after validation
        # Each time that several processes ask each other, all wait.
        asks = trainer.world_size == 1 or step % ASK_EVERY == 0
        if asks and self._told_to_stop(trainer):
            self._stop_epoch = trainer.current_epoch + 1
        on_time = bool(self.every_n_steps) and step % self.every_n_steps == 0
        if self._stop_epoch is not None or on_time:
            self._write_last(trainer)
        if on_time and not self.keep_best:
            self._keep_copy(trainer)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Leave here and not sooner: Lightning logs a step after its last hook."""
        if self._stop_epoch is not None:
            self._leave(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave here, where the epoch before was the last: it is logged after its last hook too."""
        if self._stop_epoch is not None:
            self._leave(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The same, behind the training's last epoch."""
        if self._stop_epoch is not None:
            self._leave(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write ``last.ckpt`` if it is time; copy it to ``best.ckpt`` if validation improved."""
        improved = self._improved(trainer)
        if self.keep_best:
            self._rank(trainer)  # before it is written, which the next part of the run goes by
        done = trainer.current_epoch + 1
        if self._told_to_stop(trainer):
            self._stop_epoch = done
        stops = self._stop_epoch is not None or trainer.should_stop
        ends = stops or done == trainer.max_epochs
        wanted = improved or trainer.global_step in self._kept
        by_epochs = done % self.every_n_epochs == 0
        by_steps = bool(self.every_n_steps) and trainer.global_step % self.every_n_steps == 0
        if not (by_epochs or by_steps or wanted or ends):
            return
        self._write_last(trainer)
        if improved and trainer.is_global_zero:
            self._copy_last(self.best_path)
        if self.keep_best and trainer.is_global_zero:
            self._keep_good_copies(trainer.global_step)
        elif not self.keep_best and (by_steps if self.every_n_steps else by_epochs):
            self._keep_copy(trainer)
        if self._stop_epoch is None and self._told_to_stop(trainer):
            self._stop_epoch = done  # a signal came while it was written

    def state_dict(self) -> dict[str, Any]:
        """The best so far, so that a resumed run keeps comparing with it."""
        return {
            "best_score": self.best_score,
            "best_epoch": self.best_epoch,
            "best_metrics": dict(self.best_metrics),
            "kept": dict(self._kept),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See :meth:`state_dict`."""
        self.best_score = state_dict["best_score"]
        self.best_epoch = state_dict["best_epoch"]
        self.best_metrics = dict(state_dict.get("best_metrics") or {})
        self._kept = dict(state_dict.get("kept") or {})

    def _improved(self, trainer: Trainer) -> bool:
        score = self._score(trainer)
        if score is None:
            return False
        better = self.best_score is None or (
            score > self.best_score if self.maximize else score < self.best_score
        )
        if better:
            self.best_score, self.best_epoch = score, trainer.current_epoch
            measured = trainer.callback_metrics.items()
            self.best_metrics = {name: float(v) for name, v in measured if name.startswith("val/")}
        return better

    def _score(self, trainer: Trainer) -> float | None:
        """The metric of the last validation; None where there is none, or it is no number."""
        if self.monitor is None or self.monitor not in trainer.callback_metrics:
            return None
        score = float(trainer.callback_metrics[self.monitor])
        return None if math.isnan(score) else score

    def _told_to_stop(self, trainer: Trainer) -> bool:
        told = bool(self.signals.received)
        if trainer.world_size > 1:
            # The signal may reach one process only; all must stop at the same step.
            told = trainer.strategy.reduce_boolean_decision(told, all=False)
        return told

    def _write_last(self, trainer: Trainer) -> None:
        beside = self.last_path.with_suffix(".part")
        _on_disk(self.last_path, lambda: trainer.save_checkpoint(beside))
        if trainer.is_global_zero:
            _on_disk(self.last_path, lambda: os.replace(beside, self.last_path))

    def _keep_copy(self, trainer: Trainer) -> None:
        """Give the newest checkpoint a number, and remove the oldest of those that have one."""
        if not self.keep or not trainer.is_global_zero:
            return
        self._copy_last(self.folder / f"step-{trainer.global_step}.ckpt")
        for path in numbered_checkpoints(self.folder)[: -self.keep]:
            path.unlink()

    def _rank(self, trainer: Trainer) -> None:
        """Which copies to keep, the newest checkpoint among them if it is good enough."""
        score = self._score(trainer)
        if score is not None:
            self._kept[trainer.global_step] = score
        sign = -1.0 if self.maximize else 1.0
        order = sorted(self._kept, key=lambda step: (sign * self._kept[step], step))
        for step in order[self.keep :]:
            del self._kept[step]

    def _keep_good_copies(self, step: int) -> None:
        """Give the newest checkpoint, of this step, a number if it is to be kept; remove those that
        are not.
        """
        if step in self._kept:
            self._copy_last(self.folder / f"step-{step}.ckpt")
        for path in numbered_checkpoints(self.folder):
            if int(path.stem.removeprefix("step-")) not in self._kept:
                path.unlink()

    def _copy_last(self, path: Path) -> None:
        _on_disk(path, lambda: write_beside(path, partial(shutil.copyfile, self.last_path)))

    def _leave(self, trainer: Trainer) -> None:
        raise Interrupted(
            f"stopped after step {trainer.global_step} (epoch {self._stop_epoch}); "
            f"everything is in {self.last_path}. {self.resume_hint}".rstrip(),
            self.signals.received or signal.SIGTERM,
        )


def numbered_checkpoints(folder: Path) -> list[Path]:
    """The numbered copies in a folder of checkpoints, oldest first."""
    found = [(NUMBERED.fullmatch(path.name), path) for path in folder.glob("step-*.ckpt")]
    return [path for _, path in sorted((int(match[1]), path) for match, path in found if match)]


def _on_disk(path: Path, write: Callable[[], object]) -> None:
    """Turn the ways in which writing can fail into one line; leave no half file behind."""
    try:
        write()
    except (OSError, RuntimeError) as error:
        # torch's zip writer turns a full disk into a RuntimeError of its own.
        if isinstance(error, RuntimeError) and "write" not in str(error).lower():
            raise
        path.with_suffix(".part").unlink(missing_ok=True)
        reason = f"cannot write {path}: {getattr(error, 'strerror', None) or error}; "
        if path.with_name(LAST).exists():
            raise RunError(
                reason + "the last checkpoint is untouched. Free some space or make the folder "
                "writable, then resume"
            ) from error
        raise RunError(
            reason + "there is no checkpoint yet to go on from. Free some space, or set run.root "
            "to a folder with room, and start anew"
        ) from error
