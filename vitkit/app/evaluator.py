"""Evaluate a checkpoint on a test set: everything it needs is in the checkpoint."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vitkit.app.build import build_data, build_from_checkpoint, require_same_classes
from vitkit.app.devices import best_device
from vitkit.app.facts import environment_facts
from vitkit.app.progress import counted
from vitkit.app.runs import find_checkpoint, finished_results
from vitkit.config import load_config
from vitkit.data.loaders import EvalLoader
from vitkit.data.splits import ImageData
from vitkit.errors import DataError
from vitkit.evaluation import predict_all
from vitkit.records import Record
from vitkit.weights import read_checkpoint

__all__ = ["EvalResult", "evaluate", "evaluate_checkpoint"]


@dataclass(frozen=True)
class EvalResult:
    """What an evaluation found.

    Attributes:
        metrics: ``test/acc`` and, of more than five classes, ``test/acc5`` as fractions;
            ``test/loss`` in nats an image.
        checkpoint: the file whose weights were evaluated.
        weights_name: ``trained`` or ``averaged``.
        count: images evaluated.
        record: all of ``eval.json``.
        unfinished: how far the training is that the checkpoint belongs to, where it is not done.
    """

    metrics: dict[str, float]
    checkpoint: Path
    weights_name: str
    count: int
    record: Record
    unfinished: str = ""


def evaluate(
    source: str | Path,
    overrides: Sequence[str] = (),
    *,
    data: ImageData | None = None,
    split: str = "test",
    progress: bool = True,
) -> EvalResult:
    """Evaluate a run folder or checkpoint and write ``eval.json`` beside it.

    Args:
        source: a run folder or a checkpoint file.
        overrides: ``"data.key=value"`` strings, to evaluate on other data.
        data: data of your own in place of the checkpoint's.
        split: ``test`` or ``val``.
        progress: show a bar on a terminal.

    Raises:
        VitkitError: no checkpoint, damaged, or data that does not fit its classes.
    """
    path = find_checkpoint(source)
    result = evaluate_checkpoint(path, overrides, data=data, split=split, progress=progress)
    folder = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    result.record.write(folder / "eval.json")
    if path.parent.name != "checkpoints" or finished_results(folder) is not None:
        return result
    facts = result.record.facts
    return replace(
        result,
        unfinished=f"the run is not finished (step {facts['step']:,}, "
        f"epoch {int(str(facts['epoch'])) + 1}); go on with: vitkit train --resume {folder}",
    )


def evaluate_checkpoint(
    path: Path,
    overrides: Sequence[str] = (),
    *,
    data: ImageData | None = None,
    split: str = "test",
    progress: bool = True,
) -> EvalResult:
    """As :func:`evaluate`, of one checkpoint file, and writes nothing."""
    started = time.perf_counter()
    checkpoint = read_checkpoint(path)
    model, preprocessing, trained_on = build_from_checkpoint(checkpoint)
    config = load_config(base=checkpoint.config, overrides=overrides)
    if data is None:
        data = build_data(config, progress=progress)
    require_same_classes(trained_on, data.info)
    images = data.test if split == "test" else data.val
    if images is None:
        raise DataError(f"{data.info.name} has no {split} images")
    device = best_device(config.trainer.accelerator)
    model.to(device)
    loader = EvalLoader(
        images,
        batch_size=config.data.eval_batch_size,
        device=device,
        num_workers=config.data.num_workers,
    )
    with counted(f"evaluating {split}", "images", show=progress) as tell:
        predictions = predict_all(
            lambda batch: model(preprocessing(batch)),
            loader,
            on_batch=lambda done: tell(done, len(images)),
        )
    metrics = {f"{split}/{name}": value for name, value in predictions.metrics().items()}
    count = len(predictions.targets)
    facts = {
        "checkpoint": str(path),
        "weights": checkpoint.weights_name,
        "model": str(checkpoint.model["name"]),
        "data": data.info.name,
        "images": count,
        "epoch": checkpoint.epoch,
        "step": checkpoint.step,
        "wall_seconds": round(time.perf_counter() - started, 2),
        **environment_facts(),
    }
    return EvalResult(metrics, path, checkpoint.weights_name, count, Record(metrics, facts))
