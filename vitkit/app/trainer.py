"""Train a model: from a config to a run folder with checkpoints, logs and results."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pytorch_lightning import Trainer

from vitkit.app import assemble
from vitkit.app.announcement import announce
from vitkit.app.assemble import Run
from vitkit.app.devices import memory_advice
from vitkit.app.facts import environment_facts, peak_memory_mb
from vitkit.app.invocation import is_child, restart_command
from vitkit.app.jobs import Job, job_class
from vitkit.app.leavings import forget, keep_in
from vitkit.app.lengths import as_extended, longer, note_length
from vitkit.app.reporter import report_training
from vitkit.app.resolve import concrete, require_read_with_own_data, resolve_config
from vitkit.app.runs import (
    discard_run_folder,
    finished_results,
    make_run_folder,
    require_unused,
    resumable_checkpoint,
)
from vitkit.config import Overrides, RunConfig, dump_yaml, load_config
from vitkit.data.loaders import EvalLoader, TrainLoader
from vitkit.data.splits import ImageData
from vitkit.errors import ConfigError, DataError, Interrupted, TrainingError
from vitkit.records import Record, write_text
from vitkit.training.base import TrainingTask
from vitkit.training.budget import Clock
from vitkit.training.checkpoints import Checkpoints
from vitkit.training.progress import TrainingProgress
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
    overrides: Overrides = (),
    *,
    data: ImageData | None = None,
    progress: bool = True,
    since: float = 0.0,
) -> TrainResult:
    """Train, test, and leave the results in a new run folder.

    Args:
        config: a resolved config, a mapping of sections, or a YAML file; None is the embedded
            default (a small ViT on handwritten digits).
        overrides: ``"section.key=value"`` strings, one of them, or {"section.key": value}; applied
            last.
        data: data of your own in place of ``config.data`` (see ``vitkit.data_from_datasets``).
        progress: print how it is going.
        since: seconds that had passed before this call and count as part of the run.

    Raises:
        VitkitError: whatever a person can put right; see :mod:`vitkit.errors`.
    """
    timer = Clock(since)
    if data is not None:
        require_read_with_own_data(overrides)
    resolved = concrete(resolve_config(config, overrides))
    require_unused(resolved)
    job = job_class(resolved)(resolved, data, progress=progress)
    folder = make_run_folder(resolved)
    write_text(folder / "config.yaml", dump_yaml(resolved))
    try:
        return _fit(Run(resolved, job, folder, timer, progress))
    except BaseException as error:
        discard_run_folder(folder, logged_too=isinstance(error, ConfigError | DataError))
        raise


def resume(
    run: str | Path,
    *,
    extend: int | None = None,
    progress: bool = True,
    data: ImageData | None = None,
    since: float = 0.0,
) -> TrainResult:
    """Go on with a run from its last checkpoint, exactly as if it had not stopped.

    A finished run is left as it is, unless it is extended; what it gave is returned.

    Args:
        run: the run's folder.
        extend: epochs in all, more than the run was begun with. It goes on with all its state, as a
            run of that length would at this step: its schedule is the longer one's from here on.
            What a finished run had come to is kept in its folder ``<epochs>-epochs``. It holds for
            every later call.
        progress: print how it is going.
        data: as given to :func:`train`, if any was.
        since: as for :func:`train`.

    Raises:
        RunError: there is nothing to resume.
        ConfigError: a length that the run cannot be extended to.
    """
    timer, folder = Clock(since), Path(run)
    results = finished_results(run)
    if results is not None and extend is None:
        return _finished(results)
    path = resumable_checkpoint(run)
    checkpoint = read_checkpoint(path)
    begun = load_config(base=checkpoint.config)
    if extend is None:
        config = as_extended(begun, folder)
    else:
        config = longer(begun, extend, checkpoint, finished=results is not None)
    config = concrete(config)  # what another machine decided may not be had on this one
    # The weights that it began with may be gone; the checkpoint has better ones.
    bare = config.model_copy(
        update={"model": config.model.without_weights(), "task": config.task.without_weights()}
    )
    job = job_class(config)(bare, data, resumed=checkpoint, progress=progress)
    job.config = config
    parts = Run(config, job, folder, timer, progress)
    reopen = partial(_reopen, folder, config, results, begun.trainer.max_epochs)
    return _fit(
        parts,
        checkpoint=path,
        step=checkpoint.step,
        when_built=None if extend is None else reopen,
    )


def _reopen(folder: Path, config: RunConfig, results: Path | None, planned: int) -> None:
    """Note in a run's folder that it is longer now, and keep what it had come to. In this order, so
    that what is killed in between is finished as it was, and can be extended again.
    """
    if is_child():
        return
    note_length(folder, config)
    if results is not None:
        kept = folder / f"{planned}-epochs"
        kept.mkdir(exist_ok=True)
        for name in ("config.yaml", "metrics.csv"):
            if (folder / name).is_file():
                shutil.copy2(folder / name, kept / name)
        keep_in(folder, kept)
        results.replace(kept / results.name)
    write_text(folder / "config.yaml", dump_yaml(config))


def try_one_batch(config: RunConfig) -> Job:
    """Build everything and take one training and one validation step; leave nothing on disk."""
    config = concrete(config)
    job = job_class(config)(config)
    trainer = assemble.make_trainer(
        config,
        fast_dev_run=True,
        gradient_clip_val=config.trainer.gradient_clip or None,
        logger=False,
        enable_checkpointing=False,
    )
    run = Run(config, job, Path())
    assemble.make_checkpoints(run)  # refuses what has nothing to go by
    train_loader, val_loader = job.loaders(trainer)
    try:
        _run_fit(trainer, assemble.make_task(run), train_loader, val_loader, None)
    finally:
        _end_workers(train_loader, val_loader)
    return job


def _fit(
    run: Run,
    *,
    checkpoint: Path | None = None,
    step: int | None = None,
    when_built: Callable[[], None] | None = None,
) -> TrainResult:
    """Train and test.

    Args:
        run: what to train.
        checkpoint: that it goes on from, if it does.
        step: of that.
        when_built: called when nothing is left to be refused, before the first step.
    """
    config = run.config
    accumulate = config.trainer.accumulate_grad_batches
    bar = TrainingProgress(
        run.plan, run.job.units_per_step, accumulate, show=run.show, unit=run.job.unit
    )
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
    train_loader, val_loader = run.job.loaders(trainer)
    if step is not None:
        # Lightning restores a loader only where it stopped inside an epoch; the place of a step is
        # known anyway.
        epoch, done = divmod(step, run.plan.steps_per_epoch)
        train_loader.load_state_dict({"epoch": epoch, "next_batch": done * accumulate})
    if run.show and trainer.is_global_zero:
        announce(run, trainer, step)
    task = assemble.make_task(run)
    if when_built is not None:
        when_built()
    try:
        _run_fit(trainer, task, train_loader, val_loader, checkpoint)
        if val_loader is not None and not _val_metrics(trainer):
            # All steps had been taken: nothing was trained, nothing validated. The files know it.
            trainer.loggers = []
            with assemble.quiet_lightning(), _measuring(checkpoints.last_path):
                trainer.validate(task, val_loader, verbose=False)
    except TrainingError as error:
        raise TrainingError(f"{error}. {_way_back(run, checkpoints.last_path)}") from error
    finally:
        _end_workers(train_loader, val_loader)
    try:
        return _finish(run, trainer, checkpoints, bar)
    except KeyboardInterrupt:
        raise Interrupted(
            f"stopped before the results were written; everything is in {checkpoints.last_path}. "
            + checkpoints.resume_hint,
            signal.SIGINT,
        ) from None


def _end_workers(*loaders: Any) -> None:
    """End the processes that decode images, which live until memory is tidied otherwise."""
    for loader in loaders:
        if isinstance(loader, TrainLoader | EvalLoader):
            loader.close()


def _way_back(run: Run, last: Path) -> str:
    """How to go on after a training that failed."""
    if not last.is_file():
        return "There is no checkpoint yet; start anew"
    command = restart_command(run.folder / "config.yaml", run.config, last)
    return (
        f"The last checkpoint is still good; go on from its weights: {command} and what you change"
    )


def _finished(results: Path) -> TrainResult:
    """What a run gave that is done already."""
    record = Record.read(results)
    tested = results.parent / "checkpoints" / str(record.facts.get("checkpoint", "last.ckpt"))
    return TrainResult(results.parent, tested, record.metrics, record)


def _finish(
    run: Run, trainer: Trainer, checkpoints: Checkpoints, bar: TrainingProgress
) -> TrainResult:
    """Test the weights on rank 0 alone (each image once), and write ``results.json``."""
    config = run.config
    early = config.trainer.early_stopping_patience > 0 and checkpoints.best_path.exists()
    tested = checkpoints.best_path if early else checkpoints.last_path
    # Of the weights that are tested: older checkpoints do not know what the best epoch measured.
    metrics = (dict(checkpoints.best_metrics) if early else {}) or _val_metrics(trainer)
    facts: dict[str, Any] = {"checkpoint": tested.name}
    graphs = assemble.graph_facts(trainer)  # before the test, which may compile more
    if graphs and run.show and trainer.is_global_zero:
        count, more = graphs["compiled_graphs"], graphs["recompiled_graphs"]
        print(f"compile {count:,} graphs, {more:,} of them after the first epoch", flush=True)
    if trainer.is_global_zero:
        forget(run.folder)
        with _measuring(tested):
            measured, said = run.job.test(tested, show=run.show)
        metrics |= measured
        facts |= said
        if "weights" in said:
            facts["weights"] = f"{'best' if early else 'last'}, {said['weights']}"
    facts |= {
        "model": config.model.name,
        "data": run.job.data_name,
        "task": config.task.name,
        "parameters": run.job.num_parameters,
        "trainable_parameters": sum(
            p.numel() for p in run.job.model.parameters() if p.requires_grad
        ),
        "epochs": round(trainer.global_step / run.plan.steps_per_epoch, 2),
        "steps": trainer.global_step,
        "seed": config.run.seed,
        "precision": config.trainer.precision,
        **graphs,
        f"{bar.unit}_per_second": round(bar.per_second, 2),
        "peak_memory_mb": peak_memory_mb(trainer.strategy.root_device),
        **environment_facts(trainer.strategy.root_device),
        "wall_seconds": round(run.clock.seconds(), 2),
    }
    record = Record(metrics, facts, run.job.tables())
    if trainer.is_global_zero:
        record.write(run.folder / "results.json")
        if config.run.report:
            report_training(run.folder, run.job.tested)
    return TrainResult(run.folder, tested, metrics, record)


def _val_metrics(trainer: Trainer) -> dict[str, float]:
    """Of the last validation in this process."""
    known = trainer.callback_metrics.items()
    return {name: float(value) for name, value in known if name.startswith("val/")}


def _run_fit(
    trainer: Trainer,
    task: TrainingTask,
    train_loader: Any,
    val_loader: Any,
    checkpoint: Path | None,
) -> None:
    advice = (
        "lower data.batch_size or raise trainer.accumulate_grad_batches (smaller batches at a "
        "time), or take trainer.precision=auto or trainer.grad_checkpointing=true; if it was in "
        "the validation, lower data.eval_batch_size"
    )
    with (
        assemble.quiet_lightning(),
        assemble.leave_memory_unfilled(),
        memory_advice(advice, TrainingError),
    ):
        try:
            trainer.fit(task, train_loader, val_loader, ckpt_path=checkpoint, weights_only=True)
        except SystemExit as left:
            # Lightning's answer to Ctrl-C until our callback watches the signals.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            raise KeyboardInterrupt from left


def _measuring(tested: Path) -> AbstractContextManager[None]:
    """What is done when all steps have been taken, on a device that may have no room for it."""
    return memory_advice(
        f"data.eval_batch_size is too large. The training is done: measure {tested} by vitkit "
        "eval, or vitkit probe if it is a pre-training's, with a lower data.eval_batch_size"
    )
