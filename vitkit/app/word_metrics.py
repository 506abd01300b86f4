"""What is measured of finished models of words: loss a token, and BLEU of translations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitkit.app.build_words import (
    eval_windows,
    max_len_of,
    pair_settings,
    text_settings,
    window_of,
    words_from_checkpoint,
)
from vitkit.app.devices import best_device
from vitkit.app.leavings import left
from vitkit.app.progress import counted
from vitkit.app.subjects import folder_of
from vitkit.app.translator import Translator
from vitkit.config import RunConfig
from vitkit.data.text.config import TextDataConfig
from vitkit.data.text.corpus import WindowEvalLoader
from vitkit.data.text.parallel import PairEvalLoader
from vitkit.data.text.sources import PairData, TextData, load_pairs, load_text
from vitkit.errors import DataError
from vitkit.evaluation.text import TokenSums, corpus_bleu, require_bleu
from vitkit.records import Plain, write_text
from vitkit.training.task_config import TranslationConfig
from vitkit.weights import Checkpoint

__all__ = [
    "WordMetrics",
    "language_metrics",
    "translation_metrics",
    "word_metrics",
    "word_splits",
    "write_translations",
]


@dataclass(frozen=True)
class WordMetrics:
    """What was found of one split.

    Attributes:
        metrics: ``<split>/loss`` (nats a token), ``ppl``, ``bits_per_char``, and ``bleu``,
            beside a beam's ``bleu_greedy``.
        facts: plain values: which weights, which split, how many tokens, BLEU's signature.
        translations: of a translator, in the order of the split.
    """

    metrics: dict[str, float]
    facts: dict[str, Plain]
    translations: tuple[str, ...] = ()


def word_splits(config: RunConfig) -> tuple[list[str], str]:
    """The splits that a config's texts are cut into, and what they are of: a text, or pairs."""
    if isinstance(config.data, TextDataConfig):
        return ["train", *(["val"] if config.data.val_fraction else [])], "part"
    pairs = pair_settings(config)
    named = {"train": pairs.train, "val": pairs.val, "test": pairs.test}
    return [split for split, files in named.items() if files is not None], "pairs"


def word_metrics(
    checkpoint: Checkpoint, config: RunConfig, *, split: str, progress: bool = True
) -> WordMetrics:
    """What is measured of a checkpoint's model, by its kind; see the two functions below."""
    if isinstance(config.task, TranslationConfig):
        return translation_metrics(checkpoint, config, split=split, progress=progress)
    return language_metrics(checkpoint, config, split=split, progress=progress)


def language_metrics(
    checkpoint: Checkpoint,
    config: RunConfig,
    *,
    data: TextData | None = None,
    split: str = "val",
    progress: bool = True,
) -> WordMetrics:
    """Loss of a language model on a part of its text.

    Args:
        checkpoint: whose weights to measure.
        config: of its run, with the settings given for this evaluation.
        data: the text, where it has been read already.
        split: ``train``, or ``val``, the part that is set aside.
        progress: show a bar on a terminal.

    Raises:
        DataError: no such text, no part set aside, or a character that the model does not know.
        WeightsError: the checkpoint does not fit itself.
    """
    model, tokenizer = words_from_checkpoint(checkpoint)
    settings = text_settings(config)
    data = load_text(settings, tokenizer) if data is None else data
    part = {"train": data.splits.train, "val": data.splits.val}[split]
    if part is None:
        raise DataError(
            f"{data.name}: no text is set aside, for data.val_fraction is 0; give data.val_fraction"
        )
    device = best_device(config.trainer.accelerator)
    loader = WindowEvalLoader(
        part,
        length=window_of(settings, model),
        batch_size=eval_windows(config, settings),
        device=device,
    )
    model.to(device)
    sums = _summed(
        loader, lambda batch: (model(batch.inputs), batch.targets), device, show=progress
    )
    facts: dict[str, Plain] = {"weights": checkpoint.weights_name, "split": split}
    facts["tokens"] = sums.count
    return WordMetrics(_named(split, sums.metrics(data.characters_per_token(split))), facts)


def translation_metrics(
    checkpoint: Checkpoint,
    config: RunConfig,
    *,
    data: PairData | None = None,
    split: str = "test",
    search: bool = True,
    progress: bool = True,
) -> WordMetrics:
    """Loss of a translator, and BLEU of what it makes of a split's sources.

    Translations are searched as the task section says (``num_beams``, ``length_penalty``); beside
    a beam's ``bleu_greedy`` is measured.

    Args:
        checkpoint: whose weights to measure.
        config: of its run, with the settings given for this evaluation.
        data: the pairs, where they have been read already.
        split: ``train``, ``val`` or ``test``.
        search: translate; False: the loss alone.
        progress: show a bar on a terminal.

    Raises:
        ConfigError: no BLEU of the target's language here.
        DataError: no such files, or a sentence that the model cannot take.
        EvaluationError: sacreBLEU is not installed.
        WeightsError: the checkpoint does not fit itself.
    """
    if search:
        require_bleu(pair_settings(config).target)
    model, tokenizer = words_from_checkpoint(checkpoint)
    settings, task = pair_settings(config), config.task
    assert isinstance(task, TranslationConfig)
    if data is None:
        most = max_len_of(model)
        data = load_pairs(settings, tokenizer, max_len=most, splits=[split])
    if split not in data.splits:
        raise DataError(f"{data.name} has no {split} pairs, for data.{split} is null; name files")
    device = best_device(config.trainer.accelerator)
    model.to(device)
    loader = PairEvalLoader(data.splits[split], tokens=settings.eval_batch_size, device=device)
    sums = _summed(
        loader,
        lambda batch: (model(batch.source, batch.inputs, batch.source_lengths), batch.targets),
        device,
        show=progress,
    )
    metrics = sums.metrics(data.characters_per_token(split))
    facts: dict[str, Plain] = {"weights": checkpoint.weights_name, "split": split}
    facts |= {"tokens": sums.count, "pairs": len(data.texts[split])}
    if not search:
        return WordMetrics(_named(split, metrics), facts)
    translator = Translator(model, tokenizer, device, task.num_beams, task.length_penalty)
    found = _searched(translator, data.texts[split], settings.target, show=progress)
    return WordMetrics(
        _named(split, metrics | found.metrics), facts | found.facts, found.translations
    )


def write_translations(
    checkpoint: Path, split: str, translations: Sequence[str], suffix: str = ""
) -> Path:
    """Write the translations of a split beside a checkpoint's run, a line each; returns the file.

    Args:
        checkpoint: that made them.
        split: they are of.
        suffix: of the file, where several checkpoints share a folder.
    """
    path = left(folder_of(checkpoint), "translations", split + suffix)
    write_text(path, "\n".join(translations) + "\n")
    return path


def _searched(
    translator: Translator, pairs: Sequence[tuple[str, str]], language: str, *, show: bool
) -> WordMetrics:
    """Translations of the sources of pairs, and how near they come to the targets."""
    sources, references = ([pair[side] for pair in pairs] for side in (0, 1))
    with counted("translating", "sentences", show=show) as tell:
        translations = translator.translate(sources, on_batch=tell)
    bleu = corpus_bleu(translations, references, language)
    metrics = {"bleu": bleu.score}
    if translator.num_beams > 1:
        with counted("translating, greedy", "sentences", show=show) as tell:
            greedy = translator.translate(sources, num_beams=1, on_batch=tell)
        metrics["bleu_greedy"] = corpus_bleu(greedy, references, language).score
    facts: dict[str, Plain] = {"bleu_signature": bleu.signature}
    facts |= {"num_beams": translator.num_beams, "length_penalty": translator.length_penalty}
    return WordMetrics(metrics, facts, tuple(translations))


def _summed(
    batches: WindowEvalLoader | PairEvalLoader,
    predict: Callable[[Any], tuple[Tensor, Tensor]],
    device: torch.device,
    *,
    show: bool,
) -> TokenSums:
    """Sums over all batches of what a model predicts."""
    sums = TokenSums(device)
    with torch.inference_mode(), counted("evaluating", "batches", show=show) as tell:
        for done, batch in enumerate(batches, start=1):
            sums.update(*predict(batch))
            tell(done, len(batches))
    return sums


def _named(split: str, metrics: dict[str, float]) -> dict[str, float]:
    return {f"{split}/{name}": value for name, value in metrics.items()}
