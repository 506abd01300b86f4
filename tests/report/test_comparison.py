"""The page of several runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.report.made_up import NAMES, Page, hostile, write_run
from vitkit.records import Record
from vitkit.report import Run, comparison_page, read_run

PAIRED = {
    "difference": -0.0123,
    "low": -0.03,
    "high": 0.004,
    "bootstrap_p": 0.21,
    "mcnemar_p": 0.0004,
    "only_first": 17,
    "only_second": 23,
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    root = tmp_path_factory.mktemp("compared")
    made = [write_run(root / name, seed=seed) for seed, name in enumerate(("a/1", "b/1"))]
    config = made[1] / "config.yaml"
    config.write_text(config.read_text().replace("lr: 0.003", "lr: 0.01"), encoding="utf-8")
    return [read_run(folder) for folder in made]


def _page(runs: list[Run], *paired: dict[str, float] | None) -> Page:
    text = comparison_page(runs, paired)
    assert text == comparison_page(runs, paired)
    page = Page(text)
    assert page.faults == []
    page.text = page.text.replace("\u00a0", " ")
    return page


def test_two_runs_side_by_side(runs: list[Run]) -> None:
    page = _page(runs, PAIRED)
    for run in runs:
        accuracy = run.metric("test/acc")
        assert accuracy is not None and f"{100 * accuracy:.2f} %" in page.text
    assert "\u22121.23" in page.text and "+0.40" in page.text and "< 0.001" in page.text
    assert "17" in page.text and "23" in page.text
    assert "optimizer.lr" in page.text and "0.01" in page.text
    assert {"side-by-side", "paired-tests", "curve-val-acc", "recall", "corrupted"} <= set(page.ids)


def test_curves_lie_over_each_other(runs: list[Run]) -> None:
    page = _page(runs, PAIRED)
    charts = [block for block in page.data["data"] if "lines" in block]
    assert len(charts) >= 5
    beside = []
    for chart in charts:
        lines = chart["lines"]
        assert [line["name"] for line in lines[:2]] == [run.name for run in runs]
        assert [line["colour"] for line in lines] == list(range(len(lines)))
        beside += [line["name"] for line in lines[2:]]
    assert beside == ["accuracy = confidence"]  # of the reliability diagram


def test_the_best_is_marked(runs: list[Run]) -> None:
    page = _page(runs, PAIRED)
    marked = [given for tag, given in page.attributes if "best" in given.get("class", "").split()]
    best = max(run.metric("test/acc") or 0.0 for run in runs)
    assert repr(best) in [given["data-v"] for given in marked]


def test_of_different_splits_none_is_the_best(runs: list[Run]) -> None:
    standard = runs[1].standard
    assert standard is not None
    of_val = {name.replace("test/", "val/"): value for name, value in standard.metrics.items()}
    other = Record(of_val, {**standard.facts, "split": "val"}, standard.tables)
    mixed = [runs[0], dataclasses.replace(runs[1], standard=other)]
    page = _page(mixed, None)
    assert "Measured on different images" in page.text
    best = [given for tag, given in page.attributes if "best" in given.get("class", "").split()]
    accuracies = {repr(run.measured("acc")) for run in mixed}
    assert not accuracies & {given.get("data-v") for given in best}


def test_a_seventh_run_is_not_drawn_as_the_first(runs: list[Run]) -> None:
    page = _page([*runs, *runs, *runs, *runs], *[PAIRED] * 7)
    classes = [given["class"] for _, given in page.attributes if "line" in given.get("class", "")]
    lines = {name for name in classes if name.split()[0] == "line"}
    assert {"line c0", "line c5", "line c0 again", "line c1 again"} <= lines


def test_runs_without_a_paired_test_say_so(runs: list[Run]) -> None:
    page = _page([*runs, runs[0]], PAIRED, None)
    assert f"No paired test of {runs[0].name} and {runs[0].name} (2)" in page.text
    assert "paired-tests" in page.ids


def test_runs_with_little_in_common(runs: list[Run], tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    Record({"val/loss": 1.0}, {"model": hostile[0]}).write(bare / "results.json")
    other = write_run(tmp_path / "other", names=[*NAMES, "sun"])
    page = _page([runs[0], read_run(bare), read_run(other)], None, None)
    assert len(page.scripts) == 1
    assert "Fewer than two runs have predictions of the same classes" in page.text


def test_runs_that_are_alike(runs: list[Run]) -> None:
    assert "All settings are the same" in _page([runs[0], runs[0]], PAIRED).text
