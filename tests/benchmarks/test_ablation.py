"""The ablation's plan, its order, its table; the curves read from a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import ablation, curves
from vitkit.config import RunConfig, load_config
from vitkit.errors import ConfigError
from vitkit.records import Record

PLANS = sorted((Path(__file__).parents[2] / "benchmarks" / "ablations").glob("*.yaml"))
ACCURACY = {0.01: [0.80, 0.84], 0.02: [0.70, 0.72]}
"""Of each learning rate with each seed."""


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, int]]:
    """Runs that cost nothing; (name, seeds asked for) of each call."""
    asked: list[tuple[str, int]] = []

    def train_seeds(config: RunConfig, count: int, quiet: bool = False) -> None:
        asked.append((str(config.run.name), count))
        folder = Path(config.run.root) / str(config.run.name) / "seeds" / f"seed-{count - 1}"
        folder.mkdir(parents=True)
        accuracy = ACCURACY[config.optimizer.lr][count - 1]
        Record({"test/acc": accuracy}, {"model": "vit"}).write(folder / "results.json")

    monkeypatch.setattr(ablation, "train_seeds", train_seeds)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.yaml").write_text("optimizer: {lr: 0.01}\n")
    (tmp_path / "plan.yaml").write_text(
        "config: base.yaml\nrows:\n  the recipe:\n  Twice the rate: [optimizer.lr=0.02]\n"
    )
    return asked


def test_rows_take_turns_and_the_table_says_what_each_is_worth(
    trained: list[tuple[str, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ablation.main(["plan.yaml", "--seeds", "2"]) == 0
    assert trained == [
        ("the-recipe", 1),
        ("twice-the-rate", 1),
        ("the-recipe", 2),
        ("twice-the-rate", 2),
    ]
    lines = capsys.readouterr().out.splitlines()
    recipe = next(line for line in lines if line.startswith("| the recipe"))
    other = next(line for line in lines if line.startswith("| Twice"))
    assert [cell.strip() for cell in recipe.split("|")[2:7]] == [
        "2",
        "82.00",
        "2.83",
        "+0.00",
        "0.00",
    ]
    # 80 - 70 and 84 - 72: their mean, and their deviation over the root of 2
    assert [cell.strip() for cell in other.split("|")[2:7]] == [
        "2",
        "71.00",
        "1.41",
        "+11.00",
        "1.00",
    ]


def test_show_trains_nothing(
    trained: list[tuple[str, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    ablation.main(["plan.yaml", "--seeds", "1"])
    trained.clear()
    capsys.readouterr()
    assert ablation.main(["plan.yaml", "--show"]) == 0
    assert not trained
    recipe, other = capsys.readouterr().out.rsplit("Twice", 1)
    assert "80.00" in recipe and "70.00" in other
    assert [cell.strip() for cell in other.split("|")[2:6]] == ["70.00", "-", "+10.00", "-"]


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_every_plan_names_settings_that_exist(path: Path) -> None:
    plan = ablation.read_plan(path)
    assert next(iter(plan.rows.values())) == []
    root = path.parents[2]
    configs = [load_config([root / plan.config], changes) for changes in plan.rows.values()]
    assert len({config.model_dump_json() for config in configs}) == len(plan.rows)


def test_a_plan_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no plan"):
        ablation.read_plan(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("rows: [1]\n")
    with pytest.raises(ConfigError, match="should hold `config: FILE`"):
        ablation.read_plan(tmp_path / "bad.yaml")


def _run(folder: Path, table: str, **metrics: float) -> Path:
    (folder / "metrics.csv").write_text(table)
    Record(metrics, {"wall_seconds": 120.0, "steps": 20}).write(folder / "results.json")
    return folder


def test_a_curve_is_validation_by_minutes_and_the_test_at_the_end(tmp_path: Path) -> None:
    table = (
        "step,epoch,lr,val/acc,seconds\n9,0,0.1,,\n10,0,,0.5,\n10,0,,,60\n20,1,,0.75,\n20,1,,,90\n"
    )
    run = _run(tmp_path, table, **{"test/acc": 0.7})
    assert curves.read_curve(run) == [(1.0, 50.0), (1.5, 75.0)]
    assert curves.read_end(run) == [(2.0, pytest.approx(70.0))]
    assert curves.read_end(run, by="steps") == [(20.0, pytest.approx(70.0))]


def test_a_curve_of_losses_lies_between_the_times_that_are_known(tmp_path: Path) -> None:
    table = "step,train/loss,val/loss,seconds\n5,3,,\n10,2,2.5,60\n15,1,,\n20,,1.5,90\n25,1,,\n"
    run = _run(tmp_path, table, **{"val/loss": 1.5})
    # Half-way to the first time, half-way to the second; nothing is known of step 25.
    assert curves.read_curve(run, "train/loss") == [(0.5, 3.0), (1.0, 2.0), (1.25, 1.0)]
    assert curves.read_curve(run, "val/loss", "steps") == [(10.0, 2.5), (20.0, 1.5)]
    assert curves.read_end(run, "val/loss") == []


def test_a_picture_of_runs_and_of_others_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    table = "step,train/loss,val/acc,seconds\n9,2,0.5,60\n14,1.5,,\n19,1,0.75,90\n"
    run = str(_run(tmp_path, table, **{"test/acc": 0.7}))
    out = tmp_path / "out" / "curves.svg"
    assert curves.main([run, "--out", str(out), "--points", "other", "1:40", "2:60"]) == 0
    assert out.read_text().count("<svg") == 1
    more = ["--metrics", "val/acc", "train/loss", "--by", "steps"]
    assert curves.main([run, "--out", str(out), *more]) == 0
    capsys.readouterr()
    assert curves.main([run, "--metrics", "val/los"]) == 2
    assert "has no val/los" in capsys.readouterr().err
