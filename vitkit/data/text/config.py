"""What a person may say about text: one long text, or pairs of sentences. Imports no torch."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from vitkit.data.config import DataConfig

__all__ = ["ParallelDataConfig", "TextDataConfig"]

TokenizerName = Literal["char", "byte", "bpe"]


class TextDataConfig(DataConfig):
    """One long text: what it is cut into, and how much of it a step reads."""

    kind: ClassVar[str] = "text"

    name: Literal["text"] = Field("text", description="one long text, for language models")
    root: str = Field(
        "data",
        description="a text file, or a folder whose .txt and .abc files are read in the order of "
        "their names",
    )
    val_fraction: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="share of the characters, the last ones, kept for validation; 0 = none",
    )
    tokenizer: TokenizerName = Field(
        "char", description="what a token is: a character, a byte, or a piece of a word (bpe)"
    )
    vocab_size: int = Field(
        4096, ge=256, description="bpe: most tokens of the vocabulary, learned from the text"
    )
    window: int | None = Field(
        None, ge=1, description="tokens of a training window; what the model can see by default"
    )
    steps_per_epoch: int | None = Field(
        None,
        ge=1,
        description="optimiser steps of an epoch; by default as many as see each token once",
    )
    batch_size: int = Field(64, ge=1, description="windows of one optimiser step, over all devices")
    eval_batch_size: int | None = Field(
        None,
        ge=1,
        description="windows of one evaluation batch; by default as many as a device trains on at "
        "a time",
    )

    @property
    def may_validate(self) -> bool:
        """Whether the end of the text is set aside."""
        return self.val_fraction > 0


class ParallelDataConfig(DataConfig):
    """Pairs of sentences: two files a split, line n of one the translation of line n of the other.

    The files are ``<root>/<split>.<language>``.
    """

    kind: ClassVar[str] = "sentence pairs"

    name: Literal["parallel"] = Field("parallel", description="pairs of sentences, for translation")
    root: str = Field("data", description="folder of the files <split>.<language>")
    source: str = Field("en", description="language that is read: the ending of its files")
    target: str = Field("de", description="language that is written: the ending of its files")
    train: str = Field("train", description="training files, without their ending")
    val: str | None = Field("val", description="validation files, without ending; null = none")
    test: str | None = Field("test", description="test files, without ending; null = none")
    on_bad_pair: Literal["stop", "skip"] = Field(
        "stop",
        description="training pairs with an empty side, or longer than the model reads: stop at "
        "the first, or leave them out",
    )
    tokenizer: TokenizerName = Field(
        "bpe", description="what a token is, in both languages: a piece of a word (bpe), char, byte"
    )
    vocab_size: int = Field(
        10_000, ge=259, description="bpe: most tokens of the vocabulary that both languages share"
    )
    batch_size: int = Field(
        4096,
        ge=1,
        description="tokens of one optimiser step, over all devices: of the longer side of its "
        "pairs, padding counted",
    )
    eval_batch_size: int = Field(
        8192, ge=1, description="tokens of one evaluation batch, padding included"
    )

    @property
    def may_validate(self) -> bool:
        """Whether there are validation files."""
        return self.val is not None
