"""A finished model on other images than its own: new folders, other sizes, settings that fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vitkit
from tests.conftest import TINY, finished_run
from vitkit.app import evaluate, train
from vitkit.app.sources import model_settings, require_data
from vitkit.app.subjects import open_subject
from vitkit.config import load_config
from vitkit.data.check import check_data
from vitkit.data.config import ImageDataConfig
from vitkit.data.sources import load_data
from vitkit.data.splits import ResidentSplit
from vitkit.errors import ConfigError, DataError
from vitkit.records import PredictionRecord

COLOURS = {"cat": 40, "dog": 120, "emu": 200}


def _pictures(root: Path, *labels: str, count: int = 12, seed: int = 0) -> Path:
    """Noise about a grey of the class's own, of 8 pixels."""
    rng = np.random.default_rng(seed)
    for label in labels:
        (root / label).mkdir(parents=True)
        for index in range(count):
            pixels = rng.normal(COLOURS.get(label, 0), 50, (8, 8, 3)).clip(0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(root / label / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on three classes."""
    folder = tmp_path_factory.mktemp("subjects")
    root = _pictures(folder / "own", *COLOURS, count=30)
    settings = [*TINY, "data.name=image_folder", f"data.root={root}", f"run.dir={folder / 'run'}"]
    return finished_run(*settings)


@pytest.mark.parametrize("resident", ["auto", "never"])
def test_classes_of_a_new_folder_are_matched_by_name(
    run: Path, tmp_path: Path, resident: str
) -> None:
    """Without the first class every index is another: predictions file by file are the oracle."""
    new = _pictures(tmp_path / "new" / "test", "dog", "emu", seed=7).parent
    settings = [f"data.root={new}", f"data.resident={resident}", "data.num_workers=0"]
    result = evaluate(run, settings, progress=False)
    files = sorted((new / "test").rglob("*.png"))
    answers = vitkit.load(run, device="cpu").predict(files)
    right = [answer.label == Path(answer.source).parent.name for answer in answers]
    assert result.count == len(files) == 24
    assert result.metrics["test/acc"] == pytest.approx(np.mean(right))
    assert np.mean(right) > 0.4  # of three; matched by place it would be the others
    kept = PredictionRecord.read(run / "predictions.npz")
    assert kept.targets.tolist() == [1] * 12 + [2] * 12
    assert kept.class_names.tolist() == list(COLOURS)
    assert result.record.tables["classes"]["images"] == [0, 12, 12]


def test_a_class_that_the_model_does_not_know(run: Path, tmp_path: Path) -> None:
    new = _pictures(tmp_path / "test", "dog", "yak").parent
    with pytest.raises(DataError, match=r"knows 3 classes .*'yak' is none of the model's"):
        evaluate(run, [f"data.root={new}"], progress=False)


def test_test_images_alone_are_not_to_train_on(tmp_path: Path) -> None:
    root = _pictures(tmp_path / "new" / "test", "dog", "emu").parent
    config = ImageDataConfig(name="image_folder", root=str(root), img_size=8)
    data = load_data(config)
    assert (len(data.train), data.val, len(data.test or [])) == (0, None, 24)
    assert check_data(config).counts == {"test": [12, 12]}
    settings = [*TINY, "data.name=image_folder", f"data.root={root}", f"run.dir={tmp_path / 'r'}"]
    with pytest.raises(DataError, match="no training images"):
        train(None, settings, progress=False)
    assert not (tmp_path / "r").exists()


def test_its_own_size_given_explicitly_changes_nothing(run: Path) -> None:
    plain = evaluate(run, progress=False).metrics
    assert evaluate(run, ["model.img_size=8"], progress=False).metrics == plain


@pytest.mark.parametrize("key", ["model", "data"])
def test_another_size_resamples_the_positions_as_loading_does(run: Path, key: str) -> None:
    subject = open_subject(run, [f"{key}.img_size=16", "trainer.accelerator=cpu"], progress=False)
    test = subject.data.test
    assert isinstance(test, ResidentSplit)
    assert test.images.shape[-2:] == (16, 16) == subject.preprocessing.img_size
    loaded = vitkit.load_model(run, img_size=16)
    with torch.no_grad():
        want = loaded.model(subject.preprocessing(test.images))
        assert torch.equal(subject.predict(test.images), want)
    assert subject.section["img_size"] == [16, 16]
    result = evaluate(run, [f"{key}.img_size=16"], progress=False)
    assert result.metrics["test/acc"] == pytest.approx(
        (want.argmax(1) == test.targets).double().mean().item()
    )


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("optimizer.lr=1.0", "optimizer.lr: changes nothing here, where data"),
        ("model.depth=3", "model.depth: changes nothing here"),
        ("data.normalize=half", "data.normalize: mean and std are those of the model"),
        ("data.batch_size=8", "data.batch_size: read in training alone; set data.eval_batch_size"),
        ("data.augment.flip=true", "data.augment.flip: read in training alone; leave it out"),
        ("model.img_size=10", "10 x 10"),
        ("model.dept=3", "did you mean model.depth"),
    ],
)
def test_settings_that_do_nothing_or_cannot_be(run: Path, setting: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        evaluate(run, [setting], progress=False)


def test_faults_of_several_settings_are_listed_at_once(run: Path) -> None:
    with pytest.raises(ConfigError) as error:
        evaluate(run, ["optimizer.lr=1.0", "run.seed=3", "eval.seed=3"], progress=False)
    assert len(error.value.faults) == 2
    load_config([], ["optimizer.lr=1.0", "run.seed=3"])  # which a training would take


@pytest.mark.parametrize(
    "cut", ["data.val_fraction=0.3", "data.val_fraction = 0.3", " data.split_seed =7"]
)
def test_validation_images_that_are_cut_anew_may_have_been_trained_on(run: Path, cut: str) -> None:
    assert open_subject(run, progress=False).own_val
    assert not open_subject(run, [cut], progress=False).own_val


def test_blanks_around_a_key_are_none_of_it(run: Path) -> None:
    require_data("weights", ["data.name = cifar10"])
    assert model_settings([" model.img_size = 32", "data.name =digits"]) == (
        {"img_size": 32},
        ["data.name=digits"],
    )
    subject = open_subject(run, ["model.img_size = 16"], progress=False)
    assert subject.section["img_size"] == [16, 16]
    with pytest.raises(ConfigError, match=r"eval\.speed_seconds: only the speed suite reads it"):
        evaluate(run, {" eval.speed_seconds ": 1.0}, progress=False)
