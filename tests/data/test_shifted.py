"""Test sets from local folders: what they hold, and what they must not."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vitkit.data.imagenet import IMAGENET_A, IMAGENET_R
from vitkit.data.preprocess import Preprocessing
from vitkit.data.shifted import (
    COUNTED,
    EXTRA,
    read_cifar10_1,
    read_cifar10h,
    read_cifar_c,
    read_imagenet_c,
    read_imagenet_folder,
    read_imagenet_real,
)
from vitkit.data.splits import ResidentSplit, StreamedSplit
from vitkit.errors import DataError
from vitkit.evaluation.corruptions.catalogue import EXTRA_CORRUPTIONS, TEST_CORRUPTIONS

WANT = Preprocessing((16, 16), (0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize(("letter", "ours"), [("a", IMAGENET_A), ("r", IMAGENET_R)])
def test_the_classes_are_timms(letter: str, ours: tuple[int, ...]) -> None:
    file = resources.files("timm.data") / "_info" / f"imagenet_{letter}_indices.txt"
    assert ours == tuple(int(word) for word in file.read_text().split())
    assert len(ours) == 200 and list(ours) == sorted(set(ours))


def _write_cifar10_1(folder: Path, version: str = "v6", count: int = 6) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    np.save(folder / f"cifar10.1_{version}_data.npy", pixels)
    np.save(folder / f"cifar10.1_{version}_labels.npy", np.arange(count, dtype=np.int32) % 10)
    return pixels


def test_cifar10_1(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder"):
        read_cifar10_1(tmp_path / "none", WANT)
    with pytest.raises(DataError, match="holds no cifar10"):
        read_cifar10_1(tmp_path, WANT)
    pixels = _write_cifar10_1(tmp_path, "v4")
    native = Preprocessing((32, 32), (0.5,) * 3, (0.5,) * 3)
    found = read_cifar10_1(tmp_path, native)
    assert np.array_equal(found.images.permute(0, 2, 3, 1).numpy(), pixels)
    assert found.targets.tolist() == [0, 1, 2, 3, 4, 5]
    assert read_cifar10_1(tmp_path, WANT).images.shape == (6, 3, 16, 16)
    labels = tmp_path / "cifar10.1_v4_labels.npy"
    np.save(labels, np.full(6, 10))
    with pytest.raises(DataError, match="not as many numbers from 0 to 9"):
        read_cifar10_1(tmp_path, native)
    labels.unlink()
    with pytest.raises(DataError, match="no such file"):
        read_cifar10_1(tmp_path, native)
    np.save(tmp_path / "cifar10.1_v6_data.npy", pixels.astype(np.float32))
    np.save(tmp_path / "cifar10.1_v6_labels.npy", np.zeros(6))
    with pytest.raises(DataError, match="allowed: uint8"):
        read_cifar10_1(tmp_path, native)
    np.save(tmp_path / "cifar10.1_v6_data.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(DataError, match="damaged"):
        read_cifar10_1(tmp_path, native)


def test_cifar10h(tmp_path: Path) -> None:
    counts = np.random.default_rng(0).integers(1, 50, (10_000, 10))
    path = tmp_path / "cifar10h-counts.npy"
    np.save(path, counts)
    for source in (path, tmp_path):
        found = read_cifar10h(source)
        np.testing.assert_allclose(found, counts / counts.sum(1, keepdims=True))
    for wrong, text in (
        (counts[:9], "allowed: \\(10000, 10\\)"),
        (counts * 0, "sum to more than 0"),
        (counts.astype(str), "allowed"),
    ):
        np.save(path, wrong)
        with pytest.raises(DataError, match=text):
            read_cifar10h(path)
    with pytest.raises(DataError, match="no such file"):
        read_cifar10h(tmp_path / "none.npy")


def _picture(path: Path, grey: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 30), (grey,) * 3).save(path, "PNG")


def test_folders_of_imagenet(tmp_path: Path) -> None:
    for index in (0, 7, 10, 999):  # ImageNetV2 names its folders by numbers
        _picture(tmp_path / "v2" / str(index) / "a.png", index % 256)
    found = read_imagenet_folder(tmp_path / "v2", WANT, setting="eval.imagenet_v2")
    assert sorted(found.targets.tolist()) == [0, 7, 10, 999]
    for image, target in (found[i] for i in range(4)):
        assert image.shape == (3, 16, 16) and int(image[0, 0, 0]) == target % 256
    for index in range(200):
        _picture(tmp_path / "a" / f"n{index:08d}" / "a.png", 3)
    found = read_imagenet_folder(
        tmp_path / "a", WANT, setting="eval.imagenet_a", classes=IMAGENET_A
    )
    assert found.targets.tolist() == list(IMAGENET_A)
    with pytest.raises(DataError, match=r"200 folders; eval\.imagenet_sketch needs 1000"):
        read_imagenet_folder(tmp_path / "a", WANT, setting="eval.imagenet_sketch")
    _picture(tmp_path / "v2" / "1000" / "a.png", 3)
    with pytest.raises(DataError, match="0 to 999"):
        read_imagenet_folder(tmp_path / "v2", WANT, setting="eval.imagenet_v2")
    with pytest.raises(DataError, match=r"eval\.imagenet_v2 must name"):
        read_imagenet_folder(tmp_path / "none", WANT, setting="eval.imagenet_v2")


def test_folders_must_be_called_as_the_models_classes_are(tmp_path: Path) -> None:
    """ImageNet-R has as many folders as ImageNet-A, and would be another 200 classes."""
    names = [f"n{index:08d}" for index in range(1000)]
    for index in IMAGENET_R:
        _picture(tmp_path / names[index] / "a.png", 3)
    found = read_imagenet_folder(
        tmp_path, WANT, setting="eval.imagenet_r", classes=IMAGENET_R, class_names=names
    )
    assert found.targets.tolist() == list(IMAGENET_R)
    with pytest.raises(DataError, match=r"would stand for class 6, .*another test set than eval"):
        read_imagenet_folder(
            tmp_path, WANT, setting="eval.imagenet_a", classes=IMAGENET_A, class_names=names
        )
    # Of classes that are called otherwise nothing can be seen.
    words = [f"class {index}" for index in range(1000)]
    read_imagenet_folder(
        tmp_path, WANT, setting="eval.imagenet_a", classes=IMAGENET_A, class_names=words
    )


def test_the_corruptions_are_those_that_we_make() -> None:
    assert tuple(TEST_CORRUPTIONS) == COUNTED
    assert tuple(EXTRA_CORRUPTIONS) == EXTRA


def test_cifar_c_as_published(tmp_path: Path) -> None:
    folder = tmp_path / "CIFAR-10-C"
    folder.mkdir()
    native = Preprocessing((32, 32), (0.5,) * 3, (0.5,) * 3)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(20) % 10
    for shift, name in enumerate((*COUNTED, "saturate")):
        np.save(folder / f"{name}.npy", np.roll(pixels, shift, 0))
    with pytest.raises(DataError, match=r"no such file.*labels\.npy"):
        read_cifar_c(folder, native, 10)
    np.save(folder / "labels.npy", labels)
    found = read_cifar_c(folder, native, 10)
    assert [(one.corruption, one.severity) for one in found] == [
        (name, severity) for name in (*COUNTED, "saturate") for severity in (1, 2, 3, 4, 5)
    ]
    for index, one in enumerate(found):
        name, severity, split = one.corruption, one.severity, one.read()
        part = slice(4 * (severity - 1), 4 * severity)
        wanted = np.roll(pixels, index // 5, 0)[part]
        assert np.array_equal(split.images.permute(0, 2, 3, 1).numpy(), wanted), name
        assert split.targets.tolist() == labels[part].tolist()
    small = read_cifar_c(folder, WANT, 10)[0].read()
    assert isinstance(small, ResidentSplit)
    assert small.take(torch.arange(4)).shape == (4, 3, 16, 16)
    assert len(read_cifar_c(tmp_path, WANT, 10)) == len(found)  # as the archive unpacks
    np.save(folder / "labels.npy", labels + 80)
    assert read_cifar_c(folder, native, 100)[0].read().targets.tolist() == [80, 81, 82, 83]
    with pytest.raises(DataError, match="not as many numbers from 0 to 9"):
        read_cifar_c(folder, native, 10)
    (folder / "fog.npy").unlink()
    with pytest.raises(DataError, match=r"has no fog; eval\.cifar_c is the folder of <corruption>"):
        read_cifar_c(folder, native, 10)


def test_imagenet_c_as_published(tmp_path: Path) -> None:
    """The archives unpack into folders of kinds; the extra ones may be left out."""
    names = [f"n{index:08d}" for index in range(1000)]
    for number, corruption in enumerate(COUNTED):
        for severity in range(1, 6):
            for name in names if (number, severity) == (0, 1) else names[:1]:
                (tmp_path / "kind" / corruption / str(severity) / name).mkdir(parents=True)
            _picture(tmp_path / "kind" / corruption / str(severity) / names[0] / "a.png", number)
    first, second, *rest = read_imagenet_c(tmp_path, WANT, class_names=names)
    assert (first.corruption, first.severity, len(rest)) == (COUNTED[0], 1, 73)
    split = first.read()
    assert isinstance(split, StreamedSplit) and len(split) == 1
    assert int(split[0][0][0, 0, 0]) == 0 and split.targets.tolist() == [0]
    with pytest.raises(DataError, match=r"1 folders; eval\.imagenet_c needs 1000"):
        second.read()
    (tmp_path / "kind" / "snow" / "3").rename(tmp_path / "kind" / "snow" / "6")
    with pytest.raises(DataError, match=r"no folder .*snow.3; eval\.imagenet_c"):
        read_imagenet_c(tmp_path, WANT)
    (tmp_path / "kind" / "snow").rename(tmp_path / "kind" / "hail")
    with pytest.raises(DataError, match="has no snow"):
        read_imagenet_c(tmp_path, WANT)


def test_real_labels(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"real\.json is missing"):
        read_imagenet_real(tmp_path, WANT)
    (tmp_path / "real.json").write_text(json.dumps([[3], [], [5, 8]]))
    with pytest.raises(DataError, match="holds no ILSVRC2012_val"):
        read_imagenet_real(tmp_path, WANT)
    for number in (1, 2, 3):
        _picture(tmp_path / "val" / "n01" / f"ILSVRC2012_val_{number:08d}.png", number)
    found = read_imagenet_real(tmp_path, WANT)
    assert found.labels == ((3,), (5, 8))  # the picture without labels is left out
    assert [int(found.images[i][0][0, 0, 0]) for i in range(2)] == [1, 3]
    _picture(tmp_path / "ILSVRC2012_val_00000004.png", 4)
    with pytest.raises(DataError, match="labels of 3 pictures only"):
        read_imagenet_real(tmp_path, WANT)
    for wrong, text in (("[[1000]]", "from 0 to 999"), ("{", "damaged"), ("[3]", "list of lists")):
        (tmp_path / "real.json").write_text(wrong)
        with pytest.raises(DataError, match=text):
            read_imagenet_real(tmp_path, WANT)
