"""Generation: the cache changes nothing, and the draws come from where they should."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import TopKLogitsWarper, TopPLogitsWarper

from vitkit.models import CausalLanguageModel, RecurrentLanguageModel, generate, stream
from vitkit.models.decoding import continuations, filter_logits
from vitkit.nn import Mlp

LM: dict[str, Any] = {"vocab_size": 17, "max_len": 24, "embed_dim": 24, "depth": 2, "num_heads": 3}


def language_model(**kwargs: Any) -> CausalLanguageModel:
    torch.manual_seed(0)
    model = CausalLanguageModel(**LM, **kwargs)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return model


def beginnings(length: int = 4, batch: int = 3) -> Tensor:
    return torch.randint(0, 17, (batch, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("pos_embed", ["learn", "rotary", "alibi", "relative"])
@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.0},
        {"seed": 3},
        {"seed": 3, "temperature": 3.0, "top_k": 5},
        {"seed": 3, "temperature": 3.0, "top_p": 0.8},
        {"seed": 3, "top_k": 6, "top_p": 0.7},
    ],
    ids=str,
)
def test_cached_equals_uncached(options: dict[str, Any], pos_embed: str) -> None:
    model, ids = language_model(pos_embed=pos_embed, num_kv_heads=1).double(), beginnings()
    cached = generate(model, ids, 20, **options)
    assert torch.equal(cached, generate(model, ids, 20, use_cache=False, **options))
    assert cached.shape == (3, 24) and torch.equal(cached[:, :4], ids)


@pytest.mark.parametrize("pos_embed", ["learn", "rotary", "alibi", "relative"])
def test_the_last_word_made_is_not_read(pos_embed: str) -> None:
    """So the positions may all be taken by the words before it."""
    model, ids = language_model(pos_embed=pos_embed).double().eval(), beginnings(24)
    with torch.no_grad():
        logits = model(ids)
    for use_cache in (True, False):
        grown = generate(model, ids, 1, temperature=0.0, use_cache=use_cache)
        assert torch.equal(grown[:, -1], logits[:, -1].argmax(-1))
        found = continuations(model, ids, 1, num_beams=3, use_cache=use_cache)
        assert torch.equal(found.ids[:, 0, 0], grown[:, -1])
    cached = generate(model, ids[:, :4], 21, seed=3)
    assert torch.equal(cached, generate(model, ids[:, :4], 21, seed=3, use_cache=False))
    whole = continuations(model, ids[:, :4], 21, num_beams=3)
    assert whole.ids.shape == (3, 1, 21)
    for refused in (
        lambda: generate(model, ids, 2),
        lambda: continuations(model, ids, 2),
        lambda: generate(model, torch.cat([ids, ids[:, :1]], dim=1), 0),
    ):
        with pytest.raises(ValueError, match=r"25 tokens .* at most 24"):
            refused()


@pytest.mark.parametrize("window", [1, 3, 30])
def test_a_window_cached_equals_uncached(window: int) -> None:
    model, ids = language_model(window=window).double(), beginnings()
    cached = generate(model, ids, 20, seed=3, temperature=2.0)
    assert torch.equal(cached, generate(model, ids, 20, seed=3, temperature=2.0, use_cache=False))
    whole = generate(language_model().double(), ids, 20, seed=3, temperature=2.0)
    assert torch.equal(cached, whole) == (window == 30)


def test_a_window_sees_no_further_than_its_layers() -> None:
    model, ids = language_model(window=3).double().eval(), beginnings(20)
    changed = ids.clone()
    changed[:, 5] = (changed[:, 5] + 1) % 17
    alike = torch.isclose(model(ids), model(changed)).all(-1)
    # Two layers, two words back each.
    assert alike[:, :5].all() and alike[:, 10:].all() and not alike[:, 5:10].any()


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_a_recurrent_model_cached_equals_uncached(cell: str) -> None:
    torch.manual_seed(0)
    model, ids = RecurrentLanguageModel(17, 8, 12, 2, cell=cell).double(), beginnings()
    for options in ({"temperature": 0.0}, {"seed": 3}):
        cached = generate(model, ids, 40, **options)
        assert torch.equal(cached, generate(model, ids, 40, use_cache=False, **options))
        assert cached.shape == (3, 44)


def test_a_stream_gives_each_word_at_once() -> None:
    model, ids = language_model().train(), beginnings()
    words = stream(model, ids, 9, seed=1)
    assert model.training
    first = next(words)
    assert first.shape == (3, 1) and torch.is_grad_enabled()
    rest = torch.cat(list(words), dim=1)
    assert torch.equal(torch.cat([ids, first, rest], dim=1), generate(model, ids, 9, seed=1))
    assert model.training
    with pytest.raises(ValueError, match="top_k"):  # by the call, before any word
        stream(model, ids, 9, top_k=0)


def test_streams_that_overlap_write_what_each_writes_alone() -> None:
    """The one that ends first leaves the model as the other needs it."""
    model = language_model(proj_drop_rate=0.5, attn_drop_rate=0.5).train()
    one, two = beginnings(), beginnings(6)

    def first() -> Iterator[Tensor]:
        return stream(model, one, 5, temperature=0.0)

    def second() -> Iterator[Tensor]:
        return stream(model, two, 10, temperature=0.0)

    words = second()
    pairs = list(zip(first(), words, strict=False))
    rest = list(words)
    assert len(pairs) == len(rest) == 5
    assert torch.equal(torch.cat([a for a, _ in pairs]), torch.cat(list(first())))
    assert torch.equal(torch.cat([*(b for _, b in pairs), *rest]), torch.cat(list(second())))
    assert all(part.training for part in model.modules())


def test_texts_of_a_batch_do_not_mix() -> None:
    model, ids = language_model().double(), beginnings()
    single = [generate(model, one[None], 12, temperature=0.0) for one in ids]
    assert torch.equal(generate(model, ids, 12, temperature=0.0), torch.cat(single))


def test_seeds_and_generators() -> None:
    model, ids = language_model(), beginnings()
    hot = {"temperature": 5.0}
    assert torch.equal(
        generate(model, ids, 9, seed=1, **hot), generate(model, ids, 9, seed=1, **hot)
    )
    assert not torch.equal(
        generate(model, ids, 9, seed=1, **hot), generate(model, ids, 9, seed=2, **hot)
    )
    generator = torch.Generator().manual_seed(1)
    first = generate(model, ids, 9, generator=generator, **hot)
    assert torch.equal(first, generate(model, ids, 9, seed=1, **hot))
    assert not torch.equal(first, generate(model, ids, 9, generator=generator, **hot))
    state = torch.get_rng_state()
    generate(model, ids, 3, seed=1)
    assert torch.equal(state, torch.get_rng_state())


def test_dropout_is_off_and_the_mode_is_given_back() -> None:
    model, ids = language_model(proj_drop_rate=0.5, attn_drop_rate=0.5).train(), beginnings()
    assert torch.equal(
        generate(model, ids, 9, temperature=0.0), generate(model, ids, 9, temperature=0.0)
    )
    assert model.training
    frozen = model.get_submodule("blocks.0")
    frozen.eval()
    generate(model, ids, 1)
    assert model.training and not any(part.training for part in frozen.modules())
    model.eval()
    assert not generate(model, ids, 1).requires_grad and not model.training


def test_words_are_drawn_as_often_as_the_model_says() -> None:
    model = language_model().eval()
    one = beginnings(batch=1)
    drawn = generate(model, one.expand(20_000, -1), 1, temperature=2.0, seed=0)[:, -1]
    share = torch.bincount(drawn, minlength=17) / 20_000
    expected = (model(one)[0, -1] / 2.0).softmax(0)
    assert expected.max() < 0.9  # the test would see little otherwise
    assert (share - expected).abs().max() < 0.015


def test_narrow_choices_are_greedy() -> None:
    model, ids = language_model(), beginnings()
    greedy = generate(model, ids, 9, temperature=0.0)
    assert torch.equal(generate(model, ids, 9, top_k=1), greedy)
    assert torch.equal(generate(model, ids, 9, top_p=1e-9), greedy)
    assert torch.equal(generate(model, ids, 0), ids)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    k=st.integers(1, 25),
    p=st.floats(0.01, 1.0),
    sharp=st.floats(0.1, 5),
)
def test_supports_equal_transformers(seed: int, k: int, p: float, sharp: float) -> None:
    draw = torch.Generator().manual_seed(seed)
    logits = sharp * torch.randn(4, 20, generator=draw, dtype=torch.float64)
    none = torch.zeros(4, 1, dtype=torch.long)
    for ours, theirs in (
        (filter_logits(logits, top_k=k), TopKLogitsWarper(k)(none, logits)),
        (filter_logits(logits, top_p=p), TopPLogitsWarper(p)(none, logits)),
        (
            filter_logits(logits, top_k=k, top_p=p),
            TopPLogitsWarper(p)(none, TopKLogitsWarper(k)(none, logits)),
        ),
    ):
        assert torch.equal(ours, theirs)
    assert torch.equal(filter_logits(logits), logits)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_new_tokens": 22}, "25 tokens .* at most 24"),
        ({"max_new_tokens": -1}, "max_new_tokens"),
        ({"temperature": -0.1}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.5}, "top_p"),
        ({"seed": 1, "generator": torch.Generator()}, "not both"),
        ({"ids": torch.zeros(2, 0, dtype=torch.long)}, "at least 1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else None,
)
def test_options_out_of_range(options: dict[str, Any], words: str) -> None:
    call = {"ids": beginnings(), "max_new_tokens": 3, **options}
    with pytest.raises(ValueError, match=words):
        generate(language_model(), **call)


@pytest.mark.parametrize("seed", range(20))
def test_draws_are_those_of_torchs_multinomial(seed: int) -> None:
    model, ids = language_model().eval(), beginnings()
    with torch.no_grad():
        logits = model(ids)[:, -1]
    chances = filter_logits(logits / 2.0, top_k=10).softmax(-1)
    expected = torch.multinomial(chances, 1, generator=torch.Generator().manual_seed(seed))
    drawn = generate(model, ids, 1, temperature=2.0, top_k=10, seed=seed)[:, -1:]
    assert torch.equal(drawn, expected)


def test_words_are_tensors_like_any_other_and_the_model_stays() -> None:
    model = language_model()
    words = list(stream(model, beginnings(), 3))
    assert len(words) == 3 and not any(word.is_inference() for word in words)
    assert isinstance(model.blocks[0].mlp, Mlp) and "mlp" not in vars(model.blocks[0])
