"""Several runs on one page: side by side, over each other, and whether the difference is real."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vitkit.report.charts import Axis, Series, figure, line_chart
from vitkit.report.classes import class_columns
from vitkit.report.files import Run, labels_of
from vitkit.report.layout import Section, document, opening_of, quiet, title_of
from vitkit.report.learning import compared_curves
from vitkit.report.markup import Markup, element, joined
from vitkit.report.measures import COMPARED, measured_on
from vitkit.report.page import headline
from vitkit.report.recipe import compared_chapters
from vitkit.report.tables import Column, table
from vitkit.report.wording import as_metric, chance, compact, duration, percent, points

__all__ = ["comparison_page"]

COSTS = (
    ("cost/gflops", "GFLOP an image", "low"),
    ("speed/latency_ms", "latency, ms", "low"),
    ("speed/images_per_second", "images a second", "high"),
)

Paired = Mapping[str, float]
"""Fields of a paired test: ``difference``, ``low``, ``high``, ``bootstrap_p``, ``mcnemar_p``,
``only_first``, ``only_second``."""


def comparison_page(runs: Sequence[Run], paired: Sequence[Paired | None]) -> str:
    """The page of several runs, made of their files alone.

    Args:
        runs: two or more.
        paired: the first run against each later one; None where the images are not the same.
    """
    labels = labels_of(runs)
    sections = [
        Section("table", "Side by side", _side_by_side(runs, labels)),
        Section("paired", "Is it real?", _paired(labels, paired)),
        compared_curves([(label, run.curves) for label, run in zip(labels, runs, strict=True)]),
        Section("classes", "Classes", _classes(runs, labels)),
        Section("calibration", "Calibration", _reliability(runs, labels)),
        Section("shift", "Robustness", _corruptions(runs, labels)),
        *compared_chapters(runs),
    ]
    names = title_of(labels, "runs")
    lines = [
        element("li", element("strong", label), f": {headline(run)}")
        for label, run in zip(labels, runs, strict=True)
    ]
    opening = opening_of("Comparison", names, element("ul", *lines, class_="lead"))
    return document(f"{names} \u00b7 vitkit", opening, sections)


def _side_by_side(runs: Sequence[Run], labels: Sequence[str]) -> Markup:
    """A row each run: what one compares by."""
    columns = [Column("run", labels, str)]
    of = measured_on(runs)
    alike = len(set(of)) == 1
    if not alike:  # then none is the best
        columns.append(Column("measured on", of, str))
    for name, title, better in COMPARED:
        values = [run.measured(name) for run in runs]
        if any(value is not None for value in values):
            best = better if alike else ""
            columns.append(Column(title, values, as_metric(name), best=best))
    for key, title in (("parameters", "parameters"), ("wall_seconds", "training")):
        records = [run.results for run in runs]
        facts = [record.facts.get(key) if record is not None else None for record in records]
        if any(fact is not None for fact in facts):
            columns.append(Column(title, facts, duration if key == "wall_seconds" else compact))
    for name, title, better in COSTS:
        values = [run.metric(name) for run in runs]
        if any(value is not None for value in values):
            columns.append(Column(title, values, compact, best=better))
    data = _data(columns)
    shown = table("The runs side by side", columns, sortable=True)
    note = "The best of each column is marked. Choose a heading to sort."
    if not alike:
        note = "Measured on different images, so only the best costs are marked. Choose a heading "
        note += "to sort."
    return element(
        "div",
        figure("side-by-side", "Results", shown, data=data, note=note, wide=True),
        class_="figures",
    )


def _data(columns: Sequence[Column]) -> dict[str, list[object]]:
    return {column.name: list(column.values) for column in columns}


def _paired(labels: Sequence[str], paired: Sequence[Paired | None]) -> Markup:
    """Each later run against the first, on the same images."""
    found = [(label, p) for label, p in zip(labels[1:], paired, strict=True) if p is not None]
    left_out = [label for label, p in zip(labels[1:], paired, strict=True) if p is None]
    lines = [
        quiet(
            f"No paired test of {labels[0]} and {label}: it needs predictions.npz of both for the "
            "same images; vitkit eval writes it."
        )
        for label in left_out
    ]
    if not found:
        return joined(lines)
    rows = [p for _, p in found]
    columns = [
        Column(f"{labels[0]} less", [label for label, _ in found], str),
        Column("points of accuracy", [p["difference"] for p in rows], points),
        Column("from", [p["low"] for p in rows], points),
        Column("to", [p["high"] for p in rows], points),
        Column("p, McNemar", [p["mcnemar_p"] for p in rows], chance),
        Column("p, bootstrap", [p["bootstrap_p"] for p in rows], chance),
        Column("only the first right", [p["only_first"] for p in rows]),
        Column("only the other right", [p["only_second"] for p in rows]),
    ]
    data = _data(columns)
    shown = table(f"{labels[0]} against each other run", columns)
    note = (
        "Both models saw the same images. p is how often a difference at least this large would "
        "come from chance, were the models equally good; the interval holds 95 %."
    )
    made = figure("paired-tests", "Paired tests", shown, data=data, note=note, wide=True)
    return joined([element("div", made, class_="figures"), *lines])


def _classes(runs: Sequence[Run], labels: Sequence[str]) -> Markup:
    """Recall of each class, where the runs know the same ones."""
    known = [(label, r, r.predictions) for label, r in zip(labels, runs, strict=True)]
    kept = [(label, class_columns(run, p)) for label, run, p in known if p is not None]
    if len(kept) < 2 or any(columns["class"] != kept[0][1]["class"] for _, columns in kept):
        return quiet("Fewer than two runs have predictions of the same classes.")
    names = kept[0][1]["class"]
    columns = [Column("class", names, str)]
    columns += [Column(label, values["recall"], percent, bar=True) for label, values in kept]
    data = _data(columns)
    shown = table("Recall of each class by run", columns, sortable=True)
    note = "Share of each class's images that were found."
    return element(
        "div",
        figure("recall", "Recall, class by class", shown, data=data, note=note, wide=True),
        class_="figures",
    )


def _reliability(runs: Sequence[Run], labels: Sequence[str]) -> Markup:
    """Accuracy over confidence, a line each run."""
    lines = []
    for number, (label, run) in enumerate(zip(labels, runs, strict=True)):
        bins = run.standard.tables.get("reliability") if run.standard else None
        if bins is None:
            continue
        kept = [i for i, images in enumerate(bins["images"]) if images]
        x, y = ([bins[name][i] for i in kept] for name in ("confidence", "accuracy"))
        lines.append(Series(label, x, y, number))
    if lines:
        lines.append(Series("accuracy = confidence", [0.0, 1.0], [0.0, 1.0], len(runs)))
    across = Axis("confidence", percent=True, least=0.0)
    up = Axis("accuracy", percent=True, least=0.0)
    note = "Each point is a bin; where accuracy equals confidence, the model knows how sure to be."
    chart = line_chart("reliability", "Reliability", lines, across, up, note=note)
    if chart is None:
        return quiet("None of the runs has been evaluated: vitkit eval.")
    return element("div", chart, class_="figures")


def _corruptions(runs: Sequence[Run], labels: Sequence[str]) -> Markup:
    """Mean accuracy under each corruption, a column each run."""
    columns: list[Column] = []
    for label, run in zip(labels, runs, strict=True):
        values = run.shift.tables.get("corruptions") if run.shift else None
        if values is None:
            continue
        names = [str(name).replace("_", " ") for name in values["corruption"]]
        levels = [values[key] for key in values if key.startswith("severity_")]
        means = [sum(row) / len(row) for row in zip(*levels, strict=True)]
        columns = columns or [Column("corruption", names, str)]
        if list(columns[0].values) == names:
            columns.append(Column(label, means, percent, bar=True))
    if not columns:
        return quiet("None of the runs was measured under corruptions: vitkit eval --suite shift.")
    data = _data(columns)
    shown = table("Accuracy under each corruption by run", columns, sortable=True)
    note = "Mean accuracy over five severities."
    made = figure("corrupted", "Corruptions", shown, data=data, note=note, wide=True)
    return element("div", made, class_="figures")
