"""The suites of an evaluation on one model: standard, and cost and speed; shift lies beside."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from vitkit.app.batches import eval_loader
from vitkit.app.progress import counted
from vitkit.app.subjects import Subject
from vitkit.data.splits import Split, pictures_digest
from vitkit.errors import DataError, EvaluationError, first_line
from vitkit.evaluation.classification import Predictions, predict_all
from vitkit.evaluation.cost import count_activations, count_flops, count_parameters, peak_memory
from vitkit.evaluation.scores import confusion_matrix
from vitkit.evaluation.speed import Speed, measure_speed
from vitkit.evaluation.standard import Measured, standard_suite
from vitkit.evaluation.views import averaged
from vitkit.models.flops import forward_flops
from vitkit.records import PredictionRecord

__all__ = [
    "chosen_splits",
    "predictions_of",
    "record_of",
    "speed_measures",
    "split_of",
    "splits_of",
    "standard_measures",
]

MB = 1e6
MILLISECONDS = 1e3
GIGA = 1e9


def split_of(subject: Subject, split: str) -> Split:
    """The images of a split.

    Raises:
        DataError: there are none.
    """
    if split not in (there := _splits(subject)):
        raise DataError(f"{subject.data.info.name} has no {split} images")
    return there[split]


def splits_of(subject: Subject) -> list[str]:
    """Names of the splits that there are images of."""
    return list(_splits(subject))


def _splits(subject: Subject) -> dict[str, Split]:
    data = subject.data
    named = {"train": data.train, "val": data.val, "test": data.test}
    return {name: images for name, images in named.items() if images is not None and len(images)}


def chosen_splits(asked: str, there: Sequence[str], name: str, unit: str) -> list[str]:
    """The splits that a word stands for.

    Args:
        asked: a split; ``all``; or ``auto``: test, or val where there is no test.
        there: the splits that there are.
        name: of the data.
        unit: what the splits are of.

    Raises:
        DataError: there is no such split.
    """
    if asked == "all":
        return list(there)
    wanted = ["test", "val"] if asked == "auto" else [asked]
    found = [split for split in wanted if split in there][:1]
    if not found:
        none = " and no ".join(wanted)
        raise DataError(f"{name} has no {none} {unit}; with --split: {', '.join([*there, 'all'])}")
    return found


def predictions_of(
    subject: Subject, images: Split, what: str, *, views: str = "none", progress: bool = True
) -> Predictions:
    """What a model says about every image.

    Args:
        subject: the model.
        images: to be predicted.
        what: they are, for the progress bar.
        views: test-time augmentation, see :func:`~vitkit.evaluation.views.averaged`.
        progress: show a bar on a terminal.
    """
    with counted(f"evaluating {what}", "images", show=progress) as tell:
        return predict_all(
            averaged(subject.predict, views),
            eval_loader(images, subject.pictures, subject.device),
            on_batch=lambda done: tell(done, len(images)),
        )


def standard_measures(
    subject: Subject, split: str, *, progress: bool = True
) -> tuple[Measured, Predictions]:
    """The standard suite: its metrics and tables, and the predictions they are made of.

    The temperature is fitted on the validation images, where there are any, they are not what is
    reported, and the model was not trained on them.
    """
    options = subject.config.eval
    images = split_of(subject, split)
    predictions = predictions_of(subject, images, split, views=options.tta, progress=progress)
    held_out = subject.data.val if split != "val" and subject.own_val else None
    validation = None
    if held_out is not None and len(held_out):
        validation = predictions_of(subject, held_out, "val", views=options.tta, progress=progress)
    measured = standard_suite(
        predictions,
        subject.data.info.class_names,
        validation=validation,
        resamples=options.resamples,
        confidence=options.confidence,
        seed=options.seed,
    )
    metrics = {f"{split}/{name}": value for name, value in measured.metrics.items()}
    return Measured(metrics, measured.tables), predictions


def record_of(subject: Subject, predictions: Predictions, split: str) -> PredictionRecord:
    """What ``predictions.npz`` holds: what a model said about every image of a split."""
    logits, targets = predictions.logits, predictions.targets
    confusion = confusion_matrix(logits.argmax(1), targets, logits.shape[1])
    return PredictionRecord(
        logits=logits.numpy(),
        targets=targets.numpy(),
        indices=predictions.indices.numpy(),
        confusion=confusion.numpy(),
        class_names=np.array(subject.data.info.class_names, dtype=np.str_),
        pictures=np.array(pictures_digest(split_of(subject, split))),
    )


def speed_measures(subject: Subject) -> Measured:
    """Cost and speed of the forward pass; what is measured is uncompiled float32, unless said.

    ``cost/parameters``; of one image ``cost/gflops`` (10^9 operations that the model is, 2 a
    multiply-accumulate), ``cost/gflops_executed`` (where vitkit computes fewer), and
    ``cost/activations``; ``cost/peak_memory_mb`` beyond the weights, for the fastest batch;
    ``speed/latency_ms`` of one image, ``speed/images_per_second`` at ``speed/best_batch``.
    """
    model, options = subject.model, subject.config.eval
    one = _batch_of(subject, 1)
    metrics = {"cost/parameters": float(count_parameters(model)), **_gflops(subject, one)}
    metrics["cost/activations"] = float(count_activations(model, lambda: model(one)))
    speed = _speed(subject, model)
    fastest = _batch_of(subject, speed.best_batch)
    held = peak_memory(lambda: model(fastest), subject.device)
    metrics["cost/peak_memory_mb"] = held / MB
    metrics |= _named(speed, "speed")
    tables = {"rates": _rates(speed)}
    if options.compile:
        compiled = _speed(subject, _compiled(model))
        metrics |= _named(compiled, "speed/compiled")
        tables["rates_compiled"] = _rates(compiled)
    return Measured(metrics, tables)


def _gflops(subject: Subject, one: Tensor) -> dict[str, float]:
    """Closed form where there is one, else counted by running the model on one image."""
    try:
        whole = forward_flops(subject.section)
    except ValueError:
        return {"cost/gflops": count_flops(lambda: subject.model(one)) / GIGA}
    executed = forward_flops(subject.section, executed=True)
    return {"cost/gflops": whole / GIGA, "cost/gflops_executed": executed / GIGA}


def _batch_of(subject: Subject, size: int) -> Tensor:
    """Random numbers in the shape of the model's input."""
    want = subject.preprocessing
    generator = torch.Generator().manual_seed(0)
    shape = (size, want.in_chans, *want.img_size)
    return torch.randn(shape, generator=generator).to(subject.device)


def _speed(subject: Subject, run: Callable[[Tensor], object]) -> Speed:
    options = subject.config.eval
    return measure_speed(
        run,
        lambda size: _batch_of(subject, size),
        seconds=options.speed_seconds,
        max_batch=options.speed_max_batch,
    )


def _compiled(model: nn.Module) -> Callable[[Tensor], object]:
    """The model compiled by torch, a shape at a time.

    Raises:
        EvaluationError: it cannot be compiled here.
    """
    compiled = torch.compile(model, dynamic=False)
    seen = torch.Size()

    def run(images: Tensor) -> object:
        nonlocal seen
        if images.shape != seen:
            # Behind eight shapes of one model torch would compile no more, and say nothing.
            torch.compiler.reset()
            seen = images.shape
        try:
            return compiled(images)
        except torch._dynamo.exc.BackendCompilerFailed as error:
            reason = first_line(error)
            raise EvaluationError(
                f"the model cannot be compiled here ({reason}); leave out eval.compile"
            ) from error

    return run


def _named(speed: Speed, prefix: str) -> dict[str, float]:
    return {
        f"{prefix}/latency_ms": speed.latency * MILLISECONDS,
        f"{prefix}/images_per_second": speed.images_per_second,
        f"{prefix}/best_batch": float(speed.best_batch),
    }


def _rates(speed: Speed) -> dict[str, list[str] | list[int] | list[float]]:
    return {
        "batch": list(speed.rates),
        "images_per_second": list(speed.rates.values()),
    }
