"""Evaluate models of words: loss, and the translations of a translator."""

from __future__ import annotations

import time
from collections.abc import Sequence

from vitkit.app.devices import best_device
from vitkit.app.eval_results import EvalResult, timed_record, unfinished_note
from vitkit.app.leavings import left, with_split
from vitkit.app.reporter import report_evaluation
from vitkit.app.sources import require_read
from vitkit.app.subjects import folder_of
from vitkit.app.suites import chosen_splits
from vitkit.app.word_metrics import word_metrics, word_splits, write_translations
from vitkit.config import RunConfig, load_config
from vitkit.errors import ConfigError
from vitkit.evaluation.standard import Measured
from vitkit.records import Plain
from vitkit.weights import Checkpoint

__all__ = ["measured_words"]

READ_OF_WORDS = (
    "data.",
    "task.num_beams",
    "task.length_penalty",
    "trainer.accelerator",
    "run.report",
)
"""How the settings begin that an evaluation of a model of words reads."""


def measured_words(
    checkpoint: Checkpoint,
    overrides: Sequence[str],
    split: str,
    suite: str,
    suffix: str,
    started: float,
    *,
    progress: bool,
) -> list[EvalResult]:
    """The standard suite of a model of words, on each split that is asked for.

    Args:
        checkpoint: of a model that reads words.
        overrides: settings of this evaluation.
        split: a split, ``auto`` or ``all``.
        suite: that was asked for.
        suffix: of the files, see :func:`~vitkit.app.leavings.suffix_of`.
        started: when it began, by ``time.perf_counter()``.
        progress: show a bar on a terminal.

    Raises:
        ConfigError: another suite than the standard one, or settings that would not be read.
        DataError: no such split.
    """
    if suite != "standard":
        raise ConfigError(
            f"--suite: given {suite!r}, but {checkpoint.path} reads words; allowed: standard"
        )
    require_read(overrides, READ_OF_WORDS)
    config = load_config(base=checkpoint.config, overrides=overrides)
    there, unit = word_splits(config)
    results = []
    for one in chosen_splits(split, there, config.data.name, unit):
        ending = with_split(suffix, one, split, there)
        results.append(_of_words(checkpoint, config, one, ending, started, progress=progress))
        started = time.perf_counter()
    return results


def _of_words(
    checkpoint: Checkpoint,
    config: RunConfig,
    split: str,
    suffix: str,
    started: float,
    *,
    progress: bool,
) -> EvalResult:
    """Loss on one split, and the translations of a translator."""
    found = word_metrics(checkpoint, config, split=split, progress=progress)
    facts: dict[str, Plain] = {
        **checkpoint.facts(),
        "data": config.data.name,
        **found.facts,
    }
    folder = folder_of(checkpoint.path)
    device = best_device(config.trainer.accelerator)
    record = timed_record(Measured(found.metrics), facts, started, device)
    written = [left(folder, "standard", suffix)]
    record.write(written[0])
    if found.translations:
        of_model = suffix.removesuffix(f"-{split}")
        written.append(write_translations(checkpoint.path, split, found.translations, of_model))
    page = report_evaluation(folder, None, suffix) if config.run.report else None
    return EvalResult(
        metrics=found.metrics,
        checkpoint=checkpoint.path,
        weights_name=checkpoint.weights_name,
        count=int(str(facts["tokens"])),
        record=record,
        unfinished=unfinished_note(checkpoint.path, folder, facts),
        records={"standard": record},
        written=tuple(written),
        unit="tokens",
        page=page,
        split=split,
    )
