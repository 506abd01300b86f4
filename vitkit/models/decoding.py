"""Text out of a model, token by token: drawn, always the likeliest, or by a beam."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vitkit.models.beams import Hypotheses, beam_search, greedy_search
from vitkit.models.recurrent import RecurrentLanguageModel, RecurrentSeq2Seq
from vitkit.models.seq2seq import EncoderDecoder, Memory
from vitkit.models.text import CausalLanguageModel
from vitkit.models.words import real_words
from vitkit.nn import LayerCache, direct_calls, evaluating

__all__ = ["continuations", "filter_logits", "generate", "stream", "translate"]

LanguageModel = CausalLanguageModel | RecurrentLanguageModel
Translator = EncoderDecoder | RecurrentSeq2Seq


@torch.no_grad()
def generate(
    model: LanguageModel,
    ids: Tensor,
    max_new_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    use_cache: bool = True,
    seed: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Continue each text by ``max_new_tokens`` tokens.

    Args:
        model: is put into evaluation for the call.
        ids: the beginnings, int (B, N), N at least 1 and the same for all.
        max_new_tokens: tokens to add.
        temperature: divides the logits; 0 always takes the likeliest token.
        top_k: draw among the k likeliest tokens only.
        top_p: draw among the fewest likeliest tokens that hold this share of probability.
        use_cache: keep keys and values, or the state, instead of reading the whole text for every
            token.
        seed: of the draws; without seed and generator torch's global one is used.
        generator: of the draws, on the device of ``ids``; not together with ``seed``.

    Returns:
        int64 (B, N + max_new_tokens), the beginnings included.

    Raises:
        ValueError: an option out of range, an empty beginning, or more tokens than the model's
            ``max_len`` to be read: the last one made is not.
    """
    words = stream(
        model,
        ids,
        max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        use_cache=use_cache,
        seed=seed,
        generator=generator,
    )
    return torch.cat([ids, *words], dim=1)


def stream(
    model: LanguageModel,
    ids: Tensor,
    max_new_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    use_cache: bool = True,
    seed: int | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[Tensor]:
    """The tokens that :func:`generate` adds, each as soon as it is known: int64 (B, 1).

    Takes and raises what :func:`generate` does; faults are found by the call, not by the first
    token. The model is in evaluation from the first token to the last.
    """
    _check(ids, max_new_tokens, temperature, top_k, top_p)
    model.check_length(ids.shape[1] + max(max_new_tokens, 1) - 1)
    if seed is not None:
        if generator is not None:
            raise ValueError("give seed or generator, not both")
        generator = torch.Generator(ids.device).manual_seed(seed)

    def words() -> Iterator[Tensor]:
        text = ids
        with _writing(model):
            stepper = _of_language(model, use_cache)
            for _ in range(max_new_tokens):
                with torch.inference_mode():  # not across the yield: it would be the caller's too
                    logits = stepper.logits(text)
                    fresh = _pick(logits, temperature, top_k, top_p, generator)
                    text = torch.cat([text, fresh], dim=1)
                yield fresh.clone()  # a tensor like any other

    return words()


@torch.no_grad()
def continuations(
    model: LanguageModel,
    ids: Tensor,
    max_new_tokens: int,
    *,
    num_beams: int = 4,
    length_penalty: float = 0.0,
    eos_id: int | None = None,
    pad_id: int = 0,
    num_return: int = 1,
    use_cache: bool = True,
) -> Hypotheses:
    """The likeliest continuations of each text that a beam finds.

    Args:
        model: is put into evaluation for the call.
        ids: the beginnings, int (B, N), N at least 1 and the same for all.
        max_new_tokens: most tokens to add.
        num_beams: beams of the search; 1: always the likeliest token.
        length_penalty: alpha of :func:`vitkit.models.beams.length_penalty`, from 0 up.
        eos_id: token that ends a text; None: all become ``max_new_tokens`` long.
        pad_id: token that fills up the texts that ended.
        num_return: texts to return, up to ``num_beams``.
        use_cache: as in :func:`generate`.

    Raises:
        ValueError: an option out of range, an empty beginning, or more tokens than the model's
            ``max_len`` to be read: the last one made is not.
    """
    _check(ids, max_new_tokens, 1.0, None, None)
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens {max_new_tokens}; a beam needs 1 and up")
    model.check_length(ids.shape[1] + max_new_tokens - 1)
    ids = ids.long()
    limits = ids.new_full((len(ids),), max_new_tokens)
    with _writing(model):
        stepper = _of_language(model, use_cache)
        return _search(stepper, ids, limits, num_beams, length_penalty, eos_id, pad_id, num_return)


@torch.no_grad()
def translate(
    model: Translator,
    source: Tensor,
    lengths: Tensor | None = None,
    *,
    bos_id: int,
    eos_id: int,
    pad_id: int = 0,
    num_beams: int = 4,
    length_penalty: float = 0.6,
    max_extra: int = 50,
    num_return: int = 1,
    use_cache: bool = True,
) -> Hypotheses:
    """The likeliest targets of each source that a beam finds.

    Args:
        model: is put into evaluation for the call.
        source: tokens, int (B, M), padding behind the others.
        lengths: real tokens of each source, int (B,); without it, all but the model's ``pad_id``.
        bos_id: token that every target begins with; it is not returned.
        eos_id: token that ends a target.
        pad_id: token that fills up the targets that ended.
        num_beams: beams of the search; 1: always the likeliest token.
        length_penalty: alpha of :func:`vitkit.models.beams.length_penalty`, from 0 up.
        max_extra: tokens that a target may have more than its source, its end included; the model's
            ``max_len`` sets a limit too.
        num_return: targets to return, up to ``num_beams``.
        use_cache: keep keys, values and states instead of reading the target for every token.

    Raises:
        ValueError: an option out of range, or a source longer than the model's ``max_len``.

    Source of the defaults: arXiv 1706.03762, section 6.1.
    """
    if source.ndim != 2 or source.shape[1] == 0:
        raise ValueError(f"source must be (B, M) with M at least 1, given {tuple(source.shape)}")
    if max_extra < 1:
        raise ValueError(f"max_extra {max_extra}; allowed: 1 and up")
    limits = _source_lengths(model, source, lengths) + max_extra
    if model.max_len is not None:
        limits = limits.clamp(max=model.max_len)
    prefix = source.new_full((len(source), 1), bos_id, dtype=torch.int64)
    with _writing(model):
        memory = model.encode(source, lengths) if len(source) else None
        caches = model.new_caches() if use_cache else None
        stepper = _Stepper(model.decode, model.forward_head, caches, memory)
        return _search(
            stepper, prefix, limits, num_beams, length_penalty, eos_id, pad_id, num_return
        )


def filter_logits(
    logits: Tensor, *, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """Logits (B, V) with those outside the top k, then outside the top p, set to -inf.

    Sources: Fan et al., arXiv 1805.04833 (top-k); Holtzman et al., arXiv 1904.09751 (top-p).
    """
    if top_k is not None and top_k < logits.shape[-1]:
        least = logits.topk(top_k, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < least, float("-inf"))
    if top_p is not None and top_p < 1.0:
        values, order = logits.sort(dim=-1, descending=True, stable=True)
        share = values.softmax(dim=-1)
        # A token stays while those before it hold less than top_p: the first one always does.
        beyond = share.cumsum(dim=-1) - share >= top_p
        logits = logits.masked_fill(beyond.scatter(-1, order, beyond), float("-inf"))
    return logits


class _Stepper:
    """A model in the middle of texts; see :class:`vitkit.models.beams.Stepper`.

    Args:
        features: (tokens, memory, caches) -> what the model makes of the tokens.
        head: that -> logits.
        caches: of the model; None: all tokens are read at each step.
        memory: of the sources, where there are any.
    """

    def __init__(
        self,
        features: Callable[[Tensor, Any, list[LayerCache] | None], Tensor],
        head: Callable[[Tensor], Tensor],
        caches: list[LayerCache] | None,
        memory: Memory | None = None,
    ) -> None:
        self.features, self.head, self.caches, self.memory = features, head, caches, memory
        self.seen = 0

    def logits(self, ids: Tensor) -> Tensor:
        """Logits (R, vocab_size) of the token that follows each text (R, n)."""
        fresh = ids if self.caches is None else ids[:, self.seen :]
        self.seen = ids.shape[1]
        return self.head(self.features(fresh, self.memory, self.caches)[:, -1:])[:, 0]

    def select(self, rows: Tensor, *, within: bool) -> None:
        """Go on from the rows ``rows``; within a sentence what belongs to its source stays."""
        for cache in self.caches or ():
            cache.select(rows, memory=not within)
        if self.memory is not None and not within:
            self.memory = self.memory.select(rows)


def _of_language(model: LanguageModel, use_cache: bool) -> _Stepper:
    caches = model.new_caches() if use_cache else None
    return _Stepper(
        lambda words, _, caches: model.forward_features(words, caches), model.forward_head, caches
    )


def _search(
    stepper: _Stepper,
    prefix: Tensor,
    limits: Tensor,
    num_beams: int,
    alpha: float,
    eos_id: int | None,
    pad_id: int,
    num_return: int,
) -> Hypotheses:
    if num_beams < 1:
        raise ValueError(f"num_beams {num_beams}; allowed: 1 and up")
    if not 1 <= num_return <= num_beams:
        raise ValueError(f"num_return {num_return}; allowed: 1 to num_beams, {num_beams}")
    if not 0.0 <= alpha < math.inf:
        raise ValueError(f"length_penalty {alpha}; allowed: 0 (none) and up")
    if num_beams == 1:
        return greedy_search(stepper, prefix, limits, alpha=alpha, eos_id=eos_id, pad_id=pad_id)
    return beam_search(
        stepper,
        prefix,
        limits,
        num_beams=num_beams,
        alpha=alpha,
        eos_id=eos_id,
        pad_id=pad_id,
        num_return=num_return,
    )


def _source_lengths(model: Translator, source: Tensor, lengths: Tensor | None) -> Tensor:
    """Real tokens of each source, int64 (B,)."""
    real = real_words(source, lengths, model.pad_id)
    if real is None:
        return source.new_full((len(source),), source.shape[1], dtype=torch.int64)
    return real.sum(dim=1)


@contextmanager
def _writing(model: nn.Module) -> Iterator[None]:
    """Without dropout inside the ``with`` block, and quick."""
    with evaluating(model), direct_calls(model):
        yield


def _pick(
    logits: Tensor,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    generator: torch.Generator | None,
) -> Tensor:
    """One token for each row of logits (B, V): int64 (B, 1)."""
    logits = logits.float()
    if temperature == 0.0:
        return logits.argmax(dim=-1, keepdim=True)
    if temperature != 1.0:  # from the largest down, which a small temperature makes infinite
        logits = (logits - logits.amax(dim=-1, keepdim=True)) / temperature
    logits = filter_logits(logits, top_k=top_k, top_p=top_p)
    chances = logits.softmax(dim=-1)
    # What torch.multinomial does for one draw, number for number, without its checks.
    waits = torch.empty_like(chances).exponential_(generator=generator)
    return chances.div_(waits).argmax(dim=-1, keepdim=True)


def _check(
    ids: Tensor, max_new_tokens: int, temperature: float, top_k: int | None, top_p: float | None
) -> None:
    if ids.ndim != 2 or ids.shape[1] == 0:
        raise ValueError(f"ids must be (B, N) with N at least 1, given {tuple(ids.shape)}")
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens {max_new_tokens}; allowed: 0 and up")
    if not 0.0 <= temperature < math.inf:
        raise ValueError(f"temperature {temperature}; allowed: 0 (likeliest token) and up")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k {top_k}; allowed: 1 and up")
    if top_p is not None and not 0.0 < top_p <= 1.0:
        raise ValueError(f"top_p {top_p}; allowed: above 0, up to 1")
