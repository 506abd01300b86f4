"""Where strings become objects, for words: a tokeniser and the model that reads its tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vitkit.app.build import build_model, fill_from_checkpoint
from vitkit.app.devices import expect_shapes, process_count
from vitkit.config import RunConfig
from vitkit.data.text.config import ParallelDataConfig, TextDataConfig
from vitkit.data.text.tokenizers import (
    BpeTokenizer,
    Tokenizer,
    require_fit,
    tokenizer_from_plain,
)
from vitkit.errors import ConfigError, DataError, WeightsError
from vitkit.models.config import ModelConfig
from vitkit.models.presets import READS, family_of
from vitkit.weights import Checkpoint, LoadReport, files_beside, load_weights, own_checkpoint

__all__ = [
    "BuiltWords",
    "brought_tokenizer",
    "build_words",
    "eval_windows",
    "max_len_of",
    "pair_settings",
    "require_reads",
    "require_same_words",
    "text_settings",
    "window_of",
    "word_section",
    "words_from_checkpoint",
]

GPT2_FILES = ("vocab.json", "merges.txt")
"""A tokeniser beside weights."""

USUAL_WINDOW = 256
"""Tokens of a training window of a model that could read any number."""


@dataclass
class BuiltWords:
    """A model of words and what it was built for.

    Attributes:
        model: on the CPU.
        section: the model section that rebuilds it, complete.
        report: what happened to the weights it starts from, if any were named.
    """

    model: nn.Module
    section: dict[str, Any]
    report: LoadReport | None = None

    def lines(self) -> list[str]:
        """What became of the weights, for people."""
        if self.report is None:
            return []
        return ["weights", *(f"  {line}" for line in self.report.lines())]


def build_words(config: RunConfig, tokenizer: Tokenizer) -> BuiltWords:
    """The model of a config for a tokeniser.

    Raises:
        ConfigError: the section says another number of tokens than the tokeniser has.
        WeightsError: weights that do not fit.
    """
    section = word_section(config.model, tokenizer)
    torch.manual_seed(config.run.seed)
    model = build_model(section)
    report = load_weights(model, config.model.weights) if config.model.weights else None
    return BuiltWords(model, section, report)


def brought_tokenizer(config: RunConfig, resumed: Checkpoint | None) -> Tokenizer | None:
    """The tokeniser that the model has learned already; None if it begins from nothing.

    Args:
        config: whose ``model.weights`` may be a checkpoint of ours, the folder of a run, or weights
            with the two files of GPT-2's tokeniser beside them.
        resumed: the checkpoint that a run goes on from.

    Raises:
        DataError: values that describe no tokeniser.
        WeightsError: a checkpoint that cannot be read, or of ours without a tokeniser.
    """
    weights = config.model.weights
    if resumed is not None:
        return tokenizer_from_plain(resumed.tokenizer)
    own = None if weights is None else own_checkpoint(weights)
    if own is None:
        files = None if weights is None else files_beside(weights, GPT2_FILES)
        return None if files is None else BpeTokenizer.read(*files)
    if own.tokenizer is None:
        raise WeightsError(
            f"model.weights: {own.path} holds {own.model['name']} and no tokeniser, so nobody "
            "knows what its tokens say; give a checkpoint of a run on words"
        )
    return tokenizer_from_plain(own.tokenizer)


def word_section(config: ModelConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    """The model section with the size of the vocabulary filled in.

    Raises:
        ConfigError: it says another.
    """
    section = config.without_weights().model_dump(exclude_none=True)
    ours = tokenizer.vocab_size
    given = section.setdefault("vocab_size", ours)
    if given != ours:
        raise ConfigError(
            f"model.vocab_size: given {given}, but the tokeniser ({tokenizer.kind}) has {ours} "
            f"tokens; leave it out or set {ours}"
        )
    return section


def require_reads(checkpoint: Checkpoint, kind: str, command: str) -> None:
    """Refuse a checkpoint whose model reads other data than a command is about.

    Args:
        checkpoint: of any model.
        kind: of data, such as ``text``.
        command: such as ``vitkit generate``.

    Raises:
        WeightsError: it does; the message names the command for it.
    """
    name = str(checkpoint.model["name"])
    reads = READS.get(family_of(name), "images")
    if reads == kind:
        return
    commands = {"text": "vitkit generate", "sentence pairs": "vitkit translate"}
    raise WeightsError(
        f"{checkpoint.path} holds {name}, which reads {reads}; {command} needs a model of {kind}. "
        f"Use it with: {commands.get(reads, 'vitkit predict')}, or vitkit eval"
    )


def words_from_checkpoint(checkpoint: Checkpoint) -> tuple[Any, Tokenizer]:
    """The model of a checkpoint with the weights to evaluate, in evaluation mode; its tokeniser.

    Raises:
        WeightsError: a model of pictures, weights that do not fit their own config, or a tokeniser
            that does not fit the model.
    """
    if checkpoint.tokenizer is None:
        raise WeightsError(
            f"{checkpoint.path} holds {checkpoint.model['name']}, which reads pictures, not words; "
            "use it with: vitkit predict, vitkit eval"
        )
    model: Any = build_model(checkpoint.model)
    try:
        tokenizer = tokenizer_from_plain(checkpoint.tokenizer)
        require_fit(tokenizer, model.vocab_size)
    except DataError as error:
        raise WeightsError(f"{checkpoint.path}: {error}") from error
    fill_from_checkpoint(model, checkpoint)
    expect_shapes(vary=True)
    return model.eval(), tokenizer


def require_same_words(before: Mapping[str, Any], now: Mapping[str, Any], unit: str) -> None:
    """A run that goes on reads what it would have read.

    Args:
        before: the data's facts in its checkpoint; one of an older version lacks the digests.
        now: the same of what lies there now.
        unit: of the counts: tokens, or pairs.

    Raises:
        DataError: another number of them, or others.
    """
    changed = [key for key in now if key != "name" and before.get(key, now[key]) != now[key]]
    if not changed:
        return
    kind, _, split = changed[0].partition("_")
    was, there = before[changed[0]], now[changed[0]]
    counts = f"{was:,} {unit} then, {there:,} now" if kind == "num" else f"other {unit}"
    raise DataError(
        f"{now['name']}: the {split} part is not what the run began with ({counts}); give it the "
        "same files, or start a new run with model.weights=<its last.ckpt>"
    )


def eval_windows(config: RunConfig, data: TextDataConfig) -> int:
    """Windows of an evaluation batch: as given, or those that a process trains on at a time, for
    which there is memory.
    """
    if data.eval_batch_size is not None:
        return data.eval_batch_size
    parts = config.trainer.accumulate_grad_batches * process_count(config)
    return max(1, data.batch_size // parts)


def max_len_of(model: nn.Module) -> int | None:
    """Most tokens that a model reads; None: any number."""
    most = getattr(model, "max_len", None)
    return most if isinstance(most, int) else None


def window_of(data: TextDataConfig, model: nn.Module) -> int:
    """Tokens of a window: what the data section says, else what the model can see.

    Raises:
        ConfigError: more than that.
    """
    most = max_len_of(model)
    if data.window is None:
        return most or USUAL_WINDOW
    if most is not None and data.window > most:
        raise ConfigError(
            f"data.window: given {data.window}, but the model has {most} positions; lower it, or "
            "raise model.max_len"
        )
    return data.window


def text_settings(config: RunConfig) -> TextDataConfig:
    """The data section of a config whose data is one long text.

    Raises:
        ConfigError: it is not.
    """
    if isinstance(config.data, TextDataConfig):
        return config.data
    raise ConfigError(f"data.name: {config.data.name} is {config.data.kind}; this needs a text")


def pair_settings(config: RunConfig) -> ParallelDataConfig:
    """The data section of a config whose data are pairs of sentences.

    Raises:
        ConfigError: they are not.
    """
    if isinstance(config.data, ParallelDataConfig):
        return config.data
    raise ConfigError(
        f"data.name: {config.data.name} is {config.data.kind}; this needs pairs of sentences"
    )
