"""A share of the labels: class by class, nested, a function of the split's seed alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vitkit.config import load_config
from vitkit.data.config import ImageDataConfig
from vitkit.data.own import data_from_datasets
from vitkit.data.sources import load_data
from vitkit.data.splits import ResidentSplit, StreamedSplit, labelled_part
from vitkit.errors import ConfigError


def _split(*counts: int) -> ResidentSplit:
    """Images that hold their own number, of classes of some sizes, shuffled."""
    targets = torch.cat([torch.full((n,), label) for label, n in enumerate(counts)])
    targets = targets[torch.randperm(len(targets), generator=torch.Generator().manual_seed(0))]
    numbers = torch.arange(len(targets), dtype=torch.uint8)[:, None, None, None]
    return ResidentSplit(numbers, targets)


@given(st.floats(0.01, 1.0), st.integers(0, 5))
def test_each_class_keeps_its_share_and_one_image_at_least(fraction: float, seed: int) -> None:
    counts = (40, 7, 1)
    part = labelled_part(_split(*counts), fraction, seed)
    kept = torch.bincount(part.targets, minlength=3).tolist()
    assert kept == [max(1, round(n * fraction)) for n in counts]
    numbers = part.images.flatten().tolist()
    assert numbers == sorted(set(numbers))  # in the order of the whole


def test_more_labels_are_those_and_more() -> None:
    whole = _split(50, 30)
    few, many = (set(labelled_part(whole, f, 3).images.flatten().tolist()) for f in (0.2, 0.5))
    assert few < many
    assert few != set(labelled_part(whole, 0.2, 4).images.flatten().tolist())
    assert labelled_part(whole, 1.0, 3) is whole
    streamed = StreamedSplit(list(range(80)), whole.targets.tolist(), lambda item: item)
    assert set(labelled_part(streamed, 0.2, 3).items) == few


def _load(**more: Any) -> Any:
    return load_data(ImageDataConfig(name="synthetic", synthetic_size=400, **more))


def test_training_gets_the_share_and_validation_and_test_stay_whole() -> None:
    whole, part = _load(), _load(label_fraction=0.25)
    assert part.info.num_train == len(part.train) == 70  # 29 a class, 7 of them
    assert part.info.class_counts == (7,) * 10
    for split in ("val", "test"):
        assert torch.equal(getattr(part, split).images, getattr(whole, split).images)
    rows = {tuple(image.flatten().tolist()) for image in whole.train.images}
    assert all(tuple(image.flatten().tolist()) in rows for image in part.train.images)
    assert part.info.mean != whole.info.mean


def test_data_of_ones_own_too() -> None:
    pictures = [(torch.full((3, 4, 4), i, dtype=torch.uint8), i % 2) for i in range(40)]
    config = ImageDataConfig(name="mine", label_fraction=0.5, val_fraction=0.0)
    data = data_from_datasets(pictures, class_names=["a", "b"], config=config)
    assert data.info.class_counts == (10, 10)


@pytest.mark.parametrize("value", ["0", "-0.5", "1.5", "all"])
def test_another_share_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match=r"data\.label_fraction: given"):
        load_config([], [f"data.label_fraction={value}"])
