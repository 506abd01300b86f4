"""Words out of a causal language model, one after the other."""

from __future__ import annotations

import torch
from torch import Tensor

from vitkit.models.text import CausalLanguageModel

__all__ = ["filter_logits", "generate"]


@torch.no_grad()
def generate(
    model: CausalLanguageModel,
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
    """Continue each text by ``max_new_tokens`` words.

    Args:
        model: is put into evaluation for the call.
        ids: the beginnings, int (B, N), N at least 1 and the same for all.
        max_new_tokens: words to add.
        temperature: divides the logits; 0 always takes the likeliest word.
        top_k: draw among the k likeliest words only.
        top_p: draw among the fewest likeliest words that hold this share of probability.
        use_cache: keep keys and values instead of reading the whole text for every word.
        seed: of the draws; without seed and generator torch's global one is used.
        generator: of the draws, on the device of ``ids``; not together with ``seed``.

    Returns:
        int64 (B, N + max_new_tokens), the beginnings included.

    Raises:
        ValueError: an option out of range, an empty beginning, or more words than the model's
            ``max_len``.
    """
    _check(ids, max_new_tokens, temperature, top_k, top_p)
    model.words.check_length(ids.shape[1] + max_new_tokens)
    if seed is not None:
        if generator is not None:
            raise ValueError("give seed or generator, not both")
        generator = torch.Generator(ids.device).manual_seed(seed)
    was_training = model.training
    model.eval()
    try:
        caches = model.new_caches() if use_cache else None
        fresh = ids
        for _ in range(max_new_tokens):
            features = model.forward_features(fresh if use_cache else ids, caches)
            logits = model.forward_head(features[:, -1:])[:, 0]
            fresh = _pick(logits, temperature, top_k, top_p, generator)
            ids = torch.cat([ids, fresh], dim=1)
    finally:
        model.train(was_training)
    return ids


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
        # A word stays while those before it hold less than top_p: the first one always does.
        beyond = share.cumsum(dim=-1) - share >= top_p
        logits = logits.masked_fill(beyond.scatter(-1, order, beyond), float("-inf"))
    return logits


def _pick(
    logits: Tensor,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    generator: torch.Generator | None,
) -> Tensor:
    """One word for each row of logits (B, V): int64 (B, 1)."""
    logits = logits.float()
    if temperature == 0.0:
        return logits.argmax(dim=-1, keepdim=True)
    logits = filter_logits(logits / temperature, top_k=top_k, top_p=top_p)
    return torch.multinomial(logits.softmax(dim=-1), 1, generator=generator)


def _check(
    ids: Tensor, max_new_tokens: int, temperature: float, top_k: int | None, top_p: float | None
) -> None:
    if ids.ndim != 2 or ids.shape[1] == 0:
        raise ValueError(f"ids must be (B, N) with N at least 1, given {tuple(ids.shape)}")
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens {max_new_tokens}; allowed: 0 and up")
    if temperature < 0.0:
        raise ValueError(f"temperature {temperature}; allowed: 0 (likeliest word) and up")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k {top_k}; allowed: 1 and up")
    if top_p is not None and not 0.0 < top_p <= 1.0:
        raise ValueError(f"top_p {top_p}; allowed: above 0, up to 1")
