"""What was taken for what: the confusion matrix with its pictures, and the table of the classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitkit.records import PredictionRecord
from vitkit.report.charts import figure
from vitkit.report.files import Run
from vitkit.report.layout import Section, quiet
from vitkit.report.markup import Markup, data_block, element
from vitkit.report.shown import Gallery
from vitkit.report.tables import Column, scrolling, shade, table
from vitkit.report.wording import percent

__all__ = ["MOST_CLASSES", "MOST_PAIRS", "alike_order", "class_columns", "classes"]

MOST_CLASSES = 25
"""Beyond them a matrix cannot be read, and the pairs that were confused most are listed."""

BESIDE = 12
"""Up to so many classes the matrix leaves room for its pictures beside it."""

MOST_PAIRS = 100
"""Listed, the fullest first."""
ORDERS = (
    ("index", "class order"),
    ("recall", "worst first"),
    ("name", "name"),
    ("alike", "confused ones together"),
)


def classes(run: Run, gallery: Gallery | None, command: str) -> Section:
    """The chapter.

    Args:
        run: whose predictions are shown.
        gallery: their pictures, if there are any.
        command: that evaluates the run.
    """
    record = run.predictions
    if record is None:
        body = quiet("No predictions are kept of this run; for the confusion matrix: ", command)
        return Section("classes", "Classes", body)
    names = [str(name) for name in record.class_names]
    made = _matrix if len(names) <= MOST_CLASSES else _pairs
    parts = (made(record, names, run.split), _panel(gallery, names), _table(run, record, names))
    return Section("classes", "Classes", element("div", *parts, class_="figures"))


def class_columns(run: Run, record: PredictionRecord) -> dict[str, list[Any]]:
    """Images, precision, recall and F1 by class: as evaluated, or else by the confusion matrix;
    None where there is nothing to divide by. Where it is known, how many images it learned from.
    """
    names = [str(name) for name in record.class_names]
    counts = record.confusion.astype(np.float64)
    right, of_class, said = np.diag(counts), counts.sum(1), counts.sum(0)
    known = run.standard.tables.get("classes") if run.standard is not None else None
    if known is None or known.get("class") != names:
        known = {
            "class": names,
            "images": record.confusion.sum(1).tolist(),
            "precision": _ratio(right, said).tolist(),
            "recall": _ratio(right, of_class).tolist(),
            "f1": _ratio(2 * right, of_class + said).tolist(),
        }
    asked = {"precision": said, "recall": of_class, "f1": of_class + said}
    columns = known | {name: _where(known[name], there) for name, there in asked.items()}
    learned = run.results.tables.get("training_classes", {}) if run.results is not None else {}
    return columns | ({"training": learned["images"]} if learned.get("class") == names else {})


def alike_order(confusion: NDArray[np.int64]) -> list[int]:
    """Classes in a row, each beside one that it was often confused with.

    The pair confused most begins; then the class most confused with either end is put there.
    """
    both = (confusion + confusion.T).astype(np.float64)
    np.fill_diagonal(both, -1.0)
    count = len(both)
    if count < 2:
        return list(range(count))
    first, second = divmod(int(both.argmax()), count)
    order, left = [first, second], set(range(count)) - {first, second}
    while left:
        rest = sorted(left)
        front, back = both[order[0], rest], both[order[-1], rest]
        if front.max() > back.max():
            order.insert(0, rest[int(front.argmax())])
            left.remove(order[0])
        else:
            order.append(rest[int(back.argmax())])
            left.remove(order[-1])
    return order


def _matrix(record: PredictionRecord, names: Sequence[str], split: str) -> Markup:
    confusion = record.confusion
    recall = _ratio(np.diag(confusion), confusion.sum(1))
    head = element(
        "tr",
        element("td", element("span", "right class, row; predicted, column", class_="unseen")),
        *(
            element("th", element("span", name), scope="col", title=name, data_c=index)
            for index, name in enumerate(names)
        ),
    )
    rows = [_matrix_row(index, names, confusion[index]) for index in range(len(names))]
    grid = element(
        "table",
        element("caption", f"Confusion matrix of the {split} images", class_="unseen"),
        element("thead", head),
        element("tbody", *rows),
        class_="matrix",
        style=f"--n:{len(names)}",
        data_matrix=True,
    )
    options = [element("option", text, value=key) for key, text in ORDERS]
    chooser = element(
        "label",
        "Order ",
        element("select", *options, data_order=True),
        class_="chooser",
    )
    keys = {
        "index": list(range(len(names))),
        # Classes that were not asked for come last.
        "recall": np.argsort(np.where(confusion.sum(1) > 0, recall, 2.0), kind="stable").tolist(),
        "name": sorted(range(len(names)), key=lambda i: names[i].lower()),
        "alike": alike_order(confusion),
    }
    columns: dict[str, list[Any]] = {"right": list(names)}
    columns |= {f"said {name}": confusion[:, i].tolist() for i, name in enumerate(names)}
    return figure(
        "confusion",
        "Confusion matrix",
        chooser,
        scrolling("Confusion matrix", grid),
        data_block(keys, class_="orders"),
        data=columns,
        note="Rows: the right class; columns: what was predicted; colour: share of the row. "
        "Choose a cell to see its images.",
        wide=len(names) > BESIDE,
    )


def _matrix_row(index: int, names: Sequence[str], counts: NDArray[np.int64]) -> Markup:
    total = max(int(counts.sum()), 1)
    cells = []
    for column, count in enumerate(counts.tolist()):
        share = count / total
        right = column == index
        # A wrong cell has its full colour from a quarter of the row on: there is little in most.
        colour = 0.08 + 0.92 * share if right else 0.9 * min(1.0, 4 * share)
        kind = f"{'right' if right else 'wrong'} {shade(colour)}"
        button = None
        if count:
            label = f"{count:,} of {names[index]} predicted as {names[column]}"
            button = element(
                "button",
                f"{count}",
                type="button",
                aria_label=label,
                title=label,
                data_cell=f"{index},{column}",
                data_count=count,
            )
        cells.append(element("td", button, class_=kind, style=f"--v:{colour:.3f}", data_c=column))
    head = element("th", names[index], scope="row", title=names[index])
    return element("tr", head, *cells, data_r=index)


def _pairs(record: PredictionRecord, names: Sequence[str], split: str) -> Markup:
    """The pairs that were confused most, each a button to its images."""
    wrong = record.confusion.copy()
    np.fill_diagonal(wrong, 0)
    there = np.flatnonzero(wrong)
    if not len(there):
        return quiet("No class was taken for another.")
    flat = there[np.argsort(-wrong.ravel()[there], kind="stable")[:MOST_PAIRS]]
    pairs = [divmod(int(place), len(names)) for place in flat]
    counts = [int(wrong[pair]) for pair in pairs]
    buttons = [
        element(
            "button",
            element("bdi", names[a]),
            " \u2192 ",
            element("bdi", names[b]),
            type="button",
            data_cell=f"{a},{b}",
            data_count=count,
        )
        for count, (a, b) in zip(counts, pairs, strict=True)
    ]
    shares = [float(wrong[pair] / record.confusion[pair[0]].sum()) for pair in pairs]
    columns = [
        Column("right \u2192 predicted", buttons, lambda button: button),
        Column("images", counts),
        Column("share of the class", shares, percent, bar=True),
    ]
    return figure(
        "confusion",
        "Most confused",
        table(f"Pairs of classes confused most among the {split} images", columns),
        data={
            "right": [names[a] for a, _ in pairs],
            "predicted": [names[b] for _, b in pairs],
            "images": counts,
        },
        note=f"{len(names):,} classes are too many for a matrix: the {len(pairs)} pairs confused "
        "most. Choose one to see its images.",
        wide=True,
    )


def _panel(gallery: Gallery | None, names: Sequence[str]) -> Markup:
    """Where the images of a cell appear."""
    if gallery is None or gallery.sheet is None:
        return quiet("No pictures are kept of this run: vitkit eval keeps some of each cell.")
    data = {
        "names": list(names),
        "columns": gallery.sheet.columns,
        "rows": gallery.sheet.rows,
        "pictures": gallery.thumbnails,
    }
    return element(
        "div",
        element("h3", "Images of a cell", id="cell-title"),
        element("p", "None chosen yet.", class_="note", id="cell-note", aria_live="polite"),
        element("ul", class_="thumbs", id="cell-images"),
        data_block(data, id="gallery"),
        id="cell",
        class_="figure wide" if len(names) > BESIDE else "figure",
        role="region",
        aria_labelledby="cell-title",
        tabindex="-1",
    )


def _table(run: Run, record: PredictionRecord, names: Sequence[str]) -> Markup:
    values = class_columns(run, record)
    common = [_confused_with(record.confusion, names, index) for index in range(len(names))]
    columns = [
        Column("class", values["class"], str),
        Column("images", values["images"]),
        Column("precision", values["precision"], percent, bar=True),
        Column("recall", values["recall"], percent, bar=True),
        Column("F1", values["f1"], percent, bar=True),
        Column("most often taken for", common, str),
    ]
    if "training" in values:
        columns.insert(1, Column("training images", values["training"]))
    shown = table("Scores of each class", columns, sortable=True)
    note = "Choose a heading to sort. Recall is the share of a class's images that were found."
    return figure(
        "per-class",
        "Class by class",
        shown,
        data={**values, "taken_for": common},
        note=note,
        wide=True,
    )


def _confused_with(confusion: NDArray[np.int64], names: Sequence[str], index: int) -> str:
    row = confusion[index].copy()
    row[index] = 0
    most = int(row.argmax())
    return f"{names[most]} ({row[most]:,})" if row[most] else ""


def _where(values: Sequence[float], asked: NDArray[np.float64]) -> list[float | None]:
    """The values, and None of a class that nothing was asked or said of."""
    return [value if n > 0 else None for value, n in zip(values, asked, strict=True)]


def _ratio(above: NDArray[Any], below: NDArray[Any]) -> NDArray[np.float64]:
    """0 where there is nothing to divide by."""
    above, below = above.astype(np.float64), below.astype(np.float64)
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)
