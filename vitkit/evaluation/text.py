"""Numbers about models of words: loss, perplexity, bits a character, BLEU."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vitkit.errors import ConfigError, EvaluationError
from vitkit.evaluation.sums import Sums

__all__ = ["Bleu", "TokenSums", "corpus_bleu", "require_bleu"]


CHUNK = 2**24
"""Logits whose loss is computed at a time, 64 MB: beside them torch makes a copy as large."""


class TokenSums(Sums):
    """Tokens seen, and their loss in nats.

    Args:
        device: where the batches live.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        super().__init__(2, device)

    def update(self, logits: Tensor, targets: Tensor) -> None:
        """Add a batch.

        Args:
            logits: (..., vocab_size).
            targets: int64 (...), -100 where there is none.
        """
        logits = logits.detach().flatten(0, -2)
        rows = max(1, CHUNK // logits.shape[1])
        for some, right in zip(logits.split(rows), targets.flatten().split(rows), strict=True):
            own = some.to(torch.promote_types(some.dtype, torch.float32))
            loss = F.cross_entropy(own, right, reduction="none")
            # Summed in float64: there may be a million terms.
            self.add(loss.to(self.sums.dtype).sum(), (right >= 0).sum())

    def add(self, loss: Tensor, count: Tensor) -> None:
        """Add a loss that is a sum over ``count`` tokens, in nats."""
        self.sums += torch.stack([count.to(self.sums), loss.detach().to(self.sums)])

    def metrics(self, characters_per_token: float = 1.0) -> dict[str, float]:
        """``loss`` (nats a token), ``ppl`` (its exponential) and ``bits_per_char``.

        Args:
            characters_per_token: of what was seen; the last does not depend on the tokeniser then.

        Raises:
            EvaluationError: no token was seen.
        """
        count, total = self.sums.tolist()
        if count == 0:
            raise EvaluationError("no token was evaluated; the split is empty")
        loss = total / count
        return {
            "loss": loss,
            "ppl": math.exp(loss) if loss < 700 else math.inf,
            "bits_per_char": loss / math.log(2) / characters_per_token,
        }


@dataclass(frozen=True)
class Bleu:
    """A score that others can compare theirs with.

    Attributes:
        score: from 0 to 100.
        signature: how sacreBLEU names the tokens and settings that it was made with.
    """

    score: float
    signature: str


def corpus_bleu(hypotheses: Sequence[str], references: Sequence[str], language: str = "") -> Bleu:
    """BLEU of translations, cased, by sacreBLEU: of tokens after the rules of WMT (13a), or of its
    own for Chinese, Japanese and Korean, where no spaces part the words.

    Args:
        hypotheses: translations, whole sentences as people write them.
        references: one right translation of each.
        language: of both, as ``de``, ``zh`` or ``zh-CN``.

    Raises:
        ConfigError: see :func:`require_bleu`.
        EvaluationError: other numbers of both, none, or sacreBLEU is not installed.

    Source: Post, "A call for clarity in reporting BLEU scores", arXiv 1804.08771.
    """
    if len(hypotheses) != len(references) or not hypotheses:
        raise EvaluationError(
            f"BLEU needs one reference for each translation, given {len(hypotheses)} translations "
            f"and {len(references)} references"
        )
    metric = require_bleu(language)
    score = metric.corpus_score(list(hypotheses), [list(references)]).score
    return Bleu(float(score), str(metric.get_signature()))


def require_bleu(language: str = "") -> Any:
    """The metric of sacreBLEU, which is an extra, for a language.

    Args:
        language: as of :func:`corpus_bleu`.

    Raises:
        ConfigError: what cuts this language into words is not installed.
        EvaluationError: sacreBLEU is not installed.
    """
    try:
        import sacrebleu  # an extra
    except ImportError:
        raise EvaluationError(
            "BLEU needs sacreBLEU; pip install 'vitkit[text]', or leave the test files out with "
            "data.test=null"
        ) from None
    code = language.replace("_", "-").partition("-")[0].lower()
    library: Any = sacrebleu
    try:
        return library.metrics.BLEU(trg_lang=code)
    except RuntimeError:
        raise ConfigError(
            f"data.target: given {language}, whose words sacreBLEU cannot tell apart without an "
            f"extra; pip install 'sacrebleu[{code}]', or leave the test files out with "
            "data.test=null"
        ) from None
