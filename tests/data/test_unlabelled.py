"""Pictures in any folders, without classes: what is found, and what they are good for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.small_data import write_pictures
from tests.training.test_pretraining import TASK
from vitkit.app import train
from vitkit.config import RunConfig
from vitkit.data.check import check_data
from vitkit.data.config import ImageDataConfig
from vitkit.data.sources import load_data
from vitkit.errors import DataError

Tiny = Callable[..., RunConfig]


def _config(root: Path, **more: object) -> ImageDataConfig:
    return ImageDataConfig.model_validate({"name": "unlabelled", "root": str(root), **more})


def test_all_pictures_at_any_depth(tmp_path: Path) -> None:
    write_pictures(tmp_path / "deep" / "er", a_class=5)
    one = tmp_path / "deep" / "er" / "cat" / "0.png"
    (tmp_path / "flat.png").write_bytes(one.read_bytes())
    (tmp_path / ".hidden.png").touch()
    (tmp_path / "notes.txt").write_text("no picture")
    data = load_data(_config(tmp_path, val_fraction=0.2), img_size=(12, 16))
    assert data.test is None
    assert data.info.num_train == 9
    assert data.info.num_val == 2
    assert data.info.num_classes == 1
    assert data.info.img_size == (12, 16)
    assert not data.train.targets.any()


def test_what_is_wrong_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folder .*nowhere; data\.root must hold pictures"):
        load_data(_config(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"no pictures in .*; looked for"):
        load_data(_config(tmp_path))
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    with pytest.raises(DataError, match=r"(?s)1 damaged images.*broken\.png"):
        load_data(_config(tmp_path))


@pytest.mark.parametrize("name", TASK)
def test_they_are_enough_for_pre_training(tiny: Tiny, tmp_path: Path, name: str) -> None:
    write_pictures(tmp_path / "mine", a_class=12)
    mine = ("data.name=unlabelled", f"data.root={tmp_path / 'mine'}", "data.batch_size=8")
    result = train(tiny(*TASK[name], *mine, "trainer.max_epochs=1"), progress=False)
    assert result.metrics["val/loss"] > 0
    assert not any("knn" in key for key in result.metrics)
    assert torch.load(result.checkpoint, weights_only=True)["vitkit"]["data"]["num_train"] == 19


def test_a_classifier_needs_more(tiny: Tiny, tmp_path: Path) -> None:
    write_pictures(tmp_path / "mine", a_class=4)
    config = tiny("data.name=unlabelled", f"data.root={tmp_path / 'mine'}")
    with pytest.raises(DataError, match=r"unlabelled has one class only.*task\.name=mae"):
        train(config, progress=False)


def test_check_data_looks_at_the_files_themselves(tmp_path: Path) -> None:
    write_pictures(tmp_path / "some", a_class=10)
    (tmp_path / "some" / "broken.png").write_bytes(b"\x89PNG")
    told: list[tuple[int, int]] = []
    report = check_data(_config(tmp_path), lambda *counts: told.append(counts))
    data = load_data(_config(tmp_path, on_bad_image="skip"))
    assert {name: sum(counts) for name, counts in report.counts.items()} == {
        "train": data.info.num_train,
        "val": data.info.num_val,
    }
    assert set(report.sizes) != {(224, 224)}
    assert [bad.path.name for bad in report.damaged] == ["broken.png"]
    assert told[-1] == (21, 21)
