"""Dropout: what torch's does, by fewer random bits."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch import nn

from vitkit.nn import Dropout
from vitkit.nn.dropout import LEVELS, dropout

COUNT = 200_000


@pytest.mark.parametrize("p", [0.05, 0.1, 0.3, 0.5, 0.9])
def test_as_many_are_dropped_as_of_independent_throws(p: float) -> None:
    torch.manual_seed(0)
    dropped = int((dropout(torch.ones(COUNT), p) == 0).sum())
    assert stats.binomtest(dropped, COUNT, round(p * LEVELS) / LEVELS).pvalue > 1e-3


def test_what_is_left_is_scaled_by_the_rate_that_was_used() -> None:
    torch.manual_seed(0)
    for p in (0.1, 1 / 3, 0.9):
        used = round(p * LEVELS) / LEVELS
        assert abs(used - p) <= 0.5 / LEVELS
        out = dropout(torch.full((COUNT,), 2.0), p)
        assert out.unique().tolist() == pytest.approx([0.0, 2.0 / (1.0 - used)], rel=1e-6)


@pytest.mark.parametrize("lag", [1, 2, 3, 4])
def test_values_that_share_a_number_are_independent(lag: int) -> None:
    torch.manual_seed(0)
    kept = dropout(torch.ones(COUNT), 0.3) != 0
    first, second = kept[:-lag:4].long(), kept[lag::4].long()
    length = min(len(first), len(second))
    table = torch.bincount(2 * first[:length] + second[:length], minlength=4).view(2, 2)
    assert stats.chi2_contingency(table.numpy()).pvalue > 1e-3


def test_every_level_is_alike_likely_at_the_ends() -> None:
    torch.manual_seed(0)
    for rare in (2 / LEVELS, 1 - 2 / LEVELS):
        dropped = int((dropout(torch.ones(4_000_000), rare) == 0).sum())
        assert stats.binomtest(dropped, 4_000_000, rare).pvalue > 1e-3


def test_the_gradient_goes_where_the_values_went() -> None:
    torch.manual_seed(0)
    x = torch.rand(7, 5, 3).add(1.0).requires_grad_()
    out = dropout(x, 0.5)
    out.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad * x.detach(), out.detach())
    assert 0 < int((out == 0).sum()) < out.numel()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("shape", [(), (1,), (3, 0, 2), (5, 7), (2, 3, 4, 5)])
def test_shapes_and_formats_stay(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    out = dropout(torch.ones(shape, dtype=dtype), 0.4)
    assert out.shape == shape and out.dtype == dtype


def test_the_scale_is_not_rounded_on_its_own() -> None:
    """What bfloat16 holds exactly becomes the nearest product of it and the exact scale."""
    x = torch.arange(1, 257, dtype=torch.bfloat16)
    torch.manual_seed(0)
    out = dropout(x, 0.3)
    scale = LEVELS / (LEVELS - round(0.3 * LEVELS))
    want = (x.double() * scale).bfloat16()
    assert torch.equal(out[out != 0], want[out != 0]) and 0 < int((out != 0).sum()) < 256


def test_a_seed_gives_the_same_again() -> None:
    x = torch.ones(1001)
    torch.manual_seed(3)
    first, second = dropout(x, 0.5), dropout(x, 0.5)
    torch.manual_seed(3)
    assert torch.equal(dropout(x, 0.5), first) and not torch.equal(first, second)


def test_numbers_are_drawn_where_the_values_are() -> None:
    x = torch.ones(1001)
    torch.manual_seed(3)
    expected = dropout(x, 0.5)
    torch.manual_seed(3)
    with torch.device("meta"):
        assert torch.equal(dropout(x, 0.5), expected)


def test_the_layer_drops_in_training_alone() -> None:
    layer, x = Dropout(0.5), torch.ones(4, 4)
    assert isinstance(layer, nn.Dropout)
    assert layer.eval()(x) is x
    assert int((layer.train()(torch.ones(1000)) == 0).sum()) > 0
    assert torch.equal(Dropout(0.0)(x), x) and torch.equal(Dropout(1.0)(x), torch.zeros(4, 4))
    with pytest.raises(ValueError, match="between 0 and 1"):
        Dropout(1.5)


def test_a_model_with_it_is_compiled_whole() -> None:
    layer = torch.compile(Dropout(0.5), fullgraph=True, backend="aot_eager")
    out = layer(torch.ones(1000))
    assert set(out.unique().tolist()) == {0.0, 2.0}


def test_the_expectation_is_the_value() -> None:
    torch.manual_seed(0)
    x = torch.linspace(-1, 1, 50)
    mean = torch.stack([dropout(x, 0.3) for _ in range(4000)]).mean(dim=0)
    error = (mean - x).abs() / (x.abs() * math.sqrt(0.3 / 0.7 / 4000)).clamp_min(1e-9)
    assert error.max() < 4.5, "in standard errors"
