"""Search for a likely text, token by token: greedy, and with a beam.

The search knows no model: a :class:`Stepper` gives logits for texts and follows their reordering.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Hypotheses", "Stepper", "beam_search", "greedy_search", "length_penalty"]


class Stepper(Protocol):
    """A model in the middle of texts."""

    def logits(self, ids: Tensor) -> Tensor:
        """Logits (R, vocab_size) of the token behind each text, int (R, n): all its tokens."""
        ...

    def select(self, rows: Tensor, *, within: bool) -> None:
        """The next texts grow from the rows ``rows`` (int (R',)) of the last ones.

        Args:
            rows: which, in order.
            within: as many rows in a sentence as before, so that what belongs to the source stays.
        """
        ...


@dataclass(frozen=True)
class Hypotheses:
    """What a search found for each of B texts, the best first.

    Attributes:
        ids: the tokens behind the beginning, the end's own included, then padding: int64 (B, R, L);
            (0, R, 0) of no texts.
        scores: log probability over length penalty, (B, R); -inf where fewer than R were found.
    """

    ids: Tensor
    scores: Tensor


def length_penalty(length: Tensor | int, alpha: float) -> Tensor | float:
    """((5 + length) / 6)^alpha, the length in tokens with the end's own.

    Source: Wu et al., "Google's neural machine translation system", arXiv 1609.08144, section 7.
    """
    return ((5 + length) / 6) ** alpha


def greedy_search(
    stepper: Stepper,
    prefix: Tensor,
    limits: Tensor,
    *,
    alpha: float = 0.0,
    eos_id: int | None = None,
    pad_id: int = 0,
) -> Hypotheses:
    """Always the likeliest token, until the end token or the limit.

    Args:
        stepper: before its first step, one row a text.
        prefix: beginnings, int64 (B, n), n at least 1.
        limits: most tokens to add to each, int64 (B,), from 1 up.
        alpha: of :func:`length_penalty`, for the scores alone.
        eos_id: token that ends a text; None: only the limit does.
        pad_id: token behind the end.
    """
    if len(prefix) == 0:
        return _none_of(prefix, 1)
    found = prefix.new_full((len(prefix), 1, int(limits.max())), pad_id)
    total = torch.zeros(len(prefix), device=prefix.device)
    length = torch.zeros_like(limits)
    ids, place = prefix, torch.arange(len(prefix), device=prefix.device)
    for step in range(found.shape[2]):
        best, word = _log_probs(stepper.logits(ids)).max(dim=-1)
        total = total.to(best.dtype)
        total[place] += best
        length[place] += 1
        found[place, 0, step] = word
        still = limits[place] > step + 1
        still = still if eos_id is None else still & (word != eos_id)
        if not bool(still.any()):
            break
        if not bool(still.all()):
            stepper.select(still.nonzero().flatten(), within=False)
        ids, place = torch.cat([ids, word[:, None]], dim=1)[still], place[still]
    return Hypotheses(found, (total / length_penalty(length.to(total.dtype), alpha))[:, None])


def beam_search(
    stepper: Stepper,
    prefix: Tensor,
    limits: Tensor,
    *,
    num_beams: int,
    alpha: float = 0.0,
    eos_id: int | None = None,
    pad_id: int = 0,
    num_return: int = 1,
) -> Hypotheses:
    """The best texts that a beam of width ``num_beams`` finds.

    A candidate that ends counts where it is among the ``num_beams`` best of its step; at the limit
    a text counts as it stands. A search stops once no beam can come before the ``num_return`` best
    that ended: log probabilities only fall, so a beam's best score is its present one over the
    penalty of the limit. Nothing that a longer search would return is lost by that.

    Args:
        num_beams: K, texts kept at each step.
        alpha: of :func:`length_penalty`, from 0 up.
        num_return: texts to return, up to ``num_beams``.

    The other arguments are those of :func:`greedy_search`.
    """
    if len(prefix) == 0:
        return _none_of(prefix, num_return)
    beams = _Beams(prefix, limits, num_beams, alpha, eos_id, pad_id, num_return)
    rows = torch.arange(len(prefix), device=prefix.device).repeat_interleave(num_beams)
    stepper.select(rows, within=False)
    while True:
        rows, within = beams.step(_log_probs(stepper.logits(beams.ids.flatten(0, 1))))
        if len(rows) == 0:
            return Hypotheses(beams.found[:, :num_return], beams.scores[:, :num_return])
        stepper.select(rows, within=within)


class _Beams:
    """The beams of the texts still searched, and the best finished hypotheses of all texts.

    Axes: A texts still searched, K beams.
    """

    def __init__(
        self,
        prefix: Tensor,
        limits: Tensor,
        num_beams: int,
        alpha: float,
        eos_id: int | None,
        pad_id: int,
        num_return: int,
    ) -> None:
        batch, device = len(prefix), prefix.device
        self.num_beams, self.alpha, self.num_return = num_beams, alpha, num_return
        self.eos_id, self.pad_id, self.limits = eos_id, pad_id, limits
        self.length, self.longest = 0, int(limits.max())
        self.start = prefix.shape[1]
        self.place = torch.arange(batch, device=device)
        self.ids = prefix[:, None].expand(-1, num_beams, -1)  # (A, K, n)
        self.log_p = torch.full((batch, num_beams), float("-inf"), device=device)
        self.log_p[:, 0] = 0.0  # all beams are alike yet: one of them counts
        self.found = prefix.new_full((batch, num_beams, self.longest), pad_id)
        self.scores = torch.full((batch, num_beams), float("-inf"), device=device)

    def step(self, log_probs: Tensor) -> tuple[Tensor, bool]:
        """Grow by one token, of (A K, V) log probabilities: the rows that go on, none when done."""
        self.length += 1
        beams, vocab = self.num_beams, log_probs.shape[-1]
        self.log_p = self.log_p.to(log_probs.dtype)
        self.scores = self.scores.to(log_probs.dtype)
        total = self.log_p[:, :, None] + log_probs.unflatten(0, (-1, beams))
        # Of twice as many as there are beams at most half can end.
        best, index = total.flatten(1).topk(min(2 * beams, beams * vocab))
        beam, word = index // vocab, index % vocab
        grown = torch.cat([_rows(self.ids, beam), word[:, :, None]], dim=2)
        limits = self.limits[self.place]
        ends = (limits == self.length)[:, None].expand_as(word)
        ends = ends if self.eos_id is None else ends | (word == self.eos_id)
        self._keep(best, grown, ends)
        self.log_p, chosen = best.masked_fill(ends, float("-inf")).topk(beams)
        hope = self.log_p[:, 0] / length_penalty(limits.to(best.dtype), self.alpha)
        goes_on = hope > self.scores[self.place, self.num_return - 1]
        first = torch.arange(len(beam), device=beam.device)[:, None] * beams
        rows = (first + beam.gather(1, chosen))[goes_on].flatten()
        self.ids = _rows(grown, chosen)[goes_on]
        self.log_p, self.place = self.log_p[goes_on], self.place[goes_on]
        return rows, len(rows) == len(beam) * beams

    def _keep(self, log_p: Tensor, grown: Tensor, ends: Tensor) -> None:
        """Put those of the candidates (A, 2K) that end among the best of their text."""
        among_best = torch.arange(log_p.shape[1], device=log_p.device) < self.num_beams
        scores = log_p / length_penalty(self.length, self.alpha)
        scores = scores.masked_fill(~(ends & among_best), float("-inf"))
        words = F.pad(grown[:, :, self.start :], (0, self.longest - self.length), value=self.pad_id)
        both = torch.cat([self.scores[self.place], scores], dim=1)
        kept, chosen = both.topk(self.num_beams)
        words = _rows(torch.cat([self.found[self.place], words], dim=1), chosen)
        self.scores[self.place] = kept
        self.found[self.place] = words.masked_fill(kept[:, :, None].isneginf(), self.pad_id)


def _none_of(prefix: Tensor, num_return: int) -> Hypotheses:
    """What is found for no texts."""
    return Hypotheses(
        prefix.new_zeros(0, num_return, 0), torch.zeros(0, num_return, device=prefix.device)
    )


def _rows(ids: Tensor, index: Tensor) -> Tensor:
    """Rows ``index`` (A, J) of ids (A, I, n): (A, J, n)."""
    return ids.gather(1, index[:, :, None].expand(-1, -1, ids.shape[2]))


def _log_probs(logits: Tensor) -> Tensor:
    """At least in float32."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(dim=-1)
