"""Where strings become objects, for words: a tokeniser and the model that reads its tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vitkit.app.build import build_model
from vitkit.config import RunConfig
from vitkit.data.text.config import ParallelDataConfig, TextDataConfig
from vitkit.data.text.tokenizers import Tokenizer, require_fit, tokenizer_from_plain
from vitkit.errors import ConfigError, DataError, WeightsError
from vitkit.models.config import ModelConfig
from vitkit.weights import (
    Checkpoint,
    LoadReport,
    is_own_checkpoint,
    load_weights,
    read_checkpoint,
)

__all__ = [
    "BuiltWords",
    "brought_tokenizer",
    "build_words",
    "max_len_of",
    "pair_settings",
    "text_settings",
    "window_of",
    "word_section",
    "words_from_checkpoint",
]

USUAL_WINDOW = 256
"""Tokens of a training window of a model that could read any number."""


@dataclass
class BuiltWords:
    """A model of words and what it was built for.

    Attributes:
        model: on the CPU.
        section: the model section that rebuilds it, complete.
        tokenizer: of its tokens.
        report: what happened to the weights it starts from, if any were named.
    """

    model: nn.Module
    section: dict[str, Any]
    tokenizer: Tokenizer
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
    return BuiltWords(model, section, tokenizer, report)


def brought_tokenizer(config: RunConfig, resumed: Checkpoint | None) -> Tokenizer | None:
    """The tokeniser that the model has learned already; None if it begins from nothing.

    Args:
        config: whose ``model.weights`` may be a checkpoint of ours.
        resumed: the checkpoint that a run goes on from.

    Raises:
        DataError: values that describe no tokeniser.
        WeightsError: a checkpoint that cannot be read.
    """
    weights = config.model.weights
    if resumed is not None:
        return tokenizer_from_plain(resumed.tokenizer)
    if weights is None or not is_own_checkpoint(weights):
        return None
    values = read_checkpoint(weights).tokenizer
    return None if values is None else tokenizer_from_plain(values)


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
    try:
        model.load_state_dict(checkpoint.weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(f"{checkpoint.path} does not fit its own config: {reason}") from error
    return model.eval(), tokenizer


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
