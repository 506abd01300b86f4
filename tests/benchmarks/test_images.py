"""CIFAR-10 or random images of its shape; no file is opened before its sum is checked."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from benchmarks.images import cifar10_or_random
from tests.small_data import write_cifar
from vitkit.data.cifar import LAYOUTS, read_cifar


def test_the_first_images_of_both_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar("cifar10", tmp_path, monkeypatch, a_class=4, test=2)
    _, whole, tests = read_cifar("cifar10", tmp_path)
    train, test, source = cifar10_or_random(tmp_path, 15, 7)
    assert source == "CIFAR-10"
    for found, wanted, count in ((train, whole, 15), (test, tests, 7)):
        assert torch.equal(found[0], wanted[0][:count])
        assert torch.equal(found[1], wanted[1][:count])


def test_without_files_they_are_random_and_always_the_same(tmp_path: Path) -> None:
    (pixels, labels), (held_out, answers), source = cifar10_or_random(tmp_path, 15, 25)
    assert source == "random"
    assert pixels.shape == (15, 3, 32, 32) and held_out.shape == (25, 3, 32, 32)
    assert pixels.dtype == held_out.dtype == torch.uint8
    assert labels.dtype == torch.int64 and answers.unique().tolist() == list(range(10))
    assert torch.equal(cifar10_or_random(tmp_path, 15)[0][0], pixels)
    assert len(cifar10_or_random(tmp_path, 15)[1][0]) == 0


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


def test_a_file_that_is_not_cifars_is_not_opened(tmp_path: Path) -> None:
    layout = LAYOUTS["cifar10"]
    folder = tmp_path / layout.folder
    folder.mkdir()
    for name in (*layout.train, *layout.test, layout.meta[0]):
        (folder / name).write_bytes(pickle.dumps({b"data": Touch(tmp_path / "opened")}))
    assert cifar10_or_random(tmp_path, 15)[2] == "random"
    assert not (tmp_path / "opened").exists()
