"""The trunk's short cuts, recomputation, intermediates and caches equal the plain full pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor, nn

from vitkit.nn import (
    Attention,
    Block,
    BlockContext,
    CompactBlock,
    DecoderBlock,
    Mlp,
    Rotary1d,
    Trunk,
    attention_kernel,
    drop_path_ramp,
    encoder_blocks,
    make_norm,
    padding_mask,
    record_attention,
)
from vitkit.nn.functional import KERNELS

BATCH, LENGTH, WIDTH, HEADS, DEPTH = 3, 7, 24, 4, 3
LIMIT = 1e-12
"""Of an error over the reference's largest value; the largest measured is 4.6e-15."""


def shaken(module: Any) -> Any:
    """The module in float64 with no weight alike, zero or one; gains of norms stay about one."""
    draw = torch.Generator().manual_seed(0)
    module.double()
    with torch.no_grad():
        for name, p in module.named_parameters():
            noise = torch.randn(p.shape, generator=draw, dtype=p.dtype)
            is_gain = "norm" in name and name.endswith("weight")
            p.copy_(1 + 0.3 * noise if is_gain else 0.3 * noise)
    return module


def random(*shape: int, seed: int = 1) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=draw, dtype=torch.float64).requires_grad_()


def tokens(length: int = LENGTH) -> Tensor:
    return random(BATCH, length, WIDTH)


def gradients(out: Tensor, leaves: list[Tensor], seed: int = 2) -> list[Tensor]:
    """Gradients of a generic function of ``out``; and ``out`` itself, first."""
    draw = torch.Generator().manual_seed(seed)
    weight = torch.randn(out.shape, generator=draw, dtype=torch.float64).to(out.dtype)
    found = torch.autograd.grad((out * weight).sum(), leaves, retain_graph=True)
    return [out.detach(), *found]


def assert_close(found: list[Tensor], expected: list[Tensor]) -> None:
    """Every error relative to the largest value expected of that tensor, which is never zero."""
    for index, (one, two) in enumerate(zip(found, expected, strict=True)):
        assert one.shape == two.shape
        scale = two.abs().max().item()
        assert scale > 0, index
        assert (one - two).abs().max().item() <= LIMIT * scale, index


def computed_tokens(module: nn.Module, run: Callable[[], object]) -> list[int]:
    """How many tokens ``module`` computes in each of its calls, without a hook."""
    seen: list[int] = []
    forward = module.forward

    def spy(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        seen.append(x.shape[1])
        out: Tensor = forward(x, *args, **kwargs)
        return out

    module.forward = spy  # type: ignore[method-assign]
    try:
        run()
    finally:
        del module.forward
    return seen


def context(**kwargs: Any) -> BlockContext:
    return BlockContext(**kwargs)


SCATTERED = torch.rand(BATCH, HEADS, LENGTH, LENGTH, generator=torch.Generator().manual_seed(3))
RMS = make_norm("rmsnorm")

# name -> (what the trunk is built with, what its tokens know besides their values).
READ_CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "layer_scale": ({"init_values": 0.5}, {}),
    "rotary": ({}, {"rotary": Rotary1d(6)(torch.arange(LENGTH))}),
    "rotary_per_example": (
        {"num_kv_heads": 2},
        {"rotary": Rotary1d(6)(torch.arange(BATCH * LENGTH).view(BATCH, 1, LENGTH))},
    ),
    "padding": ({}, {"mask": padding_mask(torch.tensor([LENGTH, 4, 1]), LENGTH)}),
    "bool_mask": ({}, {"mask": SCATTERED > 0.4}),
    "flat_mask": ({}, {"mask": torch.arange(LENGTH) != 2}),
    "square_mask": ({}, {"mask": SCATTERED[0, 0] > 0.4}),
    "float_mask": ({}, {"mask": SCATTERED.double()}),
    "bias": ({}, {"bias": random(1, HEADS, LENGTH, LENGTH, seed=4), "mask": SCATTERED > 0.2}),
    "other_layers": (
        {
            "mlp_layer": "swiglu",
            "norm_layer": RMS,
            "qk_norm": True,
            "head_dim": 10,
            "qkv_bias": False,
        },
        {},
    ),
}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("read", [1, 3])
@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("case", READ_CASES)
def test_reading_some_tokens_equals_the_full_pass(
    case: str, norm_first: bool, read: int, kernel: Any, request: pytest.FixtureRequest
) -> None:
    with attention_kernel(kernel):
        assert_reading_is_exact(case, norm_first, read)


def assert_reading_is_exact(case: str, norm_first: bool, read: int) -> None:
    kwargs, known = READ_CASES[case]
    trunk = shaken(encoder_blocks(DEPTH, WIDTH, HEADS, norm_first=norm_first, **kwargs))
    x, ctx = tokens(), context(**known)
    leaves = [x, *trunk.parameters()] + ([ctx.bias] if ctx.bias is not None else [])
    expected = gradients(trunk(x, ctx)[:, :read], leaves)
    assert_close(gradients(trunk(x, ctx, read=read), leaves), expected)
    for part in (trunk[-1].mlp, trunk[-1].norm2):
        assert computed_tokens(part, lambda: trunk(x, ctx, read=read)) == [read]
    assert computed_tokens(trunk[-2].mlp, lambda: trunk(x, ctx, read=read)) == [LENGTH]


@pytest.mark.parametrize("norm_first", [True, False])
def test_reading_draws_the_drop_paths_of_the_full_pass(norm_first: bool) -> None:
    trunk = shaken(encoder_blocks(DEPTH, WIDTH, HEADS, norm_first=norm_first, drop_path_rate=0.5))
    x, results = tokens(), []
    leaves = [x, *trunk.parameters()]
    for run in (lambda: trunk(x, read=2), lambda: trunk(x)[:, :2]):
        torch.manual_seed(4)
        results.append(gradients(run(), leaves))
    assert_close(*results)
    assert not torch.allclose(results[0][0], trunk.eval()(x)[:, :2])


def listening(kind: str, module: nn.Module, seen: list[int]) -> Any:
    """Register a hook that notes how many tokens it is shown: the last axis but one."""

    def note(shown: Any) -> None:
        shown = shown[0] if isinstance(shown, tuple) else shown
        seen.append(shown.shape[-2])

    if kind == "forward":
        return module.register_forward_hook(lambda m, args, out: note(out))
    if kind == "forward_pre":
        return module.register_forward_pre_hook(lambda m, args: note(args))
    if kind == "backward":
        return module.register_full_backward_hook(lambda m, given, wanted: note(wanted))
    return module.register_full_backward_pre_hook(lambda m, wanted: note(wanted))


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("kind", ["forward", "forward_pre", "backward", "backward_pre"])
def test_a_hook_anywhere_in_the_last_block_sees_all_tokens(kind: str, norm_first: bool) -> None:
    trunk = encoder_blocks(
        2,
        WIDTH,
        HEADS,
        norm_first=norm_first,
        norm_layer=RMS,
        init_values=0.5,
        qk_norm=True,
        drop_path_rate=0.1,
    )
    shaken(trunk).eval()
    x = tokens()
    leaves = [x, *trunk.parameters()]
    expected = gradients(trunk(x, read=2), leaves)
    names = dict(trunk[-1].named_modules())
    # The block itself, and every kind of part it has.
    assert {"", "attn", "mlp", "norm1", "norm2", "ls1", "drop_path2", "attn.qkv"} <= set(names)
    for name, module in names.items():
        seen: list[int] = []
        handle = listening(kind, module, seen)
        assert_close(gradients(trunk(x, read=2), leaves), expected)
        handle.remove()
        assert seen == [LENGTH], name
        assert computed_tokens(trunk[-1].mlp, lambda: trunk(x, read=2)) == [2], name
    with trunk[0].mlp.register_forward_hook(lambda *_: None):
        assert computed_tokens(trunk[-1].mlp, lambda: trunk(x, read=2)) == [2]


def test_a_recorder_sees_all_tokens() -> None:
    trunk = shaken(encoder_blocks(2, WIDTH, HEADS)).eval()
    x = tokens()
    plain = trunk(x, read=1)
    with record_attention(trunk, [-1]) as maps:
        assert torch.equal(trunk(x, read=1), plain)
        assert computed_tokens(trunk[-1].mlp, lambda: trunk(x, read=1)) == [1]
    assert maps[-1].shape == (BATCH, HEADS, LENGTH, LENGTH)
    torch.testing.assert_close(maps[-1].sum(-1), torch.ones(BATCH, HEADS, LENGTH))
    with record_attention(trunk, [-1]) as full:
        trunk(x)
    torch.testing.assert_close(maps[-1], full[-1], rtol=1e-6, atol=1e-7)
    with record_attention(trunk, [0]) as maps:
        assert computed_tokens(trunk[-1].mlp, lambda: trunk(x, read=1)) == [1]
    assert maps[0].shape == (BATCH, HEADS, LENGTH, LENGTH)
    assert computed_tokens(trunk[-1].mlp, lambda: trunk(x, read=1)) == [1]


class LowRankLinear(nn.Linear):
    """A projection with a learned addition, as adapters put in the place of a plain one."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x[..., :1]


class Averaging(nn.Module):
    """A token mixer without attention."""

    def forward(self, x: Tensor, **_: Any) -> Tensor:
        return x.mean(1, keepdim=True).expand_as(x)


def full_path_trunk(case: str) -> tuple[Any, BlockContext]:
    """A trunk and a context in which the last block has to compute every token."""
    if case == "compact":
        return encoder_blocks(2, WIDTH, HEADS, block_type=CompactBlock), BlockContext()
    if case == "decoder":
        return decoder_trunk(True), BlockContext(memory=random(BATCH, 5, 16, seed=5))
    trunk = encoder_blocks(2, WIDTH, HEADS)
    if case == "causal":
        return trunk, BlockContext(is_causal=True)
    if case == "caches":
        return trunk, BlockContext(caches=trunk.new_caches())
    if case == "adapter":
        trunk[-1].attn.qkv = LowRankLinear(WIDTH, 3 * WIDTH)
    if case == "other_mixer":
        trunk[-1].attn = Averaging()
    return trunk, BlockContext()


@pytest.mark.parametrize(
    "case", ["compact", "decoder", "causal", "caches", "adapter", "other_mixer"]
)
def test_the_full_path_is_taken_where_the_short_one_is_not_exact(case: str) -> None:
    trunk, ctx = full_path_trunk(case)
    shaken(trunk)
    x = tokens()

    def fresh() -> BlockContext:
        return ctx if ctx.caches is None else BlockContext(caches=trunk.new_caches())

    with torch.no_grad():
        assert_close([trunk(x, fresh(), read=2)], [trunk(x, fresh())[:, :2]])
        assert computed_tokens(trunk[-1].mlp, lambda: trunk(x, fresh(), read=2)) == [LENGTH]


DROPS: dict[str, dict[str, float]] = {
    "none": {},
    "proj": {"proj_drop_rate": 0.2},
    "attn": {"attn_drop_rate": 0.2},
    "mlp": {"mlp_drop_rate": 0.2},
    "path": {"drop_path_rate": 0.4},
    "all": {"proj_drop_rate": 0.1, "attn_drop_rate": 0.1, "drop_path_rate": 0.2},
}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("read", [None, 2])
@pytest.mark.parametrize("drops", DROPS)
def test_checkpointing_gives_the_same_bits(drops: str, read: int | None, kernel: Any) -> None:
    trunk = shaken(encoder_blocks(DEPTH, WIDTH, HEADS, init_values=0.5, **DROPS[drops])).float()
    x = tokens().detach().float().requires_grad_()
    leaves = [x, *trunk.parameters()]

    def results(enabled: bool, seed: int) -> list[Tensor]:
        trunk.grad_checkpointing = enabled
        torch.manual_seed(seed)
        with attention_kernel(kernel):
            found = gradients(trunk.train()(x, read=read), leaves)
        return [*found, torch.rand(3)]  # what is drawn afterwards is the same, too

    plain = results(False, 5)
    assert all(map(torch.equal, results(True, 5), plain))
    assert all(value.any() for value in plain)
    assert torch.equal(results(True, 6)[0], plain[0]) == (drops == "none")


@pytest.mark.parametrize("norm_first", [True, False])
def test_checkpointing_reaches_a_decoders_memory_and_biases(norm_first: bool) -> None:
    trunk = shaken(decoder_trunk(norm_first))
    x, memory = tokens(), random(BATCH, 5, 16, seed=5)
    bias = random(1, HEADS, LENGTH, LENGTH, seed=6)
    ctx = BlockContext(memory=memory, bias=bias, is_causal=True)
    results = []
    for trunk.grad_checkpointing in (False, True):
        results.append(gradients(trunk(x, ctx), [x, memory, bias, *trunk.parameters()]))
    assert all(map(torch.equal, *results))


def saved_bytes(trunk: nn.Module, run: Callable[[], Tensor]) -> int:
    """Bytes that a forward pass keeps for the backward one, the weights left out."""
    weights = {p.untyped_storage().data_ptr() for p in trunk.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = run()  # alive until all is counted, so that no address is used twice
    total = sum(kept.values())
    del out
    return total


def test_checkpointing_keeps_one_tensor_per_block() -> None:
    trunk, x = encoder_blocks(6, WIDTH, HEADS).train(), tokens(40).detach().float()
    one = x.requires_grad_().nbytes
    with attention_kernel("fused"):  # the other one keeps the scores, too
        plain = saved_bytes(trunk, lambda: trunk(x))
    trunk.grad_checkpointing = True
    for read in (None, 1):
        # Each block's input, and nothing else.
        assert saved_bytes(trunk, lambda read=read: trunk(x, read=read)) == 6 * one
    # A plain block keeps, in units of one: x, norm1, qkv (3), mixed tokens, x, norm2, and fc1 and
    # gelu (4 each) = 16; and a few numbers per token.
    assert 16 * 6 * one <= plain <= 17 * 6 * one
    # In evaluation nothing is recomputed.
    with attention_kernel("fused"):
        assert saved_bytes(trunk.eval(), lambda: trunk(x)) == plain


def by_hand(trunk: Trunk, x: Tensor, ctx: BlockContext) -> list[Tensor]:
    outputs = []
    for block in trunk:
        x = block(x, ctx)
        outputs.append(x)
    return outputs


@pytest.mark.parametrize("enabled", [False, True])
@pytest.mark.parametrize(
    ("indices", "taken"),
    [
        ([0], [0]),
        ([3], [3]),
        ([1, 3], [1, 3]),
        ([3, 1, 1], [1, 3]),
        ([-1], [3]),
        ([-4, -2], [0, 2]),
        ([2, -2, -1], [2, 3]),
        (range(4), [0, 1, 2, 3]),
        ([], []),
    ],
    ids=str,
)
def test_intermediates_are_the_blocks_run_by_hand(
    indices: Any, taken: list[int], enabled: bool
) -> None:
    trunk = shaken(encoder_blocks(4, WIDTH, HEADS))
    trunk.grad_checkpointing = enabled
    x = tokens()
    ctx = BlockContext(mask=SCATTERED > 0.2, rotary=Rotary1d(6)(torch.arange(LENGTH)))
    want = by_hand(trunk, x, ctx)
    found = trunk.intermediates(x, ctx, indices=iter(indices))
    assert len(found) == len(taken)
    assert all(torch.equal(one, want[i]) for one, i in zip(found, taken, strict=True))
    assert torch.equal(trunk(x, ctx), want[-1])
    assert not torch.equal(want[0], trunk[0](x))
    if taken:
        leaves = [x, *trunk[: taken[-1] + 1].parameters()]
        expected = gradients(torch.stack([want[i] for i in taken]), leaves)
        assert_close(gradients(torch.stack(found), leaves), expected)


def test_intermediates_run_no_block_beyond_the_last_one_wanted() -> None:
    trunk, ran = encoder_blocks(4, WIDTH, HEADS).double(), []
    for index, block in enumerate(trunk):
        block.register_forward_hook(lambda *_, index=index: ran.append(index))
    for indices, expected in (([1], [0, 1]), ([-3, 0], [0, 1]), ([], []), ([-1], [0, 1, 2, 3])):
        ran.clear()
        trunk.intermediates(tokens(), indices=indices)
        assert ran == expected


@pytest.mark.parametrize("index", [4, -5, 100])
def test_an_intermediate_beyond_the_depth_is_an_error(index: int) -> None:
    trunk = encoder_blocks(4, WIDTH, HEADS).double()
    with pytest.raises(ValueError, match=f"block {index} does not exist; allowed: -4 to 3"):
        trunk.intermediates(tokens(), indices=[0, index])


STEPS, MEMORY, MEMORY_WIDTH = 18, 9, 16


def decoder_trunk(norm_first: bool) -> Trunk:
    """Two decoder blocks, with shared and with full key heads; a memory of another width."""
    return Trunk(
        DecoderBlock(
            WIDTH,
            Attention(WIDTH, HEADS, num_kv_heads=kv_heads, qkv_bias=True),
            Attention(
                WIDTH,
                HEADS,
                num_kv_heads=2,
                context_dim=MEMORY_WIDTH,
                qkv_bias=True,
                qk_norm=True,
                norm_layer=RMS,
            ),
            Mlp(WIDTH, 40),
            norm_first=norm_first,
        )
        # Shared heads are copied before the product, which full ones are not.
        for kv_heads in (2, HEADS)
    )


def decoder_context(memory: Tensor | None) -> BlockContext:
    """Everything at once: rotary positions, hidden tokens, a padded memory."""
    mask = torch.ones(BATCH, 1, 1, STEPS, dtype=torch.bool)
    mask[1, ..., 2], mask[2, ..., 5:8] = False, False
    return BlockContext(
        mask=mask,
        is_causal=True,
        rotary=Rotary1d(6)(torch.arange(STEPS)),
        memory=memory,
        memory_mask=padding_mask(torch.tensor([MEMORY, 4, 1]), MEMORY),
    )


def slice_of(ctx: BlockContext, start: int, stop: int, **changes: Any) -> BlockContext:
    """What a chunk of the tokens knows: its own angles, and a mask of all keys so far."""
    assert ctx.mask is not None and ctx.rotary is not None
    mask, rotary = ctx.mask[..., :stop], ctx.rotary[start:stop]
    return dataclasses.replace(ctx, mask=mask, rotary=rotary, **changes)


def decode(
    trunk: Trunk, x: Tensor, ctx: BlockContext, cuts: set[int], resend: bool = True
) -> Tensor:
    """The tokens in chunks that begin at ``cuts``, through fresh caches."""
    caches, outputs = trunk.new_caches(), []
    borders = [0, *sorted(cuts), STEPS]
    for start, stop in pairwise(borders):
        memory = ctx.memory if resend or start == 0 else None
        part = slice_of(ctx, start, stop, memory=memory, caches=caches)
        outputs.append(trunk(x[:, start:stop], part))
        assert [cache.tokens.length for cache in caches] == [stop] * len(trunk)
        assert [cache.memory.length for cache in caches] == [MEMORY] * len(trunk)
    return torch.cat(outputs, dim=1)


EVERY_CUT = set(range(1, STEPS))


@given(
    cuts=st.sets(st.integers(1, STEPS - 1)),
    norm_first=st.booleans(),
    grad=st.booleans(),
    resend=st.booleans(),
)
@example(cuts=EVERY_CUT, norm_first=True, grad=False, resend=True)
@example(cuts=EVERY_CUT, norm_first=False, grad=True, resend=False)
@example(cuts=set(range(5, STEPS)), norm_first=True, grad=False, resend=False)
@example(cuts=set(), norm_first=True, grad=True, resend=True)
def test_a_decoder_with_caches_in_any_chunking_equals_the_full_pass(
    cuts: set[int], norm_first: bool, grad: bool, resend: bool
) -> None:
    trunk = shaken(decoder_trunk(norm_first))
    x, memory = tokens(STEPS), random(BATCH, MEMORY, MEMORY_WIDTH, seed=5)
    ctx = decoder_context(memory)
    projected = [0, 0]
    handles = [
        block.cross_attn.kv.register_forward_hook(
            lambda *_, index=index: projected.__setitem__(index, projected[index] + 1)
        )
        for index, block in enumerate(trunk)
    ]
    with torch.set_grad_enabled(grad):
        found = decode(trunk, x, ctx, cuts, resend)
    # The memory's keys and values are made with the first chunk, and never again.
    assert projected == [1, 1]
    for handle in handles:
        handle.remove()
    if not grad:
        assert_close([found], [trunk(x, ctx).detach()])
        return
    leaves = [x, memory, *trunk.parameters()]
    assert_close(gradients(found, leaves), gradients(trunk(x, ctx), leaves))


def test_a_filled_cache_is_what_cross_attention_reads() -> None:
    trunk = shaken(decoder_trunk(True))
    x, memory = tokens(STEPS), random(BATCH, MEMORY, MEMORY_WIDTH, seed=5)
    ctx = decoder_context(memory)
    other = random(BATCH, MEMORY, MEMORY_WIDTH, seed=6)
    with torch.no_grad():
        want = trunk(x, ctx)
        caches = trunk.new_caches()
        first = trunk(x[:, :4], slice_of(ctx, 0, 4, caches=caches))
        rest = trunk(x[:, 4:], slice_of(ctx, 4, STEPS, caches=caches, memory=other))
        assert not torch.allclose(trunk(x, dataclasses.replace(ctx, memory=other)), want)
    assert_close([torch.cat([first, rest], 1)], [want])


def test_selected_rows_go_on_as_if_they_had_been_there_from_the_start() -> None:
    trunk = shaken(decoder_trunk(True))
    x, memory = tokens(STEPS), random(BATCH, MEMORY, MEMORY_WIDTH, seed=5)
    ctx = decoder_context(memory)
    rows = torch.tensor([2, 0, 2, 1])
    assert ctx.mask is not None and ctx.memory_mask is not None
    chosen = dataclasses.replace(ctx, mask=ctx.mask[rows], memory_mask=ctx.memory_mask[rows])
    with torch.no_grad():
        caches = trunk.new_caches()
        trunk(x[:, :11], slice_of(ctx, 0, 11, caches=caches))
        for cache in caches:
            cache.select(rows)
        found = trunk(x[rows, 11:], slice_of(chosen, 11, STEPS, caches=caches, memory=None))
        assert_close([found], [trunk(x, ctx)[rows, 11:]])


def test_an_empty_trunk_changes_nothing() -> None:
    x = tokens()
    for trunk in (Trunk(), encoder_blocks(0, WIDTH, HEADS, drop_path_rate=0.1)):
        trunk.grad_checkpointing = True
        assert len(trunk) == 0 and trunk.new_caches() == []
        assert torch.equal(trunk(x), x)
        assert torch.equal(trunk(x, BlockContext(caches=[], is_causal=True)), x)
        assert torch.equal(trunk(x, read=2), x[:, :2])
        assert trunk.intermediates(x, indices=[]) == []
        for index in (0, -1):
            with pytest.raises(ValueError, match=f"block {index} does not exist"):
                trunk.intermediates(x, indices=[index])


@pytest.mark.parametrize("enabled", [False, True])
def test_a_trunk_of_one_block_is_that_block(enabled: bool) -> None:
    trunk = shaken(encoder_blocks(1, WIDTH, HEADS, drop_path_rate=0.5))
    trunk.grad_checkpointing = enabled
    x, ctx = tokens(), BlockContext(mask=SCATTERED > 0.2)
    leaves = [x, *trunk.parameters()]
    # The only block is the first one, which drops nothing.
    want = trunk[0](x, ctx)
    assert torch.equal(trunk(x, ctx), want)
    for index in (0, -1):
        (found,) = trunk.intermediates(x, ctx, indices=[index])
        assert torch.equal(found, want)
    assert_close(gradients(trunk(x, ctx, read=2), leaves), gradients(want[:, :2], leaves))
    causal = BlockContext(is_causal=True)
    caches = trunk.new_caches()
    with torch.no_grad():
        steps = [trunk(x[:, i : i + 1], BlockContext(caches=caches)) for i in range(LENGTH)]
        assert_close([torch.cat(steps, 1)], [trunk(x, causal)])
    assert len(caches) == 1 and caches[0].tokens.length == LENGTH


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_drop_paths_rise_from_none_to_the_rate(depth: int) -> None:
    rates = drop_path_ramp(0.4, depth)
    assert rates == pytest.approx(torch.linspace(0, 0.4, depth).tolist())
    trunk = encoder_blocks(depth, WIDTH, HEADS, drop_path_rate=0.4)
    for block, rate in zip(trunk, rates, strict=True):
        assert isinstance(block, Block)
        for part in (block.drop_path1, block.drop_path2):
            assert getattr(part, "p", 0.0) == rate


@pytest.mark.parametrize("block_type", [Block, CompactBlock])
def test_encoder_blocks_builds_what_it_is_asked_for(block_type: type[Block]) -> None:
    trunk = encoder_blocks(
        2,
        WIDTH,
        HEADS,
        block_type=block_type,
        mlp_ratio=2.5,
        norm_first=False,
        norm_layer=RMS,
        init_values=0.25,
        act_layer="relu",
        attn_drop_rate=0.1,
        proj_drop_rate=0.2,
    )
    for block in trunk:
        assert type(block) is block_type and not block.norm_first
        assert block.ls1.gamma.tolist() == block.ls2.gamma.tolist() == [0.25] * WIDTH
        assert type(block.norm1) is type(block.norm2) is nn.RMSNorm
        assert block.attn.attn_drop == 0.1 and block.attn.proj_drop.p == 0.2
        assert block.mlp.fc1.out_features == 60 and type(block.mlp.act) is nn.ReLU
        assert block.mlp.drop1.p == block.mlp.drop2.p == 0.2
    apart = encoder_blocks(1, WIDTH, HEADS, proj_drop_rate=0.2, mlp_drop_rate=0.0)
    assert isinstance(apart[0].mlp, Mlp) and apart[0].mlp.drop1 is None


class Doubled(Block):
    """A block of somebody's own, with its own forward."""

    def forward(self, x: Tensor, ctx: BlockContext = BlockContext()) -> Tensor:  # noqa: B008
        """(B, N, C) -> (B, N, C)."""
        return 2 * super().forward(x, ctx)


class Mixing(nn.Module):
    """A channel mixer that looks at all tokens."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        return x - x.mean(dim=1, keepdim=True)


@pytest.mark.parametrize("kind", ["forward", "mixer", "global hook"])
def test_reading_takes_the_full_path_where_it_would_not_be_exact(kind: str) -> None:
    block_type = Doubled if kind == "forward" else Block
    mlp = Mixing() if kind == "mixer" else Mlp(WIDTH, WIDTH)
    trunk = shaken(Trunk([block_type(WIDTH, Attention(WIDTH, HEADS), mlp)]))
    x = torch.randn(BATCH, LENGTH, WIDTH, dtype=torch.float64)
    if kind != "global hook":
        assert torch.equal(trunk(x, read=1), trunk(x)[:, :1])
        return
    widths = set()
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, _, out: widths.add(out.shape[1]) if isinstance(module, Mlp) else None
    )
    try:
        trunk(x, read=1)
    finally:
        handle.remove()
    assert widths == {LENGTH}


def test_checkpointing_leaves_a_cache_and_a_recorder_alone() -> None:
    trunk = shaken(encoder_blocks(2, WIDTH, HEADS)).train()
    trunk.grad_checkpointing = True
    x = torch.randn(BATCH, LENGTH, WIDTH, dtype=torch.float64, requires_grad=True)
    caches = trunk.new_caches()
    trunk(x, BlockContext(is_causal=True, caches=caches)).sum().backward()
    assert caches[0].tokens.length == LENGTH
    with record_attention(trunk):
        out = trunk(x)
    out.sum().backward()  # recomputed when nobody records any more
