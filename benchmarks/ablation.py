"""What is each part of a recipe worth? Leaves one out at a time, over seeds.

    python -m benchmarks.ablation benchmarks/ablations/cifar10_cpu_5min.yaml data.root=data

The file names a config and, for each row of the table, the settings that differ. Rows are trained
in turn, all with the first seed, then all with the next, so that a table cut short is still one.
Each run lies in ``runs/ablation-<file>/<row>``; the same command goes on where it stopped, on
another day too, and ``--show`` prints what there is. ``worth`` is how many points the recipe loses
with that row's change, seed by seed, ``+-`` the standard error of that.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from ruamel.yaml import YAML

from benchmarks.timing import Report
from vitkit.app import train_seeds
from vitkit.config import load_config, split_arguments
from vitkit.errors import ConfigError, VitkitError
from vitkit.records import Record

__all__ = ["Plan", "main", "read_plan"]


@dataclass(frozen=True)
class Plan:
    """What to train.

    Attributes:
        name: of the file, without ending.
        config: the recipe's file.
        rows: name of each row -> the settings that differ; the first is the recipe itself.
    """

    name: str
    config: Path
    rows: dict[str, list[str]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Train what is missing and print the table; returns the exit code."""
    options = _options(arguments)
    try:
        files, overrides = split_arguments(options.settings)
        if len(files) != 1:
            raise ConfigError(f"ablation takes one plan and KEY=VALUE settings, not {files}")
        plan = read_plan(Path(files[0]))
        if not options.show:
            for seed in range(options.seeds):
                for row, changes in plan.rows.items():
                    _train(plan, row, [*changes, *overrides], seed)
        report = _report(plan)
        report.finish(options.json)
    except VitkitError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def read_plan(path: Path) -> Plan:
    """The plan in a file.

    Raises:
        ConfigError: no such file, or not of this form.
    """
    if not path.is_file():
        raise ConfigError(f"there is no plan {path}")
    content = YAML(typ="safe").load(path)
    rows = content.get("rows") if isinstance(content, dict) else None
    if not isinstance(rows, dict) or not rows or not isinstance(content.get("config"), str):
        raise ConfigError(f"{path} should hold `config: FILE` and `rows:`, each with its settings")
    return Plan(
        path.stem, Path(content["config"]), {str(k): list(v or []) for k, v in rows.items()}
    )


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("settings", nargs="+", metavar="PLAN | KEY=VALUE")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of each row, from 0")
    parser.add_argument("--show", action="store_true", help="train nothing, print what there is")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers there")
    return parser.parse_args(arguments)


def _train(plan: Plan, row: str, settings: list[str], seed: int) -> None:
    place = [f"run.root={_root(plan)}", f"run.name={_slug(row)}", "run.seed=0"]
    config = load_config([plan.config], [*settings, *place])
    print(f"\n{row}, seed {seed}", flush=True)
    train_seeds(config, seed + 1, quiet=True)


def _report(plan: Plan) -> Report:
    report = Report(
        f"Test accuracy of {plan.config} with one change, per cent",
        ["change", "seeds", "accuracy", "sd", "worth", "+-"],
    )
    whole = _accuracies(plan, next(iter(plan.rows)))
    for row in plan.rows:
        found = _accuracies(plan, row)
        if not found:
            continue
        # Of the same seeds, whose runs see the same images in the same order.
        lost = [whole[seed] - found[seed] for seed in found if seed in whole]
        values, mean = list(found.values()), fmean(found.values())
        error = None if len(lost) < 2 else stdev(lost) / len(lost) ** 0.5
        cells = [
            f"{len(found)}",
            f"{mean:.2f}",
            f"{stdev(values):.2f}" if len(values) > 1 else "-",
            f"{fmean(lost):+.2f}" if lost else "-",
            "-" if error is None else f"{error:.2f}",
        ]
        report.add([row, *cells], change=row, accuracies=values, mean=mean, lost=lost)
    return report


def _accuracies(plan: Plan, row: str) -> dict[str, float]:
    """Of each seed that is there, per cent."""
    runs = sorted((_root(plan) / _slug(row) / "seeds").glob("seed-*/results.json"))
    return {path.parent.name: 100.0 * Record.read(path).metrics["test/acc"] for path in runs}


def _root(plan: Plan) -> Path:
    return Path("runs") / f"ablation-{plan.name}"


def _slug(row: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", row.lower()).strip("-")


if __name__ == "__main__":
    sys.exit(main())
