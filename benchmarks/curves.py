"""What runs measured while they trained, in one picture.

    python -m benchmarks.curves runs/a runs/b --labels "5 minutes" "30 minutes" --out curves.svg
    python -m benchmarks.curves runs/lstm runs/transformer --metrics val/loss train/loss --by steps

Each run shows columns of its ``metrics.csv``: the first of ``--metrics`` (validation accuracy, at
the end of every epoch) as a strong line with points, the others as thin ones; and, where
``results.json`` has the first one's like of the test images, that as a dot at the end of the whole
command. The axis is minutes since the command was started, or steps. ``--points`` adds what was
published elsewhere: a label and ``minutes:per cent`` pairs. Needs matplotlib
(``pip install 'vitkit[bench]'``).
"""

from __future__ import annotations

import argparse
import csv
import sys
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path

from vitkit.records import Record

__all__ = ["main", "read_curve", "read_end"]

Curve = list[tuple[float, float]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw; returns the exit code."""
    options = _options(arguments)
    labels = options.labels or [run.name for run in options.runs]
    if len(labels) != len(options.runs):
        print(f"error: {len(options.runs)} runs but {len(labels)} labels", file=sys.stderr)
        return 2
    for run in options.runs:
        for metric in options.metrics:
            if not read_curve(run, metric, options.by):
                print(f"error: {run} has no {metric} in its metrics.csv", file=sys.stderr)
                return 2
    others = {name: _points(pairs) for name, *pairs in options.points}
    draw(dict(zip(labels, options.runs, strict=True)), others, options)
    print(options.out)
    return 0


def read_curve(run: Path, metric: str = "val/acc", by: str = "minutes") -> Curve:
    """A column of a run's ``metrics.csv`` over minutes or steps; accuracies in per cent.

    A step between two whose times are known lies between these times.
    """
    seconds: dict[int, float] = {0: 0.0}
    values: dict[int, float] = {}
    with (run / "metrics.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            for key, into in (("seconds", seconds), (metric, values)):
                if row.get(key):
                    into[int(row["step"])] = float(row[key])
    scale = _scale(metric)
    if by == "steps":
        return [(float(step), scale * value) for step, value in values.items()]
    known = sorted(seconds)
    return [
        (_between(step, known, seconds) / 60, scale * value)
        for step, value in values.items()
        if step <= known[-1]
    ]


def read_end(run: Path, metric: str = "val/acc", by: str = "minutes") -> Curve:
    """Where the run came out on the test images, or nothing if that was not measured."""
    record = Record.read(run / "results.json")
    tested = record.metrics.get("test/" + metric.rpartition("/")[2])
    if tested is None:
        return []
    fact = record.facts["steps"] if by == "steps" else record.facts["wall_seconds"]
    return [(float(str(fact)) / (1 if by == "steps" else 60), _scale(metric) * tested)]


def draw(runs: dict[str, Path], others: dict[str, Curve], options: argparse.Namespace) -> None:
    """One picture: lines for what training measured, a dot for the test, crosses for others."""
    from matplotlib.figure import Figure  # an extra

    first, *more = options.metrics
    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for label, run in runs.items():
        curve = read_curve(run, first, options.by)
        (line,) = axes.plot(*zip(*curve, strict=True), marker=".", label=label)
        for metric in more:
            thin = read_curve(run, metric, options.by)
            axes.plot(*zip(*thin, strict=True), color=line.get_color(), linewidth=0.7, alpha=0.6)
        for end in read_end(run, first, options.by):
            axes.plot(*end, "o", color=line.get_color())
            axes.annotate(f"{end[1]:.1f}", end, (4, 4), textcoords="offset points")
    for label, points in others.items():
        axes.plot(*zip(*points, strict=True), "x--", color="grey", label=label)
    names = ", thin: ".join([first, ", ".join(more)] if more else [first])
    axes.set_ylabel(names + (", %" if _scale(first) > 1 else ""))
    axes.set_xlabel("steps" if options.by == "steps" else "minutes since the start of the command")
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.legend()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out, metadata={"Date": None})


def _scale(metric: str) -> float:
    return 100.0 if metric.endswith("/acc") else 1.0


def _between(step: int, known: list[int], seconds: dict[int, float]) -> float:
    """Seconds at a step: as measured, or on the straight line between the nearest two."""
    if step in seconds:
        return seconds[step]
    place = bisect_left(known, step)
    before, after = known[place - 1], known[place]
    share = (step - before) / (after - before)
    return seconds[before] + share * (seconds[after] - seconds[before])


def _points(pairs: Sequence[str]) -> Curve:
    split = [pair.split(":") for pair in pairs]
    return [(float(minutes), float(accuracy)) for minutes, accuracy in split]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", help="folders of finished runs")
    parser.add_argument("--labels", nargs="+", help="names of the runs in the picture")
    parser.add_argument(
        "--metrics", nargs="+", default=["val/acc"], metavar="NAME", help="columns of metrics.csv"
    )
    parser.add_argument("--by", choices=("minutes", "steps"), default="minutes", help="the axis")
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
