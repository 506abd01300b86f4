"""Positions against closed forms, timm and transformers."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.layers import RelPosBias, resample_abs_pos_embed
from transformers import T5Config
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.t5.modeling_t5 import T5Attention

from vitkit.nn import (
    Alibi,
    RelativeBias,
    RelativeBias2d,
    alibi_slopes,
    causal_mask,
    grid_positions,
    resize_offsets,
    resize_position_grid,
    sincos_1d,
    sincos_2d,
)
from vitkit.nn.positions import _resampled, _resampled_by_products


def test_sincos_is_the_papers() -> None:
    table = sincos_1d(20, 16)
    for pos, i in ((0, 0), (3, 0), (7, 3), (19, 7)):
        angle = pos / 10000 ** (2 * i / 16)
        assert table[pos, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-6)
        assert table[pos, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-6)
    assert torch.equal(sincos_1d(5, 16, offset=15), table[15:])
    with pytest.raises(ValueError, match="even"):
        sincos_1d(3, 7)


def test_sincos_2d_separates_rows_and_columns() -> None:
    table = sincos_2d((3, 5), 16).view(3, 5, 16)
    row, column = 2, 4
    for i in range(4):
        frequency = 10000 ** (-i / 4)
        turned = [place * frequency for place in (row, column)]
        want = [f(angle) for angle in turned for f in (math.sin, math.cos)]
        got = table[row, column, i::4].tolist()
        assert got == pytest.approx(want, abs=1e-6)
    assert torch.unique(table.flatten(0, 1), dim=0).shape[0] == 15
    assert grid_positions((2, 3)).tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]


@pytest.mark.parametrize("new", [(7, 3), (2, 2), (14, 14), (4, 6)])
@pytest.mark.parametrize("prefix", [0, 2])
def test_resizing_a_table_is_timms(new: tuple[int, int], prefix: int) -> None:
    table = torch.randn(1, prefix + 24, 8)
    want = resample_abs_pos_embed(table, list(new), [4, 6], num_prefix_tokens=prefix)
    got = resize_position_grid(table, (4, 6), new, num_prefix=prefix)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("heads", [1, 2, 3, 6, 8, 12, 20])
def test_alibi_is_transformers_up_to_a_shift_of_each_row(heads: int) -> None:
    ones = torch.ones(1, 9)
    theirs = build_alibi_tensor(ones, heads, torch.float32).view(1, heads, 1, 9)
    ours = Alibi(heads)(9)
    causal = causal_mask(9)
    shift = (ours - theirs).masked_fill(~causal, 0.0)
    # What is seen differs by one number a row, which a softmax does not notice.
    diagonal = (ours - theirs).diagonal(dim1=-2, dim2=-1)[..., None]
    torch.testing.assert_close(shift, diagonal.masked_fill(~causal, 0.0), rtol=1e-6, atol=1e-6)
    assert not ours.diagonal(dim1=-2, dim2=-1).any()
    torch.testing.assert_close(ours, ours.mT)


def test_alibi_slopes_are_the_papers() -> None:
    exponents = {3: [4, 8, 2], 6: [2, 4, 6, 8, 1, 3], 8: list(range(1, 9))}
    exponents[12] = [*range(1, 9), 0.5, 1.5, 2.5, 3.5]
    for heads, wanted in exponents.items():
        torch.testing.assert_close(alibi_slopes(heads), 2.0 ** -torch.tensor(wanted).float())


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("buckets", "distance"), [(32, 128), (16, 64)])
def test_relative_bias_is_t5s(bidirectional: bool, buckets: int, distance: int) -> None:
    config = T5Config(
        d_model=12,
        d_kv=4,
        num_heads=3,
        relative_attention_num_buckets=buckets,
        relative_attention_max_distance=distance,
        is_decoder=not bidirectional,
    )
    theirs = T5Attention(config, has_relative_attention_bias=True, layer_idx=0)
    ours = RelativeBias(3, num_buckets=buckets, max_distance=distance, bidirectional=bidirectional)
    theirs.relative_attention_bias.weight.data.copy_(ours.table.data)
    torch.testing.assert_close(ours(300), theirs.compute_bias(300, 300), rtol=0, atol=0)
    last = theirs.compute_bias(3, 50, past_seen_tokens=47)
    torch.testing.assert_close(ours(3, 50), last, rtol=0, atol=0)


def test_buckets_begin_where_they_are_published_to() -> None:
    far = torch.arange(200)
    both = RelativeBias(1).buckets(-far)
    starts = [*range(8), 8, 12, 16, 23, 32, 46, 64, 91]
    assert [int((both == bucket).nonzero()[0]) for bucket in range(16)] == starts
    assert torch.equal(RelativeBias(1).buckets(far[1:]), both[1:] + 16)
    one = RelativeBias(1, bidirectional=False).buckets(-far)
    starts = [*range(16), 16, 19, 21, 24, 27, 31, 35, 40, 46, 52, 59, 67, 77, 87, 99, 113]
    assert [int((one == bucket).nonzero()[0]) for bucket in range(32)] == starts


@given(st.integers(1, 6), st.integers(0, 6))
def test_biases_are_aligned_at_the_end(num_queries: int, more: int) -> None:
    keys = num_queries + more
    for bias in (Alibi(2), RelativeBias(2), RelativeBias(2, bidirectional=False)):
        assert torch.equal(bias(num_queries, keys), bias(keys)[:, :, more:])


@pytest.mark.parametrize("options", [{"num_buckets": 6}, {"num_buckets": 0}, {"max_distance": 8}])
def test_buckets_that_cannot_be(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="num_buckets"):
        RelativeBias(2, **options)


@pytest.mark.parametrize("grid", [(4, 4), (3, 5)])
def test_relative_bias_on_a_grid_is_timms(grid: tuple[int, int]) -> None:
    ours = RelativeBias2d(2, 3, grid)
    torch.nn.init.normal_(ours.table)
    for layer, bias in enumerate(ours(grid)):
        theirs = RelPosBias(grid, 3)
        # timm counts from key to query, we count from query to key.
        table = ours.table[layer].flip(1, 2).flatten(1).T
        theirs.relative_position_bias_table.data.copy_(table)
        assert torch.equal(bias, theirs.get_bias())


@given(
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    st.integers(0, 2),
)
def test_relative_bias_of_any_grid_is_that_of_the_offset(
    built: tuple[int, int], grid: tuple[int, int], prefix: int
) -> None:
    module = RelativeBias2d(2, 2, built, num_prefix=prefix)
    torch.nn.init.normal_(module.table)
    (_, bias), places = module(grid), grid_positions(grid).long().tolist()
    reach = [n - 1 for n in built]
    count = prefix + len(places)
    assert bias.shape == (1, 2, count, count)
    assert not bias[..., :prefix, :].any() and not bias[..., :prefix].any()
    for i, query in enumerate(places):
        for j, key in enumerate(places):
            dy, dx = (
                max(-far, min(far, k - q)) + far
                for q, k, far in zip(query, key, reach, strict=True)
            )
            expected = module.table[1, :, dy, dx]
            assert torch.equal(bias[0, :, prefix + i, prefix + j], expected)


@pytest.mark.parametrize("grid", [(3, 4), (2, 3), (1, 1), (5, 2), (2, 6), (4, 6)])
def test_offsets_of_another_grid_are_cut_or_continued(grid: tuple[int, int]) -> None:
    table = torch.randn(2, 3, 5, 7)  # of 3 x 4
    found = resize_offsets(table, grid)
    assert (found is table) == (grid == (3, 4))
    rows, columns = grid
    assert found.shape == (2, 3, 2 * rows - 1, 2 * columns - 1)
    for down in range(1 - rows, rows):
        for right in range(1 - columns, columns):
            own = table[..., 2 + max(-2, min(2, down)), 3 + max(-3, min(3, right))]
            assert torch.equal(found[..., down + rows - 1, right + columns - 1], own)


def test_heads_begin_with_an_eye_on_a_neighbour_each() -> None:
    biases = RelativeBias2d(3, 3, (5, 5), locality=2.0)((5, 5))
    places = grid_positions((5, 5)).long().tolist()
    middle = places.index([2, 2])
    seen = [tuple(places[i]) for bias in biases for i in bias[0, :, middle].argmax(-1).tolist()]
    assert sorted(seen) == sorted((y, x) for y in (1, 2, 3) for x in (1, 2, 3))
    row = biases[0][0, 0, middle].detach().softmax(-1)
    assert row[middle] / row[middle + 1] == pytest.approx(math.exp(2.0))
    assert not any(bias.any() for bias in RelativeBias2d(2, 2, (3, 3), locality=0.0)((3, 3)))


@pytest.mark.parametrize("size", [(3, 9), (8, 4), (14, 14), (5, 7)])
def test_resampling_by_products_is_torchs(size: tuple[int, int]) -> None:
    image = torch.randn(1, 3, 5, 7, requires_grad=True)
    expected, got = _resampled(image, size), _resampled_by_products(image, size)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    given = torch.randn_like(expected)
    one, two = (torch.autograd.grad(out, image, given)[0] for out in (expected, got))
    torch.testing.assert_close(two, one, rtol=1e-5, atol=1e-5)


def test_resampling_by_products_keeps_its_precision_under_autocast() -> None:
    image = torch.randn(1, 3, 5, 7)
    with torch.autocast("cpu", torch.bfloat16):
        got = _resampled_by_products(image, (3, 9))
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, _resampled(image, (3, 9)), rtol=1e-5, atol=1e-6)
