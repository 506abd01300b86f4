"""Search: against all texts there are, against transformers' generate, cached against uncached."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GenerationConfig

from tests.models.test_seq2seq import SMALL, marian_like, randomized
from vitkit.models import (
    CausalLanguageModel,
    EncoderDecoder,
    RecurrentLanguageModel,
    RecurrentSeq2Seq,
    beams,
    continuations,
    generate,
    translate,
)
from vitkit.models.beams import length_penalty

PAD, BOS, EOS = 0, 1, 2
IDS: dict[str, Any] = {"bos_id": BOS, "eos_id": EOS, "pad_id": PAD}
TINY: dict[str, Any] = {"embed_dim": 12, "depth": 1}


def transformer(vocab: int = 4, **kwargs: Any) -> EncoderDecoder:
    return randomized(EncoderDecoder(vocab, 16, num_heads=2, mlp_ratio=2.0, **{**TINY, **kwargs}))


def lstm(vocab: int = 4, **kwargs: Any) -> RecurrentSeq2Seq:
    return randomized(RecurrentSeq2Seq(vocab, hidden_dim=12, bidirectional=True, **TINY, **kwargs))


TRANSLATORS = {
    "transformer": transformer,
    "rotary": lambda vocab=4: transformer(vocab, pos_embed="rotary"),
    "relative": lambda vocab=4: transformer(vocab, pos_embed="relative", norm_first=True),
    "lstm": lambda vocab=4: lstm(vocab, attention=False),
    "lstm_attention": lstm,
    "gru": lambda vocab=4: lstm(vocab, cell="gru", tie_embeddings=False),
}
LANGUAGE_MODELS = {
    "transformer": lambda: randomized(CausalLanguageModel(5, 16, num_heads=2, **TINY)),
    "window": lambda: randomized(
        CausalLanguageModel(5, 16, num_heads=2, window=3, pos_embed="alibi", **TINY)
    ),
    "lstm": lambda: randomized(RecurrentLanguageModel(5, 12, 14, 2)),
    "rnn": lambda: randomized(RecurrentLanguageModel(5, 12, 12, cell="rnn", tie_embeddings=True)),
}


def lively(seed: int = 11) -> EncoderDecoder:
    """Weights that keep the variance, plain norms: texts end at once, late, or never."""
    torch.manual_seed(seed)
    model = EncoderDecoder(**SMALL).double().eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim > 1:
                p.copy_(torch.randn_like(p) * p.shape[-1] ** -0.5)
    return model


def up_to_the_end(ids: Tensor) -> Tensor:
    """With padding behind the end's word, where transformers puts that word again."""
    behind = (ids == EOS).cumsum(-1) - (ids == EOS).long() > 0
    return ids.masked_fill(behind, PAD)


def sources(vocab: int, length: int = 5, batch: int = 3) -> Tensor:
    draw = torch.Generator().manual_seed(4)
    return torch.randint(3, max(vocab, 4), (batch, length), generator=draw)


def all_texts(vocab: int, limit: int, eos: int | None) -> list[list[int]]:
    """Every text that ends, within ``limit`` words, and every one that the limit ends."""
    words = [word for word in range(vocab) if word != eos]
    found = [list(text) for text in product(range(vocab), repeat=limit) if eos not in text[:-1]]
    if eos is not None:
        for length in range(limit - 1):
            found += [[*text, eos] for text in product(words, repeat=length)]
    return found


def exhaustive(
    model: Any, source: Tensor, limit: int, alpha: float, count: int
) -> tuple[list[list[int]], list[float]]:
    """The best texts of all, scored one by one without any cache."""
    scored = []
    with torch.no_grad():
        for text in all_texts(model.vocab_size, limit, EOS):
            target = torch.tensor([[BOS, *text]])
            log_p = model(source[None], target)[0, :-1].log_softmax(-1)
            total = log_p.gather(1, target[0, 1:, None]).sum().item()
            scored.append((total / ((5 + len(text)) / 6) ** alpha, text))
    scored.sort(reverse=True)
    best = scored[:count]
    return [[*text, *[PAD] * (limit - len(text))] for _, text in best], [s for s, _ in best]


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
@pytest.mark.parametrize("name", ["transformer", "lstm", "lstm_attention"])
def test_a_wide_beam_finds_the_best_of_all(name: str, alpha: float) -> None:
    model, source = TRANSLATORS[name](), sources(4, length=2, batch=2)
    source[1] = torch.tensor([2, 3])
    options: dict[str, Any] = {"length_penalty": alpha, "max_extra": 2, **IDS}
    found = translate(model, source, num_beams=120, num_return=8, **options)
    one = translate(model, source, num_beams=120, **options)
    for row in range(2):
        texts, scores = exhaustive(model, source[row], 4, alpha, 8)
        assert found.ids[row].tolist() == texts
        assert found.scores[row].tolist() == pytest.approx(scores, rel=1e-9)
        # Stopping as soon as the first is certain loses nothing.
        assert one.ids[row, 0].tolist() == texts[0]


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_a_wide_beam_continues_a_text_best(name: str) -> None:
    model = LANGUAGE_MODELS[name]()
    begin = torch.tensor([[3, 1, 4, 3], [2, 2, 0, 1]])
    found = continuations(model, begin, 3, num_beams=200, num_return=5)
    for row in range(2):
        scored = []
        for text in all_texts(5, 3, None):
            ids = torch.tensor([[*begin[row].tolist(), *text]])
            log_p = model(ids)[0, 3:-1].log_softmax(-1)
            scored.append((log_p.gather(1, ids[0, 4:, None]).sum().item(), text))
        scored.sort(reverse=True)
        assert found.ids[row].tolist() == [text for _, text in scored[:5]]
        assert found.scores[row].tolist() == pytest.approx([s for s, _ in scored[:5]], rel=1e-9)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("num_beams", [2, 4])
def test_equals_transformers_beam_search(
    num_beams: int, alpha: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its penalty is a plain power of the length, so ours becomes that for the comparison."""
    monkeypatch.setattr(beams, "length_penalty", lambda length, alpha: length**alpha)
    ours = lively()
    theirs = marian_like(ours)
    source = sources(13, length=4, batch=6)
    theirs.generation_config = GenerationConfig(
        num_beams=num_beams,
        num_return_sequences=num_beams,
        length_penalty=alpha,
        early_stopping="never",
        max_new_tokens=8,
        do_sample=False,
        decoder_start_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
        output_scores=True,
        return_dict_in_generate=True,
    )
    want = theirs.generate(source, attention_mask=torch.ones_like(source))
    texts = up_to_the_end(want.sequences[:, 1:].unflatten(0, (6, num_beams)))
    found = translate(
        ours,
        source,
        num_beams=num_beams,
        num_return=num_beams,
        length_penalty=alpha,
        max_extra=4,
        **IDS,
    )
    width = texts.shape[2]
    assert torch.equal(found.ids[:, :, :width], texts)
    assert not found.ids[:, :, width:].any()
    scores = want.sequences_scores.view(6, num_beams)
    # Theirs are sums in float32; the largest difference measured is 4.8e-7.
    torch.testing.assert_close(found.scores.float(), scores, rtol=1e-5, atol=1e-5)
    first = translate(ours, source, num_beams=num_beams, length_penalty=alpha, max_extra=4, **IDS)
    assert torch.equal(first.ids[:, 0], found.ids[:, 0])
    ends = (found.ids == EOS).any(-1)
    assert 0 < ends.sum() < ends.numel()  # texts that end, and texts that the limit cuts


def test_greedy_equals_transformers() -> None:
    ours = lively()
    theirs, source = marian_like(ours), sources(13, length=4, batch=8)
    want = theirs.generate(
        source,
        attention_mask=torch.ones_like(source),
        generation_config=GenerationConfig(
            max_new_tokens=8,
            do_sample=False,
            decoder_start_token_id=BOS,
            eos_token_id=EOS,
            pad_token_id=PAD,
        ),
    )[:, 1:]
    found = translate(ours, source, num_beams=1, max_extra=4, **IDS)
    assert torch.equal(found.ids[:, 0, : want.shape[1]], up_to_the_end(want))
    assert 0 < (found.ids == EOS).sum() < 8
    assert not found.ids[:, 0, want.shape[1] :].any()


@pytest.mark.parametrize("num_beams", [1, 4])
@pytest.mark.parametrize("name", TRANSLATORS)
def test_cached_equals_uncached_in_a_batch_and_alone(name: str, num_beams: int) -> None:
    model, source = TRANSLATORS[name](vocab=9), sources(9, length=6, batch=5)
    source[1, 4:], source[3, 1:] = PAD, PAD
    options: dict[str, Any] = {"num_beams": num_beams, "num_return": num_beams, "max_extra": 5}
    cached = translate(model, source, **options, **IDS)
    plain = translate(model, source, use_cache=False, **options, **IDS)
    assert torch.equal(cached.ids, plain.ids)
    torch.testing.assert_close(cached.scores, plain.scores, rtol=1e-9, atol=1e-9)
    for row, one in enumerate(source):
        alone = translate(model, one[one != PAD][None], **options, **IDS)
        width = alone.ids.shape[2]
        assert torch.equal(cached.ids[row, :, :width], alone.ids[0])
        assert not cached.ids[row, :, width:].any()
        torch.testing.assert_close(cached.scores[row], alone.scores[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_continuations_cached_and_greedy(name: str) -> None:
    model = LANGUAGE_MODELS[name]()
    begin = torch.tensor([[3, 1, 4, 3], [2, 2, 0, 1]])
    for more in ({"num_beams": 3, "num_return": 3}, {"num_beams": 3, "eos_id": 4}):
        cached = continuations(model, begin, 9, **more)
        plain = continuations(model, begin, 9, use_cache=False, **more)
        assert torch.equal(cached.ids, plain.ids)
    greedy = continuations(model, begin, 9, num_beams=1)
    want = generate(model, begin, 9, temperature=0.0)[:, 4:]
    assert torch.equal(greedy.ids[:, 0], want)
    assert greedy.scores.shape == (2, 1)


def test_what_follows_the_end_is_padding_and_scores_are_the_models() -> None:
    model, source = transformer(vocab=9), sources(9, length=6, batch=5)
    found = translate(model, source, num_return=4, max_extra=5, **IDS)
    assert (found.scores.diff(dim=1) <= 0).all()
    for row, one in enumerate(source):
        for ids, score in zip(found.ids[row], found.scores[row], strict=True):
            text = ids.tolist()
            length = text.index(EOS) + 1 if EOS in text else len(text)
            assert not any(text[length:])
            target = torch.tensor([[BOS, *text[:length]]])
            log_p = model(one[None], target)[0, :-1].log_softmax(-1)
            total = log_p.gather(1, target[0, 1:, None]).sum()
            want = total / length_penalty(length, 0.6)
            assert score.item() == pytest.approx(want.item(), rel=1e-9)


def test_each_source_has_its_own_limit() -> None:
    model, source = transformer(vocab=9), sources(9, length=6, batch=3)
    source[1, 2:] = PAD
    found = translate(model, source, max_extra=3, bos_id=BOS, eos_id=10**6)
    assert found.ids.shape[2] == 9
    assert found.ids[1, 0, 5:].eq(PAD).all()
    long = translate(model, source, max_extra=100, num_beams=1, bos_id=BOS, eos_id=10**6)
    assert long.ids.shape[2] == 16  # the model's own


@pytest.mark.parametrize("num_beams", [1, 4])
@pytest.mark.parametrize("name", TRANSLATORS)
def test_no_sources_have_no_targets(name: str, num_beams: int) -> None:
    model, none = TRANSLATORS[name](vocab=9), sources(9)[:0]
    found = translate(model, none, num_beams=num_beams, num_return=num_beams, **IDS)
    assert found.ids.shape == (0, num_beams, 0) and found.ids.dtype == torch.int64
    assert found.scores.shape == (0, num_beams)
    with pytest.raises(ValueError, match="num_beams 0"):
        translate(model, none, num_beams=0, **IDS)


@pytest.mark.parametrize("num_beams", [1, 4])
@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_no_beginnings_have_no_continuations(name: str, num_beams: int) -> None:
    begin = torch.zeros(0, 4, dtype=torch.long)
    found = continuations(LANGUAGE_MODELS[name](), begin, 3, num_beams=num_beams)
    assert found.ids.shape == (0, 1, 0) and found.scores.shape == (0, 1)


def test_the_published_penalty() -> None:
    table = {1: 1.0, 10: 1.7329, 25: 2.6265, 50: 3.7786}
    for length, value in table.items():
        assert length_penalty(length, 0.6) == pytest.approx(value, abs=5e-5)
    assert length_penalty(17, 0.0) == 1.0


def test_dropout_is_off_and_the_mode_is_given_back() -> None:
    model = transformer(9, proj_drop_rate=0.5, pos_drop_rate=0.5).train()
    source = sources(9)
    one, two = (translate(model, source, **IDS) for _ in range(2))
    assert torch.equal(one.scores, two.scores) and model.training
    assert not one.scores.requires_grad


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_beams": 0}, "num_beams 0"),
        ({"num_return": 5}, "num_return 5.*4"),
        ({"length_penalty": -1.0}, "length_penalty"),
        ({"max_extra": 0}, "max_extra"),
        ({"source": torch.zeros(2, 0, dtype=torch.long)}, "at least 1"),
        ({"source": torch.ones(2, 17, dtype=torch.long)}, "17 tokens .* at most 16"),
    ],
    ids=str,
)
def test_options_out_of_range(options: dict[str, Any], words: str) -> None:
    call = {"source": sources(9), **IDS, **options}
    with pytest.raises(ValueError, match=words):
        translate(transformer(9), **call)
    with pytest.raises(ValueError, match="max_new_tokens 0"):
        continuations(LANGUAGE_MODELS["lstm"](), torch.ones(1, 1, dtype=torch.long), 0)
