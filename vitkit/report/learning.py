"""How the training went: the curves of ``metrics.csv``, of one run or of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vitkit.report.charts import Axis, Series, line_chart
from vitkit.report.files import Curve
from vitkit.report.layout import Section, quiet
from vitkit.report.markup import element, joined

__all__ = ["compared_curves", "learning"]

MIXED = "Training accuracy is of mixed images, by the class of the first alone: it stays low."
RATE = "_per_second"
STEPS = Axis("steps")
TITLES = {
    "loss": "Loss",
    "acc": "Accuracy",
    "lr": "Learning rate",
    "acc5": "Accuracy, top 5",
    RATE: "Speed of training",
}

COMPARED = (
    ("val/acc", "Accuracy on validation data"),
    ("val/loss", "Loss on validation data"),
    ("train/loss", "Training loss"),
    ("lr", "Learning rate"),
)


def learning(curves: Mapping[str, Curve]) -> Section:
    """The chapter of one run."""
    groups: dict[str, list[str]] = {}
    for name in curves:
        groups.setdefault(_group(name), []).append(name)
    known = [group for group in TITLES if group in groups]
    others = [group for group in groups if group not in TITLES]
    charts = [_chart(g, {name: curves[name] for name in groups[g]}) for g in [*known, *others]]
    if not any(charts):
        body = quiet("No curves here: a training writes metrics.csv as it goes.")
    else:
        body = element("div", joined(charts), class_="figures")
    return Section("learning", "Learning", body)


def compared_curves(runs: Sequence[tuple[str, Mapping[str, Curve]]]) -> Section:
    """The chapter of several runs: what all measure, over each other.

    Args:
        runs: name and curves of each.
    """
    charts = []
    for name, title in COMPARED:
        lines = [
            Series(label, curves[name].steps, curves[name].values, number)
            for number, (label, curves) in enumerate(runs)
            if name in curves
        ]
        charts.append(line_chart(_key(name), title, lines, STEPS, _axis(_group(name), name)))
    if not any(charts):
        body = quiet("None of the runs has curves: a training writes metrics.csv as it goes.")
    else:
        body = element("div", joined(charts), class_="figures")
    return Section("learning", "Learning", body)


def _chart(group: str, curves: Mapping[str, Curve]) -> str | None:
    lines = [
        Series(_shown(name), curve.steps, curve.values, number)
        for number, (name, curve) in enumerate(curves.items())
    ]
    title = TITLES.get(group, group)
    note = MIXED if "train/acc_mixed" in curves else None
    return line_chart(_key(group), title, lines, STEPS, _axis(group, next(iter(curves))), note=note)


def _group(name: str) -> str:
    """Which curves share an axis: losses, accuracies, rates; any other stands alone."""
    last = name.rpartition("/")[2]
    if last == "lr":
        return last
    if last.endswith(RATE):
        return RATE
    words = last.split("_")
    if "loss" in words:
        return "loss"
    return words[0] if words[0] in ("acc", "acc5") else name


def _axis(group: str, name: str) -> Axis:
    if group in ("acc", "acc5"):
        return Axis("accuracy", percent=True)
    if group == RATE:
        return Axis(f"{name.removesuffix(RATE)} a second", least=0.0)
    return Axis("learning rate" if group == "lr" else group, least=0.0 if group == "lr" else None)


def _key(group: str) -> str:
    letters = "".join(c if c.isascii() and c.isalnum() else "-" for c in group.lower())
    return f"curve-{letters.strip('-')}"


def _shown(name: str) -> str:
    """``val/loss`` is "validation loss"; what a name does not tell stays as it is."""
    known = {
        "train/loss": "training loss, a step",
        "train/loss_epoch": "training loss, an epoch",
        "val/loss": "validation loss",
        "train/acc": "training accuracy",
        "train/acc_mixed": "training accuracy, mixed",
        "val/acc": "validation accuracy",
        "val/acc5": "validation accuracy, top 5",
        "lr": "learning rate",
    }
    return known.get(name, name)
