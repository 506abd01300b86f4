"""Numbers about words: against torchmetrics, sacreBLEU, and sums by hand."""

from __future__ import annotations

import builtins
import math
from typing import Any
from unittest.mock import Mock

import pytest
import sacrebleu
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.text import Perplexity

from vitkit.errors import ConfigError, EvaluationError
from vitkit.evaluation import text as text_module
from vitkit.evaluation.text import TokenSums, corpus_bleu, require_bleu

SENTENCES = [
    "Ein Mann sitzt auf einer Bank .",
    "Zwei Hunde spielen im Schnee, und ein Kind sieht zu.",
    'Eine Frau in Rot liest "Die Zeit".',
]
OTHERS = [
    "Ein Mann sitzt auf der Bank.",
    "Zwei Hunde spielen im Schnee und das Kind schaut zu.",
    "Eine Frau in rot liest eine Zeitung.",
]


def batches(sizes: tuple[int, ...], seed: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Logits (B, 5, 11) and targets, some of them none, cut into batches of the sizes."""
    draw = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(sum(sizes), 5, 11, generator=draw)
    targets = torch.randint(11, (sum(sizes), 5), generator=draw)
    targets[torch.rand(targets.shape, generator=draw) < 0.3] = -100
    targets[0, 0] = 4
    return list(zip(logits.split(list(sizes)), targets.split(list(sizes)), strict=True))


def summed(sizes: tuple[int, ...]) -> TokenSums:
    sums = TokenSums()
    for logits, targets in batches(sizes):
        sums.update(logits, targets)
    return sums


def test_perplexity_is_torchmetrics() -> None:
    theirs = Perplexity(ignore_index=-100)
    for logits, targets in batches((3, 1, 4)):
        theirs.update(logits, targets)
    metrics = summed((3, 1, 4)).metrics()
    # Theirs is summed in float32. Seen: 2e-7.
    assert metrics["ppl"] == pytest.approx(float(theirs.compute()), rel=1e-5)
    assert metrics["loss"] == pytest.approx(math.log(metrics["ppl"]), rel=1e-12)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5))
def test_sums_do_not_know_how_they_were_cut(sizes: list[int]) -> None:
    total = sum(sizes)
    cut, whole = summed(tuple(sizes)), summed((total,))
    assert cut.count == whole.count == sum(int((t >= 0).sum()) for _, t in batches((total,)))
    assert cut.metrics()["loss"] == pytest.approx(whole.metrics()["loss"], rel=1e-12)


def test_bits_a_character_of_a_uniform_guess() -> None:
    sums = TokenSums()
    sums.update(torch.zeros(2, 3, 8), torch.randint(8, (2, 3)))
    metrics = sums.metrics(characters_per_token=1.5)
    assert metrics["loss"] == pytest.approx(math.log(8))
    assert metrics["ppl"] == pytest.approx(8)
    assert metrics["bits_per_char"] == pytest.approx(3 / 1.5)


def test_added_sums_count_as_updates_do() -> None:
    sums = TokenSums()
    sums.add(torch.tensor(6.0), torch.tensor(4))
    sums.add(torch.tensor(1.0), torch.tensor(3))
    assert sums.count == 7
    assert sums.metrics()["loss"] == 1.0
    with pytest.raises(EvaluationError, match="no token"):
        TokenSums().metrics()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_few_logits_are_taken_at_a_time(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(3, 5, 11).to(dtype), torch.randint(11, (3, 5))
    targets[1, 2:] = -100
    whole, parts = TokenSums(), TokenSums()
    whole.update(logits, targets)
    sizes: list[int] = []
    plain = F.cross_entropy

    def noted(some: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        sizes.append(some.numel())
        return plain(some, *args, **kwargs)

    monkeypatch.setattr(F, "cross_entropy", noted)
    for chunk, rows in ((50, [4, 4, 4, 3]), (5, [1] * 15), (2**24, [15])):
        monkeypatch.setattr(text_module, "CHUNK", chunk)
        sizes.clear()
        parts = TokenSums()
        parts.update(logits, targets)
        assert sizes == [11 * count for count in rows]
        assert parts.count == whole.count == 12
        assert parts.metrics()["loss"] == pytest.approx(whole.metrics()["loss"], rel=1e-12)


def test_bleu_of_a_language_without_spaces_is_of_its_own_words() -> None:
    ours, theirs = ["我喜欢猫。", "他在家里看书。"], ["我喜欢狗。", "他在家里看书。"]
    want = sacrebleu.corpus_bleu(ours, [theirs], tokenize="zh")
    for language in ("zh", "zh-CN", "zh_TW", "ZH"):
        found = corpus_bleu(ours, theirs, language)
        assert found.score == want.score and "tok:zh" in found.signature
    assert corpus_bleu(ours, theirs).score < 0.9 * want.score  # each sentence is one word to 13a
    for language in ("", "de", "en", "fr", "zz", "zho"):
        signature = corpus_bleu(OTHERS, SENTENCES, language).signature
        assert signature == corpus_bleu(OTHERS, SENTENCES).signature
        assert signature.startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")


@pytest.mark.parametrize("language", ["ja", "ko"])
def test_words_that_cannot_be_told_apart_are_one_line(
    monkeypatch: pytest.MonkeyPatch, language: str
) -> None:
    monkeypatch.setattr("sacrebleu.metrics.BLEU", Mock(side_effect=RuntimeError("no MeCab")))
    with pytest.raises(ConfigError, match=rf"data\.target: .*'sacrebleu\[{language}\]'") as caught:
        require_bleu(language)
    assert "\n" not in str(caught.value)


def test_bleu_is_sacrebleus() -> None:
    ours = corpus_bleu(OTHERS, SENTENCES)
    theirs = sacrebleu.corpus_bleu(OTHERS, [SENTENCES])
    assert ours.score == theirs.score
    assert 20 < ours.score < 90
    for part in ("case:mixed", "tok:13a", "smooth:exp", "nrefs:1"):
        assert part in ours.signature
    assert corpus_bleu(SENTENCES, SENTENCES).score == pytest.approx(100)
    lowered = [text.lower() for text in SENTENCES]
    assert corpus_bleu(lowered, SENTENCES).score < 90  # cases count


def test_bleu_of_one_sentence_by_hand() -> None:
    """Five words for six, n-grams right: 4 of 5, 2 of 4, 1 of 3, 0 of 2; the none counts half."""
    score = corpus_bleu(["a b c d x"], ["a b c e d f"]).score
    precisions = (4 / 5, 2 / 4, 1 / 3, 0.5 / 2)
    want = 100 * math.exp(1 - 6 / 5) * math.prod(precisions) ** 0.25
    assert score == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize(("hypotheses", "references"), [([], []), (["a"], ["a", "b"])])
def test_bleu_of_nothing_or_of_other_numbers(hypotheses: list[str], references: list[str]) -> None:
    with pytest.raises(EvaluationError, match="one reference for each translation"):
        corpus_bleu(hypotheses, references)


def test_without_sacrebleu_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "sacrebleu":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(EvaluationError, match=r"pip install 'vitkit\[text\]'"):
        corpus_bleu(["a"], ["a"])
