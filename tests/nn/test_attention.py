"""Attention and blocks against timm's and torch's own, forward and gradients in float64."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
from timm.layers import SwiGLUPacked
from timm.models.vision_transformer import Attention as TimmAttention
from torch import Tensor, nn

from vitkit.nn import (
    Attention,
    Block,
    BlockContext,
    CompactBlock,
    DecoderBlock,
    DropPath,
    Mlp,
    Rotary1d,
    SwiGlu,
    encoder_blocks,
    make_norm,
)

WIDTH, HEADS = 24, 3


def shaken(module: nn.Module) -> nn.Module:
    """Non-trivial weights everywhere, float64."""
    generator = torch.Generator().manual_seed(0)
    module.double()
    for parameter in module.parameters():
        parameter.data = (
            torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.3
        )
    return module


def assert_same(ours: Tensor, theirs: Tensor, leaves: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Outputs, and gradients of a generic function of them, relative to the largest value."""
    pairs = [(ours, theirs)]
    leaves = list(leaves)
    weight = torch.linspace(-1, 1, ours.numel(), dtype=torch.float64).view_as(ours)
    one = torch.autograd.grad((ours * weight).sum(), [a for a, _ in leaves])
    two = torch.autograd.grad((theirs * weight).sum(), [b for _, b in leaves])
    pairs += list(zip(one, two, strict=True))
    for a, b in ((one.detach(), two.detach()) for one, two in pairs):
        # The floor serves gradients that are zero but for rounding, such as that of k_norm.bias.
        assert (a - b).abs().max() <= 1e-10 * max(float(b.abs().max()), 1e-3)


def tokens(n: int = 5) -> Tensor:
    return torch.randn(2, n, WIDTH, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_self_attention_equals_timms(qk_norm: bool, bias: bool) -> None:
    theirs = shaken(
        TimmAttention(WIDTH, HEADS, qkv_bias=bias, qk_norm=qk_norm, norm_layer=nn.LayerNorm)
    )
    ours = Attention(WIDTH, HEADS, qkv_bias=bias, qk_norm=qk_norm).double()
    ours.load_state_dict(theirs.state_dict())
    x = tokens()
    names = dict(theirs.named_parameters())
    leaves = [(x, x), *((p, names[n]) for n, p in ours.named_parameters())]
    assert_same(ours(x), theirs(x), leaves)


@pytest.mark.parametrize("cross", [False, True])
def test_attention_equals_torchs_with_masks_inverted(cross: bool) -> None:
    torch.manual_seed(0)
    theirs = shaken(nn.MultiheadAttention(WIDTH, HEADS, batch_first=True))
    assert isinstance(theirs, nn.MultiheadAttention)
    ours = Attention(WIDTH, HEADS, context_dim=WIDTH if cross else None, qkv_bias=True).double()
    w, b = theirs.in_proj_weight.data, theirs.in_proj_bias.data
    parts = {"q": slice(0, WIDTH), "kv": slice(WIDTH, None)} if cross else {"qkv": slice(None)}
    for name, rows in parts.items():
        getattr(ours, name).weight.data, getattr(ours, name).bias.data = w[rows], b[rows]
    ours.proj.load_state_dict(theirs.out_proj.state_dict())
    x, memory = tokens(), tokens(7)
    context = memory if cross else x
    m = context.shape[1]
    allowed = torch.rand(5, m) > 0.3
    allowed[:, 0] = True
    hidden = torch.zeros(2, m, dtype=torch.bool)
    hidden[1, -2:] = True
    mask = allowed & ~hidden[:, None, None, :]
    want, _ = theirs(x, context, context, attn_mask=~allowed, key_padding_mask=hidden)
    out = ours(x, context if cross else None, mask=mask)
    leaves = [(x, x), (ours.proj.weight, theirs.out_proj.weight)]
    assert_same(out, want, leaves + ([(memory, memory)] if cross else []))


def test_head_width_is_free_and_groups_share_keys() -> None:
    ours = shaken(Attention(WIDTH, 4, head_dim=5, num_kv_heads=2, qkv_bias=True))
    full = Attention(WIDTH, 4, head_dim=5, qkv_bias=True).double()
    assert isinstance(ours, Attention)
    q, k, v = ours.qkv.weight.data.split([20, 10, 10])
    spread = [part.view(2, 5, WIDTH).repeat_interleave(2, 0).flatten(0, 1) for part in (k, v)]
    full.qkv.weight.data = torch.cat([q, *spread])
    q, k, v = ours.qkv.bias.data.split([20, 10, 10])
    spread = [part.view(2, 5).repeat_interleave(2, 0).flatten() for part in (k, v)]
    full.qkv.bias.data = torch.cat([q, *spread])
    full.proj.load_state_dict(ours.proj.state_dict())
    x = tokens()
    assert_same(ours(x), full(x), [(x, x)])


def test_self_attention_of_some_tokens_to_all() -> None:
    ours = shaken(Attention(WIDTH, HEADS, qkv_bias=True, qk_norm=True))
    x = tokens()
    torch.testing.assert_close(ours(x[:, :2], x), ours(x)[:, :2])


def test_constructor_and_call_errors() -> None:
    with pytest.raises(ValueError, match="not a multiple of num_heads 5"):
        Attention(WIDTH, 5)
    with pytest.raises(ValueError, match="does not divide"):
        Attention(WIDTH, 4, num_kv_heads=3)
    with pytest.raises(ValueError, match="cross attention needs"):
        Attention(WIDTH, HEADS, context_dim=WIDTH).double()(tokens())


def _copy_attention(ours: Attention, theirs: nn.MultiheadAttention) -> None:
    w, b = theirs.in_proj_weight.data, theirs.in_proj_bias.data
    if ours.is_cross:
        ours.q.weight.data, ours.q.bias.data = w[:WIDTH], b[:WIDTH]
        ours.kv.weight.data, ours.kv.bias.data = w[WIDTH:], b[WIDTH:]
    else:
        ours.qkv.weight.data, ours.qkv.bias.data = w, b
    ours.proj.load_state_dict(theirs.out_proj.state_dict())


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("act", ["relu", "gelu"])
def test_block_equals_torchs_encoder_layer(norm_first: bool, act: str) -> None:
    theirs = shaken(
        nn.TransformerEncoderLayer(
            WIDTH, HEADS, 40, 0.0, act, batch_first=True, norm_first=norm_first
        )
    )
    assert isinstance(theirs, nn.TransformerEncoderLayer)
    attn = Attention(WIDTH, HEADS, qkv_bias=True)
    ours = Block(WIDTH, attn, Mlp(WIDTH, 40, act_layer=act), norm_first=norm_first).double()
    _copy_attention(attn, theirs.self_attn)
    pairs = [(ours.norm1, theirs.norm1), (ours.norm2, theirs.norm2)]
    assert isinstance(ours.mlp, Mlp)
    pairs += [(ours.mlp.fc1, theirs.linear1), (ours.mlp.fc2, theirs.linear2)]  # type: ignore[list-item]
    for one, two in pairs:
        one.load_state_dict(two.state_dict())
    x = tokens()
    leaves = [(x, x), *((a.weight, b.weight) for a, b in pairs)]
    assert_same(ours(x), theirs(x), leaves)  # type: ignore[arg-type]


@pytest.mark.parametrize("norm_first", [True, False])
def test_decoder_block_equals_torchs_decoder_layer(norm_first: bool) -> None:
    theirs = shaken(
        nn.TransformerDecoderLayer(WIDTH, HEADS, 40, 0.0, batch_first=True, norm_first=norm_first)
    )
    assert isinstance(theirs, nn.TransformerDecoderLayer)
    attn = Attention(WIDTH, HEADS, qkv_bias=True)
    cross = Attention(WIDTH, HEADS, context_dim=WIDTH, qkv_bias=True)
    mlp = Mlp(WIDTH, 40, act_layer="relu")
    ours = DecoderBlock(WIDTH, attn, cross, mlp, norm_first=norm_first).double()
    _copy_attention(attn, theirs.self_attn)
    _copy_attention(cross, theirs.multihead_attn)
    for name in ("norm1", "norm2", "norm3"):
        getattr(ours, name).load_state_dict(getattr(theirs, name).state_dict())
    mlp.fc1.load_state_dict(theirs.linear1.state_dict())
    mlp.fc2.load_state_dict(theirs.linear2.state_dict())
    x, memory = tokens(), tokens(6)
    out = ours(x, BlockContext(is_causal=True, memory=memory))
    causal = torch.ones(5, 5, dtype=torch.bool).triu(1)
    want = theirs(x, memory, tgt_mask=causal)
    assert_same(out, want, [(x, x), (memory, memory), (mlp.fc1.weight, theirs.linear1.weight)])


def test_compact_block_restarts_from_the_normed_value() -> None:
    ours = shaken(CompactBlock(WIDTH, Attention(WIDTH, HEADS), Mlp(WIDTH, 30)))
    assert isinstance(ours, CompactBlock)
    x = tokens()
    h = ours.norm2(x + ours.attn(ours.norm1(x)))
    torch.testing.assert_close(ours(x), h + ours.mlp(h))


def test_swiglu_equals_timms_packed() -> None:
    theirs = shaken(SwiGLUPacked(WIDTH, 64))
    ours = SwiGlu(WIDTH, 32).double()
    ours.load_state_dict(theirs.state_dict())
    x = tokens()
    assert_same(ours(x), theirs(x), [(x, x)])


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("extra", ["none", "mask", "rotary", "scale"])
def test_reading_some_tokens_is_exact_and_steps_back_for_listeners(
    norm_first: bool, extra: str
) -> None:
    trunk = encoder_blocks(
        2, WIDTH, HEADS, norm_first=norm_first, init_values=0.5 if extra == "scale" else None
    )
    shaken(trunk)
    ctx = BlockContext()
    if extra == "mask":
        ctx = BlockContext(mask=torch.rand(2, 1, 5, 5) > 0.3)
    elif extra == "rotary":
        ctx = BlockContext(rotary=Rotary1d(8)(torch.arange(5)))
    x = tokens()
    # Rotation works in float32.
    rtol = 1e-5 if extra == "rotary" else 1e-12
    torch.testing.assert_close(trunk(x, ctx, read=2), trunk(x, ctx)[:, :2], rtol=rtol, atol=1e-6)
    seen = []
    handle = trunk[-1].mlp.register_forward_hook(lambda *a: seen.append(a[1][0].shape[1]))  # type: ignore[operator,union-attr]
    trunk(x, ctx, read=2)
    handle.remove()
    assert seen == [5]


def test_gradient_checkpointing_changes_no_gradient() -> None:
    trunk = encoder_blocks(3, WIDTH, HEADS, norm_layer=make_norm("rmsnorm"), drop_path_rate=0.3)
    shaken(trunk)
    grads = []
    for on in (False, True):
        trunk.grad_checkpointing = on
        torch.manual_seed(5)
        x = torch.ones(4, 5, WIDTH, dtype=torch.float64, requires_grad=True)
        grads.append(torch.autograd.grad(trunk(x).square().sum(), [x, *trunk.parameters()]))
    for one, two in zip(*grads, strict=True):
        assert torch.equal(one, two)


def test_drop_path_keeps_the_mean_and_is_off_in_evaluation() -> None:
    torch.manual_seed(0)
    layer = DropPath(0.25)
    out = layer(torch.ones(8000, 2, 3))
    assert out.mean() == pytest.approx(1.0, abs=0.02)
    assert out.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert torch.equal(layer.eval()(out), out)


@pytest.mark.parametrize("name", ["layernorm", "rmsnorm"])
def test_norms_use_their_epsilon(name: str) -> None:
    x = torch.full((1, 4), 1e-3)
    x[0, 0] = -1e-3
    small, large = (make_norm(name, eps)(4)(x) for eps in (1e-12, 1e-2))
    assert small.abs().max() > 5 * large.abs().max()
