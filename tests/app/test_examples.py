"""Which pictures are kept: some of every cell, and the mistakes that the model was surest about."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitkit.app.examples import (
    A_CELL,
    FEWEST_SCENES,
    MOST_SCENES,
    MOST_WEIGHTS,
    _looked_at_closely,
    chosen_maps,
    pictures_of_cells,
    rows_with_buttons,
)


def _answers(count: int, classes: int, skill: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    rng = np.random.default_rng(count)
    targets = rng.integers(0, classes, count)
    predicted = np.where(rng.random(count) < skill, targets, rng.integers(0, classes, count))
    return predicted, targets, rng.random(count)


@pytest.mark.parametrize("most", [5, 40, 400, 100_000])
def test_every_cell_has_its_share(most: int) -> None:
    classes = 5
    predicted, targets, confidence = _answers(3000, classes, 0.7)
    rows = pictures_of_cells(predicted, targets, confidence, classes, most)
    assert len(rows) <= most and len(set(rows.tolist())) == len(rows)
    assert rows.tolist() == sorted(rows.tolist())
    sizes = {}
    for right in range(classes):
        for said in range(classes):
            cell = np.flatnonzero((targets == right) & (predicted == said))
            kept = [row for row in rows if row in set(cell.tolist())]
            sizes[right, said] = len(kept), len(cell)
            sign = 1 if right == said else -1
            first = cell[np.argsort(sign * confidence[cell], kind="stable")][: len(kept)]
            assert sorted(kept) == sorted(first.tolist())
    each = max(kept for kept, _ in sizes.values())
    assert each <= A_CELL
    if most >= classes**2:
        assert all(kept == min(each, there) for kept, there in sizes.values())
    if each < A_CELL and most >= classes**2:  # one more each would have been too many
        assert sum(min(each + 1, there) for _, there in sizes.values()) > most


def test_too_many_cells_leave_the_fullest_wrong_ones() -> None:
    predicted = np.array([1] * 5 + [2] * 3 + [0] * 9 + [3])
    targets = np.zeros(len(predicted), dtype=np.int64)
    rows = pictures_of_cells(predicted, targets, np.linspace(0, 1, len(predicted)), 4, 2)
    assert predicted[rows].tolist() == [1, 2]


@pytest.mark.parametrize("classes", [25, 26])
def test_of_many_classes_only_cells_of_the_list_have_pictures(classes: int) -> None:
    predicted, targets, _ = _answers(4000, classes, 0.4)
    rows = rows_with_buttons(predicted, targets, classes)
    if classes == 25:
        assert rows.tolist() == list(range(4000))
        return
    confusion = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(confusion, (targets, predicted), 1)
    np.fill_diagonal(confusion, 0)
    kept = {(int(targets[row]), int(predicted[row])) for row in rows}
    assert len(kept) == 100 and all(confusion[cell] for cell in kept)
    left_out = [n for cell, n in np.ndenumerate(confusion) if cell not in kept]
    assert min(confusion[cell] for cell in kept) >= max(left_out)
    assert len(rows) == sum(confusion[cell] for cell in kept)
    flawless = rows_with_buttons(targets, targets, classes)
    assert len(flawless) == len(targets)


def test_nothing_at_all() -> None:
    none = np.zeros(0, dtype=np.int64)
    assert len(pictures_of_cells(none, none, np.zeros(0), 3, 10)) == 0
    assert len(_looked_at_closely(none, none, np.zeros(0), 24)) == 0


def test_half_of_the_scenes_are_the_surest_mistakes() -> None:
    predicted, targets, confidence = _answers(500, 4, 0.5)
    rows = _looked_at_closely(predicted, targets, confidence, 24)
    wrong = np.flatnonzero(predicted != targets)
    surest = wrong[np.argsort(-confidence[wrong], kind="stable")]
    assert rows[:12].tolist() == surest[:12].tolist()
    assert (predicted[rows[12:]] == targets[rows[12:]]).all()
    counts = np.bincount(targets[rows[12:]], minlength=4)
    assert counts.tolist() == [3, 3, 3, 3], "every class has its turn"


def test_where_little_is_wrong_or_right_the_rest_is_filled() -> None:
    targets = np.arange(40) % 4
    confidence = np.linspace(0, 1, 40)
    assert len(_looked_at_closely(targets.copy(), targets, confidence, 24)) == 24
    wrong = (targets + 1) % 4
    assert len(_looked_at_closely(wrong, targets, confidence, 24)) == 24
    assert len(_looked_at_closely(wrong[:3], targets[:3], confidence[:3], 24)) == 3


@given(st.integers(1, 40), st.integers(1, 24), st.integers(2, 2000), st.integers(0, 10**9))
def test_maps_have_a_budget(layers: int, heads: int, tokens: int, parameters: int) -> None:
    choice = chosen_maps(layers, heads, tokens, parameters)
    if choice is None:
        assert tokens**2 > MOST_WEIGHTS
        return
    assert 1 <= choice.scenes <= MOST_SCENES
    assert list(choice.layers) == sorted(set(choice.layers))
    assert list(choice.heads) == sorted(set(choice.heads))
    for kept, count in ((choice.layers, layers), (choice.heads, heads)):
        assert kept[-1] == count - 1 and (kept[0] == 0 or len(kept) == 1)
    assert len(choice.layers) * len(choice.heads) * tokens**2 * choice.scenes <= MOST_WEIGHTS


def test_a_small_vit_keeps_everything_and_a_large_one_some() -> None:
    small = chosen_maps(7, 4, 65, 3_000_000)
    assert small is not None
    assert (len(small.layers), len(small.heads), small.scenes) == (7, 4, MOST_SCENES)
    large = chosen_maps(12, 12, 197, 86_000_000)
    assert large is not None
    assert large.layers == (0, 4, 7, 11) and len(large.heads) == 4
    assert large.scenes == FEWEST_SCENES
