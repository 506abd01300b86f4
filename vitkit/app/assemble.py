"""The parts of a training, made from a config: loaders, task, callbacks, loggers, Trainer."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.loggers import Logger, TensorBoardLogger

from vitkit.app.build import Built
from vitkit.app.teacher import build_teacher
from vitkit.config import RunConfig, to_plain
from vitkit.data.augment import Augment
from vitkit.data.loaders import EvalLoader, TrainLoader
from vitkit.errors import ConfigError
from vitkit.training.averaging import WeightAverage
from vitkit.training.budget import Clock, StepPlan, TimeKeeper
from vitkit.training.checkpoints import Checkpoints
from vitkit.training.loggers import CsvMetrics
from vitkit.training.losses import balanced_class_weights
from vitkit.training.progress import TrainingProgress
from vitkit.training.task import ClassificationTask
from vitkit.weights import FORMAT_VERSION

__all__ = [
    "Run",
    "calm",
    "make_callbacks",
    "make_checkpoints",
    "make_loaders",
    "make_loggers",
    "make_task",
    "make_trainer",
]


@dataclass
class Run:
    """What the parts of one training share.

    Attributes:
        config: resolved.
        built: model and data.
        folder: where everything goes.
        clock: of the whole run.
        plan: how long it is.
        show: print how it is going.
    """

    config: RunConfig
    built: Built
    folder: Path
    clock: Clock = field(default_factory=Clock)
    show: bool = False
    plan: StepPlan = field(init=False)

    def __post_init__(self) -> None:
        places = len(self.built.data.train) * self.config.data.repeats
        steps = places // self.config.data.batch_size
        self.plan = StepPlan(steps, self.config.trainer.max_epochs)


def make_loaders(run: Run, trainer: Trainer) -> tuple[TrainLoader, EvalLoader | None]:
    """The training loader of this process, and the validation loader if there are images for it."""
    config, built = run.config, run.built
    device = trainer.strategy.root_device
    place: dict[str, Any] = {
        "rank": trainer.global_rank,
        "world_size": trainer.world_size,
        "device": device,
        "num_workers": config.data.num_workers,
    }
    train_loader = TrainLoader(
        built.data.train,
        batch_size=config.data.batch_size,
        micro_batches=config.trainer.accumulate_grad_batches,
        seed=config.run.seed,
        repeats=config.data.repeats,
        **place,
    )
    if built.data.val is None:
        return train_loader, None
    return train_loader, EvalLoader(built.data.val, batch_size=config.data.eval_batch_size, **place)


def make_task(run: Run) -> ClassificationTask:
    """The Lightning task; what it needs of the data is handed in as functions and plain values."""
    config, built = run.config, run.built
    augment = Augment(
        config.data.augment,
        config.run.seed,
        mean=built.preprocessing.mean,
        size=len(built.data.train),
        repeats=config.data.repeats,
    )
    preprocessing = built.preprocessing
    weights = None
    if config.task.class_weights == "balanced":
        weights = balanced_class_weights(built.info.class_counts)
    if config.trainer.compile:
        built.model.compile(dynamic=False)
    return ClassificationTask(
        built.model,
        num_classes=built.info.num_classes,
        task=config.task,
        optimizer=config.optimizer,
        schedule=config.schedule,
        plan=run.plan,
        prepare_train=lambda images, positions, epoch: augment.erase(
            preprocessing(augment(images, positions, epoch)), positions, epoch
        ),
        prepare_eval=preprocessing,
        class_weights=weights,
        teacher=build_teacher(config, built),
        seed=config.run.seed,
        fused=config.trainer.precision != "16-mixed",
        payload={
            "format_version": FORMAT_VERSION,
            "config": to_plain(config),
            "model": built.section,
            "data": built.info.to_dict(),
            "preprocessing": preprocessing.to_dict(),
        },
    )


def make_checkpoints(run: Run) -> Checkpoints:
    """The callback that writes ``last.ckpt`` and ``best.ckpt``.

    Raises:
        ConfigError: early stopping without validation images.
    """
    config, has_val = run.config, run.built.data.val is not None
    if config.trainer.early_stopping_patience and not has_val:
        raise ConfigError("trainer.early_stopping_patience needs validation images, there are none")
    return Checkpoints(
        run.folder / "checkpoints",
        monitor=config.trainer.monitor if has_val else None,
        maximize=config.trainer.monitor == "val/acc",
        every_n_steps=config.trainer.save_every_n_steps,
        resume_hint=f"Go on with: vitkit train --resume {run.folder}",
    )


def make_callbacks(run: Run, bar: TrainingProgress, checkpoints: Checkpoints) -> list[Callback]:
    """Progress and clock first, then averaging and early stopping if asked for; checkpoints last,
    so that they hold what the others did.
    """
    config, info = run.config, run.built.info
    keeper = TimeKeeper(
        config.trainer.max_time, run.clock, run.plan, images_after=info.num_val + info.num_test
    )
    callbacks: list[Callback] = [bar, keeper]
    if config.ema.enabled:
        callbacks.append(WeightAverage(config.ema.decay, config.ema.warmup))
    if config.trainer.early_stopping_patience:
        callbacks.append(
            EarlyStopping(
                config.trainer.monitor,
                patience=config.trainer.early_stopping_patience,
                mode="max" if config.trainer.monitor == "val/acc" else "min",
            )
        )
    return [*callbacks, checkpoints]


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
    from pytorch_lightning.loggers import WandbLogger  # an extra

    try:
        return WandbLogger(save_dir=folder, name=folder.name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            "trainer.wandb: Weights & Biases is not installed; pip install 'vitkit[wandb]', "
            "or leave trainer.wandb out"
        ) from error


def make_trainer(config: RunConfig, **options: Any) -> Trainer:
    """A Trainer on the devices that the config names, without Lightning's own bars and tables."""
    trainer = config.trainer
    precision = trainer.precision
    assert precision != "auto"  # _concrete() has decided
    with calm(), _no_such_device(trainer.accelerator, trainer.devices):
        return Trainer(
            accelerator=trainer.accelerator,
            devices=trainer.devices,
            strategy=trainer.strategy,
            precision=precision,
            deterministic=trainer.deterministic,
            use_distributed_sampler=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **options,
        )


@contextmanager
def _no_such_device(accelerator: str, devices: int | str) -> Iterator[None]:
    """Lightning's complaint about hardware that is not there, as one line."""
    try:
        yield
    except (MisconfigurationException, RuntimeError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
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
def calm() -> Iterator[None]:
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
