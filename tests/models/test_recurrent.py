"""Recurrent models: the lab's LSTM, written out; the bottleneck and the attention beside it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.models.weights import randomized
from vitkit.models import RecurrentLanguageModel, RecurrentSeq2Seq, create_model

SMALL: dict[str, Any] = {"vocab_size": 11, "embed_dim": 6, "hidden_dim": 8}


def texts(length: int = 7, batch: int = 3, seed: int = 2) -> Tensor:
    return torch.randint(1, 11, (batch, length), generator=torch.Generator().manual_seed(seed))


def assert_close(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-12 * expected.abs().max()


def test_the_lab_model() -> None:
    """83 x 256 words, an LSTM with torch's two biases, 83 outputs; it starts knowing nothing."""
    torch.manual_seed(0)
    model = create_model("lstm_music")
    parts = [83 * 256, 4 * 1024 * (256 + 1024 + 2), 1024 * 83 + 83]
    assert sum(p.numel() for p in model.parameters()) == sum(parts) == 5_357_395
    ids = torch.randint(0, 83, (8, 101), generator=torch.Generator().manual_seed(0))
    loss = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
    assert loss.item() == pytest.approx(4.419, abs=0.02)  # ln 83; measured 4.41905


def test_the_language_model_is_torchs_layers() -> None:
    ours, ids = randomized(RecurrentLanguageModel(**SMALL, depth=2)), texts()
    theirs = nn.LSTM(6, 8, 2, batch_first=True).double()
    theirs.load_state_dict(ours.rnn.rnn.state_dict())
    hidden, _ = theirs(ours.words.weight[ids])
    expected = hidden @ ours.head.weight.T + ours.head.bias
    assert_close(ours(ids), expected)
    tied = randomized(RecurrentLanguageModel(11, 8, 8, cell="gru", tie_embeddings=True))
    hidden, _ = tied.rnn.rnn(tied.words(ids))
    assert_close(tied(ids), hidden @ tied.words.weight.T)
    assert "head.weight" not in tied.state_dict()


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_the_state_carries_a_language_model_on(cell: str) -> None:
    model, ids = randomized(RecurrentLanguageModel(**SMALL, cell=cell, depth=2)), texts(9)
    caches = model.new_caches()
    parts = [model(part, caches) for part in ids.split([2, 1, 6], dim=1)]
    assert_close(torch.cat(parts, dim=1), model(ids))


def written_out(model: RecurrentSeq2Seq, source: Tensor, target: Tensor) -> Tensor:
    """One text after the other, word by word, with torch's cells."""
    rnn = model.encoder.rnn
    outputs, state = rnn(model.words.weight[source])
    if rnn.bidirectional:
        state = tuple(torch.cat([part[0::2], part[1::2]], dim=-1) for part in state)
    logits = []
    for word in target[0]:
        out, state = model.decoder.rnn(model.words.weight[word][None, None], state)
        if model.cross_attn is not None:
            attn = model.cross_attn
            query = F.linear(out, attn.q.weight)
            keys, values = F.linear(outputs, attn.kv.weight).chunk(2, dim=-1)
            weights = (query @ keys.mT / query.shape[-1] ** 0.5).softmax(-1)
            out = torch.cat([out, F.linear(weights @ values, attn.proj.weight)], dim=-1)
        mixed = torch.tanh(F.linear(out, model.mix.weight, model.mix.bias))
        logits.append(mixed @ model.words.weight.T)
    return torch.cat(logits, dim=1)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("attention", [False, True])
def test_sequence_to_sequence_written_out(attention: bool, bidirectional: bool) -> None:
    model = randomized(
        RecurrentSeq2Seq(**SMALL, depth=2, attention=attention, bidirectional=bidirectional)
    )
    source, target = texts(6), texts(5, seed=3)
    source[1, 4:], source[2, 1:] = 0, 0
    found = model(source, target)
    for row, words in enumerate(source):
        expected = written_out(model, words[words != 0][None], target[row : row + 1])
        assert_close(found[row : row + 1], expected)
    by_length = model(source, target, (source != 0).sum(1))
    assert_close(by_length, found)


@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_caches_in_any_chunking_equal_the_full_pass(cell: str, attention: bool) -> None:
    model = randomized(RecurrentSeq2Seq(**SMALL, cell=cell, attention=attention))
    source, target = texts(6), texts(9, seed=3)
    source[1, 2:] = 0
    full, memory = model(source, target), model.encode(source)
    for chunks in ([9], [1] * 9, [4, 5]):
        caches = model.new_caches()
        with torch.no_grad():
            parts = [model.decode(part, memory, caches) for part in target.split(chunks, dim=1)]
            assert_close(model.forward_head(torch.cat(parts, dim=1)), full)


def test_without_attention_the_state_is_all_that_passes() -> None:
    """The bottleneck: an encoder's output changes nothing but through its last state."""
    for attention in (False, True):
        model = randomized(RecurrentSeq2Seq(**SMALL, attention=attention))
        memory, target = model.encode(texts(6)), texts(5, seed=3)
        before = model.decode(target, memory)
        memory.tokens[:, 2] += 1.0
        assert torch.equal(model.decode(target, memory), before) != attention


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: RecurrentLanguageModel(**SMALL, tie_embeddings=True), "6 and 8"),
        (lambda: RecurrentLanguageModel(**SMALL, cell="mgu"), "'mgu'"),
        (lambda: RecurrentSeq2Seq(hidden_dim=7, bidirectional=True), "hidden_dim 7"),
    ],
)
def test_constructor_errors(build: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build()
