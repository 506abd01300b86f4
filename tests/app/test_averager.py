"""Numbered checkpoints of a run, and their average as every command takes it."""

from __future__ import annotations

import csv
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

import vitkit
from tests.conftest import Command
from tests.interrupted import stop_at, stopped_run
from tests.small_words import pair_run
from vitkit.app import average_checkpoints, evaluate, export, load_translator, resume, train
from vitkit.config import RunConfig
from vitkit.errors import ConfigError, Interrupted, RunError, WeightsError
from vitkit.weights import read_checkpoint

Tiny = Callable[..., RunConfig]


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


@pytest.fixture
def run(tiny: Tiny) -> Path:
    """4 epochs of 3 steps, the newest three kept."""
    more = ("trainer.max_epochs=4", "trainer.keep_checkpoints=3")
    return train(tiny(*more), progress=False).folder


def test_the_newest_are_kept_at_epoch_ends_or_every_n_steps(tiny: Tiny, run: Path) -> None:
    usual = ["best.ckpt", "last.ckpt"]
    assert _names(run) == [*usual, "step-12.ckpt", "step-6.ckpt", "step-9.ckpt"]
    for step in (6, 9, 12):
        assert read_checkpoint(run / "checkpoints" / f"step-{step}.ckpt").step == step
    last, newest = (run / "checkpoints" / name for name in ("last.ckpt", "step-12.ckpt"))
    assert last.read_bytes() == newest.read_bytes()
    steps = ("trainer.save_every_n_steps=2", "trainer.keep_checkpoints=2")
    folder = train(tiny(*steps, folder="steps"), progress=False).folder
    assert _names(folder) == [*usual, "step-6.ckpt", "step-8.ckpt"]  # 9, the last, is no multiple
    assert _names(train(tiny(folder="none"), progress=False).folder) == usual


def _by_loss(folder: Path) -> list[str]:
    """Names of a run's epochs, the smallest validation loss first."""
    with (folder / "metrics.csv").open(newline="") as file:
        found = {r["step"]: float(r["val/loss"]) for r in csv.DictReader(file) if r["val/loss"]}
    steps = sorted(found, key=lambda step: found[step])
    return [f"step-{int(step) + 1}.ckpt" for step in steps]


def test_the_best_are_kept_also_by_a_run_that_was_stopped(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = ("trainer.max_epochs=6", "trainer.keep_checkpoints=2", "trainer.keep_best=true")
    more += ("trainer.monitor=val/loss", "optimizer.lr=3.0", "schedule.name=constant")
    whole = train(tiny(*more, folder="whole"), progress=False).folder
    order = _by_loss(whole)
    assert len(order) == 6
    assert order[:2] != [f"step-{step}.ckpt" for step in (18, 15)]  # or the newest would do
    kept = [name for name in _names(whole) if "step" in name]
    assert kept == sorted(order[:2])
    best, first = (whole / "checkpoints" / name for name in ("best.ckpt", order[0]))
    assert best.read_bytes() == first.read_bytes()
    parts = stopped_run(monkeypatch, tiny(*more, folder="parts"), 12)
    resume(parts, progress=False)
    assert [name for name in _names(parts) if "step" in name] == kept


@pytest.mark.parametrize("missing", ["trainer.keep_checkpoints=0", "data.val_fraction=0.0"])
def test_the_best_of_what_is_not_there(tiny: Tiny, missing: str) -> None:
    more = ("trainer.keep_checkpoints=2", "trainer.keep_best=true")
    with pytest.raises(ConfigError, match=r"trainer\.keep_best needs validation images and"):
        train(tiny(*more, missing), progress=False)


def test_a_stop_adds_no_number_and_going_on_keeps_counting(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = ("trainer.keep_checkpoints=2",)
    with monkeypatch.context() as patch:
        stop_at(patch, 4, signal.SIGINT)
        with pytest.raises(Interrupted):
            train(tiny(*more), progress=False)
    folder = Path(tiny().run.dir or "")
    assert "step-4.ckpt" not in _names(folder) and "step-3.ckpt" in _names(folder)
    resume(folder, progress=False)
    assert [name for name in _names(folder) if "step" in name] == ["step-6.ckpt", "step-9.ckpt"]


def test_an_average_is_a_checkpoint_like_any_other(tiny: Tiny, run: Path) -> None:
    result = vitkit.average_checkpoints(run)
    assert result.path == run / "checkpoints" / "averaged.ckpt" and result.steps == (6, 9, 12)
    each = [read_checkpoint(path) for path in result.sources]
    found = read_checkpoint(result.path)
    assert found.step == 12 and found.config == each[-1].config
    for name, tensor in found.trained.items():
        want = torch.stack([one.trained[name].double() for one in each]).mean(0)
        torch.testing.assert_close(tensor.double(), want, rtol=1e-6, atol=1e-8, msg=name)
    measured = evaluate(result.path, progress=False)
    assert measured.checkpoint == result.path
    assert measured.metrics["test/loss"] != evaluate(run, progress=False).metrics["test/loss"]
    assert export(result.path, "safetensors", run / "exported").files
    starting = tiny(f"model.weights={result.path}", "trainer.max_epochs=1", folder="more")
    assert "test/acc" in train(starting, progress=False).metrics


def test_the_newest_few_and_files(run: Path, tmp_path: Path) -> None:
    few = average_checkpoints(run, last=2, output=tmp_path / "few.ckpt")
    assert few.steps == (9, 12)
    files = [run / "checkpoints" / f"step-{step}.ckpt" for step in (12, 9, 6)]
    same = average_checkpoints(files, last=2, output=tmp_path / "same.ckpt")
    assert same.sources == few.sources
    one, two = (read_checkpoint(result.path).trained for result in (few, same))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_averaged_weights_of_a_run_that_averages(tiny: Tiny) -> None:
    more = ("ema.enabled=true", "ema.decay=0.5", "trainer.keep_checkpoints=2")
    result = average_checkpoints(train(tiny(*more), progress=False).folder)
    each = [read_checkpoint(path).weights for path in result.sources]
    found = read_checkpoint(result.path)
    assert found.weights_name == "averaged"
    for name, tensor in found.weights.items():
        want = (each[0][name].double() + each[1][name].double()) / 2
        torch.testing.assert_close(tensor.double(), want, rtol=1e-6, atol=1e-8, msg=name)


def test_a_translator_translates_from_its_average(tmp_path: Path) -> None:
    more = ("trainer.max_epochs=3", "trainer.keep_checkpoints=3")
    run = train(pair_run(tmp_path / "run", *more), progress=False).folder
    result = average_checkpoints(run, last=3)
    assert len(load_translator(result.path).translate(["one two"])) == 1
    assert "test/bleu" in evaluate(result.path, progress=False).metrics


def test_what_cannot_be_averaged(tiny: Tiny, run: Path, tmp_path: Path) -> None:
    plain = train(tiny(folder="plain"), progress=False).folder
    last = run / "checkpoints" / "last.ckpt"
    cases: list[tuple[object, dict[str, object], type[Exception], str]] = [
        ([], {}, ConfigError, "nothing to average: name a run"),
        (run, {"last": 1}, ConfigError, "--last: given 1, allowed: 2 and up"),
        (run, {"output": "x.pth"}, ConfigError, r"--output: given x\.pth, .*ends in \.ckpt"),
        (run, {"output": last}, WeightsError, "exists and is not overwritten"),
        (run, {"last": 5}, RunError, "--last: given 5, but .* has 3 .*keep_checkpoints=5"),
        (plain, {}, RunError, "0 numbered checkpoints .*trainer.keep_checkpoints=5"),
        (tmp_path / "none", {}, RunError, "no such run folder"),
        (last, {}, RunError, "alone cannot be averaged"),
        ([run, plain], {}, RunError, "is a folder; give one run"),
        ([last, tmp_path / "none.ckpt"], {}, RunError, "no such checkpoint"),
        ([last, plain / "checkpoints" / "last.ckpt"], {}, WeightsError, r"config \(.*trainer.*\)"),
        ([last, run / "checkpoints" / "step-12.ckpt"], {}, WeightsError, "both hold step 12"),
    ]
    before = _names(run)
    for sources, options, error, said in cases:
        with pytest.raises(error, match=said) as raised:
            average_checkpoints(sources, **options)  # type: ignore[arg-type]
        assert "\n" not in str(raised.value)
    assert _names(run) == before


def test_the_command(run: Path, vitkit_command: Command) -> None:
    call = partial(vitkit_command, "average")
    code, out, err = call(run, "--last", 2, "--output", run / "mean.ckpt")
    assert code == 0 and err == ""
    assert out.splitlines() == [
        f"{run / 'mean.ckpt'}: the mean of 2 checkpoints, steps 9, 12",
        f"next:    vitkit eval {run / 'mean.ckpt'}",
    ]
    code, out, err = call(run, "--output", run / "mean.ckpt")
    assert code == 1 and out == "" and len(err.splitlines()) == 1 and err.startswith("error: ")
