"""How pictures become images of one size: the same in training, evaluation and prediction."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import vitkit
from tests.small_data import write_pictures
from vitkit.config import RunConfig
from vitkit.data import sources
from vitkit.data.config import ImageDataConfig
from vitkit.data.loaders import EvalLoader
from vitkit.data.own import data_from_datasets
from vitkit.data.preprocess import Fit, Preprocessing
from vitkit.data.raw import RawData, Request
from vitkit.data.sources import load_data
from vitkit.data.splits import ImageData, ResidentSplit, Split, StreamedSplit, pictures_digest
from vitkit.errors import DataError

WAYS: list[dict[str, Any]] = [
    {},
    {"interpolation": "bilinear", "crop_pct": 0.75},
    {"crop_mode": "squash"},
]

Pair = tuple[Image.Image, int]


def _pictures(count: int = 12, height: int = 20, width: int = 34) -> list[Pair]:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    return [(Image.fromarray(one), index % 2) for index, one in enumerate(pixels)]


def _shown(split: Split) -> Tensor:
    return torch.cat([batch.images for batch in EvalLoader(split, batch_size=5)])


@pytest.fixture
def registered() -> Iterator[str]:
    @sources.register_dataset("wide")
    def wide(request: Request) -> RawData:
        images = torch.stack(
            [torch.from_numpy(np.array(p)).permute(2, 0, 1) for p, _ in _pictures()]
        )
        targets = torch.arange(12) % 2
        return RawData("wide", ["a", "b"], ResidentSplit(images, targets))

    yield "wide"
    del sources.DATASETS["wide"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("resident", ["always", "never"])
def test_pictures_of_any_shape_reach_the_model_as_a_prediction_shows_them(
    way: dict[str, Any], resident: str, registered: str, tmp_path: Path
) -> None:
    """Of a person's own data, of a registered source, of a folder."""
    for index, (picture, target) in enumerate(_pictures()):
        (tmp_path / "ab"[target]).mkdir(exist_ok=True)
        picture.save(tmp_path / "ab"[target] / f"{index:02}.png")
    plain = {"val_fraction": 0.0, "resident": resident, "num_workers": 0, **way}
    config = ImageDataConfig(**plain)
    own = data_from_datasets(_pictures(), class_names=["a", "b"], config=config, img_size=(16, 12))
    named = ImageDataConfig(name=registered, **plain)
    prepare = Preprocessing((16, 12), (0.5,) * 3, (0.5,) * 3, **way)
    wanted = torch.stack([prepare.prepare_image(picture) for picture, _ in _pictures()])
    for data in (own, load_data(named, img_size=(16, 12))):
        assert torch.equal(_shown(data.train), wanted)
        assert data.info.img_size == (16, 12)
    files = ImageDataConfig(name="image_folder", root=str(tmp_path), **plain)
    folder = load_data(files, img_size=(16, 12))
    assert isinstance(folder.train, ResidentSplit) == (resident == "always")
    kept = _shown(folder.train)
    assert 0 < len(kept) < 12
    assert all(any(torch.equal(one, other) for other in wanted) for one in kept)


def test_a_crop_is_taken_where_no_size_is_asked_for() -> None:
    config = ImageDataConfig(val_fraction=0.0, crop_pct=0.5)
    data = data_from_datasets(_pictures(), class_names=["a", "b"], config=config)
    fit = Fit((20, 34), crop_pct=0.5)
    image = torch.from_numpy(np.array(_pictures()[0][0])).permute(2, 0, 1)
    assert torch.equal(_shown(data.train)[0], fit(image))
    assert not torch.equal(fit(image), image)


def test_a_batch_is_fitted_as_its_images_are() -> None:
    images = torch.randint(0, 256, (5, 3, 20, 34), dtype=torch.uint8)
    for way in WAYS:
        fit = Fit((9, 16), **way)
        assert torch.equal(fit(images), torch.stack([fit(image) for image in images]))


@pytest.mark.parametrize("way", WAYS)
def test_a_run_predicts_what_it_evaluated(
    tiny: Callable[..., RunConfig], way: dict[str, Any], tmp_path: Path
) -> None:
    """The logits of its test pictures, asked for one by one."""
    root = tmp_path / "pictures"
    for part in ("train", "test"):
        for name in ("a", "b"):
            (root / part / name).mkdir(parents=True)
    for index, (picture, target) in enumerate(_pictures(20)):
        picture.save(root / ("test" if index < 6 else "train") / "ab"[target] / f"{index:02}.png")
    settings = ["data.name=image_folder", f"data.root={root}", "data.batch_size=4"]
    settings += [f"data.{key}={value}" for key, value in way.items()]
    result = vitkit.train(tiny(*settings, "trainer.max_epochs=1"), progress=False)
    evaluated = vitkit.evaluate(result.folder, progress=False).predictions
    assert evaluated is not None
    files = sorted((root / "test").rglob("*.png"))
    predictor = vitkit.load(result.folder, device="cpu")
    images = torch.stack([predictor.preprocessing.prepare_image(Image.open(f)) for f in files])
    with torch.no_grad():
        logits = predictor.model(predictor.preprocessing(images))
    torch.testing.assert_close(evaluated.logits, logits, rtol=1e-5, atol=1e-5)


def test_data_that_are_handed_in_say_themselves_how_they_are_fitted(
    tiny: Callable[..., RunConfig], tmp_path: Path
) -> None:
    config = ImageDataConfig(val_fraction=0.0, crop_mode="squash")
    pictures = _pictures(40)
    data = data_from_datasets(
        pictures[:32], test=pictures[32:], class_names=["a", "b"], config=config, img_size=(8, 8)
    )
    result = vitkit.train(tiny("trainer.max_epochs=1"), data=data, progress=False)
    predictor = vitkit.load(result.folder, device="cpu")
    assert predictor.preprocessing.crop_mode == "squash"
    assert isinstance(data.test, ResidentSplit)
    shown = predictor.preprocessing.prepare_image(pictures[32][0])
    assert torch.equal(shown, data.test.images[0])
    # So are pictures that it is evaluated on later, unless a setting says otherwise.
    for index, (picture, target) in enumerate(pictures):
        (tmp_path / "new" / "test" / "ab"[target]).mkdir(parents=True, exist_ok=True)
        picture.save(tmp_path / "new" / "test" / "ab"[target] / f"{index}.png")
    new = ["data.name=image_folder", f"data.root={tmp_path / 'new'}"]
    for more, mode in (([], "squash"), (["data.crop_mode=center"], "center")):
        found = vitkit.evaluate(result.folder, [*new, *more], progress=False)
        assert found.record.facts["crop_mode"] == mode


def _own(pairs: Any, **more: Any) -> ImageData:
    config = ImageDataConfig(val_fraction=0.0, num_workers=0, **more)
    return data_from_datasets(pairs, class_names=["a", "b"], config=config, img_size=(8, 8))


def test_own_data_beyond_the_budget_are_read_as_they_are_needed() -> None:
    held, streamed = _own(_pictures()), _own(_pictures(), resident_budget_mb=0)
    assert isinstance(held.train, ResidentSplit) and isinstance(streamed.train, StreamedSplit)
    assert torch.equal(_shown(held.train), _shown(streamed.train))
    assert held.train.targets.tolist() == streamed.train.targets.tolist()
    assert held.info.mean == pytest.approx(streamed.info.mean)
    assert isinstance(
        _own(_pictures(), resident="always", resident_budget_mb=0).train, ResidentSplit
    )


class _Random:
    """Another picture at each reading."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8), index % 2


class _Mirrored(_Random):
    """The same picture, or by chance its mirror image."""

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        picture = torch.arange(192, dtype=torch.uint8).view(3, 8, 8)
        return picture.flip(-1) if torch.rand(()) < 0.5 else picture, index % 2


def test_pictures_that_are_held_must_not_be_drawn_at_random() -> None:
    with pytest.raises(DataError, match=r"train\[0\]: two readings differ.*data\.augment"):
        _own(_Random())
    torch.manual_seed(3)
    for _ in range(5):  # of a single picture two readings would be alike every other time
        with pytest.raises(DataError, match=r"train\[\d+\]: two readings differ"):
            _own(_Mirrored())
    data = _own(_Random(), resident="never")
    assert not torch.equal(_shown(data.train), _shown(data.train))


def test_other_pictures_of_as_many_and_the_same_labels_are_not_the_same() -> None:
    one, two = _pictures(), _pictures()
    two[3] = (Image.new("RGB", (34, 20)), two[3][1])
    digests = [pictures_digest(_own(pairs).train) for pairs in (one, one, two)]
    assert digests[0] == digests[1] != digests[2]
    # The same at every size, held or not.
    config = ImageDataConfig(val_fraction=0.0, resident="never")
    other = data_from_datasets(one, class_names=["a", "b"], config=config, img_size=(5, 4))
    assert pictures_digest(other.train) == digests[0]


def test_splits_that_are_streamed_have_one_shape_too() -> None:
    def pairs(*shape: int) -> list[tuple[Tensor, int]]:
        return [(torch.zeros(shape, dtype=torch.uint8), i % 2) for i in range(4)]

    config = ImageDataConfig(val_fraction=0.0, resident="never")
    with pytest.raises(DataError, match=r"several shapes.*give img_size and in_chans"):
        data_from_datasets(
            pairs(3, 8, 8), test=pairs(3, 9, 8), class_names=["a", "b"], config=config
        )


@pytest.mark.parametrize(
    ("resident", "within", "beyond"),
    [("auto", True, False), ("always", True, True), ("never", False, False)],
)
def test_what_may_be_held(resident: Any, within: bool, beyond: bool) -> None:
    config = ImageDataConfig(resident=resident, resident_budget_mb=3)
    assert config.may_hold(3 * 2**20) is within
    assert config.may_hold(3 * 2**20 + 1) is beyond


def test_the_budget_is_that_of_all_splits_together() -> None:
    pairs = [(torch.zeros(3, 300, 300, dtype=torch.uint8), i % 2) for i in range(3)]
    config = ImageDataConfig(val_fraction=0.0, resident_budget_mb=1)
    alone = data_from_datasets(pairs, class_names=["a", "b"], config=config)
    assert isinstance(alone.train, ResidentSplit)
    both = data_from_datasets(pairs, test=pairs, class_names=["a", "b"], config=config)
    assert isinstance(both.train, StreamedSplit) and isinstance(both.test, StreamedSplit)


def test_files_that_are_trusted_are_opened_when_they_are_needed(tmp_path: Path) -> None:
    root = tmp_path / "pictures"
    write_pictures(root)
    (root / "dog" / "3.png").write_text("no picture")
    config = ImageDataConfig(
        name="image_folder",
        root=str(root),
        img_size=8,
        resident="never",
        num_workers=0,
        normalize="half",
    )
    with pytest.raises(DataError, match="1 damaged image"):
        load_data(config)
    data = load_data(config.model_copy(update={"on_bad_image": "trust"}))
    assert data.val is not None and data.test is not None
    assert data.info.num_train + data.info.num_val + data.info.num_test == 20
    with pytest.raises(DataError, match=r"dog.3\.png: no readable picture"):
        for split in (data.train, data.val, data.test):
            _shown(split)
    # What is held is decoded anyway, and looked at.
    held = config.model_copy(update={"on_bad_image": "trust", "resident": "always"})
    with pytest.raises(DataError, match="1 damaged image"):
        load_data(held)
