"""A finished run is left alone; a resumed one tells of all its parts."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.training.test_resume import _stop_at, _stopped
from vitkit.app import evaluate, resume, train
from vitkit.cli.advice import train_longer
from vitkit.config import RunConfig, load_config, split_arguments
from vitkit.errors import DataError, Interrupted
from vitkit.report import read_run
from vitkit.training.budget import Clock
from vitkit.weights import read_checkpoint

Tiny = Callable[..., RunConfig]


def _content(folder: Path) -> dict[Path, tuple[bytes, int]]:
    return {
        path: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_finished_run_is_left_as_it_is(tiny: Tiny) -> None:
    done = train(tiny("trainer.max_epochs=1"), progress=False)
    before = _content(done.folder)
    again = resume(done.folder, progress=False)
    assert _content(done.folder) == before
    assert again == done


def test_rate_and_time_cover_all_parts(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stopped after the last step of all: what is resumed trains nothing, and tests."""
    with monkeypatch.context() as patch:
        _stop_at(patch, 9, signal.SIGINT)
        patch.setattr(Clock, "seconds", lambda self: 1000.0)
        with pytest.raises(Interrupted):
            train(tiny(), progress=False)
    result = resume(str(tiny().run.dir))
    assert "resume after step 9 of 9" in capsys.readouterr().out
    facts = result.record.facts
    assert facts["steps"] == 9
    assert float(str(facts["images_per_second"])) > 0
    assert float(str(facts["wall_seconds"])) > 1000


def test_what_was_measured_of_an_unfinished_run_does_not_stay(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _stopped(monkeypatch, tiny(), 4)
    early = evaluate(folder, progress=False)
    assert (folder / "eval.json").exists() and (folder / "predictions.npz").exists()
    result = resume(folder, progress=False)
    assert not (folder / "eval.json").exists()
    assert read_run(folder).measured("acc") == result.metrics["test/acc"]
    assert early.metrics["test/loss"] != result.metrics["test/loss"]


def test_resuming_does_not_need_the_weights_that_it_began_with(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = train(tiny("trainer.max_epochs=1", folder="first"), progress=False)
    start = tmp_path / "start.ckpt"
    first.checkpoint.rename(start)
    with monkeypatch.context() as patch:
        _stop_at(patch, 2)
        with pytest.raises(Interrupted):
            train(tiny(f"model.weights={start}", folder="second"), progress=False)
    start.unlink()
    result = resume(tmp_path / "second", progress=False)
    assert result.record.facts["steps"] == 9


def test_a_finished_run_can_be_trained_on_as_a_new_one(tiny: Tiny, tmp_path: Path) -> None:
    """What the message of --resume advises."""
    settings = ("ema.enabled=true", "trainer.max_epochs=1", f"run.root={tmp_path / 'runs'}")
    first = train(tiny(*settings, folder="one"), progress=False)
    _, _, command = train_longer(first.folder).partition("from its weights: ")
    files, overrides = split_arguments(shlex.split(command)[2:])
    more = [*overrides, "optimizer.lr=1e-9", "ema.enabled=false"]
    second = train(load_config(files, more), progress=False)
    assert second.folder.parents[1] == tmp_path / "runs"
    assert second.metrics["test/loss"] == pytest.approx(first.metrics["test/loss"], rel=1e-4)


def test_a_run_does_not_go_on_with_other_data(tmp_path: Path, tiny: Tiny) -> None:
    for name in ("a", "b"):
        (tmp_path / "d" / name).mkdir(parents=True)
        for i in range(20):
            Image.new("RGB", (8, 8), (i, i, 9 * i)).save(tmp_path / "d" / name / f"{i}.png")
    folder = "data.name=image_folder", f"data.root={tmp_path / 'd'}"
    result = train(tiny(*folder, "data.batch_size=4", "trainer.max_epochs=1"), progress=False)
    (result.folder / "results.json").unlink()
    resume(result.folder, progress=False)
    (result.folder / "results.json").unlink()
    extra = tmp_path / "d" / "a" / "new.png"
    for i in range(5):
        Image.new("RGB", (8, 8), (i, 200, i)).save(extra.with_stem(f"new{i}"))
    with pytest.raises(DataError, match="began with 26 training images, image_folder has 29 now"):
        resume(result.folder, progress=False)
    for i in range(5):
        extra.with_stem(f"new{i}").unlink()
    known = tmp_path / "d" / "a" / "3.png"
    known.rename(known.with_stem("three"))
    with pytest.raises(DataError, match="are not those that the run began with"):
        resume(result.folder, progress=False)
    known.with_stem("three").rename(known)
    (tmp_path / "d" / "a").rename(tmp_path / "d" / "c")
    with pytest.raises(DataError, match="class 0 is 'a' in the checkpoint but 'b'"):
        resume(result.folder, progress=False)


@pytest.mark.parametrize("averaged", ["true", "false"])
def test_a_run_stopped_behind_its_last_step_has_all_its_metrics(tiny: Tiny, averaged: str) -> None:
    whole = train(tiny(f"ema.enabled={averaged}"), progress=False)
    files = {name: (whole.folder / name).read_bytes() for name in ("metrics.csv",)}
    before = read_checkpoint(whole.checkpoint)
    (whole.folder / "results.json").unlink()
    again = resume(whole.folder, progress=False)
    assert "val/acc" in again.metrics
    assert again.metrics == pytest.approx(whole.metrics, rel=1e-6)
    assert {name: (whole.folder / name).read_bytes() for name in files} == files
    after = read_checkpoint(again.checkpoint)
    assert after.step == before.step
    assert all(torch.equal(t, after.trained[name]) for name, t in before.trained.items())
