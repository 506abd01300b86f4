"""``metrics.csv`` when a run goes on, and Weights & Biases."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest
import pytorch_lightning.loggers
from pytorch_lightning.utilities import rank_zero_only

from vitkit.app import assemble
from vitkit.config import RunConfig
from vitkit.training.loggers import CsvMetrics


@pytest.mark.parametrize("tail", ["1", "8,2,0.0"])
def test_a_row_that_was_cut_is_not_taken_up(tmp_path: Path, tail: str) -> None:
    """As by a disk that filled up: half of it, or half of its last number."""
    path = tmp_path / "metrics.csv"
    whole = "step,epoch,loss\n" + "".join(f"{step},{step // 3},0.5\n" for step in range(8))
    path.write_text(whole + tail)
    CsvMetrics(path, keep_before_step=9)
    assert path.read_text() == whole


def test_of_several_processes_the_first_alone_cuts_the_file_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("step,epoch,loss\n0,0,0.5\n1,0,0.4\n")
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    CsvMetrics(path, keep_before_step=1)
    assert path.read_text() == "step,epoch,loss\n0,0,0.5\n1,0,0.4\n"
    monkeypatch.setattr(rank_zero_only, "rank", 0)
    CsvMetrics(path, keep_before_step=1)
    assert path.read_text() == "step,epoch,loss\n0,0,0.5\n"


def test_a_run_that_goes_on_goes_on_in_weights_and_biases_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Mock()
    monkeypatch.setattr(pytorch_lightning.loggers, "WandbLogger", made)
    for name in ("run", "run", "other"):
        (tmp_path / name).mkdir(exist_ok=True)
        assemble._wandb_logger(tmp_path / name)
    first, again, other = (call.kwargs for call in made.call_args_list)
    assert first == again
    assert first["resume"] == "allow" and first["save_dir"] == tmp_path / "run"
    assert first["id"] and first["id"] != other["id"]


def test_weights_and_biases_are_one_logger_more(
    tiny: Callable[..., RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Mock()
    monkeypatch.setattr(pytorch_lightning.loggers, "WandbLogger", made)
    usual, more = (
        assemble.make_loggers(Mock(config=config, folder=tmp_path), None)
        for config in (tiny(), tiny("trainer.wandb=true"))
    )
    assert len(more) == len(usual) + 1
    assert more[-1] is made.return_value and made.call_count == 1
