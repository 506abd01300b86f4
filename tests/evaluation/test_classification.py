"""Metrics are ratios of sums; scikit-learn and torch are the judges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import log_loss, top_k_accuracy_score

from vitkit.errors import EvaluationError
from vitkit.evaluation.classification import ClassificationSums, predict_all, rank_of_target


def test_metrics_equal_scikit_learn_however_the_split_is_cut() -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(53, 7), torch.randint(0, 7, (53,))
    probabilities = logits.double().softmax(1).numpy()
    labels = np.arange(7)
    for cut in (1, 10, 53):
        sums = ClassificationSums()
        for part in range(0, 53, cut):
            sums.update(logits[part : part + cut], targets[part : part + cut])
        found = sums.metrics()
        assert sums.count == 53
        assert found["loss"] == pytest.approx(
            log_loss(targets, probabilities, labels=labels), rel=1e-6
        )
        for name, k in (("acc", 1), ("acc5", 5)):
            want = top_k_accuracy_score(targets, probabilities, k=k, labels=labels)
            assert found[name] == pytest.approx(want)


@pytest.mark.parametrize(("classes", "told"), [(2, False), (5, False), (6, True)])
def test_the_best_five_of_five_are_not_told(classes: int, told: bool) -> None:
    sums = ClassificationSums()
    sums.update(torch.randn(4, classes), torch.zeros(4, dtype=torch.int64))
    assert ("acc5" in sums.metrics()) == told
    total = sums.with_sums(sums.sums + sums.sums)
    assert total.metrics() == sums.metrics()
    assert (total.count, sums.count) == (8, 4)


def test_ties_and_nan_are_not_in_the_models_favour() -> None:
    flat = torch.zeros(3, 3)
    assert rank_of_target(flat, torch.tensor([0, 1, 2])).tolist() == [0, 1, 2]
    broken = torch.tensor([[float("nan"), 9.0, 0.0]])
    assert rank_of_target(broken, torch.tensor([1])).tolist() == [3]


def test_an_empty_split_is_refused() -> None:
    with pytest.raises(EvaluationError, match="empty"):
        ClassificationSums().metrics()
    with pytest.raises(EvaluationError, match="empty"):
        predict_all(lambda images: images, [])


def test_an_image_that_comes_twice_is_refused() -> None:
    """As from a sampler that fills up the shares of several processes."""
    batches = [
        (torch.zeros(2, 1), torch.zeros(2).long(), torch.tensor(i)) for i in ([0, 1], [2, 0])
    ]
    with pytest.raises(EvaluationError, match="1 images came twice"):
        predict_all(lambda x: x, batches)


def test_predictions_come_back_in_the_order_of_the_split() -> None:
    images = torch.arange(10.0)[:, None]
    batches = [
        (images[i], torch.tensor([i % 2 for i in i]), torch.tensor(i)) for i in ([7, 3, 1], [0, 2])
    ]
    out = predict_all(lambda x: F.pad(x, (0, 1)), batches)
    assert out.indices.tolist() == [0, 1, 2, 3, 7]
    assert out.logits[:, 0].tolist() == [0.0, 1.0, 2.0, 3.0, 7.0]
