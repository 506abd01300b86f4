"""Translations by a trained model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from vitkit.app.build_words import max_len_of, require_reads, words_from_checkpoint
from vitkit.app.devices import best_device
from vitkit.app.runs import find_checkpoint
from vitkit.data.text.tokenizers import Tokenizer
from vitkit.errors import ConfigError, DataError
from vitkit.models.decoding import translate as search
from vitkit.weights import read_checkpoint

__all__ = ["Translator", "load_translator", "translate"]

SEARCHED_TOKENS = 4096
"""Tokens of the sources, times the beams of each, that are searched at a time."""


@dataclass(frozen=True)
class Translator:
    """A trained translator with its tokeniser.

    Attributes:
        model: in evaluation mode.
        tokenizer: of both languages.
        device: where the model is.
        num_beams, length_penalty: what its run was tested with.
    """

    model: Any
    tokenizer: Tokenizer
    device: torch.device
    num_beams: int = 4
    length_penalty: float = 0.6

    def translate(
        self,
        sentences: Sequence[str],
        *,
        num_beams: int | None = None,
        length_penalty: float | None = None,
        use_cache: bool = True,
        first: int = 1,
        on_batch: Callable[[int, int], None] | None = None,
        on_fault: Callable[[str], None] | None = None,
    ) -> list[str]:
        """The translation of each sentence; an empty one's is empty.

        Args:
            sentences: in the source language.
            num_beams: beams of the search; 1: always the likeliest token; None: as the run was
                tested.
            length_penalty: alpha of ((5 + length) / 6)^alpha; None: as the run was tested.
            use_cache: keep keys, values and states; False is slow, and the same.
            first: number of the first sentence, for messages.
            on_batch: told how many are done, of how many.
            on_fault: told of a sentence that cannot be translated, whose translation is empty then;
                without it such a sentence raises.

        Raises:
            DataError: a character that the tokeniser does not know, or more tokens than the model
                has positions; the message has the sentence's number.
            ConfigError: an option out of range.
        """
        sources = [self._encoded(text, first + i, on_fault) for i, text in enumerate(sentences)]
        beams = self.num_beams if num_beams is None else num_beams
        alpha = self.length_penalty if length_penalty is None else length_penalty
        found = [""] * len(sources)
        order = sorted((i for i, ids in enumerate(sources) if ids), key=lambda i: len(sources[i]))
        done = 0
        while done < len(order):
            batch = _next_batch(order[done:], sources, beams)
            try:
                texts = self._search([sources[i] for i in batch], beams, alpha, use_cache)
            except ValueError as error:
                raise ConfigError(str(error)) from error
            for place, text in zip(batch, texts, strict=True):
                found[place] = text
            done += len(batch)
            if on_batch is not None:
                on_batch(done, len(order))
        return found

    def lines(self, sentences: Iterable[str], *, chunk: int = 64, **options: Any) -> Iterator[str]:
        """:meth:`translate` of sentences that come one by one, ``chunk`` of them at a time."""
        first, waiting = 1, iter(sentences)
        while some := list(islice(waiting, chunk)):
            yield from self.translate(some, first=first, **options)
            first += len(some)

    def _encoded(self, text: str, number: int, on_fault: Callable[[str], None] | None) -> list[int]:
        """Tokens and the end's; none of an empty sentence, or one that ``on_fault`` is told of."""
        assert self.tokenizer.eos_id is not None
        most = max_len_of(self.model)
        try:
            ids = self.tokenizer.encode(text) if text.strip() else []
            if most is not None and len(ids) >= most:
                raise DataError(
                    f"{len(ids) + 1} tokens with its end, the model has {most} positions; shorten "
                    "it, or train with a larger model.max_len"
                )
        except DataError as error:
            fault = f"sentence {number}: {error}"
            if on_fault is None:
                raise DataError(fault) from error
            on_fault(fault)
            return []
        return [*ids, self.tokenizer.eos_id] if ids else []

    def _search(
        self, sources: list[list[int]], num_beams: int, alpha: float, use_cache: bool
    ) -> list[str]:
        pad, bos, eos = self.tokenizer.pad_id, self.tokenizer.bos_id, self.tokenizer.eos_id
        assert pad is not None and bos is not None and eos is not None
        lengths = torch.tensor([len(ids) for ids in sources])
        rows = [[*ids, *[pad] * (int(lengths.max()) - len(ids))] for ids in sources]
        best = search(
            self.model,
            torch.tensor(rows, device=self.device),
            lengths.to(self.device),
            bos_id=bos,
            eos_id=eos,
            pad_id=pad,
            num_beams=num_beams,
            length_penalty=alpha,
            use_cache=use_cache,
        ).ids[:, 0]
        # Special tokens, the end's and padding, stand for no text; a translation is one line.
        return [" ".join(self.tokenizer.decode(ids).splitlines()) for ids in best.tolist()]


def load_translator(source: str | Path, *, device: str = "auto") -> Translator:
    """A trained translator, ready to translate.

    Args and errors as of :func:`vitkit.app.load_writer`.
    """
    checkpoint = read_checkpoint(find_checkpoint(source))
    require_reads(checkpoint, "sentence pairs", "vitkit translate")
    model, tokenizer = words_from_checkpoint(checkpoint)
    place, task = best_device(device), checkpoint.config["task"]
    return Translator(
        model.to(place), tokenizer, place, int(task["num_beams"]), float(task["length_penalty"])
    )


def translate(
    run: str | Path,
    sentences: Sequence[str] | str,
    *,
    num_beams: int | None = None,
    length_penalty: float | None = None,
    use_cache: bool = True,
    device: str = "auto",
) -> list[str]:
    """Translations by a trained model.

    Args:
        run: a run folder or checkpoint file.
        sentences: in the source language; one or several.
        num_beams: beams of the search; 1: always the likeliest token; None: as the run was
            tested.
        length_penalty: alpha of ((5 + length) / 6)^alpha; None: as the run was tested.
        use_cache: keep keys, values and states; False is slow, and the same.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Raises:
        WeightsError: not a checkpoint of a translator.
        DataError: a character that the model does not know, or more tokens than it has positions.
        ConfigError: an option out of range.
    """
    texts = [sentences] if isinstance(sentences, str) else list(sentences)
    return load_translator(run, device=device).translate(
        texts, num_beams=num_beams, length_penalty=length_penalty, use_cache=use_cache
    )


def _next_batch(order: list[int], sources: list[list[int]], num_beams: int) -> list[int]:
    """As many of the sentences in ``order``, the short ones first, as are searched together."""
    count = 1
    while (
        count < len(order)
        and (count + 1) * len(sources[order[count]]) * max(num_beams, 1) <= SEARCHED_TOKENS
    ):
        count += 1
    return order[:count]
