"""Recurrent layers and their block: against torch's cells, each text alone, and in any chunking."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vitkit.nn import (
    CELLS,
    BlockContext,
    LayerCache,
    Recurrent,
    RecurrentBlock,
    RecurrentState,
    Trunk,
    encoder_blocks,
    padding_mask,
    window_mask,
)

WIDTH, HIDDEN, LENGTH = 6, 5, 9
LENGTHS = torch.tensor([LENGTH, 4, 1])


def layer(cell: str, **kwargs: Any) -> Recurrent:
    torch.manual_seed(0)
    return Recurrent(WIDTH, HIDDEN, cell=cell, **kwargs).double()


def tokens() -> Tensor:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(3, LENGTH, WIDTH, generator=draw, dtype=torch.float64)


@pytest.mark.parametrize("cell", CELLS)
def test_outputs_are_the_cells_step_by_step(cell: str) -> None:
    ours, x = layer(cell), tokens()
    kind = {"rnn": nn.RNNCell, "lstm": nn.LSTMCell, "gru": nn.GRUCell}[cell]
    step = kind(WIDTH, HIDDEN).double()
    weights = zip(step.parameters(), ours.rnn.parameters(), strict=True)
    for mine, theirs in weights:
        mine.data.copy_(theirs.data)
    state: Any = None
    for place in range(LENGTH):
        state = step(x[:, place], state)
        hidden = state[0] if cell == "lstm" else state
        torch.testing.assert_close(ours(x)[:, place], hidden, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_padding_is_not_read(cell: str, bidirectional: bool) -> None:
    ours, x = layer(cell, bidirectional=bidirectional, depth=2), tokens()
    real = padding_mask(LENGTHS, LENGTH)[:, 0, 0]
    last = RecurrentState()
    out = ours(x, real=real, state=last)
    assert out.shape == (3, LENGTH, ours.output_dim) and last.state is not None
    for row, length in enumerate(LENGTHS.tolist()):
        alone = RecurrentState()
        want = ours(x[row : row + 1, :length], state=alone)
        torch.testing.assert_close(out[row : row + 1, :length], want)
        assert not out[row, length:].any()
        assert alone.state is not None
        for found, expected in zip(last.state, alone.state, strict=True):
            torch.testing.assert_close(found[:, row : row + 1], expected)


def test_a_text_of_nothing_gives_zeros_and_finite_gradients() -> None:
    ours = layer("lstm", bidirectional=True)
    real = padding_mask(torch.tensor([0, 3, 0]), LENGTH)[:, 0, 0]
    out = ours(tokens(), real=real)
    assert not out[0].any() and not out[2].any() and out[1, :3].any()
    out.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in ours.parameters())


@pytest.mark.parametrize("chunks", [[1] * LENGTH, [4, 5], [2, 6, 1]])
@pytest.mark.parametrize("cell", CELLS)
def test_any_chunking_equals_the_full_pass(cell: str, chunks: list[int]) -> None:
    ours, x, state = layer(cell, depth=2), tokens(), RecurrentState()
    parts = [ours(part, state=state) for part in x.split(chunks, dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), ours(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cell", CELLS)
def test_autocast_on_a_cpu_runs_and_keeps_the_weights_dtype(cell: str) -> None:
    ours, state = layer(cell, bidirectional=True).float(), RecurrentState()
    x = tokens().bfloat16()
    real = padding_mask(LENGTHS, LENGTH)[:, 0, 0]
    with torch.autocast("cpu", torch.bfloat16):
        out = ours(x, real=real, state=state)
    assert out.dtype == torch.float32
    assert torch.equal(out, ours(x.float(), real=real))
    out.sum().backward()


def test_select_reorders_the_batch() -> None:
    ours, x, state = layer("lstm"), tokens(), RecurrentState()
    RecurrentState().select(torch.tensor([0]))  # nothing to reorder yet
    ours(x[:, :4], state=state)
    rows = torch.tensor([2, 0, 0, 1])
    state.select(rows)
    torch.testing.assert_close(ours(x[rows, 4:], state=state), ours(x)[rows, 4:])


def test_what_a_layer_refuses() -> None:
    with pytest.raises(ValueError, match=r"'elman'.*'rnn', 'lstm', 'gru'"):
        layer("elman")
    real = torch.ones(3, LENGTH, dtype=torch.bool)
    real[1, 0] = False
    with pytest.raises(ValueError, match="in front of"):
        layer("gru")(tokens(), real=real)
    both, state = layer("gru", bidirectional=True), RecurrentState()
    both(tokens(), state=state)  # its last state may be asked for
    with pytest.raises(ValueError, match="one direction"):
        both(tokens(), state=state)


def block(cell: str = "lstm", **kwargs: Any) -> RecurrentBlock:
    torch.manual_seed(0)
    return RecurrentBlock(WIDTH, cell=cell, mlp_dim=8, **kwargs).double()


@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_block_is_its_parts(bidirectional: bool) -> None:
    ours, x = block(hidden_dim=7, bidirectional=bidirectional), tokens()
    hidden, _ = ours.rnn.rnn(nn.functional.layer_norm(x, (WIDTH,)))
    want = x + hidden @ ours.proj.weight.T + ours.proj.bias
    want = want + ours.mlp(nn.functional.layer_norm(want, (WIDTH,)))
    torch.testing.assert_close(ours(x), want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cell", CELLS)
def test_a_trunk_of_both_kinds_keeps_padding_and_caches(cell: str) -> None:
    torch.manual_seed(0)
    attention = encoder_blocks(1, WIDTH, 2).double()[0]
    trunk, x = Trunk([block(cell), attention, block(cell)]), tokens()
    ctx = BlockContext(is_causal=True, mask=padding_mask(LENGTHS, LENGTH))
    out = trunk(x, ctx)
    for row, length in enumerate(LENGTHS.tolist()):
        alone = trunk(x[row : row + 1, :length], BlockContext(is_causal=True))
        torch.testing.assert_close(out[row : row + 1, :length], alone)
    full, caches = trunk(x, BlockContext(is_causal=True)), trunk.new_caches()
    steps = [
        trunk(x[:, place : place + 1], BlockContext(is_causal=True, caches=caches))
        for place in range(LENGTH)
    ]
    torch.testing.assert_close(torch.cat(steps, dim=1), full)
    # Chunks under a mask of all tokens so far, as attention reads it.
    caches, real = trunk.new_caches(), torch.ones(len(x), LENGTH, dtype=torch.bool)
    chunks = [
        trunk(x[:, a:b], BlockContext(is_causal=True, mask=real[:, None, None, :b], caches=caches))
        for a, b in ((0, 2), (2, LENGTH))
    ]
    torch.testing.assert_close(torch.cat(chunks, dim=1), full)


def test_causal_order_is_kept_in_one_direction() -> None:
    x = tokens()
    changed = x.clone()
    changed[:, 5] = changed[:, 5].flip(-1)
    one, both = block(), block(bidirectional=True)
    assert torch.equal(one(x)[:, :5], one(changed)[:, :5])
    assert not torch.isclose(both(x)[:, :5], both(changed)[:, :5]).all(-1).any()


@pytest.mark.parametrize(
    ("kwargs", "ctx", "words"),
    [
        ({}, BlockContext(bias=torch.zeros(1)), "bias"),
        ({}, BlockContext(mask=window_mask(LENGTH, before=2)), "padding masks"),
        ({}, BlockContext(mask=torch.zeros(1, 1, 1, LENGTH)), "padding masks"),
        ({"bidirectional": True}, BlockContext(is_causal=True), "one direction"),
        ({"bidirectional": True}, BlockContext(cache=LayerCache()), "one direction"),
    ],
)
def test_what_a_block_cannot_keep_it_refuses(
    kwargs: dict[str, Any], ctx: BlockContext, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        block(**kwargs)(tokens(), ctx)


def test_memory_of_a_cache_may_stay() -> None:
    cache = LayerCache()
    one = torch.arange(3.0)[:, None, None, None]
    cache.tokens.append(one, one)
    cache.memory.append(one, one)
    cache.select(torch.tensor([2, 2, 0]), memory=False)
    held = [part.contents() for part in (cache.tokens, cache.memory)]
    assert [pair[0].flatten().tolist() for pair in held if pair] == [[2, 2, 0], [0, 1, 2]]
