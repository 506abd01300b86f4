"""A translator, from the config to the BLEU of its translations."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import ClassVar

from pytorch_lightning import Trainer

from vitkit.app.build_words import (
    brought_tokenizer,
    build_words,
    pair_settings,
    require_same_words,
)
from vitkit.app.devices import process_count
from vitkit.app.jobs.base import Job, place_of
from vitkit.app.word_metrics import translation_metrics, write_translations
from vitkit.config import RunConfig
from vitkit.data.text.parallel import PairBatch, PairEvalLoader, PairTrainLoader
from vitkit.data.text.sources import PairData, load_pairs
from vitkit.errors import DataError
from vitkit.evaluation.text import require_bleu
from vitkit.records import Plain
from vitkit.training.budget import StepPlan
from vitkit.training.task_config import TranslationConfig
from vitkit.training.translation import TranslationTask
from vitkit.weights import Checkpoint, read_checkpoint

__all__ = ["TranslationJob"]

SEARCH_COST = 6
"""Passes over a pair that the searches for its translation cost, set aside in budgets of time.

About one was seen (beam 4, one core) where translations end with their sources, more where they end
late; and the likeliest tokens are searched for by themselves.
"""


class TranslationJob(Job):
    """Trains a model of sentence pairs; see :class:`~vitkit.app.jobs.base.Job`.

    Attributes:
        data: the pairs as ids, and their tokeniser.
    """

    unit: ClassVar[str] = "tokens"
    shapes_vary: ClassVar[bool] = True

    def __init__(
        self,
        config: RunConfig,
        data: PairData | None = None,
        *,
        resumed: Checkpoint | None = None,
        progress: bool = False,
    ) -> None:
        super().__init__(config)
        self.settings = pair_settings(config)
        if self.settings.test is not None:
            require_bleu(self.settings.target)  # rather now than after the training
        if data is None:
            stated = config.model.constructor_kwargs().get("max_len")
            data = load_pairs(
                self.settings,
                brought_tokenizer(config, resumed),
                max_len=stated,
            )
        if resumed is not None:
            require_same_words(resumed.data, data.facts(), "pairs")
        self.data = data
        self._require_batches()
        self.built = build_words(config, data.tokenizer)
        self.model, self.section = self.built.model, self.built.section

    @cached_property
    def steps_per_epoch(self) -> int:
        """What a pass over the pairs fills; what does not fill a step is left out."""
        count, accumulate = process_count(self.config), self._micro_batches
        loader = PairTrainLoader(
            self.data.splits["train"],
            tokens=self.settings.batch_size,
            micro_batches=accumulate,
            world_size=count,
        )
        return len(loader) // accumulate

    @property
    def units_per_step(self) -> float:
        """Tokens of the targets of one optimiser step, in the mean; padding is not counted."""
        return len(self.data.splits["train"].target) / self.steps_per_epoch

    @property
    def validates(self) -> bool:
        """Whether there are validation pairs."""
        return "val" in self.data.splits

    @property
    def num_validated(self) -> int:
        """Tokens of the sources of the validation pairs."""
        return self._source_tokens("val")

    @property
    def num_tested(self) -> int:
        """Tokens of the sources, as often as they are passed: measured, and searched for
        translations.
        """
        return self._source_tokens("val") + self._source_tokens("test") * (1 + SEARCH_COST)

    def examples_in(self, batch: PairBatch) -> int:
        """Tokens of its sources and their padding: of longer sentences it has fewer pairs."""
        return batch.source.numel()

    def loaders(self, trainer: Trainer) -> tuple[PairTrainLoader, PairEvalLoader | None]:
        """The training loader of this process, and the validation loader if there are pairs."""
        splits, place = self.data.splits, place_of(trainer)
        train_loader = PairTrainLoader(
            splits["train"],
            tokens=self.settings.batch_size,
            micro_batches=self._micro_batches,
            seed=self.config.run.seed,
            **place,
        )
        if "val" not in splits:
            return train_loader, None
        return train_loader, PairEvalLoader(
            splits["val"], tokens=self.settings.eval_batch_size, **place
        )

    def task(self, plan: StepPlan) -> TranslationTask:
        """The Lightning task."""
        task = self.config.task
        assert isinstance(task, TranslationConfig)
        characters = self.data.characters_per_token("val") if self.validates else 1.0
        return TranslationTask(
            self.model,
            label_smoothing=task.label_smoothing,
            characters_per_token=characters,
            **self.shared(plan, data=self.data.facts(), tokenizer=self.data.tokenizer.to_plain()),
        )

    def lines(self) -> list[str]:
        """The pairs, their tokens, and what became of the weights it starts from."""
        counts = {split: len(pairs) for split, pairs in self.data.splits.items()}
        tokenizer = self.data.tokenizer
        said = (
            f"data   {self.data.name}: {counts['train']:,} train, {counts.get('val', 0):,} val, "
            f"{counts.get('test', 0):,} test pairs, {tokenizer.vocab_size:,} different tokens "
            f"({tokenizer.kind})"
        )
        lines = [said]
        if self.data.num_skipped:
            lines.append(
                f"note   {self.data.num_skipped:,} training pairs left out, empty or longer than "
                "the model reads"
            )
        return [*lines, *self.built.lines()]

    def test(self, checkpoint: Path, *, show: bool) -> tuple[dict[str, float], dict[str, Plain]]:
        """Loss on the validation pairs, of the weights that are kept; loss and BLEU on the test
        pairs, whose translations are written; nothing where there are none.
        """
        metrics: dict[str, float] = {}
        facts: dict[str, Plain] = {}
        read = read_checkpoint(checkpoint)
        for split in ("val", "test"):
            if split in self.data.splits:
                found = translation_metrics(
                    read,
                    self.config,
                    data=self.data,
                    split=split,
                    search=split == "test",
                    progress=show,
                )
                metrics |= found.metrics
                facts = found.facts
                if split == "test":
                    write_translations(checkpoint, split, found.translations)
        return metrics, facts

    def _require_batches(self) -> None:
        """Refuse what cannot be evaluated before the training, not after it."""
        for split, pairs in self.data.splits.items():
            if split != "train":
                try:
                    PairEvalLoader(pairs, tokens=self.settings.eval_batch_size)
                except DataError as error:
                    raise DataError(f"{getattr(self.settings, split)}: {error}") from error

    def _source_tokens(self, split: str) -> int:
        return len(self.data.splits[split].source) if split in self.data.splits else 0

    @property
    def _micro_batches(self) -> int:
        return self.config.trainer.accumulate_grad_batches
