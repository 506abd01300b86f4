"""A finished run is left alone; a resumed one tells of all its parts."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from PIL import Image

from tests.interrupted import (
    LIVELY,
    assert_equal_checkpoints,
    crash_at,
    logged_rows,
    stop_at,
    stopped_run,
)
from vitkit.app import assemble, compare, evaluate, inspect, probe, resume, train
from vitkit.app import trainer as app_trainer
from vitkit.app.invocation import restart_command
from vitkit.cli.advice import train_longer
from vitkit.config import RunConfig, load_config, split_arguments
from vitkit.errors import ConfigError, DataError, Interrupted
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
        stop_at(patch, 9, signal.SIGINT)
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
    folder = stopped_run(monkeypatch, tiny(), 4)
    early = evaluate(folder, progress=False)
    assert (folder / "eval.json").exists() and (folder / "predictions.npz").exists()
    result = resume(folder, progress=False)
    assert not (folder / "eval.json").exists()
    assert read_run(folder).measured("acc") == result.metrics["test/acc"]
    assert early.metrics["test/loss"] != result.metrics["test/loss"]


def test_neither_does_what_was_measured_of_its_other_checkpoints(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person's own files do, whatever they are called."""
    folder = stopped_run(monkeypatch, tiny(), 4)
    best = folder / "checkpoints" / "best.ckpt"
    compare([best], ["run.report=true"], split="all", progress=False)
    for source in (folder, best):
        probe(source, progress=False)
    inspect(folder, progress=False)

    def held() -> set[str]:
        ours = {"checkpoints", "features", "tensorboard"}
        paths = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
        return {path.as_posix() for path in paths if path.parts[0] not in ours}

    measured = {"eval-best.json", "eval-best-train.json", "examples-best.npz", "probe-best.json"}
    measured |= {"predictions-best-val.npz", "report/index-best-train.html", "probe.json"}
    measured |= {"probe-head-best.safetensors", "inspect/inspect.json", "inspect/filters.png"}
    assert measured <= held()
    own = {"eval-notes.json", "predictions-mine.npz", "results-old.json", "inspect/mine.png"}
    for name in own:
        (folder / name).write_text("[]")
    copies = {
        "eval-before.json": "eval-best.json",
        "predictions-before.npz": "predictions-best.npz",
    }
    for copied, name in copies.items():
        (folder / copied).write_bytes((folder / name).read_bytes())
    resume(folder, progress=False)
    assert held() == {"config.yaml", "metrics.csv", "results.json", *own, *copies}


def test_resuming_does_not_need_the_weights_that_it_began_with(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = train(tiny("trainer.max_epochs=1", folder="first"), progress=False)
    start = tmp_path / "start.ckpt"
    first.checkpoint.rename(start)
    with monkeypatch.context() as patch:
        stop_at(patch, 2)
        with pytest.raises(Interrupted):
            train(tiny(f"model.weights={start}", folder="second"), progress=False)
    start.unlink()
    result = resume(tmp_path / "second", progress=False)
    assert result.record.facts["steps"] == 9


@pytest.mark.parametrize("begun", [(), ("task.finetune.zero_head=true",)])
def test_a_finished_run_can_be_trained_on_as_a_new_one(
    tiny: Tiny, tmp_path: Path, begun: tuple[str, ...]
) -> None:
    """What the message of --resume advises."""
    settings = ("ema.enabled=true", "trainer.max_epochs=1", f"run.root={tmp_path / 'runs'}")
    first = train(tiny(*settings, *begun, folder="one"), progress=False)
    _, _, command = train_longer(first.folder).partition("from its weights: ")
    files, overrides = split_arguments(shlex.split(command)[2:])
    more = [*overrides, "optimizer.lr=1e-9", "ema.enabled=false"]
    second = train(load_config(files, more), progress=False)
    assert second.folder.parents[1] == tmp_path / "runs"
    assert second.metrics["test/loss"] == pytest.approx(first.metrics["test/loss"], rel=1e-4)


def test_a_new_run_begins_with_the_weights_and_not_as_the_old_one_did() -> None:
    recipe, weights = Path("old", "config.yaml"), Path("old", "last.ckpt")

    def settings(*begun: str) -> list[str]:
        config = load_config([], ["data.name=synthetic", *begun])
        words = shlex.split(restart_command(recipe, config, weights))
        at = words.index(str(recipe))
        assert words[at + 1] == f"model.weights={weights}"
        return words[at + 2 :]

    assert settings() == []
    assert settings("run.dir=old", "task.name=mae") == ["run.dir=null"]
    assert settings("task.finetune.head=head.safetensors") == ["task.finetune.head=null"]
    assert settings("task.finetune.zero_head=true") == ["task.finetune.zero_head=false"]
    # Weights that are named are taken in place of timm's own.
    assert settings("model.name=timm/test_vit", "model.pretrained=true") == []


STEADY = tuple(setting for setting in LIVELY if not setting.startswith("schedule."))


@pytest.mark.parametrize("stopped", [False, True])
def test_a_run_that_is_extended_is_one_of_that_length(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, stopped: bool
) -> None:
    """Bit for bit, with a rate that does not depend on the length; also if it is stopped again, and
    from a run that is not finished.
    """
    constant = (*STEADY, "schedule.name=constant", "trainer.keep_checkpoints=9")
    whole = train(tiny(*constant, "trainer.max_epochs=4", folder="whole"), progress=False)
    short = tiny(*constant, "trainer.max_epochs=2", folder="short")
    if stopped:
        folder, longer = stopped_run(monkeypatch, short, 4), 4
    else:
        folder, longer = train(short, progress=False).folder, None
        earlier = (folder / "results.json").read_bytes()
        with monkeypatch.context() as patch:
            stop_at(patch, 8)
            with pytest.raises(Interrupted):
                resume(folder, extend=4, progress=False)
        assert (folder / "2-epochs" / "results.json").read_bytes() == earlier
        assert not (folder / "results.json").exists()
    extended = resume(folder, extend=longer, progress=False)
    assert_equal_checkpoints(whole.checkpoint, extended.checkpoint)
    assert extended.metrics == whole.metrics
    assert extended.record.facts["epochs"] == 4
    assert logged_rows(folder) == logged_rows(whole.folder)
    assert load_config([folder / "config.yaml"]).trainer.max_epochs == 4
    assert load_config(base=read_checkpoint(extended.checkpoint).config).trainer.max_epochs == 4


def test_an_extension_that_is_killed_in_its_first_epoch_goes_on_by_itself(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    constant = (*STEADY, "schedule.name=constant")
    whole = train(tiny(*constant, "trainer.max_epochs=4", folder="whole"), progress=False)
    short = tiny(*constant, "trainer.max_epochs=2", folder="short")
    folder = train(short, progress=False).folder
    earlier = (folder / "results.json").read_bytes()

    with monkeypatch.context() as patch:
        crash_at(patch, 7)
        with pytest.raises(MemoryError):
            resume(folder, extend=4, progress=False)
    last = folder / "checkpoints" / "last.ckpt"
    assert read_checkpoint(last).step == 6  # of before, which knows of two epochs
    assert not (folder / "results.json").exists()
    again = resume(folder, progress=False)
    assert_equal_checkpoints(whole.checkpoint, again.checkpoint)
    assert again.metrics == whole.metrics and again.record.facts["epochs"] == 4
    assert (folder / "2-epochs" / "results.json").read_bytes() == earlier


def test_an_extension_that_is_killed_at_its_beginning_can_be_begun_again(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = train(tiny(), progress=False)
    earlier = (done.folder / "results.json").read_bytes()
    evaluate(done.folder, ["eval.resamples=100"], progress=False)
    measured = (done.folder / "eval.json").read_bytes()
    evaluate(done.folder / "checkpoints" / "best.ckpt", ["eval.resamples=100"], progress=False)
    for place in ("note_length", "keep_in"):
        with monkeypatch.context() as patch:
            patch.setattr(app_trainer, place, Mock(side_effect=MemoryError("gone")))
            with pytest.raises(MemoryError):
                resume(done.folder, extend=5, progress=False)
        assert resume(done.folder, progress=False).record.facts["epochs"] == 3
    again = resume(done.folder, extend=5, progress=False)
    assert again.record.facts["epochs"] == 5
    assert (done.folder / "3-epochs" / "results.json").read_bytes() == earlier
    assert (done.folder / "3-epochs" / "eval.json").read_bytes() == measured
    assert (done.folder / "3-epochs" / "predictions-best.npz").is_file()
    kept = read_run(done.folder / "3-epochs")
    assert kept.fact("epochs") == 3 and kept.settings()["trainer.max_epochs"] == 3
    assert kept.curves and kept.predictions is not None
    assert not (done.folder / "eval.json").exists()


def test_float16_is_not_resumed_on_a_cpu(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = stopped_run(monkeypatch, tiny("trainer.accelerator=cpu"), 4)
    last = folder / "checkpoints" / "last.ckpt"
    content = torch.load(last, weights_only=True)
    content["vitkit"]["config"]["trainer"]["precision"] = "16-mixed"
    torch.save(content, last)
    with pytest.raises(ConfigError, match="16-mixed: float16 trains on accelerators only"):
        resume(folder, progress=False)


def test_an_extension_that_is_refused_leaves_the_run_finished(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = train(tiny(), progress=False)
    before = {path: content for path, (content, _) in _content(done.folder).items()}
    with monkeypatch.context() as patch:
        refused = Mock(side_effect=ConfigError("no such device"))
        patch.setattr(assemble, "make_trainer", refused)
        with pytest.raises(ConfigError, match="no such device"):
            resume(done.folder, extend=5, progress=False)
    assert {path: content for path, (content, _) in _content(done.folder).items()} == before
    assert resume(done.folder, progress=False) == done
    assert resume(done.folder, extend=5, progress=False).record.facts["epochs"] == 5


def test_the_rates_of_an_extended_run_are_the_longer_ones_from_its_first_step_on(
    tiny: Tiny,
) -> None:
    short = train(tiny("schedule.warmup=0.3"), progress=False)
    whole = train(
        tiny("schedule.warmup=0.3", "trainer.max_epochs=5", folder="whole"), progress=False
    )
    resume(short.folder, extend=5, progress=False)

    def rates(folder: Path) -> list[str]:
        return [row["lr"] for row in logged_rows(folder) if row["lr"]]

    assert len(rates(short.folder)) == 15
    assert rates(short.folder)[9:] == rates(whole.folder)[9:]
    assert rates(short.folder)[:9] != rates(whole.folder)[:9]


def test_what_cannot_be_extended_is_left_as_it_is(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = train(tiny(), progress=False)
    before = _content(done.folder)
    for epochs in (2, 3):
        with pytest.raises(ConfigError, match=rf"extend to {epochs} epochs: the run has 3; give"):
            resume(done.folder, extend=epochs, progress=False)
    timed = train(tiny("trainer.max_time=500", folder="timed"), progress=False)
    with pytest.raises(ConfigError, match=r"with a time limit \(trainer.max_time=500\)"):
        resume(timed.folder, extend=9, progress=False)
    assert "--extend EPOCHS; or start a new run from its weights: " in train_longer(done.folder)
    early = ("trainer.early_stopping_patience=1", "optimizer.lr=1e-30", "trainer.max_epochs=9")
    stopped = train(tiny(*early, folder="early"), progress=False)
    reads = Mock(wraps=torch.load)
    with monkeypatch.context() as patch, pytest.raises(ConfigError, match="has stopped early"):
        patch.setattr(torch, "load", reads)
        resume(stopped.folder, extend=19, progress=False)
    assert reads.call_count == 1
    at_its_end = train(tiny(*early, "trainer.max_epochs=2", folder="end"), progress=False)
    with pytest.raises(ConfigError, match="has stopped early"):
        resume(at_its_end.folder, extend=19, progress=False)
    for run in (timed, stopped):  # nor is it offered
        assert "--extend" not in train_longer(run.folder)
        assert "start a new run from its weights: " in train_longer(run.folder)
    assert _content(done.folder) == before


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
