"""From text to token ids and back: characters, bytes, byte-pair encoding.

A tokeniser becomes plain values (:meth:`Tokenizer.to_plain`) that lie in the checkpoint beside the
model, and comes back from them (:func:`tokenizer_from_plain`): nothing else is needed to read the
model's tokens. Ids of text begin behind the special tokens, which stand for no text: whatever a
text says, it never turns into one of them.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from vitkit.errors import DataError, first_line

__all__ = [
    "TOKENIZERS",
    "BpeTokenizer",
    "ByteTokenizer",
    "CharacterTokenizer",
    "Tokenizer",
    "require_fit",
    "tokenizer_from_plain",
]

SPECIAL = ("pad", "bos", "eos")

PIECE = 2**20
"""Characters that become ids at a time: what is made on the way stays small."""


class Tokenizer(ABC):
    """Text to ids and back.

    Args:
        special: reserve the first ids for padding, beginning and end of a text.

    Attributes:
        kind: key of :data:`TOKENIZERS`.
        pad_id, bos_id, eos_id: 0, 1, 2, or None without special tokens.
    """

    kind: ClassVar[str]

    def __init__(self, special: bool) -> None:
        self.special = special
        self.pad_id: int | None = 0 if special else None
        self.bos_id: int | None = 1 if special else None
        self.eos_id: int | None = 2 if special else None
        self._first = len(SPECIAL) if special else 0

    @property
    def vocab_size(self) -> int:
        """Number of tokens, the special ones included."""
        return self._first + self._num_words()

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without special tokens.

        Raises:
            DataError: a character that the tokeniser does not know.
        """
        return [word + self._first for word in self._encode(text)]

    def encode_tensor(self, text: str) -> Tensor:
        """What :meth:`encode` gives, (T,), for long texts: uint8 of up to 256 tokens, else int32.

        Raises:
            DataError: see :meth:`encode`.
        """
        return torch.tensor(self.encode(text), dtype=self._dtype)

    @property
    def _dtype(self) -> torch.dtype:
        return torch.uint8 if self.vocab_size <= 256 else torch.int32

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; special tokens are left out.

        Bytes that are no UTF-8, such as a character cut in two, become U+FFFD.

        Raises:
            DataError: an id beyond the vocabulary.
        """
        words = [int(word) for word in ids]
        for word in words:
            if not 0 <= word < self.vocab_size:
                raise DataError(
                    f"token id {word} given to a tokeniser of {self.vocab_size} tokens; "
                    "model and tokeniser do not belong together"
                )
        return self._decode([word - self._first for word in words if word >= self._first])

    @abstractmethod
    def to_plain(self) -> dict[str, Any]:
        """Plain values that :func:`tokenizer_from_plain` reads."""

    @classmethod
    @abstractmethod
    def from_plain(cls, values: dict[str, Any]) -> Tokenizer:
        """The inverse of :meth:`to_plain`.

        Raises:
            DataError: values that are missing or of another type.
        """

    @abstractmethod
    def _num_words(self) -> int: ...

    @abstractmethod
    def _encode(self, text: str) -> list[int]: ...

    @abstractmethod
    def _decode(self, words: list[int]) -> str: ...


class CharacterTokenizer(Tokenizer):
    """One token a character, in the order of their code points.

    Args:
        characters: all that are known; repetitions and order do not matter, so a whole text may
            be given.
        special: see :class:`Tokenizer`.

    Raises:
        DataError: no characters.
    """

    kind = "characters"

    def __init__(self, characters: Iterable[str], *, special: bool = False) -> None:
        super().__init__(special)
        self.characters = "".join(sorted(set(characters)))
        if not self.characters:
            raise DataError("a tokeniser of characters needs a text to take them from; it is empty")
        self._ids = {character: word for word, character in enumerate(self.characters)}

    def to_plain(self) -> dict[str, Any]:
        """Kind, special tokens, characters."""
        return {"kind": self.kind, "special": self.special, "characters": self.characters}

    @classmethod
    def from_plain(cls, values: dict[str, Any]) -> CharacterTokenizer:
        """See :meth:`Tokenizer.from_plain`."""
        return cls(_value(values, "characters", str), special=_value(values, "special", bool))

    def encode_tensor(self, text: str) -> Tensor:
        """See :meth:`Tokenizer.encode_tensor`: a table of code points, and no list of numbers."""
        known = _code_points(self.characters)
        table = np.full(int(known.max()) + 2, -1, np.int32)  # the last is for all beyond it
        table[known] = np.arange(self._first, self.vocab_size)
        ids = torch.empty(len(text), dtype=self._dtype)
        for start in range(0, len(text), PIECE):
            points = _code_points(text[start : start + PIECE])
            words = table[np.minimum(points, len(table) - 1)]
            if (words < 0).any():
                self._encode(text)  # names the first that is unknown
            ids[start : start + len(words)] = torch.from_numpy(words)
        return ids

    def _num_words(self) -> int:
        return len(self.characters)

    def _encode(self, text: str) -> list[int]:
        try:
            return [self._ids[character] for character in text]
        except KeyError as error:
            character = error.args[0]
            raise DataError(
                f"character {character!r} (U+{ord(character):04X}), {text.index(character)} places "
                f"into the text, is none of the {len(self.characters)} that the model was trained "
                "on; leave it out"
            ) from None

    def _decode(self, words: list[int]) -> str:
        return "".join(self.characters[word] for word in words)


class ByteTokenizer(Tokenizer):
    """One token a byte of the text in UTF-8: knows every text, with 256 tokens.

    Args:
        special: see :class:`Tokenizer`.
    """

    kind = "bytes"

    def __init__(self, *, special: bool = False) -> None:
        super().__init__(special)

    def to_plain(self) -> dict[str, Any]:
        """Kind and special tokens."""
        return {"kind": self.kind, "special": self.special}

    @classmethod
    def from_plain(cls, values: dict[str, Any]) -> ByteTokenizer:
        """See :meth:`Tokenizer.from_plain`."""
        return cls(special=_value(values, "special", bool))

    def encode_tensor(self, text: str) -> Tensor:
        """See :meth:`Tokenizer.encode_tensor`: the bytes as they are."""
        words = np.frombuffer(_utf8(text), np.uint8)
        ids = torch.empty(len(words), dtype=self._dtype)
        ids.numpy()[:] = words
        return ids.add_(self._first)

    def _num_words(self) -> int:
        return 256

    def _encode(self, text: str) -> list[int]:
        return list(_utf8(text))

    def _decode(self, words: list[int]) -> str:
        return bytes(words).decode("utf-8", errors="replace")


class BpeTokenizer(Tokenizer):
    """Byte-pair encoding over bytes: frequent pieces of words are one token, any text is known.

    Pieces do not reach over the borders between words, numbers and punctuation that GPT-2's
    pattern draws. Needs the ``tokenizers`` library: ``pip install 'vitkit[text]'``.

    Args:
        pieces: the pieces by id, in the library's byte alphabet.
        merges: which two pieces become one, the most frequent first.
        special: see :class:`Tokenizer`.

    Raises:
        DataError: the library is not there, or pieces and merges contradict each other.

    Sources: Sennrich et al., arXiv 1508.07909; over bytes: Radford et al. (GPT-2), 2019.
    """

    kind = "bpe"

    def __init__(
        self, pieces: Sequence[str], merges: Sequence[tuple[str, str]], *, special: bool = True
    ) -> None:
        super().__init__(special)
        self.pieces, self.merges = list(pieces), [(left, right) for left, right in merges]
        library = _library()
        known = {piece: word for word, piece in enumerate(self.pieces)}
        missing = set(library.pre_tokenizers.ByteLevel.alphabet()) - set(known)
        if missing or len(known) != len(self.pieces):
            raise DataError(
                f"a BPE tokeniser of {len(self.pieces)} pieces lacks {len(missing)} of the 256 "
                "bytes or has a piece twice; the file is damaged"
            )
        try:
            self._model = library.Tokenizer(library.models.BPE(vocab=known, merges=self.merges))
        except Exception as error:  # the library raises nothing narrower
            reason = first_line(error)
            raise DataError(f"pieces and merges of a BPE tokeniser disagree: {reason}") from None
        _over_bytes(library, self._model)

    @classmethod
    def train(
        cls, texts: Iterable[str], vocab_size: int, *, min_frequency: int = 2, special: bool = True
    ) -> BpeTokenizer:
        """Learn pieces from texts.

        Args:
            texts: such as all sentences of both languages.
            vocab_size: most tokens, bytes and special ones included; fewer where the texts hold no
                pair that is frequent enough.
            min_frequency: how often a pair must occur to become a piece.
            special: see :class:`Tokenizer`.

        Raises:
            DataError: the library is not there, or a vocabulary too small for all bytes.
        """
        library = _library()
        most = vocab_size - (len(SPECIAL) if special else 0)
        alphabet = library.pre_tokenizers.ByteLevel.alphabet()
        if most < len(alphabet):
            raise DataError(
                f"vocab_size {vocab_size} is too small for byte-pair encoding; give at least "
                f"{vocab_size - most + len(alphabet)} for the bytes and special tokens alone"
            )
        model = library.Tokenizer(library.models.BPE())
        _over_bytes(library, model)
        trainer = library.trainers.BpeTrainer(
            vocab_size=most,
            min_frequency=min_frequency,
            show_progress=False,
            initial_alphabet=sorted(alphabet),
        )
        model.train_from_iterator(texts, trainer=trainer)
        return cls(*_learned(model), special=special)

    @classmethod
    def read(cls, vocab: Path, merges: Path) -> BpeTokenizer:
        """The tokeniser of GPT-2's two files, without special tokens.

        Args:
            vocab: ``vocab.json``, {piece: id}.
            merges: ``merges.txt``, two pieces a line behind a line of the version.

        Raises:
            DataError: not of this form, or see the class.
        """
        try:
            ids = json.loads(vocab.read_text(encoding="utf-8"))
            lines = merges.read_text(encoding="utf-8").splitlines()
        except ValueError as error:  # no JSON, or no UTF-8
            raise DataError(f"{vocab} and {merges} are no tokeniser of GPT-2's: {error}") from None
        pairs = [tuple(line.split(" ")) for line in lines if line and line[:8] != "#version"]
        pieces = ids if isinstance(ids, dict) else {}
        numbers = sorted(number for number in pieces.values() if isinstance(number, int))
        whole = bool(pieces) and numbers == list(range(len(pieces)))
        if not whole or not all(map(_is_pair, pairs)):
            raise DataError(
                f"{vocab} and {merges} are no tokeniser of GPT-2's: ids with gaps, or merges that "
                "are no pairs"
            )
        ordered = sorted(pieces, key=pieces.__getitem__)
        return cls(ordered, [(left, right) for left, right in pairs], special=False)

    def to_plain(self) -> dict[str, Any]:
        """Kind, special tokens, pieces, merges."""
        merges = [[left, right] for left, right in self.merges]
        plain: dict[str, Any] = {"kind": self.kind, "special": self.special}
        return {**plain, "pieces": list(self.pieces), "merges": merges}

    @classmethod
    def from_plain(cls, values: dict[str, Any]) -> BpeTokenizer:
        """See :meth:`Tokenizer.from_plain`."""
        pieces, merges = _value(values, "pieces", list), _value(values, "merges", list)
        texts = all(isinstance(piece, str) for piece in pieces)
        if not texts or not all(_is_pair(merge) for merge in merges):
            raise DataError("a tokeniser's pieces are no texts or its merges no pairs of them")
        return cls(pieces, [tuple(m) for m in merges], special=_value(values, "special", bool))

    def _num_words(self) -> int:
        return len(self.pieces)

    def _encode(self, text: str) -> list[int]:
        _utf8(text)
        ids: list[int] = self._model.encode(text).ids
        return ids

    def _decode(self, words: list[int]) -> str:
        text: str = self._model.decode(words)
        return text


TOKENIZERS: dict[str, type[Tokenizer]] = {
    "characters": CharacterTokenizer,
    "bytes": ByteTokenizer,
    "bpe": BpeTokenizer,
}
"""The kinds of tokeniser by the name under which they travel."""


def tokenizer_from_plain(values: Any) -> Tokenizer:
    """The tokeniser that :meth:`Tokenizer.to_plain` described.

    Raises:
        DataError: values that describe none.
    """
    if not isinstance(values, dict):
        raise DataError(f"no tokeniser but a {type(values).__name__}: the checkpoint holds none")
    kind = _value(values, "kind", str)
    if kind not in TOKENIZERS:
        raise DataError(
            f"unknown kind of tokeniser {kind!r}; this version of vitkit knows "
            f"{', '.join(TOKENIZERS)}"
        )
    return TOKENIZERS[kind].from_plain(values)


def require_fit(tokenizer: Tokenizer, vocab_size: int) -> None:
    """Refuse a tokeniser that speaks of other tokens than a model of ``vocab_size`` tokens.

    Raises:
        DataError: the numbers differ.
    """
    if tokenizer.vocab_size != vocab_size:
        raise DataError(
            f"the tokeniser ({tokenizer.kind}) has {tokenizer.vocab_size} tokens, the model "
            f"{vocab_size}; use the tokeniser that the model was trained with"
        )


def _value(values: dict[str, Any], key: str, kind: type) -> Any:
    value = values.get(key)
    if not isinstance(value, kind):
        raise DataError(
            f"a tokeniser's {key!r} should be a {kind.__name__}, found "
            f"{type(value).__name__}; the checkpoint is damaged or of a newer version"
        )
    return value


def _is_pair(merge: Any) -> bool:
    is_two = isinstance(merge, list | tuple) and len(merge) == 2
    return is_two and all(isinstance(piece, str) for piece in merge)


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:  # half of a surrogate pair, as from a broken terminal
        raise DataError(
            f"character {text[error.start]!r} at place {error.start} of the text is none that "
            "UTF-8 can hold; leave it out"
        ) from None


def _code_points(text: str) -> np.ndarray[Any, Any]:
    """Numbers of a text's characters, uint32 (T,)."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def _library() -> Any:
    try:
        import tokenizers  # an extra
    except ImportError:
        raise DataError(
            "byte-pair encoding needs the tokenizers library; pip install 'vitkit[text]'"
        ) from None
    return tokenizers


def _over_bytes(library: Any, model: Any) -> None:
    """Text to bytes in front of the pieces, and back behind them."""
    model.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = library.decoders.ByteLevel()


def _learned(model: Any) -> tuple[list[str], list[tuple[str, str]]]:
    """Pieces by id and merges of a trained library model, from its own description."""
    vocab: dict[str, int] = model.get_vocab(with_added_tokens=False)
    described = json.loads(model.to_str())["model"]["merges"]
    # Older versions of the library write a merge as one text.
    pairs = [m.split(" ") if isinstance(m, str) else m for m in described]
    return sorted(vocab, key=vocab.__getitem__), [(left, right) for left, right in pairs]
