"""Linear probe, neighbours and few-shot against scikit-learn's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.preprocessing import StandardScaler, normalize
from torch import Tensor

from vitkit.evaluation.few_shot import (
    FewShot,
    by_ridge,
    centroids,
    draw_shots,
    few_shot,
    nearest_centroid,
)
from vitkit.evaluation.logistic import COARSE, FINER, choose_l2, fit_linear_probe
from vitkit.evaluation.neighbours import nearest, neighbour_accuracies, votes

Labelled = tuple[Tensor, Tensor]


def _clouds(
    count: int, classes: int = 4, width: int = 12, *, spread: float = 1.0, seed: int = 0
) -> Labelled:
    """Features that scatter about a centre a class, of very different scales."""
    generator = torch.Generator().manual_seed(99)
    centres = torch.randn(classes, width, generator=generator, dtype=torch.float64)
    scales = torch.logspace(-2, 2, width, dtype=torch.float64)
    generator.manual_seed(seed)
    targets = torch.arange(count) % classes
    noise = torch.randn(count, width, generator=generator, dtype=torch.float64)
    return (centres[targets] + spread * noise) * scales + 3 * scales, targets


@pytest.mark.parametrize("l2", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("classes", [2, 4])
def test_the_linear_probe_is_scikit_learns(l2: float, classes: int) -> None:
    features, targets = _clouds(300, classes)
    probe = fit_linear_probe(features, targets, classes, l2, tolerance=1e-9)
    scaler = StandardScaler().fit(features.numpy())
    theirs = LogisticRegression(C=1 / l2, tol=1e-10, max_iter=10_000, solver="newton-cg")
    theirs.fit(scaler.transform(features.numpy()), targets.numpy())
    unseen, _ = _clouds(100, classes, seed=1)
    wanted = theirs.predict_proba(scaler.transform(unseen.numpy()))
    got = probe.logits(unseen).softmax(1).numpy()
    if classes == 2:
        # Two classes are one vector there, and two halves of opposite sign here: a softmax of both
        # is penalised half as much for the same decision.
        theirs.set_params(C=2 / l2).fit(scaler.transform(features.numpy()), targets.numpy())
        wanted = theirs.predict_proba(scaler.transform(unseen.numpy()))
    assert np.abs(got - wanted).max() < 1e-5


def test_single_precision_and_a_warm_start_end_at_the_same_place() -> None:
    features, targets = _clouds(400)
    exact = fit_linear_probe(features, targets, 4, 1.0, tolerance=1e-9)
    near = fit_linear_probe(features, targets, 4, 100.0, tolerance=1e-9)
    again = fit_linear_probe(features, targets, 4, 1.0, start=near, tolerance=1e-9)
    single = fit_linear_probe(features.float(), targets, 4, 1.0)
    assert single.weight.dtype == torch.float32
    wanted = exact.logits(features).softmax(1)
    assert (again.logits(features).softmax(1) - wanted).abs().max() < 1e-6
    assert (single.logits(features.float()).softmax(1) - wanted).abs().max() < 1e-2


def test_a_feature_that_never_changes_does_no_harm() -> None:
    features, targets = _clouds(200)
    wider = torch.cat([features, torch.full((200, 1), 7.0, dtype=torch.float64)], 1)
    plain, other = (fit_linear_probe(f, targets, 4, 1.0) for f in (features, wider))
    assert other.logits(wider).isfinite().all()
    assert (other.logits(wider) - plain.logits(features)).abs().max() < 1e-2


def test_gradients_are_nobody_elses_business() -> None:
    features, targets = _clouds(60)
    with torch.no_grad():
        probe = fit_linear_probe(features, targets, 4, 1.0)
    assert not probe.weight.requires_grad and probe.weight.abs().sum() > 0


def test_the_penalty_is_the_best_of_what_was_tried() -> None:
    """Few noisy examples in many dimensions: neither the weakest nor the strongest is best."""
    train, val = (_clouds(n, width=60, spread=3.0, seed=s) for n, s in ((60, 2), (400, 3)))
    told: list[tuple[int, int]] = []
    choice = choose_l2(train, val, 4, on_fit=lambda done, total: told.append((done, total)))
    fits = len(COARSE) + 2 * len(FINER)
    assert told == [(n, fits) for n in range(1, fits + 1)]
    assert len(choice.accuracies) == fits
    assert list(choice.accuracies) == sorted(choice.accuracies)
    best = max(choice.accuracies.values())
    assert choice.accuracies[choice.l2] == best
    for l2 in (l2 for l2, accuracy in choice.accuracies.items() if accuracy == best):
        assert fit_linear_probe(*train, 4, l2).loss(*val) > choice.probe.loss(*val) - 1e-3
    assert choice.probe.accuracy(*val) == best
    assert best > choice.accuracies[min(choice.accuracies)]
    for l2, accuracy in choice.accuracies.items():  # warm starts changed no result by much
        cold = fit_linear_probe(*train, 4, l2).accuracy(*val)
        assert abs(cold - accuracy) <= 0.01


def test_no_penalty_beyond_the_ends_is_tried() -> None:
    """Labels by chance: whatever is tried is as good, and near an end there is but one side."""
    features = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(40) % 2
    tried = choose_l2((features, targets), (features * 0, targets), 2).accuracies
    assert min(tried) >= 1e-6 and max(tried) <= 1e6
    assert len(COARSE) + len(FINER) <= len(tried) <= len(COARSE) + 2 * len(FINER)


@pytest.mark.parametrize("k", [1, 7, 50])
def test_neighbours_vote_as_in_scikit_learn(k: int) -> None:
    bank, queries = _clouds(200, spread=2.0), _clouds(90, spread=2.0, seed=5)

    def weights(distances: Any) -> Any:
        return np.exp((1 - distances) / 0.07)

    theirs = KNeighborsClassifier(k, metric="cosine", weights=weights, algorithm="brute")
    theirs.fit(bank[0].numpy(), bank[1].numpy())
    similarities, places = nearest(bank[0], queries[0], k)
    got = votes(similarities, bank[1][places], 4)
    share = (got / got.sum(1, keepdim=True)).numpy()
    assert np.abs(share - theirs.predict_proba(queries[0].numpy())).max() < 1e-9
    found = neighbour_accuracies(bank, queries, 4, ks=[k])
    assert found == {k: pytest.approx(theirs.score(queries[0].numpy(), queries[1].numpy()))}


def test_pieces_of_any_size_give_the_same_neighbours() -> None:
    bank, queries = _clouds(50), _clouds(33, seed=1)
    whole = nearest(bank[0], queries[0], 5)
    for held in (1, 51, 400):
        parts = nearest(bank[0], queries[0], 5, held=held)
        assert torch.equal(parts[1], whole[1])
        assert torch.allclose(parts[0], whole[0])


def test_a_small_bank_has_no_two_hundred_neighbours_and_votes_never_overflow() -> None:
    bank, queries = _clouds(30), _clouds(10, seed=1)
    assert list(neighbour_accuracies(bank, queries, 4)) == [10, 20]
    assert neighbour_accuracies((bank[0][:3], bank[1][:3]), queries, 4) == {}
    similarities, places = nearest(bank[0].half().float(), queries[0].float(), 30)
    cold = votes(similarities, bank[1][places], 4, temperature=1e-4)
    assert cold.isfinite().all()
    assert torch.equal(cold.argmax(1), bank[1][places[:, 0]])


def test_the_nearest_centroid_is_scikit_learns() -> None:
    bank, queries = _clouds(80, spread=2.0), _clouds(300, spread=2.0, seed=4)
    unit, asked = normalize(bank[0].numpy()), normalize(queries[0].numpy())
    theirs = NearestCentroid().fit(unit, bank[1].numpy())
    centres = centroids(torch.from_numpy(unit), bank[1], 4)
    assert np.abs(centres.numpy() - theirs.centroids_).max() < 1e-12
    got = nearest_centroid(torch.from_numpy(asked), centres)
    assert np.array_equal(got.numpy(), theirs.predict(asked))
    one = few_shot(bank, queries, 4, shots=[20], draws=1)[20]  # all of each class
    assert one.mean == pytest.approx(theirs.score(asked, queries[1].numpy()))
    assert one.deviation == 0


@pytest.mark.parametrize("examples", [8, 80])
def test_least_squares_are_scikit_learns(examples: int) -> None:
    """Fewer examples than features, and more."""
    bank, queries = _clouds(examples, spread=2.0), _clouds(300, spread=2.0, seed=4)
    scale = torch.linspace(0.1, 30.0, bank[0].shape[1], dtype=torch.float64)
    known, asked = bank[0] * scale + 5.0, queries[0] * scale + 5.0
    mean, std = known.mean(0), known.std(0, correction=0) + 1e-5

    def columns(features: torch.Tensor) -> np.ndarray:
        standardised = ((features - mean) / std).numpy()
        return np.hstack([standardised, np.full((len(features), 1), 100.0)])

    goal = 2.0 * np.eye(4)[bank[1].numpy()] - 1.0
    theirs = Ridge(alpha=1024.0, fit_intercept=False).fit(columns(known), goal)
    got = by_ridge((known, bank[1]), asked, 4)
    assert np.array_equal(got.numpy(), theirs.predict(columns(asked)).argmax(1))
    assert len(got.unique()) == 4
    one = few_shot(
        (known, bank[1]), (asked, queries[1]), 4, classifier=by_ridge, shots=[1], draws=3
    )
    assert 0.25 < one[1].mean <= 1 and len(one[1].accuracies) == 3


def test_draws_are_of_each_class_and_a_function_of_the_seed() -> None:
    targets = torch.tensor([0] * 9 + [2] * 5)
    chosen = draw_shots(targets, 3, 1)
    assert torch.bincount(targets[chosen]).tolist() == [3, 0, 3]
    assert len(chosen.unique()) == 6
    assert torch.equal(chosen, draw_shots(targets, 3, 1))
    assert any(not torch.equal(chosen, draw_shots(targets, 3, seed)) for seed in (2, 3))


def test_more_examples_are_better_and_spread_less() -> None:
    bank, queries = _clouds(400, spread=1.5), _clouds(400, spread=1.5, seed=6)
    found = few_shot(bank, queries, 4, draws=10)
    assert list(found) == [1, 5, 10]
    means = [few.mean for few in found.values()]
    assert means == sorted(means) and means[0] > 0.25
    assert found[1].deviation > found[10].deviation > 0
    assert FewShot((0.2, 0.4)).deviation == pytest.approx(np.std([0.2, 0.4], ddof=1))
    assert few_shot(bank, queries, 4, shots=[5], draws=10)[5] == found[5]
    assert few_shot(bank, queries, 4, shots=[5], draws=10, seed=1)[5] != found[5]


def test_a_class_without_examples_is_never_the_answer_and_a_rare_one_limits_the_shots() -> None:
    features, targets = _clouds(100)
    targets = torch.where(targets == 2, 3, targets)
    found = few_shot((features, targets), (features, targets), 6)
    assert list(found) == [1, 5, 10]
    centres = centroids(features, targets, 6)
    assert set(nearest_centroid(features, centres).tolist()) <= {0, 1, 3}
    few = torch.cat([torch.zeros(7), torch.ones(4)]).long()
    assert list(few_shot((features[:11], few), (features[:11], few), 2)) == [1]
