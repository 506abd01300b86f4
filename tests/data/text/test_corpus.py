"""One long text: cut in order, windows by place, each token predicted once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vitkit.data.random import position_index
from vitkit.data.text.corpus import (
    IGNORED,
    WindowEvalLoader,
    WindowTrainLoader,
    cut_parts,
    read_text,
)
from vitkit.errors import DataError

WORDS = torch.arange(500, dtype=torch.int32)


def loader(**kwargs: int) -> WindowTrainLoader:
    return WindowTrainLoader(
        WORDS, **{"length": 7, "batch_size": 12, "steps": 5, "seed": 3, **kwargs}
    )


def test_windows_are_pieces_of_the_text_and_targets_the_next_words() -> None:
    batches = list(loader())
    assert len(batches) == len(loader()) == 5
    for batch in batches:
        assert batch.inputs.shape == batch.targets.shape == (12, 7)
        assert batch.inputs.dtype == batch.targets.dtype == torch.int64
        assert torch.equal(batch.targets, batch.inputs + 1)
        assert (batch.inputs.diff(dim=1) == 1).all()
    places = torch.cat([batch.positions for batch in batches])
    assert places.tolist() == list(range(60))


def test_every_start_is_as_likely() -> None:
    many = loader(batch_size=493 * 40, steps=1)
    counts = torch.bincount(next(iter(many)).inputs[:, 0], minlength=493)
    assert len(counts) == 493 and counts.min() > 0  # the last one too
    chi2 = ((counts - 40.0) ** 2 / 40.0).sum()
    assert chi2 < 593  # 99.9 % point at 492 degrees of freedom


@given(st.integers(0, 14), st.sampled_from([1, 2, 3]))
def test_rest_of_an_epoch_after_load_state(consumed: int, micro_batches: int) -> None:
    whole = loader(micro_batches=micro_batches)
    seen = [batch.inputs.tolist() for _ in range(3) for batch in whole]
    part, taken = loader(micro_batches=micro_batches), 0
    while taken < consumed:
        for _ in part:
            taken += 1
            if taken == consumed:
                break  # a consumer that never comes back
    fresh = loader(micro_batches=micro_batches)
    fresh.load_state_dict(part.state_dict())
    rest = [batch.inputs.tolist() for _ in range(4) for batch in fresh]
    assert rest[: len(seen) - consumed] == seen[consumed:]
    assert seen[0] != seen[5 * micro_batches]


@given(st.sampled_from([1, 2, 3]), st.sampled_from([1, 2, 4]))
def test_processes_and_micro_batches_partition_a_step(world: int, micro: int) -> None:
    expected = [batch.inputs.tolist() for batch in loader(batch_size=24)]
    shares = [
        list(loader(batch_size=24, micro_batches=micro, rank=r, world_size=world))
        for r in range(world)
    ]
    for step, wanted in enumerate(expected):
        parts = [shares[r][step * micro + m] for m in range(micro) for r in range(world)]
        assert torch.cat([part.inputs for part in parts]).tolist() == wanted


def test_seeds_and_epochs_differ() -> None:
    first = {seed: next(iter(loader(seed=seed))).inputs for seed in (3, 4)}
    assert not torch.equal(first[3], first[4])
    both = loader(seed=3)
    one, two = ([batch.inputs for batch in both] for _ in range(2))
    assert torch.equal(one[0], first[3])
    assert not any(map(torch.equal, one, two))


@given(st.integers(2, 90), st.integers(1, 12), st.integers(1, 9), st.integers(1, 4))
def test_evaluation_predicts_each_token_once(
    size: int, length: int, batch: int, world: int
) -> None:
    text = torch.arange(size)
    loaders = [
        WindowEvalLoader(text, length=length, batch_size=batch, rank=r, world_size=world)
        for r in range(world)
    ]
    batches = [list(one) for one in loaders]
    assert len({len(share) for share in batches}) == 1
    assert all(len(share) == len(one) for share, one in zip(batches, loaders, strict=True))
    targets: list[Tensor] = []
    for one in (b for share in batches for b in share):
        real = one.targets != IGNORED
        assert torch.equal(one.targets[real], one.inputs[real] + 1)
        assert one.inputs.shape == batches[0][0].inputs.shape
        targets.append(one.targets[real])
    assert torch.cat(targets).sort().values.tolist() == list(range(1, size))


def test_whole_numbers_by_place_are_uniform() -> None:
    places = torch.arange(20000)
    values = position_index(1, 2, places, 3, 10)
    assert values.min() == 0 and values.max() == 9
    chi2 = ((torch.bincount(values) - 2000.0) ** 2 / 2000.0).sum()
    assert chi2 < 27.9  # 99.9 % point at 9 degrees of freedom
    assert torch.equal(position_index(1, 2, places[777:888], 3, 10), values[777:888])
    large = position_index(1, 2, places, 3, 2**31)
    assert large.min() >= 0 and 0.99 * 2**31 < large.max() < 2**31


def test_a_text_is_read_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_bytes("eins\r\nzwei\x0bdrei\u2028vier ä\n".encode())
    assert read_text(file) == "eins\r\nzwei\x0bdrei\u2028vier ä\n"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    empty, latin = tmp_path / "empty.txt", tmp_path / "latin.txt"
    empty.write_bytes(b"")
    latin.write_bytes("ab\nc\xe4d".encode("latin-1"))
    for path, words in (
        (tmp_path / "none.txt", "none.txt: No such file"),
        (tmp_path, "directory"),
        (empty, "empty.txt is empty"),
        (latin, r"latin.txt: byte 0xe4 in line 2 is not UTF-8"),
    ):
        with pytest.raises(DataError, match=words) as caught:
            read_text(path)
        assert "\n" not in str(caught.value)


def test_what_cannot_be_done() -> None:
    with pytest.raises(DataError, match="multiple of 4"):
        loader(batch_size=10, micro_batches=2, world_size=2)
    with pytest.raises(DataError, match="500 tokens holds no window of 500"):
        loader(length=500)
    assert len(next(iter(loader(length=499))).inputs) == 12
    with pytest.raises(DataError, match="no window of 1"):
        WindowEvalLoader(torch.zeros(1), length=4, batch_size=2)
    with pytest.raises(DataError, match="cannot be cut"):
        cut_parts("a", 0.1)
