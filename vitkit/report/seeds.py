"""Recipes over several seeds, side by side: is one better, or were its seeds lucky?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from vitkit.records import is_share
from vitkit.report.charts import figure
from vitkit.report.files import Run, labels_of
from vitkit.report.layout import Section, document, opening_of, quiet, title_of
from vitkit.report.markup import Markup, element
from vitkit.report.measures import COMPARED, measured_on
from vitkit.report.recipe import compared_chapters
from vitkit.report.tables import Column, table
from vitkit.report.wording import NONE, as_metric, chance, points

__all__ = ["seed_values", "seeds_page"]

Tests = Mapping[str, Mapping[str, float]]
"""Metric -> ``difference``, ``low``, ``high``, ``p`` of a test of two means."""

KINDS = (("mean", "mean"), ("sd", "deviation"), ("low", "from"), ("high", "to"))
"""What is summed up of a metric, and its heading."""


def seed_values(recipe: Run, metric: str) -> dict[str, float]:
    """A metric of the split by seed; empty where the seeds did not measure it.

    Args:
        recipe: as :func:`vitkit.report.read_seeds` gives it.
        metric: without its split, such as ``acc``.
    """
    start = f"{recipe.split}/{metric}/seed-"
    metrics = recipe.results.metrics if recipe.results else {}
    return {n.removeprefix(start): v for n, v in metrics.items() if n.startswith(start)}


def seeds_page(recipes: Sequence[Run], tests: Sequence[Tests]) -> str:
    """The page of several recipes, made of their files alone.

    Args:
        recipes: two or more, as :func:`vitkit.report.read_seeds` gives them.
        tests: the first recipe against each later one.
    """
    labels = labels_of(recipes)
    sections = [
        Section("table", "Side by side", _side_by_side(recipes, labels)),
        Section("tests", "Is it real?", _tests(labels, tests)),
        Section("seeds", "Seed by seed", _seed_by_seed(recipes, labels)),
        *compared_chapters(recipes),
    ]
    names = title_of(labels, "recipes")
    opening = opening_of("Comparison over seeds", names)
    return document(f"{names} \u00b7 vitkit", opening, sections)


def _side_by_side(recipes: Sequence[Run], labels: Sequence[str]) -> Markup:
    """A table a metric, a row a recipe."""
    figures = []
    of = measured_on(recipes)
    alike = len(set(of)) == 1
    for name, title, better in _measured(recipes):
        counts = [len(seed_values(recipe, name)) for recipe in recipes]
        columns = [Column("recipe", labels, str), Column("seeds", counts)]
        if not alike:  # then none is the best
            columns.append(Column("measured on", of, str))
        for kind, head in KINDS:
            values = [recipe.measured(f"{name}/{kind}") for recipe in recipes]
            if kind == "sd":  # one seed has none
                values = [v if n > 1 else None for v, n in zip(values, counts, strict=True)]
            best = better if kind == "mean" and alike else ""
            columns.append(Column(head, values, as_metric(name), best=best))
        note = "From and to: the interval of the mean over all seeds, 95 % (Student)."
        figures.append(
            figure(
                f"mean-{name}",
                _heading(title),
                table(f"{title} by recipe", columns),
                data={column.name: list(column.values) for column in columns},
                note=note,
            )
        )
    if not figures:
        return quiet("The recipes have no test or validation metric in common.")
    return element("div", *figures, class_="figures")


def _tests(labels: Sequence[str], tests: Sequence[Tests]) -> Markup:
    """Each later recipe against the first."""
    rows = [
        (f"{title}, {labels[0]} less {label}", name, found[name])
        for name, title, _ in COMPARED
        for label, found in zip(labels[1:], tests, strict=True)
        if name in found
    ]
    if not rows:
        return quiet("No test: it needs two seeds or more of each recipe, measured alike.")
    columns = [Column("what", [what for what, _, _ in rows], str)]
    for key, head in (("difference", "difference"), ("low", "from"), ("high", "to")):
        shown = [_difference(name, found[key]) for _, name, found in rows]
        columns.append(Column(head, shown, str))
    columns.append(Column("p, Welch", [found["p"] for _, _, found in rows], chance))
    data: dict[str, list[object]] = {"what": [what for what, _, _ in rows]}
    data |= {
        key: [found[key] for _, _, found in rows] for key in ("difference", "low", "high", "p")
    }
    note = (
        "Of means over seeds. p is how often a difference at least this large would come from the "
        "seeds alone, were the recipes equally good; the interval holds 95 %."
    )
    made = table("Tests of two means", columns)
    made = figure("mean-tests", "Tests of two means", made, data=data, note=note, wide=True)
    return element("div", made, class_="figures")


def _seed_by_seed(recipes: Sequence[Run], labels: Sequence[str]) -> Markup:
    """Every value of every metric, a column a recipe."""
    figures = []
    for name, title, _ in _measured(recipes):
        values = [seed_values(recipe, name) for recipe in recipes]
        seeds = sorted({seed for one in values for seed in one}, key=int)
        columns = [Column("seed", seeds, str)]
        for label, one in zip(labels, values, strict=True):
            columns.append(Column(label, [one.get(seed) for seed in seeds], as_metric(name)))
        data = {column.name: list(column.values) for column in columns}
        shown = table(f"{title} by seed", columns)
        figures.append(figure(f"seeds-{name}", _heading(title), shown, data=data))
    return element("div", *figures, class_="figures")


def _measured(recipes: Sequence[Run]) -> list[tuple[str, str, str]]:
    """Of what one compares by: what every recipe measured."""
    return [row for row in COMPARED if all(seed_values(recipe, row[0]) for recipe in recipes)]


def _heading(title: str) -> str:
    return title[0].upper() + title[1:]


def _difference(name: str, value: float) -> str:
    """With its sign, shares in percentage points."""
    if not math.isfinite(value):
        return NONE
    if is_share(f"/{name}"):
        return f"{points(value)} points"
    return f"{value:+.4f}".replace("-", "\u2212")
