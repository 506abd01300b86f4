"""From a section to text as ids: files read, tokeniser learned or given, splits cut."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from vitkit.data.text.config import ParallelDataConfig, TextDataConfig
from vitkit.data.text.corpus import TextSplits, cut_parts, read_texts
from vitkit.data.text.parallel import (
    SentencePairs,
    encode_fitting_pairs,
    encode_pairs,
    read_pairs,
)
from vitkit.data.text.tokenizers import (
    BpeTokenizer,
    ByteTokenizer,
    CharacterTokenizer,
    Tokenizer,
)
from vitkit.errors import DataError

__all__ = ["PairData", "TextData", "load_pairs", "load_text", "make_tokenizer"]

Pairs = list[tuple[str, str]]

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class TextData:
    """One long text, ready to be read.

    Attributes:
        name: of the file or folder.
        tokenizer: of its tokens.
        splits: ids to learn from and to validate on.
        characters: of both parts.
    """

    name: str
    tokenizer: Tokenizer
    splits: TextSplits
    characters: tuple[int, int]

    def characters_per_token(self, split: str = "val") -> float:
        """Characters behind a token of a part that is predicted: all but the first.

        Args:
            split: ``train`` or ``val``.
        """
        train = split == "train"
        ids = self.splits.train if train else self.splits.val
        if ids is None:
            return 1.0
        first = len(self.tokenizer.decode(ids[:1].tolist()))
        return (self.characters[0 if train else 1] - first) / max(len(ids) - 1, 1)

    def facts(self) -> dict[str, Any]:
        """Plain values for a checkpoint: how many tokens a part has, and a digest of them."""
        parts = {"train": self.splits.train, "val": self.splits.val}
        there = {split: ids for split, ids in parts.items() if ids is not None}
        counts = {f"num_{split}": len(there.get(split, ())) for split in parts}
        digests = {f"digest_{split}": _digest(ids) for split, ids in there.items()}
        return {"name": self.name, **counts, **digests}


@dataclass(frozen=True)
class PairData:
    """Pairs of sentences, ready to be read.

    Attributes:
        name: of the folder, and the languages.
        tokenizer: of both languages.
        splits: ``train``, and ``val`` and ``test`` where there are any, as ids.
        texts: the same as text.
        num_skipped: training pairs that were left out.
    """

    name: str
    tokenizer: Tokenizer
    splits: dict[str, SentencePairs]
    texts: dict[str, Pairs]
    num_skipped: int = 0

    def characters_per_token(self, split: str) -> float:
        """Characters behind a token of a split's targets; a sentence's end is one, its line feed.

        Args:
            split: one of :attr:`splits`.
        """
        characters = sum(len(target) + 1 for _, target in self.texts[split])
        return characters / len(self.splits[split].target)

    def facts(self) -> dict[str, Any]:
        """Plain values for a checkpoint: how many pairs a split has, and a digest of them."""
        counts = {f"num_{split}": len(self.splits.get(split, ())) for split in SPLITS}
        digests = {
            f"digest_{split}": _digest(pairs.source, pairs.target)
            for split, pairs in self.splits.items()
        }
        return {"name": self.name, **counts, **digests}


def make_tokenizer(name: str, texts: Iterable[str], *, vocab_size: int, special: bool) -> Tokenizer:
    """A tokeniser by its name in a data section.

    Args:
        name: ``char``, ``byte`` or ``bpe``.
        texts: whose characters it must know, or whose pieces it learns.
        vocab_size: bpe: most tokens.
        special: with tokens for padding, beginning and end.

    Raises:
        DataError: no text, or the library of bpe is not there.
    """
    if name == "byte":
        return ByteTokenizer(special=special)
    if name == "char":
        characters = {character for text in texts for character in set(text)}
        return CharacterTokenizer(characters, special=special)
    return BpeTokenizer.train(texts, vocab_size, special=special)


def load_text(config: TextDataConfig, tokenizer: Tokenizer | None = None) -> TextData:
    """The text of a data section.

    A tokeniser of characters knows all of the text, of which the validation part is a piece; one
    of bpe learns its pieces from the training part alone.

    Args:
        config: the section.
        tokenizer: that a model brings; None: one is made for the text.

    Raises:
        DataError: no such file, empty, not UTF-8, too short to be cut, or with a character that the
            tokeniser does not know.
    """
    text = read_texts(config.root)
    train, val = cut_parts(text, config.val_fraction)
    if tokenizer is None:
        learned = train.splitlines(keepends=True) if config.tokenizer == "bpe" else [text]
        tokenizer = make_tokenizer(
            config.tokenizer, learned, vocab_size=config.vocab_size, special=False
        )
    splits = TextSplits(
        tokenizer.encode_tensor(train), tokenizer.encode_tensor(val) if val else None
    )
    return TextData(Path(config.root).resolve().name, tokenizer, splits, (len(train), len(val)))


def load_pairs(
    config: ParallelDataConfig,
    tokenizer: Tokenizer | None = None,
    *,
    max_len: int | None = None,
    splits: Sequence[str] = SPLITS,
) -> PairData:
    """The pairs of sentences of a data section.

    Args:
        config: the section.
        tokenizer: that a model brings; None: one is learned from the training pairs, or, where it
            is of characters, from all.
        max_len: most tokens of a sentence, its end included; None: any number.
        splits: which are wanted, of those that the section names.

    Raises:
        DataError: no such file, empty, not UTF-8, files of different lengths, or a sentence that is
            empty or too long (``on_bad_pair`` may leave it out of the training), or has a character
            that the tokeniser does not know.
    """
    stems = {"train": config.train, "val": config.val, "test": config.test}
    skips = config.on_bad_pair == "skip"
    texts = {
        split: _pairs(config, stem, empty=skips and split == "train")
        for split in splits
        if (stem := stems[split]) is not None
    }
    num_read = len(texts.get("train", ()))
    if skips and "train" in texts:
        texts["train"] = [pair for pair in texts["train"] if all(map(str.strip, pair))]
    if tokenizer is None:
        known = ["train"] if config.tokenizer == "bpe" else list(texts)
        tokenizer = make_tokenizer(
            config.tokenizer,
            [side for split in known for pair in texts[split] for side in pair],
            vocab_size=config.vocab_size,
            special=True,
        )
    ids = {}
    for split in texts:
        try:
            if skips and split == "train" and max_len is not None:
                ids[split], texts[split] = encode_fitting_pairs(
                    texts[split], tokenizer, max_len=max_len
                )
            else:
                ids[split] = encode_pairs(texts[split], tokenizer, max_len=max_len)
        except DataError as error:
            raise DataError(f"{Path(config.root) / str(stems[split])}: {error}") from error
    name = f"{Path(config.root).resolve().name} {config.source}-{config.target}"
    return PairData(name, tokenizer, ids, texts, num_read - len(texts.get("train", ())))


def _pairs(config: ParallelDataConfig, stem: str, *, empty: bool) -> Pairs:
    source, target = (
        Path(config.root) / f"{stem}.{language}" for language in (config.source, config.target)
    )
    for path in (source, target):
        if not path.is_file():
            raise DataError(f"no file {path}{_beside(path)}; see data.root, data.source and so on")
    return read_pairs(source, target, empty=empty)


def _digest(*ids: Tensor) -> str:
    """Of tokens in their order."""
    digest = hashlib.blake2b(digest_size=16)
    for row in ids:
        digest.update(row.numpy().data)
    return digest.hexdigest()


def _beside(path: Path) -> str:
    """What there is in its place."""
    if not path.parent.is_dir():
        return f", for there is no folder {path.parent}"
    names = sorted(file.name for file in path.parent.iterdir() if file.is_file())
    return f"; {path.parent} has {', '.join(names[:8])}" if names else ""
