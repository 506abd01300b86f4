"""Random crops of pictures that are decoded anew for each epoch: out of the whole, and once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from tests.small_data import write_pictures
from tests.training.test_pretraining import TASK
from vitkit.app.jobs import job_class
from vitkit.config import RunConfig
from vitkit.data.augment import BOX_DRAWS, RESIZED_CROP, Augment, crop_boxes
from vitkit.data.config import AugmentConfig, ImageDataConfig
from vitkit.data.crops import CroppedPictures, RandomCrop, crop_of
from vitkit.data.loaders import Batch, EvalLoader, TrainLoader
from vitkit.data.own import data_from_datasets
from vitkit.data.preprocess import Fit
from vitkit.data.random import epoch_order, uniform_table
from vitkit.data.sources import load_data
from vitkit.data.splits import ResidentSplit, StreamedSplit
from vitkit.errors import DataError

CROP = RandomCrop(seed=3, scale=(0.08, 1.0), ratio=0.75)
PAINTING = tuple(word for word in TASK["mae"] if not word.startswith("data."))
RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def _folder(root: Path, **more: Any) -> StreamedSplit:
    """The training pictures of a folder, 16 px wide and 12 high, streamed."""
    write_pictures(root)
    for path in root.rglob("*.png"):
        # No black and no white: what bicubic goes beyond them is cut off between the two axes, of
        # which Pillow takes now one and now the other first.
        with Image.open(path) as picture:
            picture.point(lambda value: 80 + value * 96 // 256).save(path)
    config = ImageDataConfig(
        name="image_folder", root=str(root), img_size=(12, 16), resident="never", **more
    )
    train = load_data(config).train
    assert isinstance(train, StreamedSplit)
    return train


def _as_pillow_crops(path: str, crop: RandomCrop, epoch: int, position: int, how: str) -> Tensor:
    with Image.open(path) as picture:
        size = (picture.height, picture.width)
        top, left, height, width = crop.box(size, epoch, position)
        part = picture.convert("RGB").crop((left, top, left + width, top + height))
        return torch.from_numpy(np.array(part.resize((16, 12), RESAMPLING[how]))).permute(2, 0, 1)


@pytest.mark.parametrize("size", [(300, 400), (200, 90)])
def test_boxes_are_spread_as_torchvisions(size: tuple[int, int]) -> None:
    count, (height, width) = 2000, size
    ours = np.array([CROP.box(size, 1, position) for position in range(count)])
    reference = v2.RandomResizedCrop((8, 8), scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3))
    torch.manual_seed(0)
    image = torch.empty(1, height, width)
    drawn = [reference.make_params([image]) for _ in range(count)]
    theirs = np.array([[one[key] for key in ("top", "left", "height", "width")] for one in drawn])
    assert (ours[:, :2] >= 0).all() and (ours[:, 2:] >= 1).all()
    assert (ours[:, :2] + ours[:, 2:] <= size).all()
    measures = []
    for boxes in (ours.astype(float), theirs.astype(float)):
        top, left, rows, columns = boxes.T
        share, aspect = rows * columns / (height * width), np.log(columns / rows)
        assert share.min() >= 0.07 and share.max() <= 1
        assert np.abs(aspect).max() <= np.log(4 / 3) + 0.05
        measures.append((share, aspect, top, left))
    for one, two in zip(*measures, strict=True):
        assert abs(one.mean() - two.mean()) < 5 * np.sqrt((one.var() + two.var()) / count)
        assert abs(one.std() / two.std() - 1) < 0.1


def test_boxes_are_those_of_images_that_are_held() -> None:
    places, size = np.arange(40, dtype=np.int64), (37, 52)
    draws = range(RESIZED_CROP, RESIZED_CROP + BOX_DRAWS)
    numbers = uniform_table(CROP.seed, 5, places, draws)
    held = crop_boxes(numbers, size, CROP.scale, CROP.ratio)
    assert [CROP.box(size, 5, place) for place in range(40)] == [
        tuple(box) for box in held.tolist()
    ]
    config = AugmentConfig(resized_crop_scale=0.08)
    augment = Augment(config, seed=3)
    drawn = augment._numbers(5, torch.from_numpy(places), RESIZED_CROP, BOX_DRAWS)
    assert np.array_equal(augment._crop_boxes(drawn, size), held)


@pytest.mark.parametrize("how", RESAMPLING)
@pytest.mark.parametrize("repeats", [1, 2])
def test_crops_are_cut_out_of_whole_pictures(tmp_path: Path, repeats: int, how: str) -> None:
    """Pillow's pixels of the file, for every place of two epochs; with the right labels."""
    train = _folder(tmp_path / "pictures", interpolation=how)
    loader = TrainLoader(train, batch_size=4, seed=3, repeats=repeats, crop=CROP)
    for epoch in range(2):
        order = epoch_order(len(train), 3, epoch, repeats)
        places = []
        for batch in loader:
            for image, target, position in zip(*batch, strict=True):
                index = int(order[position])
                want = _as_pillow_crops(str(train.items[index]), CROP, epoch, int(position), how)
                apart = (image.int() - want.int()).abs().float()
                assert apart.max() <= 2 and apart.mean() < 0.4
                assert target == train.targets[index]
                places.append(int(position))
        assert places == list(range(len(loader) * 4))


def test_only_the_place_counts(tmp_path: Path) -> None:
    """Whoever decodes, in which process, after whatever stop."""
    train = _folder(tmp_path / "pictures")

    def loader(**more: Any) -> TrainLoader:
        return TrainLoader(train, batch_size=4, seed=1, repeats=2, crop=CROP, **more)

    def seen(batches: list[Batch]) -> Tensor:
        return torch.cat([batch.images for batch in batches])

    plain = loader()
    whole = [list(plain) for _ in range(2)]
    assert not torch.equal(seen(whole[0]), seen(whole[1]))
    for more in ({"num_workers": 2, "persistent_workers": True}, {"num_workers": 1}):
        worked = loader(**more)
        for epoch in whole:
            assert torch.equal(seen(list(worked)), seen(epoch))
        worked.close()
    resumed = loader(num_workers=1)
    resumed.load_state_dict({"epoch": 1, "next_batch": 3})
    assert torch.equal(seen(list(resumed)), seen(whole[1][3:]))
    shares = [list(loader(rank=rank, world_size=2)) for rank in range(2)]
    parts = [part for pair in zip(*shares, strict=True) for part in pair]
    assert torch.equal(seen(parts), seen(whole[0]))


def test_repeats_are_cropped_differently(tmp_path: Path) -> None:
    train = _folder(tmp_path / "pictures")
    (batch, *_) = TrainLoader(train, batch_size=8, repeats=2, crop=CROP)
    assert torch.equal(batch.targets[::2], batch.targets[1::2])
    assert (batch.images[::2] != batch.images[1::2]).flatten(1).any(1).all()


def _job(tiny: Callable[..., RunConfig], root: Path, resident: str, *more: str) -> Any:
    config = tiny(
        "data.name=image_folder",
        f"data.root={root}",
        f"data.resident={resident}",
        "data.batch_size=4",
        "data.num_workers=0",
        "data.augment.resized_crop_scale=0.1",
        *more,
    )
    return job_class(config)(config)


@pytest.mark.parametrize("task", [(), PAINTING], ids=["classification", "mae"])
def test_a_training_crops_once(
    tiny: Callable[..., RunConfig], tmp_path: Path, task: tuple[str, ...]
) -> None:
    """What is streamed while it is decoded, what is held in batches; evaluation never."""
    write_pictures(tmp_path / "pictures")
    here = SimpleNamespace(root_device=torch.device("cpu"))
    trainer: Any = SimpleNamespace(global_rank=0, world_size=1, strategy=here)
    jobs = [_job(tiny, tmp_path / "pictures", way, *task) for way in ("never", "always")]
    streamed, held = jobs
    assert streamed.crop == RandomCrop(0, (0.1, 1.0), 0.75) and held.crop is None
    for job in jobs:
        data, (train, val) = job.built.data, job.loaders(trainer)
        batch = next(iter(train))
        ready = job.prepare_train()(batch.images, batch.positions, 0)
        whole = next(iter(TrainLoader(data.train, batch_size=4, seed=job.config.run.seed)))
        assert torch.equal(batch.targets, whole.targets)
        cropped = job is streamed
        assert torch.equal(batch.images, whole.images) != cropped
        assert torch.equal(ready, job.built.preprocessing(batch.images)) == cropped
        plain = EvalLoader(data.val, batch_size=256)
        assert torch.equal(next(iter(val)).images, next(iter(plain)).images)
    # The pictures that are looked at whole are the same ones, held or not.
    images = [next(iter(job.loaders(trainer)[1])).images for job in jobs]
    assert torch.equal(*images)


def test_other_augmentation_is_left_to_batches(
    tiny: Callable[..., RunConfig], tmp_path: Path
) -> None:
    write_pictures(tmp_path / "pictures")
    more = ("data.augment.flip=true", "data.augment.policy=trivialaugment")
    job = _job(tiny, tmp_path / "pictures", "never", *more)
    images, places = torch.randint(0, 256, (16, 3, 8, 8), dtype=torch.uint8), torch.arange(16)
    rest = AugmentConfig(flip="random", policy="trivialaugment")
    built = job.built
    want = Augment(rest, job.config.run.seed, mean=built.preprocessing.mean)(images, places, 2)
    assert torch.equal(job.prepare_train()(images, places, 2), built.preprocessing(want))


@pytest.mark.parametrize("size", [None, (6, 9)])
def test_own_pictures_that_are_streamed_are_cropped_too(size: tuple[int, int] | None) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(80, 176, (8, 20, 30, 3), dtype=np.uint8)
    pairs = [(Image.fromarray(one), index % 2) for index, one in enumerate(pixels)]
    config = ImageDataConfig(val_fraction=0.0, resident="never")
    data = data_from_datasets(pairs, class_names=["a", "b"], config=config, img_size=size)
    assert isinstance(data.train, StreamedSplit)
    crop = crop_of(data.train, AugmentConfig(resized_crop_scale=0.08), 3)
    assert crop == CROP
    cropped = CroppedPictures(data.train, crop)
    assert len(cropped) == 8
    for index in range(8):
        image, target = cropped[index, 1, 7 + index]
        top, left, rows, columns = crop.box((20, 30), 1, 7 + index)
        part = Image.fromarray(pixels[index, top : top + rows, left : left + columns])
        height, width = size or (20, 30)
        want = np.array(part.resize((width, height), Image.Resampling.BICUBIC))
        apart = np.abs(image.permute(1, 2, 0).numpy().astype(int) - want)
        assert apart.max() <= 2
        assert target == index % 2
    # Looked at whole they are as they were.
    whole = torch.from_numpy(pixels[0]).permute(2, 0, 1)
    assert torch.equal(data.train[0][0], whole if size is None else Fit(size)(whole))


def test_of_squashed_pictures_a_part_of_what_is_squashed() -> None:
    """So that a training shows things as wide as an evaluation does."""
    image = torch.randint(0, 256, (3, 16, 40), dtype=torch.uint8)
    asked = []

    def choose(size: tuple[int, int]) -> tuple[int, int, int, int]:
        asked.append(size)
        return 2, 1, 4, 3

    squash = Fit((8, 8), crop_mode="squash")
    assert torch.equal(squash.cropped(image, choose), squash(image[:, 4:12, 5:20]))
    assert torch.equal(squash.cropped(image, lambda size: (0, 0, *size)), squash(image))
    center = Fit((4, 3))
    assert torch.equal(center.cropped(image, choose), image[:, 2:6, 1:4])
    assert asked == [(8, 8), (16, 40)]


def test_decoders_of_one_size_leave_crops_to_batches() -> None:
    images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    plain = StreamedSplit(range(4), range(4), lambda item: images[int(str(item))])
    held = ResidentSplit(images, torch.arange(4))
    for split in (plain, held):
        assert crop_of(split, AugmentConfig(resized_crop_scale=0.5), 0) is None
    with pytest.raises(DataError, match="images that are held are cropped in batches"):
        TrainLoader(held, batch_size=2, crop=CROP)


def test_without_a_setting_nothing_is_cropped(tmp_path: Path) -> None:
    train = _folder(tmp_path / "pictures")
    assert crop_of(train, AugmentConfig(), 0) is None
    assert crop_of(train, AugmentConfig(crop_padding=2), 0) is None
    config = AugmentConfig(resized_crop_scale=0.3, resized_crop_largest=0.5, resized_crop_ratio=1.0)
    assert crop_of(train, config, 9) == RandomCrop(9, (0.3, 0.5), 1.0)
