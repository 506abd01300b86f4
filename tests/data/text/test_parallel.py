"""Pairs of sentences: read line by line, batched by length, in an order that knows its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vitkit.data.text.corpus import IGNORED
from vitkit.data.text.parallel import (
    PairBatch,
    PairEvalLoader,
    PairTrainLoader,
    SentencePairs,
    encode_fitting_pairs,
    encode_pairs,
    read_lines,
    read_pairs,
)
from vitkit.data.text.tokenizers import ByteTokenizer, CharacterTokenizer
from vitkit.errors import DataError

TOKENIZER = CharacterTokenizer("abcdefgh", special=True)
LONGEST = 13


def texts(count: int, seed: int = 0) -> list[tuple[str, str]]:
    draw = torch.Generator().manual_seed(seed)

    def sentence() -> str:
        length = int(torch.randint(1, LONGEST, (), generator=draw))
        return "".join("abcdefgh"[i] for i in torch.randint(0, 8, (length,), generator=draw))

    return [(sentence(), sentence()) for _ in range(count)]


def pairs(count: int = 80) -> SentencePairs:
    return encode_pairs(texts(count), TOKENIZER)


def loader(**kwargs: Any) -> PairTrainLoader:
    return PairTrainLoader(pairs(), **{"tokens": 60, "seed": 3, **kwargs})


def check(batch: PairBatch, known: list[tuple[str, str]]) -> None:
    """Every row is the pair that its position names."""
    for row, place in enumerate(batch.positions.tolist()):
        source, target = (TOKENIZER.encode(text) for text in known[place])
        length = int(batch.source_lengths[row])
        assert batch.source[row, :length].tolist() == [*source, TOKENIZER.eos_id]
        assert (batch.source[row, length:] == TOKENIZER.pad_id).all()
        real = len(target) + 1
        assert batch.inputs[row, :real].tolist() == [TOKENIZER.bos_id, *target]
        assert (batch.inputs[row, real:] == TOKENIZER.pad_id).all()
        assert batch.targets[row, :real].tolist() == [*target, TOKENIZER.eos_id]
        assert (batch.targets[row, real:] == IGNORED).all()


def test_batches_hold_their_pairs_and_no_more_words_than_asked_for() -> None:
    batches = list(loader())
    assert len(batches) == len(loader()) > 5
    for batch in batches:
        check(batch, texts(80))
        longest = max(batch.source.shape[1], batch.targets.shape[1])
        assert len(batch.positions) * longest <= 60
        assert batch.source.dtype == batch.targets.dtype == torch.int64
    places = torch.cat([batch.positions for batch in batches])
    assert places.sort().values.tolist() == list(range(80))
    real = sum(int((batch.targets != IGNORED).sum()) for batch in batches)
    assert real == sum(len(target) + 1 for _, target in texts(80))


def test_pairs_alike_in_length_stand_together() -> None:
    sizes = pairs().sizes
    longer_source = pairs().source_lengths - pairs().target_lengths
    for batch in loader():
        own = sizes[batch.positions]
        # Nobody else's size lies strictly between those of a batch.
        others = torch.ones(80, dtype=torch.bool)
        others[batch.positions] = False
        between = (sizes[others] > own.min()) & (sizes[others] < own.max())
        assert not between.any()
        if own.unique().numel() == 1:  # then the same holds for how much longer the source is
            mine, theirs = longer_source[batch.positions], longer_source[others & (sizes == own[0])]
            assert not ((theirs > mine.min()) & (theirs < mine.max())).any()


def test_little_of_a_batch_is_padding_in_either_language() -> None:
    many = pairs(2000)
    batches = list(PairTrainLoader(many, tokens=300))
    sources = sum(batch.source.numel() for batch in batches)
    targets = sum(batch.inputs.numel() for batch in batches)
    assert sources < 1.1 * int(many.source_lengths.sum())
    assert targets < 1.1 * int(many.target_lengths.sum())


def test_epochs_differ_and_have_the_same_number_of_batches() -> None:
    one = loader()
    epochs = [[batch.positions.tolist() for batch in one] for _ in range(3)]
    assert len({len(epoch) for epoch in epochs}) == 1
    assert epochs[0] != epochs[1] and sorted(map(sorted, epochs[0])) != sorted(
        map(sorted, epochs[1])
    )
    again = [batch.positions.tolist() for batch in loader()]
    assert again == epochs[0]
    assert again != [batch.positions.tolist() for batch in loader(seed=4)]
    # The batches are not in the order of their sizes, and in another one in each epoch.
    sizes = [[int(pairs().sizes[places].max()) for places in epoch] for epoch in epochs]
    assert sorted(sizes[0]) == sorted(sizes[1])
    assert sizes[0] not in (sorted(sizes[0]), sizes[1]) and sizes[1] != sizes[2]


@given(st.integers(0, 25), st.sampled_from([1, 2]), st.sampled_from([1, 2]))
def test_rest_of_an_epoch_after_load_state(consumed: int, micro: int, world: int) -> None:
    options = {"micro_batches": micro, "world_size": world, "rank": world - 1}
    whole = loader(**options)
    seen = [batch.source.tolist() for _ in range(3) for batch in whole]
    part, taken = loader(**options), 0
    consumed = min(consumed, len(seen) - 1)
    while taken < consumed:
        for _ in part:
            taken += 1
            if taken == consumed:
                break  # a consumer that never comes back
    fresh = loader(**options)
    fresh.load_state_dict(part.state_dict())
    rest = [batch.source.tolist() for _ in range(4) for batch in fresh]
    assert rest[: len(seen) - consumed] == seen[consumed:]


@given(st.sampled_from([1, 2, 3]), st.sampled_from([1, 2]))
def test_processes_and_micro_batches_share_a_step(world: int, micro: int) -> None:
    parts = world * micro
    one = [batch.positions.tolist() for batch in loader(tokens=30)]
    shares = [
        list(loader(tokens=30 * parts, micro_batches=micro, rank=r, world_size=world))
        for r in range(world)
    ]
    steps = len(one) // parts
    assert all(len(share) == steps * micro for share in shares)
    for step in range(steps):
        found = [
            shares[r][step * micro + m].positions.tolist()
            for m in range(micro)
            for r in range(world)
        ]
        assert found == one[step * parts : (step + 1) * parts]


@given(st.integers(4, 60), st.integers(LONGEST, 60), st.integers(1, 4))
def test_evaluation_sees_each_pair_once(count: int, tokens: int, world: int) -> None:
    split = pairs(count)
    loaders = [PairEvalLoader(split, tokens=tokens, rank=r, world_size=world) for r in range(world)]
    batches = [list(one) for one in loaders]
    assert {len(share) for share in batches} == {len(loaders[0])}
    seen: list[Tensor] = []
    for batch in (b for share in batches for b in share):
        assert len(batch.positions) > 0
        check(batch, texts(count))
        seen.append(batch.positions)
    assert torch.cat(seen).sort().values.tolist() == list(range(count))


@pytest.mark.parametrize("count", [3, 4, 5, 7])
def test_evaluation_gives_every_process_something_in_every_batch(count: int) -> None:
    split = encode_pairs([("a" * 12, "b" * 12)] * count, TOKENIZER)
    for world in (2, 3):
        shares = [
            [len(b.positions) for b in PairEvalLoader(split, tokens=13, rank=r, world_size=world)]
            for r in range(world)
        ]
        assert len({len(share) for share in shares}) == 1
        assert all(min(share) > 0 for share in shares) and sum(map(sum, shares)) == count


def test_lines_end_at_line_feeds_alone(tmp_path: Path) -> None:
    file = tmp_path / "a.en"
    file.write_bytes("one\u2028still one\r\ntwo\x0cstill two\nthree".encode())
    assert read_lines(file) == ["one\u2028still one", "two\x0cstill two", "three"]
    file.write_bytes(b"one\ntwo\n")
    assert read_lines(file) == ["one", "two"]


def test_a_parallel_corpus_that_is_none(tmp_path: Path) -> None:
    source, target = tmp_path / "a.en", tmp_path / "a.de"
    source.write_text("one\ntwo\n")
    target.write_text("eins\nzwei\n")
    assert read_pairs(source, target) == [("one", "eins"), ("two", "zwei")]
    for text, words in (
        ("eins\nzwei\ndrei\n", "a.en has 2 lines, .*a.de has 3"),
        ("eins\n\n", "a.de: line 2 is empty"),
        ("", "a.de is empty"),
    ):
        target.write_text(text)
        with pytest.raises(DataError, match=words) as caught:
            read_pairs(source, target)
        assert "\n" not in str(caught.value)
    target.write_bytes(b"eins\nzw\xff\n")
    with pytest.raises(DataError, match="byte 0xff in line 2"):
        read_pairs(source, target)


def test_what_cannot_be_encoded() -> None:
    with pytest.raises(DataError, match="special=True"):
        encode_pairs([("a", "b")], ByteTokenizer())
    with pytest.raises(DataError, match="no pairs"):
        encode_pairs([], TOKENIZER)
    with pytest.raises(DataError, match="'x'"):
        encode_pairs([("a", "x")], TOKENIZER)
    long = [("a", "b"), ("a", "bbbb")]
    with pytest.raises(DataError, match=r"target of pair 2 has 5 tokens .* takes 4"):
        encode_pairs(long, TOKENIZER, max_len=4)
    assert len(encode_pairs(long, TOKENIZER, max_len=5)) == 2


class Listening(CharacterTokenizer):
    """Remembers what it has encoded."""

    def encode(self, text: str) -> list[int]:
        """See :class:`CharacterTokenizer`."""
        self.heard = [*getattr(self, "heard", []), text]
        return super().encode(text)


def test_pairs_that_fit_are_encoded_once() -> None:
    given = [("aa", "b"), ("aaaa", "x"), ("a", "bbbb"), ("c", "ddd")]
    tokenizer = Listening("abcdefgh", special=True)
    found, kept = encode_fitting_pairs(given, tokenizer, max_len=4)
    assert kept == [("aa", "b"), ("c", "ddd")]
    assert tokenizer.heard == ["aa", "b", "aaaa", "a", "bbbb", "c", "ddd"]
    wanted = encode_pairs(kept, TOKENIZER, max_len=4)
    for name in ("source", "target", "source_lengths", "target_lengths"):
        one, other = getattr(found, name), getattr(wanted, name)
        assert one.dtype == other.dtype and torch.equal(one, other), name
    assert (found.pad_id, found.bos_id) == (wanted.pad_id, wanted.bos_id)
    with pytest.raises(DataError, match="no pairs"):
        encode_fitting_pairs(given, TOKENIZER, max_len=1)
    with pytest.raises(DataError, match="special=True"):
        encode_fitting_pairs(given, ByteTokenizer(), max_len=4)
    with pytest.raises(DataError, match="'x'"):
        encode_fitting_pairs(given, TOKENIZER, max_len=5)


def test_what_cannot_be_batched() -> None:
    with pytest.raises(
        DataError, match=r"13 tokens .* batch of 10; raise data\.batch_size to 13 or"
    ):
        loader(tokens=10)
    with pytest.raises(DataError, match=r"batch of 10; raise data\.batch_size to 52 or more"):
        loader(tokens=40, micro_batches=2, world_size=2)
    assert len(loader(tokens=52, micro_batches=2, world_size=2)) > 0
    with pytest.raises(DataError, match="no step"):
        loader(tokens=60 * 20, micro_batches=20)
    with pytest.raises(DataError, match="2 pairs cannot be shared by 3"):
        PairEvalLoader(pairs(2), tokens=60, world_size=3)
    with pytest.raises(DataError, match=r"batch of 5; raise data\.eval_batch_size to 13 or more"):
        PairEvalLoader(pairs(40), tokens=5)
