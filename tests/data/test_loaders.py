"""Loaders: permutations by place, resume in the middle, shares of processes, each image once."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vitkit.data.augment import Augment
from vitkit.data.config import AugmentConfig
from vitkit.data.loaders import EvalLoader, TrainLoader
from vitkit.data.random import (
    balanced_epoch,
    epoch_order,
    epoch_permutation,
    position_uniform,
)
from vitkit.data.splits import ResidentSplit, StreamedSplit, Strings
from vitkit.errors import DataError


def split(size: int) -> ResidentSplit:
    images = torch.arange(size, dtype=torch.uint8)[:, None, None, None].expand(size, 3, 4, 4)
    return ResidentSplit(images.contiguous(), torch.arange(size))


@given(st.integers(0, 30), st.integers(1, 3))
def test_rest_of_an_epoch_after_load_state(consumed: int, micro_batches: int) -> None:
    whole = TrainLoader(split(50), batch_size=12, micro_batches=micro_batches, seed=3)
    seen = [batch.targets.tolist() for _ in range(3) for batch in whole]
    part = TrainLoader(split(50), batch_size=12, micro_batches=micro_batches, seed=3)
    consumed = min(consumed, len(seen) - 1)
    taken = 0
    while taken < consumed:
        for _ in part:
            taken += 1
            if taken == consumed:
                break  # a consumer that never comes back
    fresh = TrainLoader(split(50), batch_size=12, micro_batches=micro_batches, seed=3)
    fresh.load_state_dict(part.state_dict())
    rest = [batch.targets.tolist() for _ in range(4) for batch in fresh]
    assert rest[: len(seen) - consumed] == seen[consumed:]


@given(st.sampled_from([1, 2, 3]), st.sampled_from([1, 2, 4]))
def test_processes_and_micro_batches_partition_a_step(world: int, micro: int) -> None:
    one = TrainLoader(split(60), batch_size=24, seed=1)
    expected = [batch.targets.tolist() for batch in one]
    shares = [
        list(
            TrainLoader(
                split(60), batch_size=24, micro_batches=micro, seed=1, rank=r, world_size=world
            )
        )
        for r in range(world)
    ]
    assert all(len(share) == len(expected) * micro for share in shares)
    for step, wanted in enumerate(expected):
        parts = [shares[r][step * micro + m] for m in range(micro) for r in range(world)]
        assert torch.cat([part.targets for part in parts]).tolist() == wanted
        places = torch.cat([part.positions for part in parts]).tolist()
        assert places == list(range(step * 24, step * 24 + 24))


def test_epochs_are_permutations_and_differ() -> None:
    loader = TrainLoader(split(40), batch_size=10, seed=0)
    first = torch.cat([batch.targets for batch in loader])
    second = torch.cat([batch.targets for batch in loader])
    assert first.sort().values.tolist() == second.sort().values.tolist() == list(range(40))
    assert first.tolist() != second.tolist()
    assert first.tolist() == epoch_permutation(40, 0, 0).tolist()


def test_a_balanced_epoch_has_as_many_images_of_each_class() -> None:
    """Of 90, 8 and 2 images 33 or 34 come; classes 1 and 3 are empty."""
    targets = torch.tensor([0] * 90 + [2] * 8 + [4] * 2)
    epochs = [balanced_epoch(targets, 5, epoch) for epoch in range(60)]
    seen = torch.zeros(100)
    totals = torch.zeros(5)
    for order in epochs:
        counts = targets[order].bincount(minlength=5)
        assert counts[[1, 3]].tolist() == [0, 0]
        assert counts[[0, 2, 4]].sort().values.tolist() == [33, 33, 34]
        copies = order.bincount(minlength=100)
        for label, most in ((0, 1), (2, 5), (4, 17)):  # no image comes twice more than another
            own = copies[targets == label]
            assert own.max() <= most and own.max() - own.min() <= 1
        seen += copies
        totals += counts
    assert torch.equal(balanced_epoch(targets, 5, 7), epochs[7])
    assert not torch.equal(balanced_epoch(targets, 6, 7), epochs[7])
    assert seen[:90].min() > 8  # of 22 in the mean: none is left out for good
    assert (totals[[0, 2, 4]] - 2000).abs().max() < 25  # what is left over goes round
    equal = torch.arange(12) % 3
    assert balanced_epoch(equal, 0, 0).sort().values.tolist() == list(range(12))


def test_a_balanced_loader_shows_that_epoch_and_resumes() -> None:
    images = torch.arange(40, dtype=torch.uint8).view(40, 1, 1, 1)
    targets = torch.tensor([0] * 36 + [1] * 4)

    def loader() -> TrainLoader:
        return TrainLoader(
            ResidentSplit(images, targets), batch_size=8, seed=2, repeats=2, balanced=True
        )

    first = list(loader())
    order = epoch_order(40, 2, 0, 2, balanced=targets)
    assert torch.cat([batch.images.flatten() for batch in first]).tolist() == order.tolist()
    assert order[::2].tolist() == order[1::2].tolist() == balanced_epoch(targets, 2, 0).tolist()
    assert torch.cat([batch.targets for batch in first]).bincount().tolist() == [40, 40]
    again = loader()
    again.load_state_dict({"epoch": 0, "next_batch": 7})
    rest = torch.cat([batch.images.flatten() for batch in again])
    assert rest.tolist() == order[56:].tolist()


def test_streamed_split_yields_what_a_resident_one_does() -> None:
    resident = split(30)
    streamed = StreamedSplit(
        list(range(30)), list(range(30)), lambda item: resident.images[int(str(item))]
    )
    pairs = zip(
        TrainLoader(resident, batch_size=8, seed=5),
        TrainLoader(streamed, batch_size=8, seed=5),
        strict=True,
    )
    for one, two in pairs:
        assert torch.equal(one.images, two.images)
        assert torch.equal(one.targets, two.targets)
        assert torch.equal(one.positions, two.positions)


@given(st.integers(4, 70), st.integers(1, 20), st.integers(1, 4))
def test_evaluation_sees_each_image_once(size: int, batch: int, world: int) -> None:
    loaders = [
        EvalLoader(split(size), batch_size=batch, rank=r, world_size=world) for r in range(world)
    ]
    batches = [list(loader) for loader in loaders]
    assert len({len(share) for share in batches}) == 1
    seen = torch.cat([b.positions for share in batches for b in share])
    assert seen.sort().values.tolist() == list(range(size))
    assert all(len(b.targets) for share in batches for b in share)


def test_impossible_batches_are_refused() -> None:
    with pytest.raises(DataError, match="multiple of 4"):
        TrainLoader(split(50), batch_size=10, micro_batches=2, world_size=2)
    with pytest.raises(DataError, match="no step"):
        TrainLoader(split(5), batch_size=10)


def test_position_uniform_is_uniform_and_knows_only_its_place() -> None:
    places = torch.arange(20000)
    values = position_uniform(1, 2, places, 3)
    assert values.min() >= 0.0
    assert values.max() < 1.0
    counts = torch.histc(values, 20, 0, 1)
    chi2 = ((counts - 1000.0) ** 2 / 1000.0).sum()
    assert chi2 < 43.8  # 99.9 % point at 19 degrees of freedom
    assert torch.equal(position_uniform(1, 2, places[777:888], 3), values[777:888])
    for other in ((2, 2, 3), (1, 3, 3), (1, 2, 4)):
        again = position_uniform(other[0], other[1], places, other[2])
        correlation = torch.corrcoef(torch.stack([values, again]))[0, 1]
        assert abs(correlation) < 0.03


@pytest.mark.parametrize("mode", ["zero", "reflect"])
def test_augment_equals_a_slow_reference(mode: str) -> None:
    """Crop and flip of each image by torch's pad and slices, from the same numbers."""
    config = AugmentConfig(crop_padding=2, padding_mode=mode, flip=True)  # type: ignore[arg-type]
    images = torch.randint(0, 256, (24, 3, 6, 9), dtype=torch.uint8)
    places = torch.arange(100, 124)
    out = Augment(config, seed=7)(images, places, epoch=4)
    draws = [position_uniform(7, 4, places, draw) for draw in range(3)]
    offsets, flips = set(), set()
    for i, image in enumerate(images):
        top, left = int(draws[0][i] * 5), int(draws[1][i] * 5)
        kind = "constant" if mode == "zero" else "reflect"
        padded = torch.nn.functional.pad(image[None].float(), (2, 2, 2, 2), mode=kind)[0]
        want = padded[:, top : top + 6, left : left + 9]
        flip = bool(draws[2][i] >= 0.5)
        want = want.flip(-1) if flip else want
        assert torch.equal(out[i], want.to(torch.uint8))
        offsets.add((top, left))
        flips.add(flip)
    assert len(offsets) > 10
    assert flips == {True, False}


def _by_process(item: object) -> torch.Tensor:
    """An image that says which process made it."""
    digits = list(os.getpid().to_bytes(4, "big"))
    return torch.tensor([*digits, int(str(item))], dtype=torch.uint8)[:, None, None]


def _seen(loader: TrainLoader | EvalLoader) -> tuple[set[int], list[int]]:
    """(processes that decoded an epoch, its images in order)."""
    images = torch.cat([batch.images for batch in loader])[:, :, 0, 0].tolist()
    return {int.from_bytes(bytes(row[:4]), "big") for row in images}, [row[4] for row in images]


@pytest.mark.parametrize("persistent", [True, False])
def test_workers_outlive_an_epoch_if_asked_to(persistent: bool) -> None:
    streamed = StreamedSplit(range(24), range(24), _by_process)
    plain = TrainLoader(streamed, batch_size=4, seed=2)
    loader = TrainLoader(
        streamed, batch_size=4, seed=2, num_workers=2, persistent_workers=persistent
    )
    evaluation = EvalLoader(streamed, batch_size=5, num_workers=2, persistent_workers=persistent)
    for each in (loader, evaluation):
        first, second = _seen(each), _seen(each)
        assert len(first[0]) == len(second[0]) == 2 and os.getpid() not in first[0] | second[0]
        assert (first[0] == second[0]) == persistent
        if each is loader:  # the same images as without workers, an order an epoch
            assert [first[1], second[1]] == [_seen(plain)[1], _seen(plain)[1]]
            assert first[1] != second[1]
        else:
            assert first[1] == second[1] == list(range(24))


@pytest.mark.parametrize("persistent", [True, False])
def test_an_epoch_that_is_left_early_leaves_nothing_in_the_next(persistent: bool) -> None:
    """What workers had prepared of it is thrown away."""
    streamed = StreamedSplit(range(40), range(40), _by_process)
    plain = TrainLoader(streamed, batch_size=4, seed=2)
    loader = TrainLoader(
        streamed,
        batch_size=4,
        seed=2,
        num_workers=2,
        prefetch_factor=4,
        persistent_workers=persistent,
    )
    for _ in loader:
        break
    state = {"epoch": 1, "next_batch": 3}
    for each in (plain, loader):
        each.load_state_dict(state)
    assert _seen(loader)[1] == _seen(plain)[1]


def test_what_workers_prepare_ahead() -> None:
    streamed = StreamedSplit(range(24), range(24), _by_process)
    loader = TrainLoader(streamed, batch_size=4, num_workers=1, prefetch_factor=5)
    assert loader._source._loader.prefetch_factor == 5  # type: ignore[union-attr]
    alone = TrainLoader(streamed, batch_size=4, prefetch_factor=5, persistent_workers=True)
    assert alone._source._loader.prefetch_factor is None  # type: ignore[union-attr]
    assert next(iter(alone)).images.shape == (4, 5, 1, 1)


def test_paths_of_a_streamed_split_are_no_objects(tmp_path: Path) -> None:
    """A list of strings would be copied into every worker, page by page."""
    paths = [f"{tmp_path}/{name}.png" for name in ("a", "ein längerer Name", "bad\udce9bytes", "")]
    split = StreamedSplit(paths, range(4), lambda item: torch.zeros(1))
    assert isinstance(split.items, Strings)
    assert list(split.items) == paths
    assert split.items[-1] == paths[-1]
    assert split.items[1:3] == paths[1:3]
    assert split.subset(torch.tensor([2, 0])).items[0] == paths[2]
    held = [thing for thing in gc.get_referents(vars(split.items)) if isinstance(thing, str)]
    assert not set(paths) & set(held)
    assert len(StreamedSplit([], [], torch.as_tensor)) == 0
