"""Evaluate finished models: what is measured is in the suites, what is kept is written here."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from vitkit.app.facts import environment_facts
from vitkit.app.runs import finished_results
from vitkit.app.shift import shift_facts, shift_measures
from vitkit.app.subjects import Source, Subject, open_subject, subject_of_checkpoint
from vitkit.app.suites import (
    predictions_of,
    record_of,
    speed_measures,
    split_of,
    standard_measures,
)
from vitkit.data.splits import ImageData
from vitkit.errors import ConfigError
from vitkit.evaluation.agreement import Paired, compare_paired
from vitkit.evaluation.classification import Predictions
from vitkit.evaluation.standard import Measured
from vitkit.records import Plain, Record

__all__ = [
    "SUITES",
    "Comparison",
    "EvalResult",
    "Paired",
    "compare",
    "evaluate",
    "evaluate_checkpoint",
]

SUITES = {
    "standard": ("standard",),
    "shift": ("shift",),
    "speed": ("speed",),
    "all": ("standard", "shift", "speed"),
}
"""What ``--suite`` may be -> the suites that are run."""

SPLITS = ("test", "val")

FILES = {"standard": "eval", "shift": "eval-shift", "speed": "eval-speed"}
"""Suite -> name of its record, without the suffix."""


@dataclass(frozen=True)
class EvalResult:
    """What an evaluation found.

    Attributes:
        metrics: ``test/acc`` and, of more than five classes, ``test/acc5`` as fractions;
            ``test/loss`` in nats an image; and what the suites add.
        checkpoint: the file whose weights were evaluated.
        weights_name: ``trained`` or ``averaged``.
        count: images evaluated.
        record: all of the first suite's file: ``eval.json`` of the standard one.
        unfinished: how far the training is that the checkpoint belongs to, where it is not done.
        records: suite -> what its file holds.
        predictions: of the standard suite; None without it.
        written: the files, in the order they were written.
    """

    metrics: dict[str, float]
    checkpoint: Path
    weights_name: str
    count: int
    record: Record
    unfinished: str = ""
    records: dict[str, Record] = field(default_factory=dict)
    predictions: Predictions | None = None
    written: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Several models, measured alike.

    Attributes:
        results: one a model, in the order given.
        paired: each later model against the first, on the same images; None where the images are
            not the same or the standard suite was not run.
    """

    results: tuple[EvalResult, ...]
    paired: tuple[Paired | None, ...]


def evaluate(
    source: Source,
    overrides: Sequence[str] = (),
    *,
    data: ImageData | None = None,
    split: str = "test",
    suite: str = "standard",
    progress: bool = True,
) -> EvalResult:
    """Evaluate a model and write what was found beside it.

    The standard suite leaves ``eval.json`` and ``predictions.npz``, the others ``eval-shift.json``
    and ``eval-speed.json``: in the run's folder; beside a lone checkpoint; for a model of timm
    under ``<run.root>/eval/``.

    Args:
        source: a run folder or a checkpoint file; ``("timm:<name>", <file of weights>)``.
        overrides: ``"data.key=value"`` and ``"eval.key=value"`` strings.
        data: data of your own in place of the checkpoint's.
        split: ``test`` or ``val``.
        suite: ``standard``, ``shift``, ``speed`` or ``all``.
        progress: show a bar on a terminal.

    Raises:
        VitkitError: no checkpoint, damaged, data that does not fit its classes, or logits that are
            not finite.
    """
    return compare(
        [source], overrides, data=data, split=split, suite=suite, progress=progress
    ).results[0]


def compare(
    sources: Sequence[Source],
    overrides: Sequence[str] = (),
    *,
    data: ImageData | None = None,
    split: str = "test",
    suite: str = "standard",
    progress: bool = True,
) -> Comparison:
    """As :func:`evaluate`, of several models in turn, and hold each against the first.

    Where several checkpoints share a folder, their files are named by them: ``eval-best.json``.
    """
    if split not in SPLITS:
        raise ConfigError(f"--split: given {split!r}, allowed: {', '.join(SPLITS)}")
    if suite not in SUITES:
        raise ConfigError(f"--suite: given {suite!r}, allowed: {', '.join(SUITES)}")
    if not sources:
        raise ConfigError("nothing to evaluate: name a run, a checkpoint, or timm:<name>")
    results: list[EvalResult] = []
    paired: list[Paired | None] = []
    used: set[Path] = set()
    for source in sources:
        started = time.perf_counter()
        subject = open_subject(source, overrides, data=data, progress=progress)
        suffix = f"-{subject.path.stem}" if subject.folder in used else ""
        used.add(subject.folder)
        result = _measured(subject, split, suite, suffix, started, progress=progress)
        if results:
            paired.append(_against(results[0], result, subject))
        results.append(result)
    return Comparison(tuple(results), tuple(paired))


def evaluate_checkpoint(
    path: Path,
    overrides: Sequence[str] = (),
    *,
    data: ImageData | None = None,
    split: str = "test",
    progress: bool = True,
) -> EvalResult:
    """Loss and accuracy of one checkpoint file, as a training reports them; writes nothing.

    Args and errors as of :func:`evaluate`.
    """
    started = time.perf_counter()
    subject = subject_of_checkpoint(path, overrides, data=data, progress=progress)
    images = split_of(subject, split)
    predictions = predictions_of(subject, images, split, progress=progress)
    metrics = {f"{split}/{name}": value for name, value in predictions.metrics().items()}
    facts = {**subject.facts, "images": len(images)}
    record = _record(Measured(metrics), facts, started)
    return EvalResult(metrics, path, subject.weights_name, len(images), record)


def _measured(
    subject: Subject, split: str, suite: str, suffix: str, started: float, *, progress: bool
) -> EvalResult:
    """Run the suites one after the other, each written as soon as it is done."""
    options = subject.config.eval
    images = len(split_of(subject, split))
    records: dict[str, Record] = {}
    written: list[Path] = []
    predictions: Predictions | None = None
    subject.folder.mkdir(parents=True, exist_ok=True)
    for name in SUITES[suite]:
        facts: dict[str, Plain] = {**subject.facts, "images": images, "split": split}
        if name == "standard":
            measured, predictions = standard_measures(subject, split, progress=progress)
            path = subject.folder / f"predictions{suffix}.npz"
            record_of(predictions, subject.data.info.class_names).write(path)
            written.append(path)
            facts |= {"eval_seed": options.seed, "resamples": options.resamples}
            facts |= {"confidence": options.confidence, "tta": options.tta}
        elif name == "shift":
            measured = shift_measures(subject, split, progress=progress)
            facts |= {"eval_seed": options.seed, **shift_facts(subject, images)}
        else:
            measured = speed_measures(subject)
        records[name] = _record(measured, facts, started)
        path = subject.folder / f"{FILES[name]}{suffix}.json"
        records[name].write(path)
        written.append(path)
        started = time.perf_counter()
    metrics = {key: value for record in records.values() for key, value in record.metrics.items()}
    return EvalResult(
        metrics=metrics,
        checkpoint=subject.path,
        weights_name=subject.weights_name,
        count=images,
        record=next(iter(records.values())),
        unfinished=_unfinished(subject),
        records=records,
        predictions=predictions,
        written=tuple(written),
    )


def _record(measured: Measured, facts: dict[str, Plain], started: float) -> Record:
    seconds = round(time.perf_counter() - started, 2)
    everything = {**facts, "wall_seconds": seconds, **environment_facts()}
    return Record(measured.metrics, everything, dict(measured.tables))


def _unfinished(subject: Subject) -> str:
    """What to say of a run that is still to be finished; empty for any other source."""
    facts, folder = subject.facts, subject.folder
    if subject.path.parent.name != "checkpoints" or "step" not in facts:
        return ""
    if finished_results(folder) is not None:
        return ""
    return (
        f"the run is not finished (step {facts['step']:,}, epoch {int(str(facts['epoch'])) + 1}); "
        f"go on with: vitkit train --resume {folder}"
    )


def _against(first: EvalResult, other: EvalResult, subject: Subject) -> Paired | None:
    """The first model against another, where both were asked about the same images."""
    a, b = first.predictions, other.predictions
    if a is None or b is None or first.record.facts["data"] != other.record.facts["data"]:
        return None
    if not torch.equal(a.targets, b.targets):
        return None
    options = subject.config.eval
    return compare_paired(
        a.logits.argmax(1) == a.targets,
        b.logits.argmax(1) == b.targets,
        resamples=options.resamples,
        confidence=options.confidence,
        seed=options.seed,
    )
