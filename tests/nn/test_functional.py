"""attention(): both kernels against the formula in float64, under every kind of mask."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vitkit.nn import (
    Attention,
    attention,
    attention_kernel,
    attention_weights,
    causal_mask,
    functional,
    hardware,
)
from vitkit.nn.functional import KERNELS, choose_kernel

BATCH, HEADS, WIDTH = 2, 4, 8

# Largest error against float64, relative to the largest value, for scores of unit variance.
# Seen: float32 4e-7 in both; bfloat16 6e-3 fused, 8e-3 explicit.
BOUNDS = {torch.float32: 2e-6, torch.bfloat16: 2e-2}


def formula(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float | None) -> Tensor:
    q, k, v = q.double(), k.double(), v.double()
    repeat = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
    scores = q @ k.transpose(-2, -1) * (scale or 1 / math.sqrt(q.shape[-1]))
    if mask is not None:
        added = mask.double() if mask.dtype != torch.bool else torch.zeros_like(scores)
        scores = scores + added
        if mask.dtype == torch.bool:
            scores = scores.masked_fill(~mask, -math.inf)
    weights = torch.where(scores.amax(-1, keepdim=True) == -math.inf, 0.0, scores.softmax(-1))
    return weights @ v


def inputs(
    n: int = 7, m: int = 7, groups: int = HEADS, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n * 100 + m)
    shapes = ((HEADS, n, WIDTH), (groups, m, WIDTH), (groups, m, 5))
    q, k, v = (torch.randn(BATCH, *shape, generator=generator) for shape in shapes)
    return q.to(dtype), k.to(dtype), v.to(dtype)


def masks(n: int, m: int) -> dict[str, Tensor | None]:
    generator = torch.Generator().manual_seed(0)
    draw = torch.rand(BATCH, HEADS, n, m, generator=generator)
    holes = draw > 0.5
    holes[0, 1, 2] = False  # a row with nothing to attend to
    floats = torch.randn(BATCH, 1, n, m, generator=generator)
    floats[1, 0, 0] = -math.inf
    padding = torch.arange(m) < torch.tensor([m, 3])[:, None]
    return {
        "none": None,
        "bool": holes,
        "padding": padding[:, None, None, :],
        "float": floats,
        "row": torch.randn(m, generator=generator)[None, None, None, :],
    }


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("name", ["none", "bool", "padding", "float", "row"])
@pytest.mark.parametrize("sizes", [(7, 7), (3, 9), (9, 4)])
@pytest.mark.parametrize("is_causal", [False, True])
def test_both_kernels_equal_the_formula(
    kernel: str, dtype: torch.dtype, name: str, sizes: tuple[int, int], is_causal: bool
) -> None:
    n, m = sizes
    q, k, v = inputs(n, m, groups=2, dtype=dtype)
    mask = masks(n, m)[name]
    whole = mask
    if is_causal:
        allowed = causal_mask(n, m)
        if whole is None:
            whole = allowed
        elif whole.dtype == torch.bool:
            whole = whole & allowed
        else:
            whole = whole.expand(-1, -1, n, m).masked_fill(~allowed, -math.inf)
    want = formula(q, k, v, whole, None)
    with attention_kernel(kernel):  # type: ignore[arg-type]
        out = attention(q, k, v, mask=mask, is_causal=is_causal)
    assert out.dtype == dtype
    assert out.shape == (BATCH, HEADS, n, 5)
    error = (out.double() - want).abs().max() / want.abs().max()
    assert error < BOUNDS[dtype]


@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    ("dtype", "kind"),
    [
        *itertools.product(
            (torch.float32, torch.bfloat16, torch.float64), ("bool", "float", "causal")
        ),
        (torch.bfloat16, "lowest"),
    ],
    ids=str,
)
def test_an_empty_row_gives_zeros_and_zero_gradient(
    kernel: str, dtype: torch.dtype, kind: str, safe: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on devices where torch's own kernels might not, which the CPU stands for."""
    if not safe:
        monkeypatch.setattr(functional, "SAFE_WHEN_EMPTY", ())
        whole = F.scaled_dot_product_attention

        def broken(*args: Tensor, attn_mask: Tensor | None = None, **more: Any) -> Tensor:
            if attn_mask is not None:
                assert not functional._empty_rows(attn_mask).any()
            return whole(*args, attn_mask=attn_mask, **more)

        monkeypatch.setattr(F, "scaled_dot_product_attention", broken)
    q, k, v = (x.requires_grad_() for x in inputs(6, 4, dtype=dtype))
    mask: Tensor | None = None
    empty = slice(0, 2)
    if kind == "bool":
        mask = torch.ones(6, 4, dtype=torch.bool)
        mask[empty] = False
    elif kind == "float":
        mask = torch.zeros(6, 4, dtype=dtype)
        mask[empty] = -math.inf
    elif kind == "lowest":  # as other libraries say it: infinite once it is in bfloat16
        mask = torch.zeros(6, 4)
        mask[empty] = torch.finfo(torch.float32).min
    with attention_kernel(kernel):  # type: ignore[arg-type]
        out = attention(q, k, v, mask=mask, is_causal=kind == "causal")
    assert torch.equal(out[:, :, empty], torch.zeros_like(out[:, :, empty]))
    grads = torch.autograd.grad(out.float().square().sum(), (q, k, v))
    assert all(torch.isfinite(grad).all() for grad in grads)
    assert torch.equal(grads[0][:, :, empty], torch.zeros_like(grads[0][:, :, empty]))
    assert grads[0][:, :, 2:].abs().sum() > 0


@pytest.mark.parametrize("is_causal", [False, True])
def test_only_a_mask_is_searched_for_queries_without_keys(
    is_causal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where torch's kernels need it, which the CPU stands for: a bias hides nothing."""
    searched: list[Tensor] = []
    search = functional._empty_rows

    def spy(mask: Tensor) -> Tensor:
        searched.append(mask)
        return search(mask)

    monkeypatch.setattr(functional, "SAFE_WHEN_EMPTY", ())
    monkeypatch.setattr(functional, "_empty_rows", spy)
    q, k, v = inputs()
    bias = torch.randn(1, HEADS, 7, 7, generator=torch.Generator().manual_seed(1))
    holes = masks(7, 7)["bool"]
    assert holes is not None
    with attention_kernel("fused"):
        out = attention(q, k, v, bias=bias, is_causal=is_causal)
        Attention(WIDTH, HEADS)(torch.randn(BATCH, 7, WIDTH), bias=bias, is_causal=is_causal)
        assert not searched
        both = attention(q, k, v, mask=holes, bias=bias, is_causal=is_causal)
        assert len(searched) == 1
    order = causal_mask(7) if is_causal else torch.ones(7, 7, dtype=torch.bool)
    for found, allowed in ((out, order), (both, holes & order)):
        want = formula(q, k, v, torch.where(allowed, bias, -math.inf), None)
        assert (found - want).abs().max() / want.abs().max() < BOUNDS[torch.float32]


@pytest.mark.parametrize("kernel", KERNELS)
def test_gradients(kernel: str) -> None:
    q, k, v = (x.double().requires_grad_() for x in inputs(4, 5, groups=2))
    mask = torch.randn(4, 5, dtype=torch.float64)

    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with attention_kernel(kernel):  # type: ignore[arg-type]
            return attention(q, k, v, mask=mask, is_causal=True, scale=0.3)

    assert torch.autograd.gradcheck(call, (q, k, v))


def test_no_keys_at_all_gives_zeros() -> None:
    q, k, v = inputs(3, 0)
    for kernel in KERNELS:
        with attention_kernel(kernel):  # type: ignore[arg-type]
            assert torch.equal(attention(q, k, v), torch.zeros(BATCH, HEADS, 3, 5))


def test_dropout_drops_weights_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    q, k = torch.zeros(1, 1, 400, 4), torch.zeros(1, 1, 50, 4)
    v = torch.eye(50)[None, None]
    with attention_kernel("explicit"):
        weights = attention(q, k, v, dropout_p=0.25)
    assert (weights == 0).float().mean() == pytest.approx(0.25, abs=0.01)
    assert weights[weights > 0].unique().tolist() == pytest.approx([1 / 50 / 0.75])


def test_weights_are_those_that_are_applied() -> None:
    q, k, v = inputs(5, 6, groups=2)
    mask = torch.ones(5, 6, dtype=torch.bool)
    mask[2] = False
    weights = attention_weights(q, k, mask=mask, is_causal=True, scale=0.2)
    sums = weights.sum(-1)
    assert torch.allclose(sums[:, :, 2], torch.zeros(()))
    assert torch.allclose(sums[:, :, [0, 1, 3, 4]], torch.ones(()))
    out = attention(q, k, v, mask=mask, is_causal=True, scale=0.2)
    torch.testing.assert_close(weights @ v.repeat_interleave(2, 1), out, rtol=1e-5, atol=1e-6)


def test_autocast_trains_by_the_explicit_kernel_where_bfloat16_is_fast(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _pretend(monkeypatch, avx512=True, bfloat16=True)
    picked = []

    def spy(*args: object) -> str:
        picked.append((args[1], choose_kernel(*args)))  # type: ignore[arg-type]
        return picked[-1][1]

    monkeypatch.setattr(functional, "choose_kernel", spy)
    q, k, v = (x.requires_grad_() for x in inputs(65, 65))
    with torch.autocast("cpu", torch.bfloat16):
        out = attention(q, k, v)
    assert out.dtype == torch.bfloat16
    assert picked == [(torch.bfloat16, "explicit")]


@pytest.mark.parametrize("learns", ["q", "k", "v", "mask", "bias", "nothing"])
def test_whatever_learns_a_backward_pass_may_follow(
    learns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed: list[bool] = []

    def spy(*args: object) -> str:
        needed.append(bool(args[-1]))
        return "fused"

    monkeypatch.setattr(functional, "choose_kernel", spy)
    monkeypatch.setattr(functional, "_fused", _fused_without_masks)
    q, k, v = inputs(65, 65)
    masks = {name: torch.zeros(65, 65) for name in ("mask", "bias")}
    given: dict[str, Any] = {"q": q, "k": k, "v": v, **masks}
    if learns in given:
        given[learns].requires_grad_()
    out = attention(**given)
    assert needed == [learns != "nothing"]
    if learns in given:
        out.sum().backward()
        assert given[learns].grad is not None
        needed.clear()
        with torch.no_grad():
            attention(**given)
        assert needed == [False]


def _fused_without_masks(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, *rest: Any) -> Tensor:
    """torch's own, which falls back to something slow for a mask that learns."""
    assert not (torch.is_grad_enabled() and mask.requires_grad)
    return F.scaled_dot_product_attention(q, k, v, mask)


@pytest.mark.parametrize(
    ("avx512", "bfloat16", "device", "dtype", "tokens", "needs_grad", "kernel"),
    [
        (True, True, "cpu", torch.bfloat16, 65, True, "explicit"),
        (True, True, "cpu", torch.bfloat16, 1024, True, "explicit"),
        (True, True, "cpu", torch.bfloat16, 1025, True, "fused"),
        (True, True, "cpu", torch.bfloat16, 724, False, "explicit"),
        (True, True, "cpu", torch.bfloat16, 725, False, "fused"),
        (True, False, "cpu", torch.bfloat16, 65, True, "fused"),
        (False, False, "cpu", torch.bfloat16, 65, True, "fused"),
        (True, True, "cpu", torch.float32, 17, True, "explicit"),
        (True, True, "cpu", torch.float32, 197, True, "fused"),
        (False, False, "cpu", torch.float32, 17, True, "explicit"),
        (False, False, "cpu", torch.float32, 50, True, "explicit"),
        (False, False, "cpu", torch.float32, 51, True, "fused"),
        (False, False, "cpu", torch.float32, 17, False, "fused"),
        (True, False, "cpu", torch.float32, 17, False, "explicit"),
        (True, True, "cuda", torch.bfloat16, 65, True, "fused"),
    ],
)
def test_the_rule(
    monkeypatch: pytest.MonkeyPatch,
    avx512: bool,
    bfloat16: bool,
    device: str,
    dtype: torch.dtype,
    tokens: int,
    needs_grad: bool,
    kernel: str,
) -> None:
    _pretend(monkeypatch, avx512=avx512, bfloat16=bfloat16)
    assert choose_kernel(device, dtype, tokens, tokens, needs_grad) == kernel


def test_one_query_of_a_long_cache_is_multiplied_plainly_in_bfloat16(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _pretend(monkeypatch, avx512=True, bfloat16=True)
    assert choose_kernel("cpu", torch.bfloat16, 1, 100_000, False) == "explicit"
    assert choose_kernel("cpu", torch.float32, 1, 100_000, False) == "fused"


@pytest.mark.parametrize("queries", [1, 65, 577])
def test_amx_turns_the_rule_round_where_no_backward_pass_follows(
    monkeypatch: pytest.MonkeyPatch, queries: int
) -> None:
    _pretend(monkeypatch, avx512=True, bfloat16=True, amx=True)
    assert choose_kernel("cpu", torch.bfloat16, queries, 577, False) == "fused"
    assert choose_kernel("cpu", torch.bfloat16, queries, 577, True) == "explicit"


def _pretend(
    monkeypatch: pytest.MonkeyPatch, *, avx512: bool, bfloat16: bool, amx: bool = False
) -> None:
    monkeypatch.setattr(hardware, "HAS_AVX512", avx512)
    monkeypatch.setattr(hardware, "MULTIPLIES_BFLOAT16", bfloat16)
    monkeypatch.setattr(hardware, "HAS_AMX", amx)


def test_forcing_a_kernel_ends_with_its_block_and_knows_its_names() -> None:
    with pytest.raises(RuntimeError), attention_kernel("explicit"):
        assert functional._forced == "explicit"
        raise RuntimeError
    assert functional._forced == "auto"
    with pytest.raises(ValueError, match="allowed: auto, fused, explicit"), attention_kernel("x"):  # type: ignore[arg-type]
        pass


def test_bad_masks_and_heads_are_named() -> None:
    q, k, v = inputs()
    with pytest.raises(ValueError, match="True = may attend"):
        attention(q, k, v, mask=torch.ones(7, 7, dtype=torch.int64))
    with pytest.raises(ValueError, match="cannot share 3"):
        attention(q, k[:, :3], v[:, :3])


def test_weights_without_data_have_their_shape() -> None:
    q, k, _ = (x.to("meta") for x in inputs(5, 6, groups=2))
    weights = attention_weights(q, k, is_causal=True)
    assert weights.shape == (BATCH, HEADS, 5, 6)
    assert weights.is_meta and weights.dtype == torch.float32


def test_masks_may_be_mapped_over() -> None:
    q, k, v = inputs()
    many = torch.rand(3, 7, 7, generator=torch.Generator().manual_seed(0)) > 0.5
    many[0, 1] = False

    def call(mask: Tensor) -> Tensor:
        return attention(q, k, v, mask=mask)

    with attention_kernel("explicit"):
        expected = torch.stack([call(mask) for mask in many])
        torch.testing.assert_close(torch.vmap(call)(many), expected)


@pytest.mark.parametrize("kernel", KERNELS)
def test_one_query_reads_shared_keys_where_they_lie(
    kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    q, k, v = inputs(1, 9, groups=2)
    padding = torch.arange(9) < torch.tensor([9, 3])[:, None]
    draw = torch.Generator().manual_seed(0)
    shared = (None, padding[:, None, None], torch.randn(9, generator=draw))
    for mask in (*shared, torch.randn(BATCH, HEADS, 1, 9, generator=draw)):
        with attention_kernel(kernel), monkeypatch.context() as patch:  # type: ignore[arg-type]
            if mask is None or mask.ndim < 3 or mask.shape[1] == 1:
                patch.setattr(functional, "_repeat_heads", None)  # it must not be called
            out = attention(q, k, v, mask=mask, is_causal=True)
        want = formula(q, k, v, mask, None)
        assert out.shape == (BATCH, HEADS, 1, 5)
        assert (out - want).abs().max() / want.abs().max() < BOUNDS[torch.float32]
