"""A language model, from the config to the validation loss."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pytorch_lightning import Trainer

from vitkit.app.build_words import (
    brought_tokenizer,
    build_words,
    eval_windows,
    require_same_words,
    text_settings,
    window_of,
)
from vitkit.app.jobs.base import Job, place_of
from vitkit.app.word_metrics import language_metrics
from vitkit.config import RunConfig
from vitkit.data.text.corpus import WindowEvalLoader, WindowTrainLoader
from vitkit.data.text.sources import TextData, load_text
from vitkit.records import Plain
from vitkit.training.budget import StepPlan
from vitkit.training.language_model import LanguageModelTask
from vitkit.weights import Checkpoint, read_checkpoint

__all__ = ["LanguageModelJob"]


class LanguageModelJob(Job):
    """Trains a model of one long text; see :class:`~vitkit.app.jobs.base.Job`.

    Attributes:
        data: the text as ids, and its tokeniser.
        window: tokens of a window.
    """

    unit: ClassVar[str] = "tokens"

    def __init__(
        self,
        config: RunConfig,
        data: TextData | None = None,
        *,
        resumed: Checkpoint | None = None,
        progress: bool = False,
    ) -> None:
        super().__init__(config)
        self.settings = text_settings(config)
        if data is None:
            data = load_text(self.settings, brought_tokenizer(config, resumed))
        if resumed is not None:
            require_same_words(resumed.data, data.facts(), self.unit)
        self.data = data
        self.built = build_words(config, data.tokenizer)
        self.model, self.section = self.built.model, self.built.section
        self.window = window_of(self.settings, self.model)

    @property
    def steps_per_epoch(self) -> int:
        """As given, or as many as have as many tokens as the text."""
        tokens = len(self.data.splits.train)
        return self.settings.steps_per_epoch or max(1, tokens // int(self.units_per_step))

    @property
    def units_per_step(self) -> float:
        """Tokens of one optimiser step."""
        return self.settings.batch_size * self.window

    @property
    def validates(self) -> bool:
        """Whether a part of the text is set aside."""
        return self.data.splits.val is not None

    @property
    def num_validated(self) -> int:
        """Windows of the validation part."""
        val = self.data.splits.val
        return 0 if val is None else -(-(len(val) - 1) // self.window)

    @property
    def num_tested(self) -> int:
        """The same, measured when all is done."""
        return self.num_validated

    def loaders(self, trainer: Trainer) -> tuple[WindowTrainLoader, WindowEvalLoader | None]:
        """The training loader of this process, and the validation loader if there is text."""
        splits, place = self.data.splits, place_of(trainer)
        train_loader = WindowTrainLoader(
            splits.train,
            length=self.window,
            batch_size=self.settings.batch_size,
            steps=self.steps_per_epoch,
            micro_batches=self.config.trainer.accumulate_grad_batches,
            seed=self.config.run.seed,
            **place,
        )
        if splits.val is None:
            return train_loader, None
        return train_loader, WindowEvalLoader(
            splits.val,
            length=self.window,
            batch_size=eval_windows(self.config, self.settings),
            **place,
        )

    def task(self, plan: StepPlan) -> LanguageModelTask:
        """The Lightning task."""
        return LanguageModelTask(
            self.model,
            characters_per_token=self.data.characters_per_token(),
            **self.shared(plan, data=self.data.facts(), tokenizer=self.data.tokenizer.to_plain()),
        )

    def lines(self) -> list[str]:
        """The text, its tokens, and what became of the weights it starts from."""
        splits, tokenizer = self.data.splits, self.data.tokenizer
        val = 0 if splits.val is None else len(splits.val)
        said = (
            f"data   {self.data.name}: {len(splits.train):,} train, {val:,} val tokens, "
            f"{tokenizer.vocab_size:,} different ({tokenizer.kind}), in windows of {self.window}"
        )
        return [said, *self.built.lines()]

    def test(self, checkpoint: Path, *, show: bool) -> tuple[dict[str, float], dict[str, Plain]]:
        """Loss on the part that is set aside, of the weights that are kept; nothing where there is
        none.
        """
        if not self.validates:
            return {}, {}
        found = language_metrics(
            read_checkpoint(checkpoint), self.config, data=self.data, progress=show
        )
        return found.metrics, found.facts
