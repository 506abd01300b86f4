"""Accuracy over time of runs, in one picture.

    python -m benchmarks.curves runs/a runs/b --labels "5 minutes" "30 minutes" --out curves.svg

Each run shows its validation accuracy at the end of every epoch (``metrics.csv``) and its test
accuracy at the end of the whole command (``results.json``), over the seconds since the command was
started. ``--points`` adds what was published elsewhere: a label and ``minutes:per cent`` pairs.
Needs matplotlib (``pip install 'vitkit[bench]'``).
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

from vitkit.records import Record

__all__ = ["main", "read_curve"]

Curve = list[tuple[float, float]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw."""
    options = _options(arguments)
    labels = options.labels or [run.name for run in options.runs]
    if len(labels) != len(options.runs):
        print(f"error: {len(options.runs)} runs but {len(labels)} labels", file=sys.stderr)
        return 2
    curves = {label: read_curve(run) for label, run in zip(labels, options.runs, strict=True)}
    others = {name: _points(pairs) for name, *pairs in options.points}
    draw(curves, others, options.out)
    print(options.out)
    return 0


def read_curve(run: Path) -> tuple[Curve, tuple[float, float]]:
    """((minutes, per cent) of the validation images at each epoch's end, the same of the test)."""
    seconds: dict[str, float] = {}
    accuracy: dict[str, float] = {}
    with (run / "metrics.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            for key, into in (("seconds", seconds), ("val/acc", accuracy)):
                if row.get(key):
                    into[row["step"]] = float(row[key])
    record = Record.read(run / "results.json")
    curve = [(seconds[s] / 60, 100 * accuracy[s]) for s in accuracy if s in seconds]
    last = float(str(record.facts["wall_seconds"])) / 60, 100 * record.metrics["test/acc"]
    return curve, last


def draw(
    curves: dict[str, tuple[Curve, tuple[float, float]]], others: dict[str, Curve], out: Path
) -> None:
    """One picture: lines for validation, a dot for the test, crosses for others' figures."""
    from matplotlib.figure import Figure  # an extra

    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for label, (curve, (minutes, accuracy)) in curves.items():
        (line,) = axes.plot(*zip(*curve, strict=True), label=label)
        axes.plot(minutes, accuracy, "o", color=line.get_color())
        axes.annotate(f"{accuracy:.1f}", (minutes, accuracy), (4, 4), textcoords="offset points")
    for label, points in others.items():
        axes.plot(*zip(*points, strict=True), "x--", color="grey", label=label)
    axes.set(xlabel="minutes since the start of the command", ylabel="accuracy, %")
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out)


def _points(pairs: Sequence[str]) -> Curve:
    split = [pair.split(":") for pair in pairs]
    return [(float(minutes), float(accuracy)) for minutes, accuracy in split]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", help="folders of finished runs")
    parser.add_argument("--labels", nargs="+", help="names of the runs in the picture")
    parser.add_argument(
        "--points",
        nargs="+",
        action="append",
        default=[],
        metavar=("LABEL", "MINUTES:ACCURACY"),
        help="figures from elsewhere",
    )
    parser.add_argument("--out", type=Path, default=Path("curves.svg"), help="picture to write")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
