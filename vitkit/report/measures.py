"""How sure, how robust and how fast: calibration, shift, cost and speed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vitkit.records import Record
from vitkit.report.charts import Axis, Series, figure, line_chart, reliability_chart
from vitkit.report.files import Run
from vitkit.report.layout import Section, quiet
from vitkit.report.markup import Markup, element, joined
from vitkit.report.tables import Column, scrolling, shade, table
from vitkit.report.wording import SPACE, compact, percent

__all__ = ["COMPARED", "calibration", "cards", "measured_on", "shift", "speed"]

SEVERITY = "severity_"

MADE = "corruptions"
"""Table of those that were made of the test images."""

CORRUPTED = (
    (MADE, "Corruptions"),
    ("cifar_c", "CIFAR-C as published"),
    ("imagenet_c", "ImageNet-C as published"),
)
"""Tables of the shift suite, and their titles."""

OF_TABLES = ("corrupted", "cifar_c", "imagenet_c")
"""In the names of metrics that these tables show."""

COMPARED = (
    ("acc", "accuracy", "high"),
    ("acc5", "top 5", "high"),
    ("loss", "loss", "low"),
    ("brier", "Brier score", "low"),
    ("ece", "calibration error", "low"),
    ("knn_acc", "k-NN accuracy", "high"),
    ("ppl", "perplexity", "low"),
    ("bits_per_char", "bits a character", "low"),
    ("bleu", "BLEU", "high"),
)
"""What one compares by: a metric without its split, its title, and whether high or low is good."""


def measured_on(runs: Sequence[Run]) -> list[str]:
    """Split and data of each run's numbers: only where they are alike is one the best."""
    return [f"{run.split}, {run.evaluated('data') or 'unknown'}" for run in runs]


def cards(items: list[tuple[str, str, str]]) -> Markup:
    """Numbers that stand for themselves: (what, the number, a word on it)."""
    shown = [
        element(
            "div",
            element("dt", what),
            element("dd", value, element("small", more) if more else None),
        )
        for what, value, more in items
    ]
    return element("dl", *shown, class_="numbers")


def calibration(run: Run, command: str) -> Section:
    """Whether the model is right as often as it is sure.

    Args:
        run: whose evaluation is shown.
        command: that evaluates the run.
    """
    record = run.standard
    if record is None or "reliability" not in record.tables:
        body = quiet("Not measured yet; for the reliability diagram: ", command)
        return Section("calibration", "Calibration", body)
    error = run.measured("ece")
    note = f"Expected calibration error {percent(error)}: the gap between confidence and accuracy."
    charts = [
        reliability_chart("reliability", "Reliability", record.tables["reliability"], note=note)
    ]
    scaled, temperature = run.measured("ece_scaled"), run.measured("temperature")
    if "reliability_scaled" in record.tables and temperature is not None:
        note = (
            f"With a temperature of {temperature:.3g}, fitted on validation images: expected "
            f"calibration error {percent(scaled)}."
        )
        charts.append(
            reliability_chart(
                "reliability-scaled",
                "Reliability with a temperature",
                record.tables["reliability_scaled"],
                note=note,
            )
        )
    return Section("calibration", "Calibration", element("div", joined(charts), class_="figures"))


def shift(run: Run, command: str) -> Section:
    """What is left of the accuracy on images that are not as they were.

    Args:
        run: whose evaluation is shown.
        command: that runs the suite.
    """
    # Of a set that both suites measured the one that measures nothing else counts.
    records = [record for record in (run.others, run.shift) if record is not None]
    if not records:
        return Section("shift", "Robustness", quiet("Not measured yet: ", command))
    clean = {MADE: _clean(run)}  # the published files have pictures of their own
    parts = [_corruptions(records, key, title, clean.get(key)) for key, title in CORRUPTED]
    parts.append(_changes(records))
    if not any(parts):
        return Section("shift", "Robustness", quiet("The suite's record holds no accuracies."))
    return Section("shift", "Robustness", element("div", joined(parts), class_="figures"))


def _corruptions(
    records: Sequence[Record], key: str, title: str, clean: float | None
) -> Markup | None:
    """A heat map as a table: a row each corruption, a column each severity.

    Args:
        records: of the suites, the first that has the table counts.
        key: of its table.
        title: of the figure.
        clean: accuracy without them, if it is known.
    """
    values = next((record.tables[key] for record in records if key in record.tables), None)
    if values is None:
        return None
    names = [str(name).replace("_", " ") for name in values["corruption"]]
    levels = [name for name in values if name.startswith(SEVERITY)]
    best = max(clean or 0.0, max(max(values[level]) for level in levels), 1e-9)
    means = [sum(row) / len(row) for row in zip(*(values[level] for level in levels), strict=True)]
    head = element(
        "tr",
        _sorter("corruption", numeric=False),
        *(_sorter(level.removeprefix(SEVERITY)) for level in levels),
        _sorter("mean"),
    )
    rows = [
        element(
            "tr",
            element("th", name, scope="row", data_v=name),
            *(_heat(values[level][i], best) for level in levels),
            _heat(means[i], best),
        )
        for i, name in enumerate(names)
    ]
    made = element(
        "table",
        element(
            "caption", "Accuracy under each corruption and severity, in percent", class_="unseen"
        ),
        element("thead", head),
        element("tbody", *rows),
        class_="heatmap",
        data_sortable=True,
    )
    shown = f" Clean: {percent(clean)}." if clean is not None else ""
    return figure(
        key,
        title,
        scrolling(title, made),
        data={**values, "mean": means},
        note="Accuracy in percent at five severities; the darker, the more of the best is lost."
        + shown,
        wide=True,
    )


def _clean(run: Run) -> float | None:
    """Accuracy on the images that the suite changed; of older records that of the whole split."""
    record = run.shift
    if record is None:
        return None
    split = str(record.facts.get("split", "test"))
    found = record.metrics.get(f"{split}/changed/clean/acc")
    return run.measured("acc") if found is None and split == run.split else found


def _sorter(name: str, *, numeric: bool = True) -> Markup:
    button = element("button", name, type="button", class_="sort")
    return element(
        "th", button, scope="col", class_="number" if numeric else None, aria_sort="none"
    )


def _heat(accuracy: float, best: float) -> Markup:
    lost = min(max(1.0 - accuracy / best, 0.0), 1.0)
    return element(
        "td",
        f"{100 * accuracy:.0f}",
        class_=shade(lost),
        style=f"--v:{lost:.3f}",
        data_v=repr(accuracy),
    )


def _changes(records: Sequence[Record]) -> Markup | None:
    """All other accuracies of the suites; of two by one name the first record's."""
    kept: dict[str, float] = {}
    said: dict[str, str] = {}
    for record in reversed(records):
        split = str(record.facts.get("split", "test"))
        for name, value in record.metrics.items():
            if name.endswith("/acc") and not set(name.split("/")) & set(OF_TABLES):
                kept[name] = value
                said[name] = _said(name.removeprefix(f"{split}/").removesuffix("/acc"))
    if not kept:
        return None
    names = [said[name] for name in kept]
    columns = [
        Column("change", names, str),
        Column("accuracy", list(kept.values()), percent, bar=True),
    ]
    data: dict[str, list[Any]] = {"metric": list(kept), "accuracy": list(kept.values())}
    shown = table("Accuracy under other changes and on other sets", columns, sortable=True)
    return figure("changes", "Other changes, attacks and sets", shown, data=data, wide=True)


def _said(name: str) -> str:
    """``pgd/8_255`` is "pgd 8/255"."""
    kind, _, rest = name.partition("/")
    if kind == "changed":
        return "none"
    if kind == "attacked":
        return "before the attacks"
    if kind in ("fgsm", "pgd"):
        rest = rest.replace("_", "/")
    if kind in ("resolution", "shuffled"):
        rest = rest.replace("x", " x ")
    return f"{kind.replace('_', ' ')} {rest}".strip()


def speed(run: Run, command: str) -> Section:
    """What the model costs, and how fast it is.

    Args:
        run: whose evaluation is shown.
        command: that runs the suite.
    """
    record = run.speed
    if record is None:
        return Section("speed", "Speed and cost", quiet("Not measured yet: ", command))
    get = record.metrics.get
    items = [
        ("Parameters", compact(get("cost/parameters")), ""),
        ("Operations an image", f"{compact(_giga(get('cost/gflops')))}FLOP", "2 a multiply-add"),
        ("Activations an image", compact(get("cost/activations")), "numbers"),
        ("Memory beyond the weights", f"{compact(_mega(get('cost/peak_memory_mb')))}B", ""),
        ("Latency", f"{compact(get('speed/latency_ms'))}{SPACE}ms", "one image"),
        (
            "Throughput",
            f"{compact(get('speed/images_per_second'))}{SPACE}images/s",
            f"in batches of {compact(get('speed/best_batch'))}",
        ),
    ]
    if get("speed/compiled/images_per_second") is not None:
        rate = compact(get("speed/compiled/images_per_second"))
        items.append(("Throughput, compiled", f"{rate}{SPACE}images/s", ""))
    series = [
        Series(name, rates["batch"], rates["images_per_second"], number)
        for number, (name, key) in enumerate((("eager", "rates"), ("compiled", "rates_compiled")))
        if (rates := record.tables.get(key)) is not None
    ]
    across, up = Axis("batch", log=True), Axis("images a second", least=0.0)
    note = f"{record.facts.get('hardware', '')}, {record.facts.get('threads', '')} threads"
    chart = line_chart("rates", "Throughput by batch", series, across, up, note=note)
    numbers = figure(
        "costs",
        "Cost and speed",
        cards(items),
        data={"metric": list(record.metrics), "value": list(record.metrics.values())},
    )
    body = element("div", joined([numbers, chart]), class_="figures")
    return Section("speed", "Speed and cost", body)


def _giga(value: float | None) -> float | None:
    return None if value is None else value * 1e9


def _mega(value: float | None) -> float | None:
    return None if value is None else value * 1e6
