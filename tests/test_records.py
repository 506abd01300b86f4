"""Records are written whole or not at all, and no two processes write the same file."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from vitkit.records import Record, write_arrays, write_beside, write_text


def test_what_is_written_bears_the_processs_number_until_it_is_whole(tmp_path: Path) -> None:
    seen: list[str] = []

    def write(beside: Path) -> None:
        beside.write_text("new")
        seen.append(beside.name)
        assert (tmp_path / "a.json").read_text() == "old"

    write_text(tmp_path / "a.json", "old")
    write_beside(tmp_path / "a.json", write)
    assert (tmp_path / "a.json").read_text() == "new"
    assert seen == [f"a.json.{os.getpid()}.part"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_failure_leaves_the_old_file_and_no_part(tmp_path: Path) -> None:
    write_arrays(tmp_path / "a.npz", {"x": np.arange(3)})

    def fail(beside: Path) -> None:
        beside.write_text("half")
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        write_beside(tmp_path / "a.npz", fail)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        assert arrays.files == ["x"]
        assert arrays["x"].tolist() == [0, 1, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    tables = {"classes": {"name": ["a", "b"], "acc": [0.5, 1.0]}, "none": {}}
    for record in (
        Record(),
        Record({"test/acc": 0.5}, {"model": "x"}),
        Record({"test/acc": 0.5}, {"model": "x"}, tables),
        Record(tables=tables),
    ):
        record.write(tmp_path / "a.json")
        assert Record.read(tmp_path / "a.json") == record
