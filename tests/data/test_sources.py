"""Data sets: splits, statistics, sizes, and what is said when something is wrong."""

from __future__ import annotations

import hashlib
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from sklearn.datasets import load_digits
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from tests.small_data import write_cifar
from vitkit.data.check import check_data
from vitkit.data.cifar import LAYOUTS, CifarLayout, read_cifar
from vitkit.data.config import ImageDataConfig
from vitkit.data.folder import find_images
from vitkit.data.loaders import EvalLoader
from vitkit.data.own import data_from_datasets
from vitkit.data.preprocess import Fit, Preprocessing, picture_to_tensor
from vitkit.data.sources import load_data
from vitkit.data.splits import (
    ImageData,
    ResidentSplit,
    StreamedSplit,
    pictures_digest,
    sample_images,
    stratified_split,
    train_and_test,
    train_and_val,
)
from vitkit.errors import DataError, UnknownNameError

REAL = Path(__file__).parents[2] / "data"


def test_a_cut_leaves_each_class_an_image() -> None:
    kept, cut = stratified_split(torch.tensor([0, 0, 0, 1]), 0.9, 0)
    assert torch.tensor([0, 0, 0, 1])[kept].unique().tolist() == [0, 1]
    assert len(cut) == 2


def test_digits_test_set_is_fixed_and_disjoint() -> None:
    one = load_data(ImageDataConfig())
    two = load_data(ImageDataConfig(val_fraction=0.3, split_seed=9))
    assert isinstance(one.test, ResidentSplit)
    assert isinstance(two.test, ResidentSplit)
    assert torch.equal(one.test.images, two.test.images)
    assert (one.info.num_train, one.info.num_val, one.info.num_test) == (1295, 142, 360)
    total = sum(int(s.targets.sum()) for s in (one.train, one.val, one.test) if s is not None)
    assert total == int(load_digits().target.sum())


def test_validation_share_is_stratified_and_depends_on_its_seed_alone() -> None:
    targets = torch.arange(1000) % 7
    kept, cut = stratified_split(targets, 0.2, 3)
    assert sorted([*kept.tolist(), *cut.tolist()]) == list(range(1000))
    counts = torch.bincount(targets[cut])
    assert int(counts.max() - counts.min()) <= 1
    assert torch.equal(cut, stratified_split(targets, 0.2, 3)[1])
    assert not torch.equal(cut, stratified_split(targets, 0.2, 4)[1])


def test_test_and_validation_are_cut_by_seeds_of_their_own() -> None:
    targets = torch.arange(100) % 4
    config = ImageDataConfig(val_fraction=0.3, split_seed=7)
    for found, wanted in (
        (train_and_test(targets, config), stratified_split(targets, 0.2, 7)),
        (train_and_val(targets, config), stratified_split(targets, 0.3, 8)),
    ):
        assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))
    less = config.model_copy(update={"val_fraction": 0.1})
    assert torch.equal(train_and_test(targets, config)[1], train_and_test(targets, less)[1])


def test_statistics_are_those_of_the_training_pixels() -> None:
    data = load_data(ImageDataConfig(name="synthetic", synthetic_size=100))
    assert isinstance(data.train, ResidentSplit)
    pixels = data.train.images.numpy().astype(np.float64) / 255
    np.testing.assert_allclose(data.info.mean, pixels.mean((0, 2, 3)), rtol=1e-9)
    np.testing.assert_allclose(data.info.std, pixels.std((0, 2, 3)), rtol=1e-9)
    half = load_data(ImageDataConfig(name="synthetic", synthetic_size=100, normalize="half"))
    assert half.info.mean == half.info.std == (0.5, 0.5, 0.5)
    with pytest.raises(DataError, match="3 channels"):
        load_data(ImageDataConfig(name="digits", normalize="imagenet"))


def test_preprocessing_equals_torchvision() -> None:
    images = torch.randint(0, 256, (5, 3, 8, 10), dtype=torch.uint8)
    prepare = Preprocessing((8, 10), (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    want = tv.normalize(
        tv.to_dtype(images, torch.float32, scale=True), [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
    )
    torch.testing.assert_close(prepare(images), want, rtol=1e-5, atol=1e-5)
    assert Preprocessing.from_dict(prepare.to_dict()) == prepare
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 30, 3), np.uint8))
    assert prepare.prepare_image(picture).shape == (3, 8, 10)


def test_size_and_channels_fit_the_model_and_conflicts_are_named() -> None:
    data = load_data(ImageDataConfig(), img_size=(12, 16), in_chans=3)
    assert isinstance(data.train, ResidentSplit)
    assert data.train.images.shape[1:] == (3, 12, 16)
    assert data.info.img_size == (12, 16)
    with pytest.raises(DataError, match=r"data.img_size \(9, 9\) and model.img_size \(8, 8\)"):
        load_data(ImageDataConfig(img_size=9), img_size=(8, 8))
    with pytest.raises(UnknownNameError, match="did you mean digits"):
        load_data(ImageDataConfig(name="digit"))


def test_own_datasets() -> None:
    pairs = [(Image.new("RGB", (6, 5), (i * 20, 0, 0)), i % 2) for i in range(10)]
    data = data_from_datasets(pairs, test=pairs[:4], class_names=["a", "b"])
    assert data.info.img_size == (5, 6)
    assert data.info.num_test == 4
    grey = data_from_datasets(
        [(np.full((4, 5), 7, np.uint8), np.int64(0)), (torch.zeros(1, 4, 5).byte(), 1)],
        class_names=["a", "b"],
        config=ImageDataConfig(val_fraction=0),
        in_chans=3,
    )
    assert grey.info.in_chans == 3
    assert grey.info.img_size == (4, 5)


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ([(torch.rand(3, 4, 4), 0)], r"train\[0\]: pictures must be uint8.*given torch.float32"),
        ([(np.zeros((4, 4)), 0)], "given float64"),
        ([{"image": 1}], r"train\[0\]: given a dict; give a pair \(picture, class index\)"),
        ([(1, 2, 3)], "given a tuple of 3; give a pair"),
        ([("a.png", 0)], "given a str; a picture is one of PIL"),
        ([(Image.new("L", (4, 4)), "a")], "class index 'a', allowed: a whole number from 0 to 0"),
        ([(Image.new("L", (4, 4)), 1)], "class index 1, allowed"),
        ([(Image.new("L", (4, 4)), 0.5)], "class index 0.5, allowed"),
        ([(np.zeros((3, 8, 8), np.uint8), 0)], r"\(3, 8, 8\); transpose it"),
        ([(torch.zeros(2, 3, 8, 8).byte(), 0)], "2 or 3 axes"),
        ([], "train: it is empty"),
        (iter([]), r"train: given a list_iterator; give something with len\(\) and \[i\]"),
    ],
)
def test_own_datasets_with_wrong_items(train: Any, said: str) -> None:
    with pytest.raises(DataError, match=said) as error:
        data_from_datasets(train, class_names=["a"])
    assert "\n" not in str(error.value)


class _Evil:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("evil-was-here"),))


def _cifar100(root: Path, evil: bool = False) -> CifarLayout:
    """Small files in CIFAR-100's exact layout."""
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    names = [f"fine {i}" for i in range(100)]
    contents: dict[str, Any] = {"meta": {"fine_label_names": names, "coarse_label_names": []}}
    for name, count in (("train", 300), ("test", 100)):
        contents[name] = {
            "data": rng.integers(0, 256, (count, 3072), dtype=np.uint8),
            "fine_labels": [i % 100 for i in range(count)],
            "coarse_labels": [0] * count,
        }
    if evil:
        contents["train"]["extra"] = _Evil()
    sums = {}
    for name, content in contents.items():
        raw = pickle.dumps(content)
        (folder / name).write_bytes(raw)
        sums[name] = hashlib.md5(raw).hexdigest()
    real = LAYOUTS["cifar100"]
    return CifarLayout(
        real.folder,
        {"train": sums["train"]},
        {"test": sums["test"]},
        ("meta", sums["meta"]),
        real.names_key,
        real.labels_key,
    )


def test_cifar100_in_its_exact_layout(tmp_path: Path) -> None:
    layout = _cifar100(tmp_path)
    names, (images, targets), (test, _) = read_cifar("cifar100", tmp_path, layout=layout)
    assert len(names) == 100
    assert images.shape == (300, 3, 32, 32)
    assert test.shape == (100, 3, 32, 32)
    assert targets[:3].tolist() == [0, 1, 2]
    from torchvision.datasets import CIFAR100

    with (tmp_path / "cifar-100-python" / "train").open("rb") as file:
        raw = pickle.load(file)["data"].reshape(-1, 3, 32, 32)
    assert CIFAR100.base_folder == layout.folder
    assert np.array_equal(images.numpy(), raw)


def test_cifar_absent_damaged_or_malicious(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.download=true"):
        load_data(ImageDataConfig(name="cifar10", root=str(tmp_path)))
    layout = _cifar100(tmp_path)
    path = tmp_path / "cifar-100-python" / "train"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(DataError, match=r"train is damaged"):
        read_cifar("cifar100", tmp_path, layout=layout)
    evil = _cifar100(tmp_path / "evil", evil=True)
    with pytest.raises(DataError, match="refused"):
        read_cifar("cifar100", tmp_path / "evil", layout=evil)
    assert not Path("evil-was-here").exists()


def test_real_cifar10_if_present() -> None:
    if not (REAL / "cifar-10-batches-py").is_dir():
        pytest.skip(f"no unpacked CIFAR-10 in {REAL}")
    data = load_data(ImageDataConfig(name="cifar10", root=str(REAL)))
    assert (data.info.num_train, data.info.num_val, data.info.num_test) == (45000, 5000, 10000)
    assert data.info.class_names[:2] == ("airplane", "automobile")
    np.testing.assert_allclose(data.info.mean, (0.4914, 0.4822, 0.4465), atol=2e-3)
    assert isinstance(data.test, ResidentSplit)
    assert data.test.targets[:5].tolist() == [3, 8, 8, 0, 6]  # cat, ship, ship, airplane, frog


def _folder(root: Path, count: int = 12) -> Path:
    rng = np.random.default_rng(1)
    for label in ("cat", "dog"):
        (root / label).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 255, (20 + i, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / label / f"{i}.png")
    return root


def test_which_pictures_a_split_holds_is_known_at_every_size(tmp_path: Path) -> None:
    root = _folder(tmp_path / "x", 20)
    moved = tmp_path / "y"
    shutil.copytree(root, moved)

    def digests(root: Path, **more: Any) -> list[str]:
        config = ImageDataConfig(name="image_folder", root=str(root), **{"img_size": 8, **more})
        data = load_data(config)
        assert data.val is not None and data.test is not None
        return [pictures_digest(split) for split in (data.train, data.val, data.test)]

    seen = digests(root)
    assert len(set(seen)) == 3
    assert seen == digests(moved) == digests(root, img_size=16) == digests(root, resident="never")
    other = digests(root, split_seed=1)
    assert not set(seen) & set(other)
    # Of the other cut the test pictures are the same, where more are kept for validation.
    more = digests(root, val_fraction=0.3)
    assert more[2] == seen[2] and more[1] != seen[1]
    whole = load_data(ImageDataConfig(name="digits"))
    assert whole.test is not None
    assert pictures_digest(whole.test) == pictures_digest(whole.test.subset(torch.arange(360)))
    assert pictures_digest(whole.test) != pictures_digest(whole.test.subset(torch.arange(359)))


def test_image_folder_resident_and_streamed_agree(tmp_path: Path) -> None:
    root = str(_folder(tmp_path / "pictures"))
    resident = load_data(ImageDataConfig(name="image_folder", root=root, img_size=16))
    streamed = load_data(
        ImageDataConfig(name="image_folder", root=root, img_size=16, resident="never")
    )
    assert isinstance(resident.train, ResidentSplit)
    assert isinstance(streamed.train, StreamedSplit)
    assert resident.info.class_names == ("cat", "dog")
    assert resident.info.num_train == streamed.info.num_train > 10
    for i in range(len(resident.train)):
        assert torch.equal(resident.train.images[i], streamed.train[i][0])


def test_damaged_images_are_all_named_before_training(tmp_path: Path) -> None:
    root = _folder(tmp_path / "pictures")
    (root / "cat" / "empty.png").touch()
    whole = (root / "dog" / "3.png").read_bytes()
    (root / "dog" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (root / "dog" / "text.jpg").write_text("not a picture")
    config = ImageDataConfig(name="image_folder", root=str(root), img_size=8)
    with pytest.raises(DataError) as error:
        load_data(config)
    text = str(error.value)
    assert "3 damaged images" in text
    assert "data.on_bad_image=skip" in text
    for part in ("empty.png: empty file", "cut.png: truncated image", "text.jpg: no readable"):
        assert part in text
    skipped = load_data(config.model_copy(update={"on_bad_image": "skip"}))
    kept = skipped.info.num_train + skipped.info.num_val + skipped.info.num_test
    assert kept == 24
    bomb = config.model_copy(update={"max_pixels": 500})
    with pytest.raises(DataError, match=r"pixels, data\.max_pixels is 500"):
        load_data(bomb)


def test_folder_contradictions(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder"):
        load_data(ImageDataConfig(name="image_folder", root=str(tmp_path / "none")))
    root = _folder(tmp_path / "a" / "train").parent
    _folder(root / "test")
    (root / "test" / "cow").mkdir()
    with pytest.raises(DataError, match=r"cow: this class is not in"):
        load_data(ImageDataConfig(name="image_folder", root=str(root)))
    (root / "test" / "cow").rmdir()
    (root / "train" / "empty class").mkdir()
    with pytest.raises(DataError, match=r"empty class holds no pictures.*data\.root"):
        load_data(ImageDataConfig(name="image_folder", root=str(root)))


def test_a_folder_that_is_not_one_per_class(tmp_path: Path) -> None:
    """Nobody is told to remove anything: the folder may be another data set's."""

    def said(root: Path) -> str:
        with pytest.raises(DataError) as error:
            load_data(ImageDataConfig(name="image_folder", root=str(root)))
        return str(error.value)

    (tmp_path / "data" / "cifar-10-batches-py").mkdir(parents=True)
    text = said(tmp_path / "data")
    assert "data does not look like a folder per class" in text
    assert "(cifar-10-batches-py)" in text and "set data.root" in text and "remove" not in text
    (tmp_path / "none").mkdir()
    assert "it holds no folders; set data.root" in said(tmp_path / "none")
    _folder(tmp_path / "outer" / "pictures")
    assert "data.root=" + str(tmp_path / "outer" / "pictures") in said(tmp_path / "outer")
    assert f"did you mean {tmp_path / 'outer' / 'pictures'}?" in said(
        tmp_path / "outer" / "picture"
    )


def test_an_unsplit_folder_is_counted_as_a_training_splits_it(tmp_path: Path) -> None:
    config = ImageDataConfig(name="image_folder", root=str(_folder(tmp_path / "x", 20)), img_size=8)
    report = check_data(config)
    assert report.counts == {"train": [14, 14], "val": [2, 2], "test": [4, 4]}
    info = load_data(config).info
    assert (info.num_train, info.num_val, info.num_test) == (28, 4, 8)
    notes = [line for line in report.lines() if "set aside" in line]
    assert ["20%" in note for note in notes] == [True, False]
    assert ["10%" in note for note in notes] == [False, True]
    few = config.model_copy(update={"root": str(_folder(tmp_path / "few", 2))})
    assert load_data(few).test is None
    said = check_data(few).lines()
    assert not [line for line in said if "set aside" in line]
    assert [line.partition(";")[0] for line in said if "not one picture" in line] == [
        "test: none",
        "val: none",
    ]
    split = load_data(config)
    assert isinstance(split.test, ResidentSplit)
    assert report.counts["test"] == torch.bincount(split.test.targets).tolist()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"])
def test_every_mode_is_decoded_to_what_was_meant(mode: str) -> None:
    grey = np.full((6, 6), 128, np.uint8)
    if mode == "I;16":
        picture = Image.fromarray(grey.astype(np.uint16) * 257)
    elif mode == "I":
        picture = Image.fromarray(grey.astype(np.int32) * 257)
    elif mode == "F":
        picture = Image.fromarray(np.linspace(0, 1, 36, dtype=np.float32).reshape(6, 6))
    else:
        picture = Image.fromarray(grey).convert(mode)
    tensor = picture_to_tensor(picture, 3)
    assert tensor.shape == (3, 6, 6)
    assert tensor.dtype == torch.uint8
    if mode == "F":
        assert tensor.max() == 255
    elif mode != "1":  # black and white is dithered
        assert int(tensor.float().mean()) in range(124, 132)


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    picture = Image.new("RGB", (10, 4))
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / "turned.jpg", exif=exif)
    with Image.open(tmp_path / "turned.jpg") as turned:
        assert picture_to_tensor(turned, 3).shape == (3, 10, 4)


def test_check_data_finds_duplicates_and_damage(tmp_path: Path) -> None:
    root = _folder(tmp_path / "train").parent
    _folder(root / "test")
    (root / "test" / "cat" / "bad.png").touch()
    report = check_data(ImageDataConfig(name="image_folder", root=str(root)))
    assert report.duplicates == {("train", "test"): 22, ("val", "test"): 2}
    assert [bad.reason for bad in report.damaged] == ["empty file"]
    assert report.counts == {"train": [11, 11], "val": [1, 1], "test": [12, 12]}
    lines = check_data(ImageDataConfig()).lines()
    assert any("1,295" in line for line in lines)
    assert all(len(line) <= 80 for line in lines)


def _pictures(folder: Path, count: int, side: int = 8) -> None:
    folder.mkdir(parents=True)
    for index in range(count):
        Image.new("RGB", (side, side), (index * 9, 0, 0)).save(folder / f"{index}.png")


def _image_folder(root: Path, **more: Any) -> ImageDataConfig:
    return ImageDataConfig(name="image_folder", root=str(root), img_size=8, **more)


def test_too_few_pictures_for_a_test_leave_none(tmp_path: Path) -> None:
    for name in ("a", "b"):
        _pictures(tmp_path / name, 2)
    data = load_data(_image_folder(tmp_path))
    assert (len(data.train), data.val, data.test, data.info.num_test) == (4, None, None, 0)


@pytest.mark.parametrize("split", ["test", "val"])
def test_a_split_without_folders_of_classes_is_no_split(tmp_path: Path, split: str) -> None:
    for name in ("a", "b"):
        _pictures(tmp_path / "train" / name, 10)
    _pictures(tmp_path / split, 3)
    for look in (load_data, check_data):
        with pytest.raises(DataError, match=f"{split} holds no pictures in folders of the classes"):
            look(_image_folder(tmp_path))


def test_a_split_of_damaged_pictures_alone_is_not_cut_anew(tmp_path: Path) -> None:
    for name in ("a", "b"):
        _pictures(tmp_path / "train" / name, 10)
    (tmp_path / "test" / "a").mkdir(parents=True)
    (tmp_path / "test" / "a" / "bad.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="not one picture of test can be read"):
        load_data(_image_folder(tmp_path, on_bad_image="skip"))


def test_hidden_folders_hold_no_pictures(tmp_path: Path) -> None:
    for name in ("a", "b"):
        _pictures(tmp_path / ".mine" / name, 5)
        _pictures(tmp_path / ".mine" / name / ".thumbnails", 5)
        (tmp_path / ".mine" / name / "folder.png").mkdir()
    _, found = find_images(tmp_path / ".mine")
    assert len(found["train"]) == 10


def test_splits_of_several_shapes_are_refused() -> None:
    def pairs(*shape: int) -> list[tuple[Tensor, int]]:
        return [(torch.zeros(shape, dtype=torch.uint8), i % 2) for i in range(20)]

    for other in ((3, 9, 8), (1, 8, 8)):
        with pytest.raises(DataError, match=r"several shapes.*give img_size and in_chans"):
            data_from_datasets(pairs(3, 8, 8), test=pairs(*other), class_names=["a", "b"])
    alike = data_from_datasets(
        pairs(3, 8, 8), test=pairs(1, 9, 8), class_names=["a", "b"], img_size=(8, 8), in_chans=3
    )
    assert alike.test is not None and alike.info.img_size == (8, 8)


def test_channels_that_no_picture_has() -> None:
    with pytest.raises(DataError, match=r"1 channels for a model of 4; allowed: model\.in_chans=1"):
        load_data(ImageDataConfig(name="digits"), in_chans=4)


@pytest.mark.parametrize("size", [[0, 8], [-1, 5], [True, 8], 0])
def test_sizes_below_one_are_refused(size: Any) -> None:
    with pytest.raises(ValidationError, match="whole number from 1 up"):
        ImageDataConfig(name="digits", img_size=size)


def test_check_data_counts_the_labels_that_a_training_uses(tmp_path: Path) -> None:
    for name in ("a", "b"):
        _pictures(tmp_path / name, 20)
    config = _image_folder(tmp_path, label_fraction=0.5)
    report, info = check_data(config), load_data(config).info
    counted = [sum(report.counts[name]) for name in ("train", "val", "test")]
    assert counted == [info.num_train, info.num_val, info.num_test]
    assert report.counts["train"] == list(info.class_counts)


def test_images_over_the_budget_are_resized_as_they_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CIFAR-10 at 224 px would be nine gigabytes: the same pixels come, a batch at a time."""
    write_cifar("cifar10", tmp_path, monkeypatch, a_class=4, test=2)

    def read(**more: Any) -> ImageData:
        return load_data(
            ImageDataConfig(name="cifar10", root=str(tmp_path), **more), img_size=(48, 40)
        )

    whole, lean = read(), read(resident="never")
    assert isinstance(whole.train, ResidentSplit) and isinstance(lean.train, ResidentSplit)
    assert whole.train.images.shape[2:] == (48, 40) and whole.train.fit is None
    assert lean.train.images.shape[2:] == (32, 32) and lean.train.shape == (3, 48, 40)
    assert lean.info == whole.info and whole.info.img_size == (48, 40)
    assert read(resident_budget_mb=0).train.fit == Fit((48, 40))
    assert read(resident="always", resident_budget_mb=0).train.fit is None
    for one, two in (
        (whole.train, lean.train),
        (whole.train.subset(torch.tensor([3, 1])), lean.train.subset(torch.tensor([3, 1]))),
    ):
        batches = (
            torch.cat([batch.images for batch in EvalLoader(split, batch_size=3)])
            for split in (one, two)
        )
        assert torch.equal(*batches)
    assert torch.equal(sample_images(whole.train, 5), sample_images(lean.train, 5))
