"""``metrics.csv`` when a run goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from vitkit.training.loggers import CsvMetrics


@pytest.mark.parametrize("tail", ["1", "8,2,0.0"])
def test_a_row_that_was_cut_is_not_taken_up(tmp_path: Path, tail: str) -> None:
    """As by a disk that filled up: half of it, or half of its last number."""
    path = tmp_path / "metrics.csv"
    whole = "step,epoch,loss\n" + "".join(f"{step},{step // 3},0.5\n" for step in range(8))
    path.write_text(whole + tail)
    CsvMetrics(path, keep_before_step=9)
    assert path.read_text() == whole
