"""Train a model: from a config to a run folder with checkpoints, logs and results."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Trainer
from torch import nn

from vitkit.app import assemble
from vitkit.app.assemble import Run
from vitkit.app.build import Built, build
from vitkit.app.devices import best_device, concrete_precision, multiplies_bfloat16
from vitkit.app.evaluator import evaluate_checkpoint
from vitkit.app.facts import environment_facts
from vitkit.app.runs import (
    discard_run_folder,
    finished_results,
    make_run_folder,
    resumable_checkpoint,
)
from vitkit.config import RunConfig, dump_yaml, load_config, to_plain
from vitkit.data.loaders import EvalLoader, TrainLoader
from vitkit.data.preprocess import Preprocessing
from vitkit.data.splits import ImageData
from vitkit.errors import ConfigError, DataError, Interrupted, TrainingError
from vitkit.records import Record, write_text
from vitkit.training.budget import Clock
from vitkit.training.checkpoints import Checkpoints
from vitkit.training.progress import TrainingProgress, clock
from vitkit.training.task import ClassificationTask
from vitkit.weights import read_checkpoint

__all__ = ["TrainResult", "resume", "train", "try_one_batch"]


@dataclass(frozen=True)
class TrainResult:
    """What a training left behind.

    Attributes:
        folder: the run's folder.
        checkpoint: the checkpoint whose weights were tested.
        metrics: ``test/acc`` and the other metrics, as in ``results.json``.
        record: all of ``results.json``.
    """

    folder: Path
    checkpoint: Path
    metrics: dict[str, float]
    record: Record


def train(
    config: RunConfig | Mapping[str, Any] | str | Path | None = None,
    overrides: Sequence[str] = (),
    *,
    data: ImageData | None = None,
    model: nn.Module | None = None,
    progress: bool = True,
    since: float = 0.0,
) -> TrainResult:
    """Train, test, and leave the results in a new run folder.

    Args:
        config: a resolved config, a mapping of sections, or a YAML file; None is the embedded
            default (a small ViT on handwritten digits).
        overrides: ``"section.key=value"`` strings, or one of them, applied last.
        data: data of your own in place of ``config.data`` (see ``vitkit.data_from_datasets``).
        model: a module of your own in place of ``config.model``: images -> logits.
        progress: print how it is going.
        since: seconds that had passed before this call and count as part of the run.

    Raises:
        VitkitError: whatever a person can put right; see :mod:`vitkit.errors`.
    """
    timer = Clock(since)
    resolved = _concrete(_resolve(config, overrides))
    built = build(resolved, data, model, progress=progress)
    folder = make_run_folder(resolved)
    write_text(folder / "config.yaml", dump_yaml(resolved))
    try:
        return _fit(Run(resolved, built, folder, timer, progress))
    except BaseException as error:
        discard_run_folder(folder, logged_too=isinstance(error, ConfigError | DataError))
        raise


def resume(
    run: str | Path,
    *,
    progress: bool = True,
    data: ImageData | None = None,
    since: float = 0.0,
) -> TrainResult:
    """Go on with a run from its last checkpoint, exactly as if it had not stopped.

    A finished run is left as it is; what it gave is returned.

    Args:
        run: the run's folder.
        progress: print how it is going.
        data: as given to :func:`train`, if any was.
        since: as for :func:`train`.

    Raises:
        RunError: there is nothing to resume.
    """
    timer = Clock(since)
    if (results := finished_results(run)) is not None:
        return _finished(results)
    path = resumable_checkpoint(run)
    checkpoint = read_checkpoint(path)
    config = load_config(base=checkpoint.config)
    # The weights that it began with may be gone; the checkpoint has better ones.
    model = config.model.model_copy(update={"weights": None})
    built = build(config.model_copy(update={"model": model}), data, progress=progress)
    # The weights that it began with may have had their own.
    built.preprocessing = Preprocessing.from_dict(checkpoint.preprocessing)
    parts = Run(config, built, Path(run), timer, progress)
    return _fit(parts, checkpoint=path, step=checkpoint.step)


def try_one_batch(config: RunConfig) -> Built:
    """Build everything and take one training and one validation step; leave nothing on disk."""
    config = _concrete(config)
    built = build(config)
    trainer = assemble.make_trainer(
        config, fast_dev_run=True, logger=False, enable_checkpointing=False
    )
    run = Run(config, built, Path())
    train_loader, val_loader = assemble.make_loaders(run, trainer)
    _run_fit(trainer, assemble.make_task(run), train_loader, val_loader, None)
    return built


def _fit(run: Run, *, checkpoint: Path | None = None, step: int | None = None) -> TrainResult:
    config = run.config
    accumulate = config.trainer.accumulate_grad_batches
    bar = TrainingProgress(run.plan, config.data.batch_size, accumulate, show=run.show)
    checkpoints = assemble.make_checkpoints(run)
    trainer = assemble.make_trainer(
        config,
        max_epochs=config.trainer.max_epochs,
        accumulate_grad_batches=accumulate,
        gradient_clip_val=config.trainer.gradient_clip or None,
        log_every_n_steps=config.trainer.log_every_n_steps,
        callbacks=assemble.make_callbacks(run, bar, checkpoints),
        logger=assemble.make_loggers(run, step),
        default_root_dir=run.folder,
        num_sanity_val_steps=0,
    )
    train_loader, val_loader = assemble.make_loaders(run, trainer)
    if step is not None:
        # Lightning restores a loader only where it stopped inside an epoch; the place of a step is
        # known anyway.
        epoch, done = divmod(step, run.plan.steps_per_epoch)
        train_loader.load_state_dict({"epoch": epoch, "next_batch": done * accumulate})
    if run.show and trainer.is_global_zero:
        _announce(run, trainer, step)
    _run_fit(trainer, assemble.make_task(run), train_loader, val_loader, checkpoint)
    try:
        return _finish(run, trainer, checkpoints, bar)
    except KeyboardInterrupt:
        raise Interrupted(
            f"stopped before the results were written; everything is in {checkpoints.last_path}. "
            + checkpoints.resume_hint,
            signal.SIGINT,
        ) from None


def _finished(results: Path) -> TrainResult:
    """What a run gave that is done already."""
    record = Record.read(results)
    tested = results.parent / "checkpoints" / str(record.facts.get("checkpoint", "last.ckpt"))
    return TrainResult(results.parent, tested, record.metrics, record)


def _finish(
    run: Run, trainer: Trainer, checkpoints: Checkpoints, bar: TrainingProgress
) -> TrainResult:
    """Test the weights on rank 0 alone (each image once), and write ``results.json``."""
    config, built = run.config, run.built
    early = config.trainer.early_stopping_patience > 0 and checkpoints.best_path.exists()
    tested = checkpoints.best_path if early else checkpoints.last_path
    metrics = {
        name: float(value)
        for name, value in trainer.callback_metrics.items()
        if name.startswith("val/")
    }
    facts: dict[str, Any] = {"checkpoint": tested.name}
    if trainer.is_global_zero and built.data.test is not None:
        outcome = evaluate_checkpoint(tested, data=built.data, progress=run.show)
        metrics |= outcome.metrics
        facts["weights"] = f"{'best' if early else 'last'}, {outcome.weights_name}"
    facts |= {
        "model": config.model.name,
        "data": config.data.name,
        "parameters": sum(p.numel() for p in built.model.parameters()),
        "epochs": round(trainer.global_step / run.plan.steps_per_epoch, 2),
        "steps": trainer.global_step,
        "seed": config.run.seed,
        "precision": config.trainer.precision,
        "images_per_second": round(bar.images_per_second, 2),
        **environment_facts(),
        "wall_seconds": round(run.clock.seconds(), 2),
    }
    record = Record(metrics, facts)
    if trainer.is_global_zero:
        record.write(run.folder / "results.json")
    return TrainResult(run.folder, tested, metrics, record)


def _run_fit(
    trainer: Trainer,
    task: ClassificationTask,
    train_loader: TrainLoader,
    val_loader: EvalLoader | None,
    checkpoint: Path | None,
) -> None:
    with assemble.calm():
        try:
            trainer.fit(task, train_loader, val_loader, ckpt_path=checkpoint, weights_only=True)
        except torch.OutOfMemoryError as error:
            raise TrainingError(
                "out of memory; lower data.batch_size or raise trainer.accumulate_grad_batches "
                "(same result, smaller batches at a time), or take trainer.precision=auto"
            ) from error
        except SystemExit as left:
            # Lightning's answer to Ctrl-C until our callback watches the signals.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            raise KeyboardInterrupt from left


def _resolve(
    config: RunConfig | Mapping[str, Any] | str | Path | None, overrides: Sequence[str]
) -> RunConfig:
    if isinstance(config, RunConfig):
        return load_config(base=to_plain(config), overrides=overrides) if overrides else config
    if isinstance(config, str | Path):
        return load_config([config], overrides)
    return load_config([], overrides, base=config)


def _concrete(config: RunConfig) -> RunConfig:
    """The config with its precision decided, so that the run's own files say what ran."""
    device = best_device(config.trainer.accelerator)
    precision = concrete_precision(config.trainer.precision, device)
    trainer = config.trainer.model_copy(update={"precision": precision})
    return config.model_copy(update={"trainer": trainer})


def _announce(run: Run, trainer: Trainer, step: int | None) -> None:
    info, model, settings = run.built.info, run.built.model, run.config.trainer
    parameters = sum(p.numel() for p in model.parameters())
    print(f"model  {run.config.model.name}: {parameters:,} parameters")
    print(
        f"data   {info.name}: {info.num_train:,} train, {info.num_val:,} val, {info.num_test:,} "
        f"test images of {info.img_size[0]} x {info.img_size[1]}, {info.num_classes} classes"
    )
    if run.built.report is not None:
        print("weights", *run.built.report.lines(), sep="\n  ")
    if settings.precision == "bf16-mixed" and not multiplies_bfloat16(trainer.strategy.root_device):
        print("note   bfloat16 is emulated on this machine and slow; trainer.precision=auto is not")
    length = f"{run.plan.total_steps:,} steps"
    if settings.max_time:
        length = f"{clock(settings.max_time)} from the start, at most {length},"
    print(f"run    {run.folder}: {length} in {settings.precision}", flush=True)
    if step is not None:
        print(f"resume after step {step:,} of {run.plan.total_steps:,}", flush=True)
