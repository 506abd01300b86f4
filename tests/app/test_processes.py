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

ROOT = Path(__file__).parents[2]


def _train(folder: Path, *overrides: str) -> dict[str, float]:
    environment = {k: v for k, v in os.environ.items() if k not in ("VITKIT_RUN_DIR", "LOCAL_RANK")}
    environment |= {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *TINY, f"run.dir={folder}", *overrides],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "sync_dist" not in done.stderr
    assert done.stdout.count("results:") == 1  # one process speaks for all
    results: dict[str, float] = json.loads((folder / "results.json").read_text())
    return results


def _curve(folder: Path) -> list[float]:
    with (folder / "metrics.csv").open() as file:
        return [float(row["val/loss"]) for row in csv.DictReader(file) if row["val/loss"]]


@pytest.mark.skipif(sys.platform == "win32", reason="gloo on Windows needs its own set-up")
def test_two_processes_equal_one(tmp_path: Path) -> None:
    more = ["data.augment.flip=true", "ema.enabled=true", "data.synthetic_size=97"]
    one = _train(tmp_path / "one", *more)
    two = _train(tmp_path / "two", *more, "trainer.devices=2", "trainer.strategy=ddp")
    for first, second in zip(_curve(tmp_path / "one"), _curve(tmp_path / "two"), strict=True):
        assert second == pytest.approx(first, rel=2e-5)
    assert two["test/loss"] == pytest.approx(one["test/loss"], rel=2e-5)
    assert two["test/acc"] == one["test/acc"]
    assert two["steps"] == one["steps"]
    assert two["val/acc"] == pytest.approx(one["val/acc"], abs=1e-9)


def test_accumulation_equals_one_large_batch(tmp_path: Path) -> None:
    one = _train(tmp_path / "one")
    four = _train(tmp_path / "four", "trainer.accumulate_grad_batches=4")
    assert four["test/loss"] == pytest.approx(one["test/loss"], rel=2e-5)
    assert four["steps"] == one["steps"]
