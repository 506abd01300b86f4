"""Masks against loops; recorded maps against the weights, with nothing disturbed."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.masking_utils import sliding_window_causal_mask_function

from vitkit.models import create_model
from vitkit.models.vit import VisionTransformer
from vitkit.nn import (
    Attention,
    causal_mask,
    combine_masks,
    padding_mask,
    record_attention,
    window_mask,
)


@given(st.integers(0, 7), st.integers(0, 7), st.integers(0, 3), st.integers(0, 3))
def test_causal_and_window_by_their_definitions(n: int, m: int, before: int, after: int) -> None:
    causal, window = causal_mask(n, m), window_mask(n, m, before=before, after=after)
    for i in range(n):
        place = i + m - n
        for j in range(m):
            assert causal[i, j].item() == (j <= place)
            assert window[i, j].item() == (place - before <= j <= place + after)


@pytest.mark.parametrize("window", [1, 3, 9])
def test_a_sliding_window_is_transformers(window: int) -> None:
    sees = sliding_window_causal_mask_function(window)
    mask = window_mask(7, before=window - 1)
    place = torch.arange(7)
    zero = torch.tensor(0)
    for query in place:
        for key in place:
            assert bool(sees(zero, zero, query, key)) == mask[query, key].item()


def test_padding() -> None:
    mask = padding_mask(torch.tensor([0, 2, 3]), 3)
    assert mask.shape == (3, 1, 1, 3)
    assert mask[:, 0, 0].tolist() == [[False] * 3, [True, True, False], [True] * 3]


def test_combining() -> None:
    one, two = torch.tensor([True, True, False]), torch.tensor([True, False, True])
    added = torch.tensor([1.0, 2.0, 3.0])
    assert combine_masks(None, None) is None
    both = combine_masks(one, None, two)
    assert both is not None
    assert both.tolist() == [True, False, False]
    mixed = combine_masks(one, added, added)
    assert mixed is not None
    assert mixed.tolist() == [2.0, 4.0, -math.inf]
    assert combine_masks(added) is added
    for whole in (torch.ones(2, 2, dtype=torch.int64), one.to(torch.uint8)):
        with pytest.raises(ValueError, match=r"a mask of torch\.\w+; allowed: bool"):
            combine_masks(whole, added)


def _vit() -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(16, 4, 3, 5, "token", 24, 3, 3, reg_tokens=1).eval()


def test_recorded_maps_are_right() -> None:
    model, images = _vit(), torch.randn(2, 3, 16, 16)
    with record_attention(model, layers=[0, -1]) as maps, torch.no_grad():
        model.forward_features(images)
    assert set(maps) == {0, -1}
    for weights in maps.values():
        assert weights.shape == (2, 3, 18, 18)
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 18))
    assert all(m.recorder is None for m in model.modules() if isinstance(m, Attention))
    attn = model.blocks[0].attn
    assert isinstance(attn, Attention)
    tokens, _ = model._embed(images)
    q, k, _ = attn.project(model.blocks[0].norm1(tokens), None, None, None)  # type: ignore[operator]
    want = (q @ k.transpose(-2, -1) / math.sqrt(8)).softmax(-1)
    torch.testing.assert_close(maps[0], want, rtol=1e-5, atol=1e-6)


def test_all_layers_by_default_and_bad_indices_named() -> None:
    model = _vit()
    with record_attention(model) as maps:
        model(torch.randn(1, 3, 16, 16))
    assert sorted(maps) == [0, 1, 2]
    with pytest.raises(ValueError, match="allowed: -3 to 2"), record_attention(model, [3]):
        pass
    with pytest.raises(ValueError, match="no vitkit"), record_attention(torch.nn.Linear(2, 2)):
        pass


def test_layers_by_name_and_cross_attention() -> None:
    torch.manual_seed(0)
    model = create_model(
        "transformer_tiny", vocab_size=11, max_len=9, embed_dim=16, depth=1, num_heads=2
    ).eval()
    names = [name for name, m in model.named_modules() if isinstance(m, Attention)]
    cross = next(name for name in names if name.endswith("cross_attn"))
    ids, targets = torch.randint(1, 11, (2, 7)), torch.randint(1, 11, (2, 5))
    plain = model(ids, targets)
    with record_attention(model, [cross, 0, -len(names)]) as maps:
        assert torch.equal(model(ids, targets), plain)
    assert set(maps) == {cross, 0, -len(names)}
    assert maps[cross].shape == (2, 2, 5, 7)
    assert maps[0].shape == (2, 2, 7, 7)
    assert torch.equal(maps[0], maps[-len(names)])  # one layer by two of its numbers
    for weights in maps.values():
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    said = "no attention layer 'attn'; allowed: .*cross_attn"
    with pytest.raises(ValueError, match=said), record_attention(model, ["attn"]):
        pass


@pytest.mark.parametrize("layers", [None, [0], [-1], [0, -1], [1, 2]])
@pytest.mark.parametrize("learns", [True, False])
def test_recording_changes_no_bit_of_any_output(layers: list[int] | None, learns: bool) -> None:
    """With a backward pass to come and without, which may take another kernel."""
    model, images = _vit(), torch.randn(2, 3, 16, 16)
    with torch.set_grad_enabled(learns):
        plain, features = model(images), model.forward_features(images)
        with record_attention(model, layers) as maps:
            assert torch.equal(model(images), plain)
            seen = {key: weights.clone() for key, weights in maps.items()}
            assert torch.equal(model.forward_features(images), features)
    for key, weights in maps.items():
        torch.testing.assert_close(seen[key], weights, rtol=1e-6, atol=1e-7)
