"""Words out of a trained model: a text that goes on, and translations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from vitkit.app.build_words import max_len_of, words_from_checkpoint
from vitkit.app.devices import best_device
from vitkit.app.runs import find_checkpoint
from vitkit.data.text.corpus import decode_text
from vitkit.data.text.parallel import read_lines
from vitkit.data.text.tokenizers import Tokenizer
from vitkit.errors import ConfigError, DataError, WeightsError
from vitkit.models.decoding import continuations, stream
from vitkit.models.decoding import translate as search
from vitkit.models.presets import READS, family_of
from vitkit.weights import Checkpoint, read_checkpoint

__all__ = [
    "Translator",
    "Writer",
    "generate",
    "load_translator",
    "load_writer",
    "read_lines",
    "require_nothing_drawn",
    "translate",
    "utf8_lines",
    "utf8_text",
]

MOST_BYTES = 4
"""Of a character in UTF-8."""

SEARCHED_TOKENS = 4096
"""Tokens of the sources, times the beams of each, that are searched at a time."""

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class Writer:
    """A trained language model with its tokeniser.

    Attributes:
        model: in evaluation mode.
        tokenizer: of its tokens.
        device: where the model is.
        window: most tokens that it has learned to read; None: any number.
    """

    model: Any
    tokenizer: Tokenizer
    device: torch.device
    window: int | None = None

    def stream(
        self,
        prompt: str | None = None,
        *,
        tokens: int = 300,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = 0,
        use_cache: bool = True,
    ) -> Iterator[str]:
        """What :func:`generate` puts behind the prompt, in pieces, each as soon as it is known.

        Faults are found by the call, not by the first piece. Args and errors as of
        :func:`generate`.
        """
        ids = self._beginning(prompt)
        if tokens < 0:
            raise ConfigError(f"tokens {tokens}; allowed: 0 and up")
        generator = torch.Generator(self.device)
        if seed is None:
            generator.seed()
        else:
            generator.manual_seed(seed)
        options: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
        options |= {"use_cache": use_cache, "generator": generator}
        try:
            stream(self.model, self._batch(ids[-1:]), 0, **options)  # finds wrong options
        except ValueError as error:
            raise ConfigError(str(error)) from error
        return self._pieces(self._ids(ids, tokens, options))

    def search(
        self,
        prompt: str | None = None,
        *,
        tokens: int = 300,
        num_beams: int = 4,
        use_cache: bool = True,
    ) -> str:
        """The likeliest text behind the prompt that a beam finds, all of it within the window.

        Args and errors as of :func:`generate`.
        """
        ids = self._beginning(prompt)
        if self.window is not None and len(ids) + tokens - 1 > self.window:
            raise ConfigError(
                f"prompt and text have {len(ids) + tokens} tokens, the model reads {self.window} "
                "at a time; with a beam all but the last must fit: ask for fewer tokens, or for "
                "one beam"
            )
        if tokens == 0:
            return ""
        try:
            found = continuations(
                self.model, self._batch(ids), tokens, num_beams=num_beams, use_cache=use_cache
            )
        except ValueError as error:
            raise ConfigError(str(error)) from error
        return self.tokenizer.decode(found.ids[0, 0].tolist())

    def _beginning(self, prompt: str | None) -> list[int]:
        """Ids of the prompt; without one of a line feed, or the first token where there is none."""
        if prompt is None:
            try:
                return self.tokenizer.encode("\n")
            except DataError:
                return [0]
        ids = self.tokenizer.encode(prompt)
        if not ids:
            raise ConfigError("the prompt is empty; give at least one character")
        most = max_len_of(self.model)
        if most is not None and len(ids) > most:
            raise DataError(
                f"the prompt has {len(ids)} tokens, the model {most} positions; shorten it, or "
                "train with a larger model.max_len"
            )
        return ids

    def _ids(self, text: list[int], left: int, options: dict[str, Any]) -> Iterator[int]:
        """Token after token. Where its window is full, the model goes on from the second half of
        what it sees.
        """
        most = self.window
        text = list(text) if most is None else text[-most:]
        while left > 0:
            if most is not None and len(text) > most:
                text = text[-max(1, most // 2) :]
            # The last token made is not read any more.
            room = left if most is None else min(left, most - len(text) + 1)
            for fresh in stream(self.model, self._batch(text), room, **options):
                text.append(int(fresh))
                yield text[-1]
            left -= room

    def _pieces(self, ids: Iterator[int]) -> Iterator[str]:
        """The text of ids; the bytes of a character that is not whole yet wait for the others."""
        waiting: list[int] = []
        for word in ids:
            waiting.append(word)
            text, rest = self._whole(waiting)
            waiting = waiting[len(waiting) - rest :]
            if text:
                yield text
        if waiting:
            yield self.tokenizer.decode(waiting)

    def _whole(self, ids: list[int]) -> tuple[str, int]:
        """The text of ids without a last character that may go on; how many ids that one has."""
        text = self.tokenizer.decode(ids)
        if not text.endswith(REPLACEMENT):
            return text, 0
        for rest in range(1, min(MOST_BYTES, len(ids) + 1)):
            head, tail = self.tokenizer.decode(ids[:-rest]), self.tokenizer.decode(ids[-rest:])
            if head + tail == text:
                return head, rest
        return (text, 0) if len(ids) >= MOST_BYTES else ("", len(ids))

    def _batch(self, ids: list[int]) -> torch.Tensor:
        return torch.tensor([ids], device=self.device)


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


def load_writer(source: str | Path, *, device: str = "auto") -> Writer:
    """A trained language model, ready to go on with texts.

    Args:
        source: a run folder or checkpoint file.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Raises:
        WeightsError: a model of another kind; the message says what it is for.
    """
    checkpoint = read_checkpoint(find_checkpoint(source))
    _require(checkpoint, "text", "vitkit generate")
    model, tokenizer = words_from_checkpoint(checkpoint)
    place = best_device(device)
    limits = [max_len_of(model), checkpoint.config["data"].get("window")]
    # A recurrent model carries its state on, however short the windows that it has learned from.
    window = None if limits[0] is None else min(x for x in limits if x is not None)
    return Writer(model.to(place), tokenizer, place, window)


def load_translator(source: str | Path, *, device: str = "auto") -> Translator:
    """A trained translator, ready to translate. Args and errors as of :func:`load_writer`."""
    checkpoint = read_checkpoint(find_checkpoint(source))
    _require(checkpoint, "sentence pairs", "vitkit translate")
    model, tokenizer = words_from_checkpoint(checkpoint)
    place, task = best_device(device), checkpoint.config["task"]
    return Translator(
        model.to(place), tokenizer, place, int(task["num_beams"]), float(task["length_penalty"])
    )


def generate(
    run: str | Path,
    prompt: str | None = None,
    *,
    tokens: int = 300,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = 0,
    num_beams: int = 1,
    use_cache: bool = True,
    device: str = "auto",
) -> str:
    """A text and what a trained language model puts behind it.

    Where what the model has learned to read at a time is full (``data.window``, or all of its
    positions), it goes on from the second half of that.

    Args:
        run: a run folder or checkpoint file.
        prompt: the beginning; None: a line feed, which is not returned.
        tokens: how many to add.
        temperature: divides the logits; 0: always the likeliest token.
        top_k: draw among the k likeliest only.
        top_p: draw among the fewest likeliest that hold this share of probability.
        seed: of the draws; None: another text each time.
        num_beams: above 1 nothing is drawn, and what says how is refused: the likeliest text that
            a beam finds.
        use_cache: keep keys and values, or the state; False is slow, and the same.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Returns:
        The prompt and the text behind it.

    Raises:
        WeightsError: not a checkpoint of a language model.
        DataError: a character that the model does not know, or more tokens than it has positions.
        ConfigError: an option out of range, or an empty prompt.
    """
    writer = load_writer(run, device=device)
    if num_beams != 1:
        require_nothing_drawn(temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
        found = writer.search(prompt, tokens=tokens, num_beams=num_beams, use_cache=use_cache)
        return (prompt or "") + found
    pieces = writer.stream(
        prompt,
        tokens=tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        use_cache=use_cache,
    )
    return "".join([prompt or "", *pieces])


def require_nothing_drawn(**options: Any) -> None:
    """Refuse options of drawing beside a beam, which would not look at them.

    Args:
        options: of :func:`generate`, and ``greedy``.

    Raises:
        ConfigError: one of them is not as usual.
    """
    usual = {"temperature": 1.0, "seed": 0, "greedy": False}
    given = [name for name, value in options.items() if value != usual.get(name)]
    if given:
        named = " and ".join(given)
        raise ConfigError(f"{named}: a beam draws nothing; leave out {named}, or the beam")


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


def utf8_text(content: bytes, where: str) -> str:
    """Bytes as text.

    Args:
        content: in UTF-8.
        where: they come from, for the message.

    Raises:
        DataError: not UTF-8.
    """
    return decode_text(content, where)


def utf8_lines(lines: Iterable[bytes], where: str) -> Iterator[str]:
    """Lines of bytes as text, without their ends. Args and errors as of :func:`utf8_text`."""
    for number, line in enumerate(lines, start=1):
        text = decode_text(line, where, first_line=number)
        yield text.removesuffix("\n").removesuffix("\r")


def _require(checkpoint: Checkpoint, kind: str, command: str) -> None:
    """Refuse a checkpoint whose model reads other data than a command is about."""
    name = str(checkpoint.model["name"])
    reads = READS.get(family_of(name), "images")
    if reads == kind:
        return
    commands = {"text": "vitkit generate", "sentence pairs": "vitkit translate"}
    raise WeightsError(
        f"{checkpoint.path} holds {name}, which reads {reads}; {command} needs a model of {kind}. "
        f"Use it with: {commands.get(reads, 'vitkit predict')}, or vitkit eval"
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
