"""The parts of a training, made from a config: loaders, task, callbacks, loggers, Trainer."""

from __future__ import annotations

import logging
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from torch import nn

from vitkit.app.devices import expect_shapes
from vitkit.app.invocation import is_child, resume_command
from vitkit.app.jobs import Job
from vitkit.config import RunConfig
from vitkit.errors import ConfigError, first_line
from vitkit.records import write_text
from vitkit.training.averaging import WeightAverage
from vitkit.training.base import TrainingTask
from vitkit.training.budget import Clock, StepPlan, TimeKeeper
from vitkit.training.checkpoints import Checkpoints
from vitkit.training.compilation import GraphCount, compile_network, compiled_graphs
from vitkit.training.loggers import CsvMetrics
from vitkit.training.progress import TrainingProgress
from vitkit.training.stopping import EarlyStop

__all__ = [
    "Run",
    "graph_facts",
    "make_callbacks",
    "make_checkpoints",
    "make_loggers",
    "make_task",
    "make_trainer",
    "quiet_lightning",
]


@dataclass
class Run:
    """What the parts of one training share.

    Attributes:
        config: resolved.
        job: model and data, and what the kind of task makes of them.
        folder: where everything goes.
        clock: of the whole run.
        plan: how long it is.
        show: print how it is going.
    """

    config: RunConfig
    job: Job
    folder: Path
    clock: Clock = field(default_factory=Clock)
    show: bool = False
    plan: StepPlan = field(init=False)

    def __post_init__(self) -> None:
        self.plan = StepPlan(self.job.steps_per_epoch, self.config.trainer.max_epochs)

    @property
    def monitor(self) -> tuple[str, bool]:
        """The metric that picks the best checkpoint, and whether more of it is better."""
        named = self.config.trainer.monitor
        usual, maximize = self.config.task.metric
        return (usual, maximize) if named in ("auto", usual) else (named, named == "val/acc")


def make_task(run: Run) -> TrainingTask:
    """The Lightning task, its network recomputing its blocks or compiled if that is asked for.

    Raises:
        ConfigError: a model that cannot recompute its blocks.
    """
    if run.config.trainer.grad_checkpointing:
        _recompute_blocks(run.job.model, run.config.model.name)
    if run.config.trainer.compile:
        compile_network(run.job.model, any_shape=run.job.shapes_vary)
    expect_shapes(vary=run.job.shapes_vary)
    return run.job.task(run.plan)


def _recompute_blocks(model: nn.Module, name: str) -> None:
    """Gradient checkpointing, also of a model inside another one, as in pre-training."""
    able: list[Any] = [part for part in model.modules() if hasattr(part, "set_grad_checkpointing")]
    try:
        for part in able:
            part.set_grad_checkpointing(True)
    except AssertionError:  # timm's way to say that a model has none
        able = []
    if not able:
        raise ConfigError(
            f"trainer.grad_checkpointing: {name} cannot recompute its blocks; leave it out"
        )


def make_checkpoints(run: Run) -> Checkpoints:
    """The callback that writes ``last.ckpt``, ``best.ckpt`` and numbered copies.

    Raises:
        ConfigError: early stopping or a choice of the best with nothing to validate on.
    """
    config, validates = run.config, run.job.validates
    if config.trainer.early_stopping_patience and not validates:
        raise ConfigError(
            f"trainer.early_stopping_patience needs validation {config.task.learns_from}, there "
            "are none"
        )
    if config.trainer.keep_best and not (validates and config.trainer.keep_checkpoints):
        raise ConfigError(
            f"trainer.keep_best needs validation {config.task.learns_from} and "
            "trainer.keep_checkpoints=N, how many to keep"
        )
    monitor, maximize = run.monitor
    return Checkpoints(
        run.folder / "checkpoints",
        monitor=monitor if validates else None,
        maximize=maximize,
        every_n_steps=config.trainer.save_every_n_steps,
        every_n_epochs=config.trainer.save_every_n_epochs,
        keep=config.trainer.keep_checkpoints,
        keep_best=config.trainer.keep_best,
        resume_hint=f"Go on with: {resume_command(run.folder)}",
    )


def make_callbacks(run: Run, bar: TrainingProgress, checkpoints: Checkpoints) -> list[Callback]:
    """Progress and clock first, then averaging and early stopping if asked for; checkpoints last,
    so that they hold what the others did.
    """
    config = run.config
    keeper = TimeKeeper(
        config.trainer.max_time,
        run.clock,
        run.plan,
        num_validated=run.job.num_validated,
        num_tested=run.job.num_tested,
        examples_in=run.job.examples_in,
        graphs=compiled_graphs if config.trainer.compile else None,
    )
    callbacks: list[Callback] = [bar, keeper]
    if config.trainer.compile:
        callbacks.append(GraphCount())
    if config.ema.enabled:
        callbacks.append(WeightAverage(config.ema.decay, config.ema.warmup))
    if config.trainer.early_stopping_patience:
        monitor, maximize = run.monitor
        callbacks.append(
            EarlyStop(
                monitor,
                patience=config.trainer.early_stopping_patience,
                mode="max" if maximize else "min",
            )
        )
    return [*callbacks, checkpoints]


def graph_facts(trainer: Trainer) -> dict[str, int]:
    """How often the network was compiled; nothing of one that is not."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    found = [one for one in callbacks if isinstance(one, GraphCount)]
    return found[0].facts() if found else {}


def make_loggers(run: Run, step: int | None) -> list[Logger]:
    """CSV and TensorBoard, and Weights & Biases if asked for; cut back to ``step`` on resume."""
    folder = run.folder
    loggers: list[Logger] = [
        CsvMetrics(folder / "metrics.csv", keep_before_step=step),
        TensorBoardLogger(folder, name="", version="tensorboard", purge_step=step),
    ]
    if run.config.trainer.wandb:
        loggers.append(_wandb_logger(folder))
    return loggers


def _wandb_logger(folder: Path) -> Logger:
    """One that goes on with the run's curves where the run itself does."""
    from pytorch_lightning.loggers import WandbLogger  # an extra

    known = folder / "wandb-id.txt"
    begun = known.is_file()
    own = known.read_text(encoding="utf-8").strip() if begun else uuid.uuid4().hex[:8]
    try:
        logger = WandbLogger(save_dir=folder, name=folder.name, id=own, resume="allow")
    except ModuleNotFoundError as error:
        raise ConfigError(
            "trainer.wandb: Weights & Biases is not installed; pip install 'vitkit[wandb]', "
            "or leave trainer.wandb out"
        ) from error
    if not begun and not is_child():
        write_text(known, own)
    return logger


def make_trainer(config: RunConfig, **options: Any) -> Trainer:
    """A Trainer on the devices that the config names, without Lightning's own bars and tables."""
    trainer = config.trainer
    precision = trainer.precision
    assert precision != "auto"  # resolve.concrete() has decided
    with quiet_lightning(), _no_such_device(trainer.accelerator, trainer.devices):
        return Trainer(
            accelerator=trainer.accelerator,
            devices=trainer.devices,
            strategy=trainer.strategy,
            precision=precision,
            deterministic=trainer.deterministic,
            benchmark=not trainer.deterministic,
            use_distributed_sampler=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **options,
        )


@contextmanager
def leave_memory_unfilled() -> Iterator[None]:
    """Inside, deterministic training does not fill memory that is written before it is read."""
    switch: Any = torch.utils.deterministic
    before = switch.fill_uninitialized_memory
    switch.fill_uninitialized_memory = False
    try:
        yield
    finally:
        switch.fill_uninitialized_memory = before


@contextmanager
def _no_such_device(accelerator: str, devices: int | str) -> Iterator[None]:
    """Lightning's complaint about hardware that is not there, as one line."""
    try:
        yield
    except (MisconfigurationException, RuntimeError) as error:
        reason = first_line(error).rstrip(".")
        raise ConfigError(
            f"trainer.accelerator={accelerator} trainer.devices={devices}: {reason}; "
            "trainer.accelerator=auto takes what this machine has"
        ) from error


UNHELPFUL = (
    ".*does not have many workers.*",  # loaders over resident tensors need none
    ".*number of training batches.*smaller than the.*",
    ".*treespec.*",  # a deprecation between torch and Lightning
    ".*available but not used.*",
    ".*but have no `val_dataloader`.*",  # data.val_fraction=0 is a choice
    ".*when logging on epoch level in distributed setting.*",  # what we log is summed up already
)
"""Warnings of the libraries that a person can do nothing about."""


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Lightning speaks in warnings and logs; ours is one line an epoch."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in UNHELPFUL:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
