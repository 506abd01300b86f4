"""Evaluate finished models: what is measured is in the suites, what is kept is written here."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from vitkit.app.build import require_classes
from vitkit.app.devices import memory_advice
from vitkit.app.eval_results import EvalResult, timed_record, unfinished_note
from vitkit.app.leavings import left, suffix_of, with_split
from vitkit.app.other_sets import other_measures, require_named
from vitkit.app.reporter import Tested, report_evaluation
from vitkit.app.shift import shift_facts, shift_measures
from vitkit.app.sources import Source, opened_source
from vitkit.app.subjects import Subject, folder_of, open_subject, subject_of_checkpoint
from vitkit.app.suites import (
    chosen_splits,
    predictions_of,
    record_of,
    speed_measures,
    split_of,
    splits_of,
    standard_measures,
)
from vitkit.app.word_evaluator import measured_words
from vitkit.config import Overrides, given_keys, override_words
from vitkit.data.splits import ImageData
from vitkit.errors import ConfigError
from vitkit.evaluation.agreement import Paired, compare_paired
from vitkit.evaluation.classification import Predictions
from vitkit.evaluation.standard import Measured
from vitkit.records import Plain, Record
from vitkit.weights import Checkpoint

__all__ = ["SUITES", "Comparison", "Paired", "compare", "evaluate", "evaluate_checkpoint"]

SUITES = {
    "standard": ("standard",),
    "shift": ("shift",),
    "others": ("others",),
    "speed": ("speed",),
    "all": ("standard", "shift", "speed"),
}
"""What ``--suite`` may be -> the suites that are run."""
OWN_SETTINGS = {
    ("speed",): ("compile", "speed_"),
    ("shift",): ("shift_images", "attack_images", "mce_baseline", "epsilons", "pgd_steps"),
    ("others", "shift"): ("cifar", "imagenet_"),
}
"""Suites -> how the settings under ``eval.`` begin that they alone read."""

SPLITS = ("auto", "train", "val", "test", "all")
"""What ``--split`` may be: auto is test, or val where there is no test; all is each in turn."""

LOWER = "lower data.eval_batch_size"
"""What to do where the device has no room for a batch."""


@dataclass(frozen=True)
class Comparison:
    """Several models, measured alike.

    Attributes:
        results: one a model, in the order given; of each model one a split, where all were asked
            for.
        paired: each later result against the first, or where all splits were asked for against the
            first of its split; None where it is that itself, the images are not the same or the
            standard suite was not run.
    """

    results: tuple[EvalResult, ...]
    paired: tuple[Paired | None, ...]


def evaluate(
    source: Source,
    overrides: Overrides = (),
    *,
    data: ImageData | None = None,
    split: str = "auto",
    suite: str = "standard",
    progress: bool = True,
) -> EvalResult:
    """Evaluate a model and write what was found beside it.

    The standard suite leaves ``eval.json`` and ``predictions.npz``, each of the rest a file by its
    name, such as ``eval-shift.json``: in the run's folder; beside a lone checkpoint; for other
    weights, and for a model of timm, under ``<run.root>/eval/``.

    Args:
        source: a run folder or a checkpoint file; a file or folder of weights; a model by name, as
            in ``hf-hub:<owner>/<model>``; ``("timm:<name>", <file of weights>)``.
        overrides: of ``data.*`` and ``eval.*``, as for :func:`vitkit.train`; of weights that do not
            say it also of ``model.*``, such as ``model.num_heads=3``.
        data: data of your own in place of the checkpoint's.
        split: ``train``, ``val`` or ``test``; ``auto``: test, or val where there is no test.
        suite: ``standard``, ``shift``, ``others``, ``speed`` or ``all``.
        progress: show a bar on a terminal.

    Raises:
        VitkitError: no checkpoint, damaged, data that does not fit its classes, or logits that are
            not finite.
    """
    if split == "all":
        raise ConfigError("split='all' gives several results; take vitkit.app.compare")
    return compare(
        [source], overrides, data=data, split=split, suite=suite, progress=progress
    ).results[0]


def compare(
    sources: Sequence[Source],
    overrides: Overrides = (),
    *,
    data: ImageData | None = None,
    split: str = "auto",
    suite: str = "standard",
    progress: bool = True,
) -> Comparison:
    """As :func:`evaluate`, of several models in turn, and hold each against the first, on its own
    split where there are several.

    With ``split="all"`` each split that there is in turn, train first; their files are named by
    them (``eval-train.json``), but for the one that ``auto`` would take.

    Files about a checkpoint of a run that the run did not test, and of a second one of a folder,
    are named by it: ``eval-best.json``.

    Raises:
        ConfigError: no model, no such split or suite, or settings that the suite does not read.
        VitkitError: as of :func:`evaluate`.
    """
    sources = [sources] if isinstance(sources, str | Path) else sources
    overrides = override_words(overrides)
    if split not in SPLITS:
        raise ConfigError(f"--split: given {split!r}, allowed: {', '.join(SPLITS)}")
    if suite not in SUITES:
        raise ConfigError(f"--suite: given {suite!r}, allowed: {', '.join(SUITES)}")
    if split == "all" and suite != "standard":
        raise ConfigError(f"--suite: given {suite!r}, allowed with --split all: standard")
    _require_suite(overrides, suite)
    if not sources:
        raise ConfigError("nothing to evaluate: name a run, a checkpoint, weights or timm:<name>")
    results: list[EvalResult] = []
    paired: list[Paired | None] = []
    used: set[tuple[Path, str]] = set()
    for source in sources:
        started = time.perf_counter()
        opened = opened_source(source)
        if isinstance(opened, Checkpoint) and opened.tokenizer is not None:
            found = _compare_words(
                opened, overrides, data, split, suite, used, started, progress=progress
            )
            paired += [None] * (len(found) if results else len(found) - 1)
            results += found
            continue
        subject = open_subject(opened, overrides, data=data, progress=progress)
        require_classes(subject.section, subject.path)
        suffix, there = suffix_of(subject.path, subject.folder, used), splits_of(subject)
        for one in chosen_splits(split, there, subject.data.info.name, "images"):
            ending = with_split(suffix, one, split, there)
            with memory_advice(LOWER):
                result = _measured(subject, one, suite, ending, started, progress=progress)
            started = time.perf_counter()
            if results:
                alike = (r for r in results if split != "all" or r.split == result.split)
                first = next(alike, None)
                paired.append(None if first is None else _against(first, result, subject))
            results.append(result)
    return Comparison(tuple(results), tuple(paired))


def _compare_words(
    checkpoint: Checkpoint,
    overrides: Sequence[str],
    data: ImageData | None,
    split: str,
    suite: str,
    used: set[tuple[Path, str]],
    started: float,
    *,
    progress: bool,
) -> list[EvalResult]:
    """What is found about a model of words, one a split that is asked for; args as of
    :func:`compare`.

    Args:
        checkpoint: of the model.
        used: folders and names that files of the models before it have.
        started: when it began, by ``time.perf_counter()``.

    Raises:
        ConfigError: data were handed in; see also :func:`measured_words`.
    """
    if data is not None:
        raise ConfigError(
            f"data=: {checkpoint.path} reads words, whose files are named by data.* settings; "
            "leave it out"
        )
    suffix = suffix_of(checkpoint.path, folder_of(checkpoint.path), used)
    with memory_advice(LOWER):
        return measured_words(
            checkpoint, overrides, split, suite, suffix, started, progress=progress
        )


def _require_suite(overrides: Sequence[str], suite: str) -> None:
    """Refuse settings that none of the suites would look at."""
    for key in given_keys(overrides):
        for owners, beginnings in OWN_SETTINGS.items():
            if set(owners) & set(SUITES[suite]):
                continue
            if key.startswith(tuple(f"eval.{beginning}" for beginning in beginnings)):
                read = "suites read" if len(owners) > 1 else "suite reads"
                raise ConfigError(
                    f"{key}: only the {' and '.join(owners)} {read} it; add --suite {owners[0]}, "
                    "or leave it out"
                )


def evaluate_checkpoint(
    path: Path, *, data: ImageData | None = None, progress: bool = True
) -> EvalResult:
    """Loss and accuracy of one checkpoint file on the test images, as a training reports them;
    writes nothing.

    Args and errors as of :func:`evaluate`.
    """
    started = time.perf_counter()
    subject = subject_of_checkpoint(path, data=data, progress=progress)
    images = split_of(subject, "test")
    predictions = predictions_of(subject, images, "test", progress=progress)
    metrics = {f"test/{name}": value for name, value in predictions.metrics().items()}
    facts = {**subject.facts, "images": len(images)}
    return EvalResult(
        metrics,
        path,
        subject.weights_name,
        len(images),
        timed_record(Measured(metrics), facts, started, subject.device),
        tested=Tested(subject, predictions, "test"),
    )


def _measured(
    subject: Subject, split: str, suite: str, suffix: str, started: float, *, progress: bool
) -> EvalResult:
    """Run the suites one after the other, each written as soon as it is done."""
    options = subject.config.eval
    images = len(split_of(subject, split))
    records: dict[str, Record] = {}
    written: list[Path] = []
    predictions: Predictions | None = None
    pictures = ""
    subject.folder.mkdir(parents=True, exist_ok=True)
    for name in SUITES[suite]:
        facts: dict[str, Plain] = {**subject.facts, "images": images, "split": split}
        if name == "standard":
            measured, predictions = standard_measures(subject, split, progress=progress)
            path = left(subject.folder, "predictions", suffix)
            record = record_of(subject, predictions, split)
            record.write(path)
            pictures = str(record.pictures)
            written.append(path)
            facts |= {"eval_seed": options.seed, "resamples": options.resamples}
            facts |= {"confidence": options.confidence, "tta": options.tta}
        elif name == "shift":
            measured = shift_measures(subject, split, progress=progress)
            facts |= {"eval_seed": options.seed, **shift_facts(subject, images)}
        elif name == "others":
            require_named(options)
            measured = other_measures(subject, split, progress=progress)
            facts["tta"] = options.tta
        else:
            measured = speed_measures(subject)
            facts["precision"] = "32-true"
        records[name] = timed_record(measured, facts, started, subject.device)
        path = left(subject.folder, name, suffix)
        records[name].write(path)
        written.append(path)
        started = time.perf_counter()
    page: Path | None = None
    if subject.config.run.report:
        tested = None if predictions is None else Tested(subject, predictions, split)
        page = report_evaluation(subject.folder, tested, suffix)
    metrics = {key: value for record in records.values() for key, value in record.metrics.items()}
    return EvalResult(
        metrics=metrics,
        checkpoint=subject.path,
        weights_name=subject.weights_name,
        count=images,
        record=next(iter(records.values())),
        unfinished=unfinished_note(subject.path, subject.folder, subject.facts),
        records=records,
        predictions=predictions,
        written=tuple(written),
        page=page,
        split=split,
        pictures=pictures,
        notes=subject.notes,
    )


def _against(first: EvalResult, other: EvalResult, subject: Subject) -> Paired | None:
    """The first model against another, where both were asked about the same images."""
    a, b = first.predictions, other.predictions
    if first.split != other.split or a is None or b is None:
        return None
    if first.record.facts["data"] != other.record.facts["data"]:
        return None
    if first.pictures != other.pictures or not torch.equal(a.targets, b.targets):
        return None
    options = subject.config.eval
    return compare_paired(
        a.logits.argmax(1) == a.targets,
        b.logits.argmax(1) == b.targets,
        resamples=options.resamples,
        confidence=options.confidence,
        seed=options.seed,
    )
