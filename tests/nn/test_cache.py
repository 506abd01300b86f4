"""A cache in any chunking equals the full pass; causal and padding masks combine."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vitkit.nn import (
    Attention,
    BlockContext,
    DecoderBlock,
    KeyValueCache,
    LayerCache,
    Mlp,
    Rotary1d,
    encoder_blocks,
    padding_mask,
)
from vitkit.nn.trunk import Trunk

LENGTH, WIDTH = 11, 12


def trunk() -> Trunk:
    torch.manual_seed(0)
    return encoder_blocks(2, WIDTH, 3, num_kv_heads=1).double()


def rotary(start: int, stop: int):  # type: ignore[no-untyped-def]
    return Rotary1d(4)(torch.arange(start, stop))


def full_pass(model: Trunk, x: Tensor) -> Tensor:
    return model(x, BlockContext(is_causal=True, rotary=rotary(0, LENGTH)))


@given(st.lists(st.integers(1, 5), min_size=1, max_size=11), st.booleans())
def test_any_chunking_equals_the_full_pass(chunks: list[int], grad: bool) -> None:
    model = trunk()
    x = torch.randn(2, LENGTH, WIDTH, dtype=torch.float64, requires_grad=grad)
    caches, outputs, start = model.new_caches(), [], 0
    with torch.set_grad_enabled(grad):
        want = full_pass(model, x)
        for size in [*chunks, LENGTH]:
            stop = min(LENGTH, start + size)
            if start == stop:
                break
            ctx = BlockContext(is_causal=True, rotary=rotary(start, stop), caches=caches)
            outputs.append(model(x[:, start:stop], ctx))
            start = stop
        out = torch.cat(outputs, 1)
    # Rotation works in float32.
    torch.testing.assert_close(out, want, rtol=1e-5, atol=1e-6)
    assert caches[0].tokens.length == LENGTH
    if grad:
        one = torch.autograd.grad(out.square().sum(), x)[0]
        two = torch.autograd.grad(full_pass(model, x).square().sum(), x)[0]
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)


def test_causal_with_padding_equals_each_example_alone() -> None:
    model = trunk()
    x = torch.randn(3, LENGTH, WIDTH, dtype=torch.float64)
    lengths = torch.tensor([LENGTH, 6, 1])
    out = model(x, BlockContext(is_causal=True, mask=padding_mask(lengths, LENGTH)))
    for i, length in enumerate(lengths.tolist()):
        alone = model(x[i : i + 1, :length], BlockContext(is_causal=True))
        torch.testing.assert_close(out[i : i + 1, :length], alone)


def test_select_reorders_the_batch() -> None:
    cache = KeyValueCache()
    assert cache.contents() is None
    k = torch.arange(3.0)[:, None, None, None].expand(3, 1, 2, 4)
    cache.append(k, k + 10)
    cache.select(torch.tensor([2, 0]))
    keys, values = cache.append(torch.zeros(2, 1, 1, 4), torch.ones(2, 1, 1, 4))
    assert keys[:, 0, :, 0].tolist() == [[2, 2, 0], [0, 0, 0]]
    assert values[:, 0, :, 0].tolist() == [[12, 12, 1], [10, 10, 1]]


def test_the_memory_is_projected_once() -> None:
    torch.manual_seed(1)
    cross = Attention(WIDTH, 3, context_dim=WIDTH)
    block = DecoderBlock(WIDTH, Attention(WIDTH, 3), cross, Mlp(WIDTH, 20))
    x, memory = torch.randn(2, 4, WIDTH), torch.randn(2, 7, WIDTH)
    want = block(x, BlockContext(is_causal=True, memory=memory))
    calls: list[int] = []
    cross.kv.register_forward_hook(lambda *_: calls.append(1))
    cache = LayerCache()
    with torch.no_grad():
        steps = [
            block(x[:, i : i + 1], BlockContext(is_causal=True, memory=memory, cache=cache))
            for i in range(4)
        ]
    torch.testing.assert_close(torch.cat(steps, 1), want, rtol=1e-4, atol=1e-5)
    assert len(calls) == 1
    assert cache.memory.length == 7


@pytest.mark.parametrize("length", [1, 15, 16, 17, 40])
def test_growth_keeps_what_was_there(length: int) -> None:
    cache = KeyValueCache()
    items = torch.randn(length, 1, 2, 1, 3)
    for item in items:
        keys, _ = cache.append(item, item)
    assert torch.equal(keys, torch.cat(list(items), 2))


def test_a_memory_takes_no_more_room_than_it_needs() -> None:
    cache = KeyValueCache()
    keys, _ = cache.append(torch.randn(1, 2, 21, 3), torch.randn(1, 2, 21, 3))
    assert keys.untyped_storage().nbytes() == 2 * 21 * 3 * 4
