"""Pictures that cannot be read: counted where they are left out, named where they break later."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Command
from tests.small_data import write_pictures
from vitkit.app import train
from vitkit.config import RunConfig
from vitkit.data.check import check_data
from vitkit.data.config import ImageDataConfig
from vitkit.data.info import DataInfo
from vitkit.data.loaders import EvalLoader
from vitkit.data.sources import load_data
from vitkit.data.splits import StreamedSplit
from vitkit.errors import DataError
from vitkit.weights import read_checkpoint


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """20 pictures, three of which are none."""
    root = tmp_path / "pictures"
    write_pictures(root)
    for name in ("cat/0.png", "cat/1.png", "dog/3.png"):
        (root / name).write_text("no picture")
    return root


@pytest.mark.parametrize("name", ["image_folder", "unlabelled"])
def test_files_left_out_are_counted(damaged: Path, name: str) -> None:
    config = ImageDataConfig(name=name, root=str(damaged), img_size=8, on_bad_image="skip")
    info = load_data(config).info
    assert info.num_skipped == 3
    assert info.num_train + info.num_val + info.num_test == 17
    assert DataInfo.from_dict(info.to_dict()) == info
    older = {key: value for key, value in info.to_dict().items() if key != "num_skipped"}
    assert DataInfo.from_dict(older).num_skipped == 0
    (damaged / "whole").mkdir()
    assert load_data(ImageDataConfig()).info.num_skipped == 0


def test_a_training_tells_and_keeps_how_many(
    tiny: Callable[..., RunConfig], damaged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny(
        "data.name=image_folder",
        f"data.root={damaged}",
        "data.on_bad_image=skip",
        "data.batch_size=8",
        "trainer.max_epochs=1",
    )
    result = train(config)
    command = f"vitkit check-data --all data.name=image_folder data.root={damaged}"
    assert f"3 damaged files left out; `{command}` names them" in capsys.readouterr().out
    assert result.record.facts["images_skipped"] == 3
    assert read_checkpoint(result.checkpoint).data["num_skipped"] == 3


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_breaks_later_is_one_line(tmp_path: Path, workers: int) -> None:
    write_pictures(tmp_path / "pictures")
    config = ImageDataConfig(
        name="image_folder", root=str(tmp_path / "pictures"), img_size=8, resident="never"
    )
    split = load_data(config).train
    assert isinstance(split, StreamedSplit)
    gone = Path(str(split.items[5]))
    gone.write_text("no picture")
    loader = EvalLoader(split, batch_size=4, num_workers=workers)
    with pytest.raises(DataError) as error:
        list(loader)
    text = str(error.value)
    assert text.startswith(f"{gone}: no readable picture (read are PNG, ") and "\n" not in text


def test_all_damaged_files_are_named_if_asked_for(tmp_path: Path, vitkit_command: Command) -> None:
    root = tmp_path / "pictures"
    write_pictures(root)
    for number in range(23):
        (root / "cat" / f"none {number:02}.png").write_text("no picture")
    report = check_data(ImageDataConfig(name="image_folder", root=str(root)))
    assert len(report.damaged) == 23
    few, many = report.lines(), report.lines(all_damaged=True)
    assert len([line for line in few if "none " in line]) == 20
    assert "  and 3 more; vitkit check-data --all names every one" in few
    assert len([line for line in many if "none " in line]) == 23
    assert not [line for line in many if "more; vitkit" in line]
    for words, named in (([], 20), (["--all"], 23)):
        code, out, _ = vitkit_command("check-data", root, *words)
        assert code == 1
        assert out.count(": no readable picture") == named
        assert ("and 3 more" in out) == (named == 20)
