"""Augmentation as a whole: what each setting does, in which order; only the place counts."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.data.random_erasing import RandomErasing
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from tests.data.test_ops import pictures
from tests.small_data import write_pictures
from vitkit.config import load_config
from vitkit.data.augment import BOX_DRAWS, Augment, random_boxes
from vitkit.data.config import AugmentConfig, ImageDataConfig
from vitkit.data.geometry import _inside, erase
from vitkit.data.loaders import TrainLoader
from vitkit.data.random import epoch_order, position_noise, position_uniform, uniform_table
from vitkit.data.sources import load_data
from vitkit.data.splits import ResidentSplit, StreamedSplit
from vitkit.errors import ConfigError, DataError

EVERYTHING: dict[str, Any] = {
    "resized_crop_scale": 0.3,
    "flip": "alternate",
    "policy": "rand-m9-n3-mstd0.5-inc1",
    "color_jitter": 0.4,
    "color_jitter_hue": 0.1,
    "cutout": 3,
    "erase_prob": 0.5,
}


def run(augment: Augment, images: Tensor, places: Tensor, epoch: int = 0) -> Tensor:
    """As in training, with a normalisation that is easy to follow."""
    return augment.erase(augment(images, places, epoch) / 255.0 - 0.5, places, epoch)


POLICIES = ("rand-m9-n3-mstd0.5-inc1", "three_augment", "trivialaugment", "autoaugment_cifar10")


@given(st.integers(0, 40), st.integers(0, 3), st.sampled_from([1, 3]), st.sampled_from(POLICIES))
def test_only_the_place_counts(cut: int, epoch: int, channels: int, policy: str) -> None:
    """A batch in two parts, or in another order, gives the same bits."""
    images, places = pictures(40, channels, 12, 16), torch.arange(300, 340)
    config = AugmentConfig(**(EVERYTHING | {"policy": policy}))
    augment = Augment(config, seed=5, mean=[0.3] * channels, size=500)
    whole = run(augment, images, places, epoch)
    cuts = [s for s in (slice(0, cut), slice(cut, 40)) if len(places[s])]
    parts = [run(augment, images[s], places[s], epoch) for s in cuts]
    assert torch.equal(torch.cat(parts), whole)
    order = torch.randperm(40)
    assert torch.equal(run(augment, images[order], places[order], epoch), whole[order])


def test_seed_epoch_and_place_all_count() -> None:
    image, places = pictures(2, 3, 16, 16)[:1].expand(64, -1, -1, -1), torch.arange(64)
    one = run(Augment(AugmentConfig(**EVERYTHING), size=64), image, places, 1)
    assert len({tuple(x.flatten().tolist()) for x in one}) == 64
    for seed, epoch, shift in ((1, 1, 0), (0, 2, 0), (0, 1, 64)):
        augment = Augment(AugmentConfig(**EVERYTHING), seed, size=256)
        other = run(augment, image, places + shift, epoch)
        assert not (other == one).flatten(1).all(1).any()


def test_all_off_is_the_identity() -> None:
    images, places = pictures(4, 3, 8, 8), torch.arange(4)
    augment = Augment(AugmentConfig())
    assert augment(images, places, 3) is images
    floats = images.float()
    assert augment.erase(floats, places, 3) is floats


CASES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"crop_padding": 2}),
    ({"crop_padding": 2}, {"padding_mode": "reflect"}),
    ({}, {"resized_crop_scale": 0.5}),
    ({"resized_crop_scale": 0.5}, {"resized_crop_largest": 0.5}),
    ({"resized_crop_scale": 0.5}, {"resized_crop_ratio": 1.0}),
    ({}, {"flip": "random"}),
    ({"flip": "random"}, {"flip": "alternate"}),
    ({}, {"policy": "trivialaugment"}),
    ({}, {"color_jitter": 0.2}),
    ({}, {"color_jitter_hue": 0.2}),
    ({}, {"cutout": 4}),
    ({}, {"erase_prob": 0.5}),
    ({"erase_prob": 0.5}, {"erase_scale": (0.2, 0.5)}),
    ({"erase_prob": 0.5}, {"erase_ratio": 1.0}),
    ({"erase_prob": 0.5}, {"erase_mode": "constant"}),
]
"""Settings, and what is changed about them."""


@pytest.mark.parametrize(("base", "change"), CASES, ids=str)
def test_every_setting_is_felt(base: dict[str, Any], change: dict[str, Any]) -> None:
    images, places = pictures(32, 3, 16, 16), torch.arange(32)
    before, after = (
        run(Augment(AugmentConfig(**c), size=32), images, places) for c in (base, base | change)
    )
    assert (before != after).flatten(1).any(1).float().mean() > 0.1


def test_no_setting_is_forgotten() -> None:
    assert {key for _, change in CASES for key in change} == set(AugmentConfig.model_fields)


def test_parts_run_in_order() -> None:
    """Crop and flip, then the policy, then jitter: as each alone, one after the other."""
    images, places = pictures(32, 3, 16, 16), torch.arange(32)
    parts = (
        {"crop_padding": 2, "flip": "random"},
        {"policy": "randaugment"},
        {"color_jitter": 0.3},
    )
    everything: dict[str, Any] = {}
    step = images
    for part in parts:
        step = Augment(AugmentConfig(**part), seed=2)(step, places, 1)
        everything |= part
    assert torch.equal(Augment(AugmentConfig(**everything), seed=2)(images, places, 1), step)


def test_grey_images_take_every_policy() -> None:
    images, places = pictures(32, 1, 8, 8), torch.arange(32)
    for policy in ("autoaugment_cifar10", "trivialaugment", "three_augment", "rand-m9-inc1"):
        config = AugmentConfig(policy=policy, color_jitter=0.3, color_jitter_hue=0.2)
        out = Augment(config, mean=[0.4])(images, places, 0)
        assert out.shape == images.shape
        assert (out != images).flatten(1).any(1).sum() > 10


@pytest.mark.parametrize("repeats", [1, 3])
def test_alternating_flips_follow_the_image(repeats: int) -> None:
    """Through the loader's permutations: by chance when first seen, then in turn."""
    size = 24
    images = torch.zeros(size, 1, 2, 2, dtype=torch.uint8)
    images[..., 0] = torch.arange(1, size + 1, dtype=torch.uint8)[:, None, None]
    split = ResidentSplit(images, torch.arange(size))
    loader = TrainLoader(split, batch_size=12, seed=4, repeats=repeats)
    augment = Augment(AugmentConfig(flip="alternate"), seed=4, size=size, repeats=repeats)
    seen: dict[int, list[bool]] = {i: [] for i in range(size)}
    for epoch in range(4):
        for batch in loader:
            out = augment(batch.images, batch.positions, epoch)
            for target, image in zip(batch.targets.tolist(), out, strict=True):
                seen[target].append(bool(image[0, 0, 1] > 0))
    for flips in seen.values():
        assert len(flips) == 4 * repeats
        assert all(one != two for one, two in pairwise(flips))
    assert 4 < sum(flips[0] for flips in seen.values()) < 20


def test_resized_crop_draws_torchvisions_boxes() -> None:
    """Shares and aspects by torchvision's own sampler, and its pixels for our boxes."""
    count, size = 4000, (24, 32)
    config = AugmentConfig(resized_crop_scale=0.2)
    augment, places = Augment(config), torch.arange(count)
    boxes = augment._crop_boxes(augment._numbers(0, places, 1000, BOX_DRAWS), size)
    reference = v2.RandomResizedCrop(size, scale=(0.2, 1.0), ratio=(3 / 4, 4 / 3))
    torch.manual_seed(0)
    image = torch.zeros(3, *size)
    wanted = np.array(
        [
            [drawn[key] for key in ("top", "left", "height", "width")]
            for drawn in (reference.make_params([image]) for _ in range(count))
        ]
    )
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= size).all()
    for ours, theirs in zip(boxes.T, wanted.T, strict=True):
        leeway = 5 * np.sqrt((ours.var() + theirs.var()) / count)
        assert abs(ours.mean() - theirs.mean()) < leeway
        assert abs(ours.std() / theirs.std() - 1) < 0.08
    images = pictures(16, 3, *size)
    out = augment(images, places[:16], 0)
    for image, box, got in zip(images, boxes, out, strict=False):
        want = tv.resized_crop(image, *map(int, box), size=list(size))
        assert (got.int() - want.int()).abs().max() <= 1
    # Where nothing fits, the largest box of an allowed shape about the centre.
    wide = Augment(AugmentConfig(resized_crop_scale=1.0, resized_crop_ratio=1.0))
    assert wide._crop_boxes(np.zeros((BOX_DRAWS, 1)), (8, 20)).tolist() == [[0, 6, 8, 8]]


def test_a_crop_of_one_size_is_a_resize_and_a_window() -> None:
    """384 px out of 448, at any place: torchvision's RandomCrop of an enlarged picture."""
    config = AugmentConfig(
        resized_crop_scale=0.7347, resized_crop_largest=0.7347, resized_crop_ratio=1.0
    )
    augment = Augment(config)
    boxes = augment._crop_boxes(
        augment._numbers(0, torch.arange(2000), 1000, BOX_DRAWS), (384, 384)
    )
    assert set(boxes[:, 2]) == set(boxes[:, 3]) == {round(384 * 384 / 448)}
    last = 384 - round(384 * 384 / 448)
    for corner in boxes[:, :2].T:
        assert corner.min() == 0 and corner.max() == last
        assert abs(corner.mean() - last / 2) < 5 * last / np.sqrt(12 * 2000)


def test_erasing_draws_timms_boxes() -> None:
    count, size = 4000, (16, 20)
    config = AugmentConfig(erase_prob=0.25, erase_mode="constant")
    ones, places = torch.ones(count, 1, *size), torch.arange(count)
    ours = Augment(config).erase(ones, places, 0) == 0
    reference = RandomErasing(0.25, mode="const", max_area=1 / 3, device="cpu")
    random.seed(0)
    theirs = reference(ones.clone()) == 0
    for erased in (ours, theirs):
        assert abs(erased.flatten(1).any(1).float().mean() - 0.25) < 0.035
    measures = []
    for erased in (ours, theirs):
        hit = erased[erased.flatten(1).any(1), 0]
        rows, columns = hit.any(2).sum(1).double(), hit.any(1).sum(1).double()
        assert torch.equal(hit.flatten(1).sum(1).double(), rows * columns)
        measures.append(torch.stack((rows * columns, rows / columns, hit.any(2).int().argmax(1))))
    for one, two in zip(*measures, strict=True):
        assert abs(one.mean() - two.mean()) < 5 * (one.var() / 900 + two.var() / 900).sqrt()


def test_erasing_by_a_mask_as_elsewhere_than_on_a_cpu_is_the_same() -> None:
    boxes = np.array([[0, 0, 0, 4], [2, 3, 5, 1], [0, 0, 12, 10], [11, 9, 1, 1], [4, 4, 3, 0]])
    images = torch.rand(5, 3, 12, 10) + 0.1
    mask = _inside(torch.from_numpy(boxes), 12, 10)
    assert torch.equal(images.masked_fill(mask, 0), erase(images, boxes))


def test_erasing_by_noise_is_normal_in_every_pixel() -> None:
    config = AugmentConfig(erase_prob=1.0, erase_scale=(0.3, 0.6))
    zeros, places = torch.full((500, 3, 12, 12), 9.0), torch.arange(500)
    out = Augment(config, seed=1).erase(zeros, places, 2)
    noise = out[out != 9.0]
    assert len(noise) > 60_000
    assert abs(noise.mean()) < 0.02
    assert abs(noise.var() - 1) < 0.03
    assert abs((noise.abs() < 1).float().mean() - 0.6827) < 0.01
    assert len(noise.unique()) > 0.99 * len(noise)
    where = (out != 9.0).all(1)  # all channels of a pixel, each with a number of its own
    assert torch.equal(where, (out != 9.0).any(1))
    pairs = torch.corrcoef(torch.stack((out[:, 0][where], out[:, 1][where])))
    assert abs(pairs[0, 1]) < 0.02


@pytest.mark.parametrize("side", [1, 4, 7])
def test_cutout_is_a_whole_square_anywhere(side: int) -> None:
    ones = torch.ones(800, 3, 7, 9)
    out = Augment(AugmentConfig(cutout=side)).erase(ones, torch.arange(800), 0)
    gone = (out == 0).all(1)
    assert torch.equal(gone.flatten(1).sum(1), torch.full((800,), side * side))
    corners = gone.flatten(1).int().argmax(1)
    tops, lefts = corners // 9, corners % 9
    assert set(tops.tolist()) == set(range(7 - side + 1))
    assert set(lefts.tolist()) == set(range(9 - side + 1))
    with pytest.raises(DataError, match=r"data\.augment\.cutout: given 8, allowed: up to 7"):
        Augment(AugmentConfig(cutout=8)).erase(ones, torch.arange(800), 0)


def test_box_attempts_take_the_first_that_fits() -> None:
    numbers = np.zeros((BOX_DRAWS, 2))
    numbers[:10] = 1.0  # the whole area, which may not be had ...
    numbers[10:20] = 0.5  # ... as a square
    numbers[3, 1] = 0.0  # but the second image's fourth box is small
    boxes = random_boxes(numbers, (10, 10), (9, 9), (0.04, 1.0), 0.5)
    assert boxes.tolist() == [[0, 0, 0, 0], [0, 0, 2, 2]]


def test_boxes_have_the_area_and_the_aspect_that_were_drawn() -> None:
    """400 of 1,600 pixels, from a quarter to four times as wide as high."""
    numbers = np.zeros((BOX_DRAWS, 3))
    numbers[10:20] = [0.0, 0.5, 1.0]
    numbers[-2:] = 1.0 - 1e-9
    boxes = random_boxes(numbers, (40, 40), (40, 40), (0.25, 0.25), 0.25)
    assert boxes.tolist() == [[0, 30, 40, 10], [20, 20, 20, 20], [30, 0, 10, 40]]


def test_erased_boxes_leave_a_border_and_noise_is_new_each_epoch() -> None:
    images, places = torch.full((200, 1, 16, 16), 9.0), torch.arange(200)
    augment = Augment(AugmentConfig(erase_prob=1.0, erase_scale=(0.7, 1.0), erase_ratio=0.9))
    one, two = (augment.erase(images, places, epoch) for epoch in (0, 1))
    erased = one != 9.0
    assert erased.flatten(1).any(1).sum() > 150
    assert not erased.all(2).any()  # no box is as high as its image, as in timm's
    both = erased & (two != 9.0)
    assert both.sum() > 10_000
    assert (one[both] == two[both]).float().mean() < 0.01


def test_tables_and_noise_are_of_the_place_alone() -> None:
    places = torch.tensor([0, 1, 77, 2**31, 2**32 - 1])
    draws = [0, 5, 1234]
    table = uniform_table(3, 4, places.numpy(), draws)
    for row, draw in zip(table, draws, strict=True):
        assert row.tolist() == position_uniform(3, 4, places, draw).tolist()
    image, element = torch.tensor([[4], [1]]), torch.arange(6).view(2, 3)
    noise = position_noise(3, 4, places, image, element, 9)
    single = position_noise(3, 4, places[1:2], torch.tensor([0]), torch.tensor([5]), 9)
    assert noise[1, 2] == single[0]
    for other in ((2, 4, 9), (3, 5, 9), (3, 4, 8)):
        again = position_noise(other[0], other[1], places, image, element, other[2])
        assert not (again == noise).any()


def test_streamed_folders_are_augmented_as_resident_ones(tmp_path: Path) -> None:
    write_pictures(tmp_path / "pictures")
    common: dict[str, Any] = {"name": "image_folder", "root": str(tmp_path / "pictures")}
    splits = [
        load_data(ImageDataConfig(**common, img_size=16, resident=resident)).train
        for resident in ("always", "never")
    ]
    assert isinstance(splits[1], StreamedSplit)
    loaders = [TrainLoader(split, batch_size=5, seed=1, repeats=2) for split in splits]
    augment = Augment(AugmentConfig(**EVERYTHING), seed=1, size=len(splits[0]), repeats=2)
    for epoch in range(2):
        for one, two in zip(*loaders, strict=True):
            assert torch.equal(one.positions, two.positions)
            results = [run(augment, b.images, b.positions, epoch) for b in (one, two)]
            assert torch.equal(*results)
            assert results[0].shape == (5, 3, 16, 16)


@given(st.integers(1, 4), st.integers(0, 30), st.sampled_from([1, 2]))
def test_repeats_lie_side_by_side_and_resume(repeats: int, consumed: int, micro: int) -> None:
    images = torch.arange(20, dtype=torch.uint8)[:, None, None, None]
    split = ResidentSplit(images, torch.arange(20))

    def loader() -> TrainLoader:
        return TrainLoader(split, batch_size=8, micro_batches=micro, seed=3, repeats=repeats)

    first = loader()
    assert len(first) == 20 * repeats // 8 * micro
    batches = [(b.targets.tolist(), b.positions.tolist()) for _ in range(2) for b in first]
    places = len(first) * 8 // micro
    order = torch.cat([torch.tensor(t) for t, _ in batches[: len(first)]])
    assert order.tolist() == epoch_order(20, 3, 0, repeats)[:places].tolist()
    assert torch.bincount(order, minlength=20).max() == repeats
    assert torch.equal(order[::repeats], order.unique_consecutive())
    rest = loader()
    consumed %= len(batches)
    rest.load_state_dict(
        dict(zip(("epoch", "next_batch"), divmod(consumed, len(first)), strict=True))
    )
    again = [(b.targets.tolist(), b.positions.tolist()) for _ in range(2) for b in rest]
    assert again[: len(batches) - consumed] == batches[consumed:]


def test_repeats_are_changed_differently() -> None:
    split = ResidentSplit(pictures(8, 3, 16, 16), torch.arange(8))
    (batch,) = TrainLoader(split, batch_size=16, repeats=2)
    out = Augment(AugmentConfig(crop_padding=4, policy="trivialaugment"))(*batch[::2], 0)
    assert torch.equal(batch.targets[::2], batch.targets[1::2])
    assert (out[::2] != out[1::2]).flatten(1).any(1).all()
    with pytest.raises(DataError, match=r"8 training images x data\.repeats 2"):
        TrainLoader(split, batch_size=17, repeats=2)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["policy=randaug"], "given 'randaug', allowed: none, randaugment"),
        (["policy=rand-m9-q3"], "given 'rand-m9-q3', allowed: each of the options n, m, p"),
        (["flip=sometimes"], "'none', 'random', 'alternate'"),
        (["flip=1"], "given 1, allowed: 'none'"),
        (["crop_padding=4", "resized_crop_scale=0.8"], "two kinds of random crop"),
        (["resized_crop_scale=1.5"], "<= 1"),
        (["resized_crop_scale=0.8", "resized_crop_largest=0.5"], "raise the latter"),
        (["erase_scale=[0.5, 0.1]"], "two shares above 0 and up to 1, the smaller first"),
        (["erase_scale=[0.5]"], "two shares above 0"),
        (["erase_scale=0.5"], "given 0.5, allowed: a list of two shares"),
        (["color_jitter_hue=0.7"], "<= 0.5"),
        (["cutout=-1"], ">= 0"),
    ],
    ids=str,
)
def test_wrong_settings_are_one_line(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config([], [f"data.augment.{override}" for override in overrides])
    (fault,) = error.value.faults
    assert fault.startswith("data.augment")
    assert message in fault
    assert "\n" not in fault


@pytest.mark.parametrize(
    ("given", "kept"), [("true", "random"), ("false", "none"), ("alternate", "alternate")]
)
def test_flip_takes_the_older_words(given: str, kept: str) -> None:
    assert load_config([], [f"data.augment.flip={given}"]).data.augment.flip == kept


def test_more_reflection_than_there_is_image_is_refused() -> None:
    images = torch.zeros(2, 3, 8, 9, dtype=torch.uint8)
    Augment(AugmentConfig(crop_padding=7, padding_mode="reflect"))(images, torch.arange(2), 0)
    with pytest.raises(DataError, match=r"crop_padding: given 8.*up to 7"):
        Augment(AugmentConfig(crop_padding=8, padding_mode="reflect"))(images, torch.arange(2), 0)
