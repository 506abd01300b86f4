"""Attention against timm's and torch's own, forward and gradients in float64."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
from timm.models.vision_transformer import Attention as TimmAttention
from torch import Tensor, nn

from vitkit.nn import Attention

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
