"""What all benchmarks share: turns, ratios, tables."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from benchmarks import peers, timing
from benchmarks.peers import OURS, SIZES, build_all, libraries
from benchmarks.timing import Report, duel, rate, samples, supported, table
from benchmarks.train_step import products
from vitkit.app.facts import environment_facts


def test_each_round_lets_another_one_begin() -> None:
    seen: list[str] = []
    runs = {name: lambda name=name: seen.append(name) for name in "abc"}  # type: ignore[misc]
    times = samples(runs, rounds=4, seconds=0.0)
    assert seen[:6] == ["a", "a", "b", "b", "c", "c"], "warm-up and a trial first"
    assert "".join(seen[6:]) == "abc" + "bca" + "cab" + "abc"
    assert {name: len(values) for name, values in times.items()} == {"a": 4, "b": 4, "c": 4}


def test_a_turn_is_as_long_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Warm-up, a trial of 2 ms, and as many as fit 20 ms."""
    now, seen = [0.0], []
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def call() -> None:
        seen.append(1)
        now[0] += 0.002

    times = samples({"a": call}, rounds=1, seconds=0.02)
    assert len(seen) == 1 + 1 + 10
    assert times == {"a": [pytest.approx(0.002)]}


def test_the_ratio_is_taken_within_rounds() -> None:
    # The machine is ten times slower in the second round: the ratio does not see it.
    times = {"vitkit": [1.0, 10.0, 1.0], "a": [2.0, 20.0, 2.0], "b": [3.0, 30.0, 1.5]}
    assert duel(times) == (2.0, "a")
    assert duel({"x": [4.0], "y": [1.0]}, ours="x") == (0.25, "y")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        *((0.12345, "0.123"), (1.0, "1.00"), (78.94, "78.9"), (99.96, "100"), (4567.2, "4567")),
        *((9999.6, "10k"), (12345.0, "12.3k"), (220_000.0, "220k"), (1.5e6, "1.5M")),
    ],
)
def test_numbers_have_three_digits_and_five_characters(value: float, shown: str) -> None:
    assert rate(value) == shown
    assert len(shown) <= 5


def test_emulated_formats_are_left_out_with_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    both = ["float32", "bfloat16"]
    monkeypatch.setattr(timing, "multiplies_bfloat16", lambda device: True)
    assert supported(both, "cpu") == (both, [])
    monkeypatch.setattr(timing, "multiplies_bfloat16", lambda device: False)
    assert supported(both, "cpu") == (
        ["float32"],
        ["bfloat16 left out: this machine only emulates it."],
    )
    assert supported(["float32"], "cpu") == (["float32"], [])


def test_a_report_is_a_table_for_people_and_numbers_for_programs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = Report("What, " * 30, ["name", "ratio"], ["A note. " * 15])
    report.add(["a", "1.50"], name="a", ratio=1.5)
    report.finish(tmp_path / "numbers.json")
    out = capsys.readouterr().out
    assert "| a    | 1.50  |" in out
    assert timing.machine().split(",")[0][:20] in out
    assert timing.machine().startswith(str(environment_facts()["hardware"]))
    assert max(map(len, out.splitlines())) <= 80
    read = json.loads((tmp_path / "numbers.json").read_text())
    assert read["rows"] == [{"name": "a", "ratio": 1.5}]
    assert read["environment"]["torch_version"]
    assert table(["a"], [["long"]]) == "| a    |\n| ---  |\n| long |"


def test_every_library_builds_the_same_model() -> None:
    names, notes = libraries()
    assert names[0] == OURS
    assert "timm" in names
    assert notes[0].startswith("Columns: ")
    vit = SIZES["micro/8"]
    for model in build_all(vit, names).values():
        assert model.training
        assert model(vit.images(3, "cpu")).shape == (3, vit.num_classes)


def test_another_model_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(peers._BUILDERS, "timm", lambda vit: nn.Linear(3, 4))
    with pytest.raises(AssertionError, match=r"timm: 16 parameters in place of 32,170"):
        build_all(SIZES["micro/8"], [OURS, "timm"])


def test_a_library_that_is_absent_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        peers, "find_spec", lambda name: None if name == "vit_pytorch" else object()
    )
    names, notes = libraries()
    assert "vit-pytorch" not in names
    assert notes[1] == "Not installed: vit-pytorch (pip install 'vitkit[bench]')."


def test_the_bare_products_are_those_of_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many operations as a step's: three times the linear layers of one block."""
    from torch.utils.flop_counter import FlopCounterMode

    vit, batch = SIZES["micro/8"], 3
    with FlopCounterMode(display=False) as counter:
        products(vit, batch, torch.float32, "cpu")()
    rows, width = batch * vit.tokens, vit.embed_dim
    assert counter.get_total_flops() == 3 * 2 * rows * 12 * width**2
