"""Numbers about models of words: loss, perplexity, bits a character, BLEU."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vitkit.errors import EvaluationError
from vitkit.evaluation.sums import Sums

__all__ = ["Bleu", "TokenSums", "corpus_bleu", "require_bleu"]


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
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        loss = F.cross_entropy(logits, targets.flatten(), reduction="none")
        # Summed in float64: there may be a million terms.
        self.add(loss.to(self.sums.dtype).sum(), (targets >= 0).sum())

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


def corpus_bleu(hypotheses: Sequence[str], references: Sequence[str]) -> Bleu:
    """BLEU of translations, cased, of tokens after the rules of WMT (13a), by sacreBLEU.

    Args:
        hypotheses: translations, whole sentences as people write them.
        references: one right translation of each.

    Raises:
        EvaluationError: other numbers of both, none, or sacreBLEU is not installed.

    Source: Post, "A call for clarity in reporting BLEU scores", arXiv 1804.08771.
    """
    if len(hypotheses) != len(references) or not hypotheses:
        raise EvaluationError(
            f"BLEU needs one reference for each translation, given {len(hypotheses)} translations "
            f"and {len(references)} references"
        )
    metric: Any = require_bleu().metrics.BLEU()
    score = metric.corpus_score(list(hypotheses), [list(references)]).score
    return Bleu(float(score), str(metric.get_signature()))


def require_bleu() -> Any:
    """sacreBLEU, which is an extra.

    Raises:
        EvaluationError: it is not installed.
    """
    try:
        import sacrebleu  # an extra
    except ImportError:
        raise EvaluationError(
            "BLEU needs sacreBLEU; pip install 'vitkit[text]', or leave the test files out with "
            "data.test=null"
        ) from None
    return sacrebleu
