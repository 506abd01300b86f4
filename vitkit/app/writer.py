"""A text that a trained language model goes on with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vitkit.app.build_words import max_len_of, require_reads, words_from_checkpoint
from vitkit.app.devices import best_device
from vitkit.app.runs import find_checkpoint
from vitkit.data.text.tokenizers import Tokenizer
from vitkit.errors import ConfigError, DataError
from vitkit.models.decoding import continuations, stream
from vitkit.weights import read_checkpoint

__all__ = ["Writer", "generate", "load_writer", "require_nothing_drawn"]

MOST_BYTES = 4
"""Of a character in UTF-8."""

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


def load_writer(source: str | Path, *, device: str = "auto") -> Writer:
    """A trained language model, ready to go on with texts.

    Args:
        source: a run folder or checkpoint file.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Raises:
        WeightsError: a model of another kind; the message says what it is for.
    """
    checkpoint = read_checkpoint(find_checkpoint(source))
    require_reads(checkpoint, "text", "vitkit generate")
    model, tokenizer = words_from_checkpoint(checkpoint)
    place = best_device(device)
    limits = [max_len_of(model), checkpoint.config["data"].get("window")]
    # A recurrent model carries its state on, however short the windows that it has learned from.
    window = None if limits[0] is None else min(x for x in limits if x is not None)
    return Writer(model.to(place), tokenizer, place, window)


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


def require_nothing_drawn(by: str = "a beam", /, **options: Any) -> None:
    """Refuse options of drawing beside a search that would not look at them.

    Args:
        by: the search, with its article.
        options: of :func:`generate`, and ``greedy``.

    Raises:
        ConfigError: one of them is not as usual.
    """
    usual = {"temperature": 1.0, "seed": 0, "greedy": False}
    given = [name for name, value in options.items() if value != usual.get(name)]
    if given:
        named = " and ".join(given)
        this = by.replace("a ", "the ", 1)
        raise ConfigError(f"{named}: {by} draws nothing; leave out {named}, or {this}")
