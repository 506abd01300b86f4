"""What an evaluation found, and the record that is kept of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from vitkit.app.facts import environment_facts
from vitkit.app.invocation import resume_command
from vitkit.app.reporter import Tested
from vitkit.app.runs import finished_results
from vitkit.evaluation.classification import Predictions
from vitkit.evaluation.standard import Measured
from vitkit.records import Plain, Record

__all__ = ["EvalResult", "timed_record", "unfinished_note"]


@dataclass(frozen=True)
class EvalResult:
    """What an evaluation found.

    Attributes:
        metrics: ``test/acc`` and, of more than five classes, ``test/acc5`` as fractions;
            ``test/loss`` in nats an image; and what the suites add. Of words: see
            :class:`~vitkit.app.word_metrics.WordMetrics`.
        checkpoint: the file whose weights were evaluated.
        weights_name: ``trained`` or ``averaged``.
        count: images evaluated, or tokens.
        record: all of the first suite's file: ``eval.json`` of the standard one.
        unfinished: how far the training is that the checkpoint belongs to, where it is not done.
        records: suite -> what its file holds.
        predictions: of the standard suite; None without it.
        written: the files, in the order they were written.
        unit: what was counted.
        page: of the report, if one was written.
        tested: the model and what it said, of :func:`~vitkit.app.evaluator.evaluate_checkpoint`
            alone.
        split: what was evaluated: ``train``, ``val`` or ``test``.
        pictures: a digest of which pictures these were, of the standard suite.
        notes: what a person should know about how the weights were read, a line each.
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
    unit: str = "images"
    page: Path | None = None
    tested: Tested | None = None
    split: str = "test"
    pictures: str = ""
    notes: tuple[str, ...] = ()


def timed_record(
    measured: Measured, facts: dict[str, Plain], started: float, device: torch.device
) -> Record:
    """What was measured as a record, with the machine and the seconds that it took.

    Args:
        measured: metrics and tables.
        facts: plain values about the model and its data.
        started: when it began, by ``time.perf_counter()``.
        device: that it ran on.
    """
    seconds = round(time.perf_counter() - started, 2)
    everything = {**facts, "wall_seconds": seconds, **environment_facts(device)}
    return Record(measured.metrics, everything, dict(measured.tables))


def unfinished_note(path: Path, folder: Path, facts: Mapping[str, Plain]) -> str:
    """What to say of a run that is still to be finished; empty for any other source.

    Args:
        path: of the checkpoint.
        folder: of its run.
        facts: about it; those of a run's have ``step`` and ``epoch``.
    """
    if path.parent.name != "checkpoints" or "step" not in facts:
        return ""
    if finished_results(folder) is not None:
        return ""
    return (
        f"the run is not finished (step {facts['step']:,}, epoch {int(str(facts['epoch'])) + 1}); "
        f"go on with: {resume_command(folder)}"
    )
