"""Every block and part against torch's, timm's or a few lines of its paper, in float64."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import pytest
import timm.layers
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitkit.nn import (
    ACTIVATIONS,
    NORMS,
    Attention,
    Block,
    BlockContext,
    CompactBlock,
    DecoderBlock,
    DropPath,
    LayerCache,
    LayerScale,
    Mlp,
    Rotary1d,
    SwiGlu,
    attention_kernel,
    is_hooked,
    make_norm,
    padding_mask,
)


@pytest.fixture
def torchs_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropout as torch draws it, so that with one seed the same values fall on both sides."""
    for module in ("dropout", "functional"):
        monkeypatch.setattr(f"vitkit.nn.{module}.dropout", F.dropout)


BATCH, LENGTH, MEMORY, WIDTH, HEADS, HIDDEN = 3, 7, 9, 24, 4, 40
LIMIT = 1e-12
"""Of an error over the reference's largest value; the largest measured is 2.7e-15."""

ENCODER_NAMES = {
    "self_attn.in_proj_weight": ["attn.qkv.weight"],
    "self_attn.in_proj_bias": ["attn.qkv.bias"],
    "self_attn.out_proj.weight": ["attn.proj.weight"],
    "self_attn.out_proj.bias": ["attn.proj.bias"],
    "linear1.weight": ["mlp.fc1.weight"],
    "linear1.bias": ["mlp.fc1.bias"],
    "linear2.weight": ["mlp.fc2.weight"],
    "linear2.bias": ["mlp.fc2.bias"],
    "norm1.weight": ["norm1.weight"],
    "norm1.bias": ["norm1.bias"],
    "norm2.weight": ["norm2.weight"],
    "norm2.bias": ["norm2.bias"],
}
"""A parameter of torch's layer -> ours, whose rows laid one below the other are the same."""

DECODER_NAMES = {
    **ENCODER_NAMES,
    "multihead_attn.in_proj_weight": ["cross_attn.q.weight", "cross_attn.kv.weight"],
    "multihead_attn.in_proj_bias": ["cross_attn.q.bias", "cross_attn.kv.bias"],
    "multihead_attn.out_proj.weight": ["cross_attn.proj.weight"],
    "multihead_attn.out_proj.bias": ["cross_attn.proj.bias"],
    "norm3.weight": ["norm3.weight"],
    "norm3.bias": ["norm3.bias"],
}


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


def tokens(length: int = LENGTH, *, batch: int = BATCH, seed: int = 1) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, length, WIDTH, generator=draw, dtype=torch.float64)
    return x.requires_grad_()


def take_weights(ours: nn.Module, theirs: nn.Module, names: dict[str, list[str]]) -> None:
    """Give ours the weights of torch's layer; no parameter of either may be left over."""
    own, other = dict(ours.named_parameters()), dict(theirs.named_parameters())
    assert set(names) == set(other)
    assert sorted(part for parts in names.values() for part in parts) == sorted(own)
    with torch.no_grad():
        for name, parts in names.items():
            rows = other[name].split([len(own[part]) for part in parts])
            for part, value in zip(parts, rows, strict=True):
                own[part].copy_(value)


def gradients(out: Tensor, inputs: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Gradients of a generic function of ``out`` by every input and parameter; and ``out``."""
    leaves = {**inputs, **dict(module.named_parameters())}
    draw = torch.Generator().manual_seed(2)
    weight = torch.randn(out.shape, generator=draw, dtype=out.dtype)
    found = torch.autograd.grad((out * weight).sum(), list(leaves.values()))
    return {"out": out.detach(), **dict(zip(leaves, found, strict=True))}


def assert_close(found: Tensor, expected: Tensor, what: str = "", limit: float = LIMIT) -> None:
    """The largest error relative to the largest expected value, which is never zero."""
    assert found.shape == expected.shape, what
    scale = expected.abs().max().item()
    assert scale > 0, what
    error = (found - expected).abs().max().item() / scale
    assert error <= limit, (what, error)


def assert_same_as_torch(
    found: dict[str, Tensor], expected: dict[str, Tensor], names: dict[str, list[str]]
) -> None:
    for name, value in expected.items():
        ours = torch.cat([found[part] for part in names.get(name, [name])])
        assert_close(ours, value, name)


def allowed(lengths: Iterable[int], num_keys: int) -> Tensor:
    return padding_mask(torch.tensor(list(lengths)), num_keys)


def hidden(lengths: Iterable[int], num_keys: int) -> Tensor:
    """The same as torch wants it: True = may not be attended to."""
    return torch.tensor([[key >= length for key in range(num_keys)] for length in lengths])


LENGTHS, MEMORY_LENGTHS = (LENGTH, 4, 1), (5, MEMORY, 2)
FUTURE = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1)
"""torch's causal mask: True = may not be attended to."""
ADDED = torch.randn(LENGTH, LENGTH, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
FAR = torch.rand(LENGTH, MEMORY, generator=torch.Generator().manual_seed(6)) > 0.7
FAR[:, 0] = False

# name -> (what a block reads, what torch's encoder layer takes).
ENCODER_MASKS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "none": ({}, {}),
    "padding": (
        {"mask": allowed(LENGTHS, LENGTH)},
        {"src_key_padding_mask": hidden(LENGTHS, LENGTH)},
    ),
    "causal": ({"is_causal": True}, {"src_mask": FUTURE}),
    "causal_padding": (
        {"is_causal": True, "mask": allowed(LENGTHS, LENGTH)},
        {"src_mask": FUTURE, "src_key_padding_mask": hidden(LENGTHS, LENGTH)},
    ),
    "added": ({"mask": ADDED}, {"src_mask": ADDED}),
    "bias": ({"bias": ADDED, "is_causal": True}, {"src_mask": ADDED.masked_fill(FUTURE, -1e300)}),
}


def encoder_pair(norm_first: bool, act: str, drop: float = 0.0) -> tuple[Block, Any]:
    theirs = shaken(
        nn.TransformerEncoderLayer(
            WIDTH, HEADS, HIDDEN, drop, act, batch_first=True, norm_first=norm_first
        )
    )
    attn = Attention(WIDTH, HEADS, qkv_bias=True, attn_drop=drop, proj_drop=drop)
    mlp = Mlp(WIDTH, HIDDEN, act_layer=act, drop=drop)
    ours = Block(WIDTH, attn, mlp, norm_first=norm_first).double()
    take_weights(ours, theirs, ENCODER_NAMES)
    return ours, theirs


@pytest.mark.parametrize("masks", ENCODER_MASKS)
@pytest.mark.parametrize("act", ["relu", "gelu"])
@pytest.mark.parametrize("norm_first", [True, False])
def test_block_equals_torchs_encoder_layer(norm_first: bool, act: str, masks: str) -> None:
    ours, theirs = encoder_pair(norm_first, act)
    ctx, kwargs = ENCODER_MASKS[masks]
    x = tokens()
    # In training mode torch has no fast path.
    expected = gradients(theirs.train()(x, **kwargs), {"x": x}, theirs)
    found = gradients(ours(x, BlockContext(**ctx)), {"x": x}, ours)
    assert_same_as_torch(found, expected, ENCODER_NAMES)


# torch's fast path reads a float mask as a bool one, and gives NaN.
@pytest.mark.parametrize("masks", ["none", "padding", "causal", "causal_padding"])
@pytest.mark.parametrize("act", ["relu", "gelu"])
@pytest.mark.parametrize("norm_first", [True, False])
def test_block_equals_torchs_fast_path(
    norm_first: bool, act: str, masks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = encoder_pair(norm_first, act)
    ctx, kwargs = ENCODER_MASKS[masks]
    calls = []
    fast = torch._transformer_encoder_layer_fwd

    def spy(*args: Any) -> Tensor:
        calls.append(1)
        out: Tensor = fast(*args)
        return out

    monkeypatch.setattr(torch, "_transformer_encoder_layer_fwd", spy)
    x = tokens()
    with torch.no_grad():
        expected = theirs.eval()(x, **kwargs)
        found = ours.eval()(x, BlockContext(**ctx))
    assert len(calls) == 1
    assert_close(found, expected)


@pytest.mark.usefixtures("torchs_numbers")
@pytest.mark.parametrize("norm_first", [True, False])
def test_dropout_falls_where_torchs_falls(norm_first: bool) -> None:
    ours, theirs = encoder_pair(norm_first, "gelu", drop=0.3)
    # One example, because torch lays the tokens of several out in another order.
    x = tokens(batch=1)
    outputs = []
    for layer in (ours.train(), theirs.train()):
        torch.manual_seed(3)
        with attention_kernel("fused"):
            outputs.append(gradients(layer(x), {"x": x}, layer))
    assert_same_as_torch(*outputs, ENCODER_NAMES)
    assert not torch.allclose(outputs[0]["out"], ours.eval()(x))
    with attention_kernel("fused"):
        assert torch.equal(ours.eval()(x), encoder_pair(norm_first, "gelu")[0](x))


DECODER_MASKS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "none": ({}, {}),
    "causal": ({"is_causal": True}, {"tgt_mask": FUTURE}),
    "memory_padding": (
        {"memory_mask": allowed(MEMORY_LENGTHS, MEMORY)},
        {"memory_key_padding_mask": hidden(MEMORY_LENGTHS, MEMORY)},
    ),
    "all": (
        {
            "is_causal": True,
            "mask": allowed(LENGTHS, LENGTH),
            "memory_mask": allowed(MEMORY_LENGTHS, MEMORY) & ~FAR,
        },
        {
            "tgt_mask": FUTURE,
            "tgt_key_padding_mask": hidden(LENGTHS, LENGTH),
            "memory_mask": FAR,
            "memory_key_padding_mask": hidden(MEMORY_LENGTHS, MEMORY),
        },
    ),
}


def decoder_block(**kwargs: Any) -> DecoderBlock:
    attn = Attention(WIDTH, HEADS, qkv_bias=True)
    cross = Attention(WIDTH, HEADS, context_dim=WIDTH, qkv_bias=True)
    mlp = Mlp(WIDTH, HIDDEN, act_layer=kwargs.pop("act_layer", "gelu"))
    return DecoderBlock(WIDTH, attn, cross, mlp, **kwargs).double()


@pytest.mark.parametrize("masks", DECODER_MASKS)
@pytest.mark.parametrize("act", ["relu", "gelu"])
@pytest.mark.parametrize("norm_first", [True, False])
def test_decoder_block_equals_torchs_decoder_layer(norm_first: bool, act: str, masks: str) -> None:
    theirs = shaken(
        nn.TransformerDecoderLayer(
            WIDTH, HEADS, HIDDEN, 0.0, act, batch_first=True, norm_first=norm_first
        )
    )
    ours = decoder_block(act_layer=act, norm_first=norm_first)
    take_weights(ours, theirs, DECODER_NAMES)
    ctx, kwargs = DECODER_MASKS[masks]
    inputs = {"x": tokens(), "memory": tokens(MEMORY, seed=4)}
    out = theirs.train()(inputs["x"], inputs["memory"], **kwargs)
    expected = gradients(out, inputs, theirs)
    out = ours(inputs["x"], BlockContext(memory=inputs["memory"], **ctx))
    assert_same_as_torch(gradients(out, inputs, ours), expected, DECODER_NAMES)


class Listener(nn.Module):
    """A mixer that keeps what it was called with."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        self.args, self.kwargs = args, kwargs
        return torch.zeros_like(x)


@pytest.mark.parametrize("norm_first", [True, False])
def test_mixers_are_called_with_all_that_the_context_knows(norm_first: bool) -> None:
    ctx = BlockContext(
        mask=torch.ones(1, dtype=torch.bool),
        is_causal=True,
        rotary=Rotary1d(4)(torch.arange(LENGTH)),
        bias=ADDED,
        memory=tokens(MEMORY),
        memory_mask=torch.ones(MEMORY, dtype=torch.bool),
        cache=LayerCache(),
    )
    assert ctx.cache is not None
    own = {name: getattr(ctx, name) for name in ("mask", "is_causal", "rotary", "bias")}
    own["cache"] = ctx.cache.tokens
    attn, cross = Listener(), Listener()
    for block_type in (Block, CompactBlock):
        block_type(WIDTH, attn, nn.Identity(), norm_first=norm_first).double()(tokens(), ctx)
        assert attn.args == () and attn.kwargs.keys() == own.keys()
        assert all(attn.kwargs[name] is value for name, value in own.items())
        del attn.args, attn.kwargs
    DecoderBlock(WIDTH, attn, cross, nn.Identity(), norm_first=norm_first).double()(tokens(), ctx)
    assert attn.args == () and attn.kwargs.keys() == own.keys()
    assert all(attn.kwargs[name] is value for name, value in own.items())
    assert len(cross.args) == 1 and cross.args[0] is ctx.memory
    assert cross.kwargs.keys() == {"mask", "cache"}
    assert cross.kwargs["mask"] is ctx.memory_mask and cross.kwargs["cache"] is ctx.cache.memory


def any_block(kind: str, **kwargs: Any) -> tuple[Any, BlockContext, list[nn.Linear]]:
    """A block, what it reads, and the last layer of each of its branches in order."""
    if kind == "decoder":
        block = shaken(decoder_block(**kwargs))
        ctx = BlockContext(memory=tokens(MEMORY, seed=4), is_causal=True)
        return block, ctx, [block.attn.proj, block.cross_attn.proj, block.mlp.fc2]
    block_type = {"usual": Block, "compact": CompactBlock}[kind]
    block = shaken(block_type(WIDTH, Attention(WIDTH, HEADS), Mlp(WIDTH, HIDDEN), **kwargs))
    return block, BlockContext(), [block.attn.proj, block.mlp.fc2]


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("kind", ["usual", "compact", "decoder"])
def test_layer_scale_is_a_factor_of_each_branchs_last_weights(kind: str, norm_first: bool) -> None:
    scaled, ctx, _ = any_block(kind, norm_first=norm_first, init_values=0.5)
    plain, _, lasts = any_block(kind, norm_first=norm_first)
    missing, unexpected = plain.load_state_dict(scaled.state_dict(), strict=False)
    gammas = [getattr(scaled, f"ls{i + 1}").gamma for i in range(len(lasts))]
    assert not missing and len(unexpected) == len(gammas)
    with torch.no_grad():
        for gamma, last in zip(gammas, lasts, strict=True):
            last.weight.mul_(gamma[:, None])
            last.bias.mul_(gamma)
    x = tokens()
    assert_close(scaled(x, ctx), plain(x, ctx))


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("kind", ["usual", "compact", "decoder"])
def test_drop_path_takes_each_branch_away_and_nothing_else(kind: str, norm_first: bool) -> None:
    count, rate = 24, 0.4
    x, memory = tokens(batch=count), tokens(MEMORY, batch=count, seed=4)
    dropping, ctx, lasts = any_block(kind, norm_first=norm_first, drop_path=rate)
    torch.manual_seed(0)
    found = dropping.train()(x, dataclasses.replace(ctx, memory=memory))
    # Every branch draws for every example: replay them one example at a time.
    torch.manual_seed(0)
    factors = [
        torch.empty(count, dtype=torch.float64).bernoulli_(1 - rate) / (1 - rate) for _ in lasts
    ]
    assert all(0 < factor.count_nonzero() < count for factor in factors)
    for row in range(count):
        plain, _, lasts = any_block(kind, norm_first=norm_first)
        for factor, last in zip(factors, lasts, strict=True):
            last.weight.data *= factor[row]
            last.bias.data *= factor[row]
        one = slice(row, row + 1)
        assert_close(found[one], plain(x[one], dataclasses.replace(ctx, memory=memory[one])))
    plain, _, _ = any_block(kind, norm_first=norm_first)
    assert torch.equal(dropping.eval()(tokens(), ctx), plain(tokens(), ctx))


def published_compact_block(x: Tensor, w: dict[str, Tensor], drop: float = 0.0) -> Tensor:
    """``TransformerEncoderLayer`` of SHI-Labs/Compact-Transformers, step by step.

    There ``src = norm1(src)`` overwrites the stream before the MLP, so its residual is normed too.
    """

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        x = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return x * w[f"{name}.weight"] + w[f"{name}.bias"]

    batch, length, width = x.shape
    src = x
    qkv = norm(src, "norm1") @ w["attn.qkv.weight"].T
    q, k, v = qkv.reshape(batch, length, 3, HEADS, width // HEADS).permute(2, 0, 3, 1, 4)
    weights = F.dropout((q @ k.mT / math.sqrt(width // HEADS)).softmax(-1), drop)
    mixed = (weights @ v).transpose(1, 2).reshape(batch, length, width)
    mixed = mixed @ w["attn.proj.weight"].T + w["attn.proj.bias"]
    src = src + F.dropout(mixed, drop)
    src = norm(src, "norm2")
    inner = src @ w["mlp.fc1.weight"].T + w["mlp.fc1.bias"]
    inner = F.dropout(inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2))), drop)
    return src + F.dropout(inner @ w["mlp.fc2.weight"].T + w["mlp.fc2.bias"], drop)


@pytest.mark.usefixtures("torchs_numbers")
@pytest.mark.parametrize("drop", [0.0, 0.3])
def test_compact_block_equals_the_published_code(drop: float) -> None:
    attn = Attention(WIDTH, HEADS, attn_drop=drop, proj_drop=drop)
    ours = shaken(CompactBlock(WIDTH, attn, Mlp(WIDTH, HIDDEN, drop=drop))).train()
    x = tokens()
    torch.manual_seed(3)
    expected = gradients(
        published_compact_block(x, dict(ours.named_parameters()), drop), {"x": x}, ours
    )
    torch.manual_seed(3)
    with attention_kernel("explicit"):
        found = gradients(ours(x), {"x": x}, ours)
    for name, value in expected.items():
        assert_close(found[name], value, name)


def test_compact_block_is_not_the_usual_one_and_has_no_other_order() -> None:
    compact, _, _ = any_block("compact")
    usual, _, _ = any_block("usual")
    last, _, _ = any_block("compact", norm_first=False)
    x = tokens()
    assert torch.equal(compact(x), last(x))
    assert not torch.allclose(compact(x), usual(x), rtol=0.1, atol=0.1)
    assert usual.can_read() and not compact.can_read()


def both(ours: nn.Module, theirs: nn.Module, x: Tensor) -> list[dict[str, Tensor]]:
    """Output and gradients of the two in training, from the same random state."""
    results = []
    for module in (ours.train(), theirs.train()):
        torch.manual_seed(7)
        results.append(gradients(module(x), {"x": x}, module))
    return results


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert value.any() and torch.equal(found[name], value), name


TIMM_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "gelu_tanh": timm.layers.GELUTanh,
    "quick_gelu": timm.layers.get_act_layer("quick_gelu"),
    "relu": nn.ReLU,
    "silu": nn.SiLU,
}


@pytest.mark.usefixtures("torchs_numbers")
@pytest.mark.parametrize("drop", [0.0, 0.4])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("act", ACTIVATIONS)
def test_mlp_equals_timms(act: str, bias: bool, drop: float) -> None:
    theirs = shaken(
        timm.layers.Mlp(WIDTH, HIDDEN, act_layer=TIMM_ACTIVATIONS[act], bias=bias, drop=drop)
    )
    ours = Mlp(WIDTH, HIDDEN, act_layer=act, bias=bias, drop=drop).double()
    ours.load_state_dict(theirs.state_dict())
    x = tokens()
    assert_equal(*both(ours, theirs, x))
    assert torch.equal(ours.eval()(x), theirs.eval()(x))
    assert torch.equal(ours.train()(x), ours.eval()(x)) == (drop == 0.0)


@pytest.mark.usefixtures("torchs_numbers")
@pytest.mark.parametrize("drop", [0.0, 0.4])
@pytest.mark.parametrize("bias", [True, False])
def test_swiglu_equals_timms_packed(bias: bool, drop: float) -> None:
    theirs = shaken(timm.layers.SwiGLUPacked(WIDTH, 2 * HIDDEN, bias=bias, drop=drop))
    ours = SwiGlu(WIDTH, HIDDEN, bias=bias, drop=drop).double()
    ours.load_state_dict(theirs.state_dict())
    x = tokens()
    assert_equal(*both(ours, theirs, x))
    assert torch.equal(ours.train()(x), ours.eval()(x)) == (drop == 0.0)


def test_swiglus_gate_comes_first() -> None:
    ours, x = shaken(SwiGlu(WIDTH, HIDDEN)), tokens()
    build = partial(timm.layers.GluMlp, WIDTH, 2 * HIDDEN, act_layer=nn.SiLU)
    first, last = build(gate_last=False).double(), build(gate_last=True).double()
    first.load_state_dict(ours.state_dict())
    last.load_state_dict(ours.state_dict())
    assert torch.equal(ours(x), first(x))
    assert not torch.allclose(ours(x), last(x))
    for p in last.fc1.parameters():
        p.data = p.data.roll(HIDDEN, 0)
    assert_close(ours(x), last(x))
    apart = timm.layers.SwiGLU(WIDTH, HIDDEN).double()
    for name in ("weight", "bias"):
        gate, value = getattr(ours.fc1, name).data.chunk(2)
        getattr(apart.fc1_g, name).data, getattr(apart.fc1_x, name).data = gate, value
    apart.fc2.load_state_dict(ours.fc2.state_dict())
    assert_close(ours(x), apart(x))


@pytest.mark.parametrize("init", [1e-5, 0.1])
def test_layer_scale_equals_timms(init: float) -> None:
    ours, theirs = LayerScale(WIDTH, init), timm.layers.LayerScale(WIDTH, init)
    assert torch.equal(ours.gamma, theirs.gamma)
    assert ours.gamma[0].item() == pytest.approx(init, rel=1e-6)
    assert torch.equal(LayerScale(WIDTH).gamma, timm.layers.LayerScale(WIDTH).gamma)
    theirs = shaken(theirs)
    ours.double().load_state_dict(theirs.state_dict())
    assert_equal(*both(ours, theirs, tokens()))


@pytest.mark.parametrize("shape", [(64, 5, 3), (64, 4), (64, 2, 3, 4)])
@pytest.mark.parametrize("rate", [0.0, 0.25, 0.9, 1.0])
def test_drop_path_equals_timms(rate: float, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    outputs = []
    for layer in (DropPath(rate), timm.layers.DropPath(rate)):
        torch.manual_seed(9)
        outputs.append(layer.train()(x))
        assert torch.equal(layer.eval()(x), x)
    assert torch.equal(*outputs)
    assert torch.equal(outputs[0], x) == (rate == 0.0)
    assert outputs[0].any().item() == (rate < 1.0)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_drop_path_drops_whole_examples_and_keeps_the_mean(rate: float) -> None:
    torch.manual_seed(0)
    count = 20_000
    factors = DropPath(rate).train()(torch.ones(count, 2, 3, dtype=torch.float64)).flatten(1)
    assert torch.equal(factors, factors[:, :1].expand_as(factors))
    assert factors.unique().tolist() == pytest.approx([0.0, 1 / (1 - rate)], rel=1e-12)
    # Hoeffding: independent factors between 0 and 1 / (1 - rate) miss their mean by more than this
    # with a probability below 1e-6.
    bound = math.sqrt(math.log(2 / 1e-6) / (2 * count)) / (1 - rate)
    assert abs(factors[:, 0].mean().item() - 1) < bound < rate
    # Neighbours are independent: their product has the mean 1, with the range squared.
    pairs = factors[0::2, 0] * factors[1::2, 0]
    bound = math.sqrt(math.log(2 / 1e-6) / count) / (1 - rate) ** 2
    assert abs(pairs.mean().item() - 1) < bound


def test_drop_path_does_not_round_its_scale_on_its_own() -> None:
    """What bfloat16 holds exactly becomes the nearest product of it and the exact scale."""
    x = torch.arange(1, 257, dtype=torch.bfloat16)[:, None]
    torch.manual_seed(0)
    out = DropPath(0.3).train()(x)
    want = (x.double() / (1 - 0.3)).bfloat16()
    assert torch.equal(out[out != 0], want[out != 0]) and 0 < int((out != 0).sum()) < 256


@pytest.mark.parametrize("eps", [1e-12, 1e-6, 1e-2])
@pytest.mark.parametrize("name", NORMS)
def test_norms_are_their_closed_forms(name: str, eps: float) -> None:
    norm = shaken(make_norm(name, eps)(WIDTH))
    # Values so small that each eps counts.
    x = (0.003 * tokens().detach() + 0.001).requires_grad_()
    centred = x - x.mean(-1, keepdim=True) if name == "layernorm" else x
    expected = centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt() * norm.weight
    if name == "layernorm":
        expected = expected + norm.bias
    else:
        assert set(dict(norm.named_parameters())) == {"weight"}
    wanted = gradients(expected, {"x": x}, norm)
    for key, value in gradients(norm(x), {"x": x}, norm).items():
        assert_close(value, wanted[key], key)
    # torch's functions, called directly, agree with what is written above.
    shape, w = (WIDTH,), norm.weight
    direct = (
        F.layer_norm(x, shape, w, norm.bias, eps)
        if name == "layernorm"
        else F.rms_norm(x, shape, w, eps)
    )
    assert_close(norm(x), direct)


def test_norms_are_torchs_with_an_eps_of_a_millionth() -> None:
    assert type(make_norm()(WIDTH)) is nn.LayerNorm
    assert type(make_norm("rmsnorm")(WIDTH)) is nn.RMSNorm
    assert {make_norm(name)(WIDTH).eps for name in NORMS} == {1e-6}


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("kind", ["usual", "compact", "decoder"])
def test_every_norm_of_a_block_is_of_the_kind_asked_for(kind: str, norm_first: bool) -> None:
    maker = make_norm("rmsnorm", 0.25)
    block, ctx, lasts = any_block(kind, norm_first=norm_first, norm_layer=maker)
    norms = [module for module in block.modules() if isinstance(module, (nn.RMSNorm, nn.LayerNorm))]
    assert len(norms) == len(lasts)
    assert all(type(norm) is nn.RMSNorm and norm.eps == 0.25 for norm in norms)
    assert block(tokens(), ctx).isfinite().all()


def test_the_gelus_are_torchs_and_openais_and_differ() -> None:
    x = torch.linspace(-6, 6, 2001, dtype=torch.float64)
    exact, approximate = ACTIVATIONS["gelu"]()(x), ACTIVATIONS["gelu_tanh"]()(x)
    assert torch.equal(exact, F.gelu(x))
    assert torch.equal(approximate, F.gelu(x, approximate="tanh"))
    assert_close(exact, x * 0.5 * (1 + torch.erf(x / math.sqrt(2))))
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    assert_close(approximate, x * 0.5 * (1 + torch.tanh(inner)))
    # They are at most 4.7e-4 apart, near |x| = 2.3.
    assert 4e-4 < (exact - approximate).abs().max() < 5e-4
    quick = ACTIVATIONS["quick_gelu"]()(x)
    assert_close(quick, x / (1 + torch.exp(-1.702 * x)))
    # Near |x| = 2.3.
    assert 0.02 < (exact - quick).abs().max() < 0.021
    mlps = [shaken(Mlp(WIDTH, HIDDEN, act_layer=act)) for act in ("gelu", "gelu_tanh")]
    assert 1e-6 < (mlps[0](tokens()) - mlps[1](tokens())).abs().max() < 1e-2


@pytest.mark.parametrize(
    "kind",
    [
        "register_forward_hook",
        "register_forward_pre_hook",
        "register_full_backward_hook",
        "register_full_backward_pre_hook",
    ],
)
def test_whoever_listens_to_a_module_is_noticed(kind: str) -> None:
    module = nn.Sequential(nn.Linear(2, 2))
    assert not is_hooked(module)
    handle = getattr(module, kind)(lambda *_: None)
    assert is_hooked(module) and not is_hooked(module[0])
    handle.remove()
    assert not is_hooked(module)
