"""Two processes on one machine train as one does, and count every test image once."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import TINY
from vitkit.app import train
from vitkit.config import load_config

ROOT = Path(__file__).parents[2]


def _train(folder: Path, *overrides: str) -> dict[str, float]:
    """In this process."""
    train(load_config([], [*TINY, f"run.dir={folder}", *overrides]), progress=False)
    return _results(folder)


def _environment() -> dict[str, str]:
    """As of a command that nobody else has started."""
    own = ("VITKIT_RUN_DIR", "LOCAL_RANK")
    return {k: v for k, v in os.environ.items() if k not in own} | {"OMP_NUM_THREADS": "1"}


def _run(folder: Path, *arguments: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *arguments],
        cwd=ROOT,
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "sync_dist" not in done.stderr
    assert done.stdout.count("results:") == 1  # one process speaks for all
    return _results(folder)


def _results(folder: Path) -> dict[str, float]:
    results: dict[str, float] = json.loads((folder / "results.json").read_text())
    return results


def _curve(folder: Path, name: str = "val/loss") -> list[float]:
    with (folder / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row[name]]


def test_child_processes_ask_no_network() -> None:
    """The guard of all tests sees this process alone: libraries are told in their own way."""
    assert {"HF_HUB_OFFLINE": "1", "PIP_NO_INDEX": "1"}.items() <= _environment().items()


SPOILT = """
import os

from vitkit.training import task

plain = task.classification_loss


def loss(*args, **kwargs):
    spoilt = os.environ.get("LOCAL_RANK") == "1"
    return plain(*args, **kwargs) * (float("nan") if spoilt else 1.0)


task.classification_loss = loss

from vitkit.cli import run_train

if __name__ == "__main__":
    run_train()
"""
"""``train.py`` with a loss that is no number in the second process."""


@pytest.mark.skipif(sys.platform == "win32", reason="gloo on Windows needs its own set-up")
def test_a_bad_loss_in_another_process_is_told_by_the_first(tmp_path: Path) -> None:
    script = tmp_path / "spoilt.py"
    script.write_text(SPOILT)
    settings = [f"run.dir={tmp_path / 'run'}", "trainer.devices=2", "trainer.strategy=ddp"]
    done = subprocess.run(
        [sys.executable, str(script), *TINY, *settings],
        cwd=ROOT,
        env={**_environment(), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode != 0
    told = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(told) == 1, done.stderr[-3000:]
    assert "the loss became NaN or infinite at step 1 (epoch 1)" in told[0]
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="gloo on Windows needs its own set-up")
def test_two_processes_equal_one(tmp_path: Path) -> None:
    more = ["data.augment.flip=true", "ema.enabled=true", "data.synthetic_size=97"]
    one = _train(tmp_path / "one", *more)
    copies = "trainer.save_every_n_steps=2", "trainer.keep_checkpoints=9"
    settings = [*more, *copies, "trainer.devices=2", "trainer.strategy=ddp"]
    two = _run(tmp_path / "two", *TINY, f"run.dir={tmp_path / 'two'}", *settings)
    for first, second in zip(_curve(tmp_path / "one"), _curve(tmp_path / "two"), strict=True):
        assert second == pytest.approx(first, rel=2e-5)
    assert two["test/loss"] == pytest.approx(one["test/loss"], rel=2e-5)
    assert two["test/acc"] == one["test/acc"]
    assert two["steps"] == one["steps"]
    assert two["val/acc"] == pytest.approx(one["val/acc"], abs=1e-9)
    _goes_on_in_mid_epoch_counting_each_image_once(tmp_path / "two")


def _goes_on_in_mid_epoch_counting_each_image_once(folder: Path) -> None:
    names = "train/acc", "train/loss_epoch", "val/loss"
    whole = {name: _curve(folder, name) for name in names}
    assert len(whole["train/acc"]) == 3
    (folder / "checkpoints" / "step-2.ckpt").replace(folder / "checkpoints" / "last.ckpt")
    (folder / "results.json").unlink()
    _run(folder, "--resume", str(folder))
    for name in names:
        assert _curve(folder, name) == pytest.approx(whole[name], rel=1e-6), name


def test_accumulation_equals_one_large_batch(tmp_path: Path) -> None:
    one = _train(tmp_path / "one")
    four = _train(tmp_path / "four", "trainer.accumulate_grad_batches=4")
    assert four["test/loss"] == pytest.approx(one["test/loss"], rel=2e-5)
    assert four["steps"] == one["steps"]
