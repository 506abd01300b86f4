"""The one door to attention: every kernel is reached through :func:`attention`.

Axes: B batch, N query tokens, M key tokens, H heads, G key/value heads, D head width.

The rule that picks a kernel is :func:`choose_kernel`; ``python -m benchmarks.attention`` measures
what it is built on. Two kernels exist:

``fused``
    torch's ``scaled_dot_product_attention``: never holds the (N, M) scores. The fastest in float32,
    on accelerators, and wherever a CPU only emulates bfloat16.
``explicit``
    batched product, softmax, batched product. On a CPU with bfloat16 instructions it is the faster
    one in bfloat16, for training by far, because torch's fused backward pass has no bfloat16 path
    of its own there; also for the shortest sequences in float32. Not without a backward pass where
    the CPU has AMX, which torch's fused forward pass is written for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vitkit.nn import hardware
from vitkit.nn.dropout import dropout
from vitkit.nn.masks import causal_mask, check_mask, combine_masks

__all__ = [
    "KERNELS",
    "SCORE_BUDGET",
    "attention",
    "attention_kernel",
    "attention_weights",
    "choose_kernel",
]

KernelName = Literal["auto", "fused", "explicit"]
KERNELS: tuple[str, ...] = ("fused", "explicit")

SCORE_BUDGET = 1024 * 1024
"""Largest N x M for which the explicit kernel may hold a head's scores; above it, ``fused``."""

QUICK_SCORES = 1024 * 512
"""Largest N x M for which ``explicit`` is taken in bfloat16 without a backward pass, but for AMX: 2
to 6 times as fast for one query and for few heads, up to a tenth slower where no cache holds all
the scores.
"""

LONGEST_TINY = 32
"""Most keys for which ``explicit`` wins in float32, with AVX-512."""

LONGEST_TRAINED = 50
"""Most keys for which ``explicit`` wins in float32 if a backward pass follows."""

SAFE_WHEN_EMPTY = ("cpu",)
"""Device types whose fused kernels all give zeros, and gradients of zero, for a query that may
attend to nothing. Others have kernels that give NaN, and which one runs is torch's choice."""

# A plain module variable, because torch.compile can guard on it (a ContextVar breaks the graph).
_forced: KernelName = "auto"


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    is_causal: bool = False,
    dropout_p: float = 0.0,
    scale: float | None = None,
) -> Tensor:
    """Scaled dot-product attention: softmax(q k^T scale + mask + bias) v.

    Args:
        q: queries, (B, H, N, D).
        k: keys, (B, G, M, D); G divides H, and query head h reads key/value head h // (H / G).
        v: values, (B, G, M, D').
        mask: bool (True = may attend) or float (added to the scaled scores), broadcastable to
            (B, H, N, M).
        bias: float, finite, added to the scaled scores, broadcastable to (B, H, N, M). What hides
            keys is a mask: a bias leaves no query without keys, so none is looked for.
        is_causal: query i sees keys up to M - N + i: aligned at the end, as a cache needs.
            Combines exactly with ``mask``.
        dropout_p: probability of dropping an attention weight; the caller passes 0 in evaluation.
        scale: factor of the scores, 1 / sqrt(D) unless given.

    Returns:
        (B, H, N, D') in the dtype of the inputs (of autocast, where it is on). A query with nothing
        to attend to gives zeros and receives zero gradient.

    Raises:
        ValueError: G does not divide H, or a mask is neither bool nor float.

    Source: Vaswani et al., "Attention Is All You Need", arXiv 1706.03762, section 3.2.1;
    grouped queries: Ainslie et al., arXiv 2305.13245.
    """
    device = q.device.type
    # Of causal order alone the first queries see nothing where there are fewer keys.
    may_be_empty = mask is not None or (is_causal and q.shape[2] > k.shape[2])
    mask = combine_masks(mask, bias)
    if _autocasts(device):
        dtype = torch.get_autocast_dtype(device)
        q, k, v = q.to(dtype), k.to(dtype), v.to(dtype)
        with torch.autocast(device, enabled=False):
            return _dispatch(q, k, v, mask, may_be_empty, is_causal, dropout_p, scale)
    return _dispatch(q, k, v, mask, may_be_empty, is_causal, dropout_p, scale)


def attention_weights(
    q: Tensor,
    k: Tensor,
    *,
    mask: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """The weights that :func:`attention` applies to the values, without dropout.

    Returns:
        float32 (B, H, N, M). Each row sums to one, or to zero where nothing may be attended to.
    """
    device = q.device.type
    if _autocasts(device):
        with torch.autocast(device, enabled=False):
            return attention_weights(q, k, mask=mask, is_causal=is_causal, scale=scale)
    q, k = q.float(), k.float()
    k = _repeat_heads(k, q.shape[1])
    return _softmax_scores(q, k, _with_causal(q, k, mask, is_causal), scale)


@contextmanager
def attention_kernel(name: KernelName) -> Iterator[None]:
    """Force one kernel inside the ``with`` block: for tests and benchmarks only.

    Raises:
        ValueError: ``name`` is neither ``auto`` nor one of :data:`KERNELS`.
    """
    global _forced
    if name != "auto" and name not in KERNELS:
        raise ValueError(f"unknown attention kernel {name!r}; allowed: auto, {', '.join(KERNELS)}")
    before, _forced = _forced, name
    try:
        yield
    finally:
        _forced = before


def choose_kernel(
    device: str, dtype: torch.dtype, num_queries: int, num_keys: int, needs_grad: bool
) -> str:
    """The kernel for one call, by measured speed under the memory budget of :data:`SCORE_BUDGET`.

    Args:
        device: device type, such as ``"cpu"`` or ``"cuda"``.
        dtype: dtype of the queries.
        num_queries: N.
        num_keys: M.
        needs_grad: whether a backward pass may follow.
    """
    if device != "cpu" or num_queries * num_keys > SCORE_BUDGET:
        return "fused"
    wide = hardware.HAS_AVX512
    if dtype == torch.bfloat16:
        small = num_queries * num_keys <= QUICK_SCORES
        quick = needs_grad or (small and not hardware.HAS_AMX)
        pays = wide and hardware.MULTIPLIES_BFLOAT16 and quick
    else:
        pays = num_keys <= (LONGEST_TRAINED if needs_grad else LONGEST_TINY * wide)
    return "explicit" if pays else "fused"


def _autocasts(device: str) -> bool:
    """Whether autocast is on; torch raises an error where the meta device is asked for it."""
    return device != "meta" and torch.is_autocast_enabled(device)


def _dispatch(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    may_be_empty: bool,
    is_causal: bool,
    dropout_p: float,
    scale: float | None,
) -> Tensor:
    heads, groups = q.shape[1], k.shape[1]
    if groups != heads:
        for_all = mask is None or all(side == 1 for side in mask.shape[-3:-1])
        if q.shape[2] == 1 and heads % groups == 0 and for_all:
            # One token, as with a cache: the heads of a group become its queries, and no key is
            # copied. The newest token sees every key, so there is no order left to keep.
            q = q.reshape(q.shape[0], groups, heads // groups, q.shape[3])
            out = _dispatch(q, k, v, mask, may_be_empty, False, dropout_p, scale)
            return out.reshape(out.shape[0], heads, 1, out.shape[3])
        k, v = _repeat_heads(k, heads), _repeat_heads(v, heads)
    name: str = _forced
    if name == "auto":
        learned = mask is not None and mask.requires_grad
        needs_grad = torch.is_grad_enabled() and (
            q.requires_grad or k.requires_grad or v.requires_grad or learned
        )
        name = choose_kernel(q.device.type, q.dtype, q.shape[2], k.shape[2], needs_grad)
        if needs_grad and learned and q.device.type == "cpu":
            name = "explicit"  # torch's own has no gradient for a mask there and falls back, slower
    if name == "fused":
        return _fused(q, k, v, mask, may_be_empty, is_causal, dropout_p, scale)
    weights = _softmax_scores(q, k, _with_causal(q, k, mask, is_causal), scale)
    if dropout_p > 0.0:
        weights = dropout(weights, dropout_p)
    return weights @ v


def _fused(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    may_be_empty: bool,
    is_causal: bool,
    dropout_p: float,
    scale: float | None,
) -> Tensor:
    # torch aligns is_causal at the start and its kernels disagree about mask + is_causal, so the
    # flag is handed over only where both alignments agree and no mask is given.
    plain_causal = is_causal and mask is None and q.shape[2] == k.shape[2]
    if not plain_causal:
        mask = _with_causal(q, k, mask, is_causal)
    empty: Tensor | None = None
    if mask is not None:
        mask = torch.atleast_2d(mask)  # torch's kernels refuse fewer axes
        mask = mask if mask.dtype == torch.bool else mask.to(q.dtype)
        if may_be_empty and q.device.type not in SAFE_WHEN_EMPTY:
            empty = _empty_rows(mask)
            mask = mask.masked_fill(empty, True if mask.dtype == torch.bool else 0.0)
    out = F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, dropout_p=dropout_p, is_causal=plain_causal, scale=scale
    )
    return out if empty is None else out.masked_fill(empty, 0.0)


def _empty_rows(mask: Tensor) -> Tensor:
    """Where a query may attend to nothing, bool (..., N, 1)."""
    if mask.dtype == torch.bool:
        return ~mask.any(dim=-1, keepdim=True)
    return (mask.detach() == float("-inf")).all(dim=-1, keepdim=True)


def _softmax_scores(q: Tensor, k: Tensor, mask: Tensor | None, scale: float | None) -> Tensor:
    """softmax(q k^T scale + mask) in the dtype of q; statistics are float32 inside the softmax."""
    scores = (q * (q.shape[-1] ** -0.5 if scale is None else scale)) @ k.transpose(-2, -1)
    if mask is None:
        return torch.softmax(scores, dim=-1)
    # In the format of the scores, in which a very low number may be none.
    mask = mask if mask.dtype == torch.bool else mask.to(scores.dtype)
    empty = _empty_rows(mask)
    if mask.dtype == torch.bool:
        # Added, not filled in: one pass over the scores, and none on the way back.
        zero = torch.zeros((), dtype=scores.dtype, device=scores.device)
        mask = torch.where(mask, zero, float("-inf"))
    # In place where the mask adds no axis, seen or of a transform: no product needs the scores to
    # go back.
    transformed = torch._C._are_functorch_transforms_active()
    same = torch.broadcast_shapes(scores.shape, mask.shape) == scores.shape
    scores = scores.add_(mask) if same and not transformed else scores + mask
    # Looking costs less than two passes over the scores, where it is possible.
    looks = mask.device.type == "cpu" and not transformed and not torch.compiler.is_compiling()
    if looks and not empty.any():
        return torch.softmax(scores, dim=-1)
    # An empty row is made finite before the softmax and zero after it: clearing the NaN afterwards
    # would leave NaN in the gradient.
    return torch.softmax(scores.masked_fill(empty, 0.0), dim=-1).masked_fill(empty, 0.0)


def _with_causal(q: Tensor, k: Tensor, mask: Tensor | None, is_causal: bool) -> Tensor | None:
    if mask is not None:
        check_mask(mask)
    if not is_causal or (num_queries := q.shape[2]) == 1:
        return mask
    num_keys = k.shape[2]
    return combine_masks(mask, causal_mask(num_queries, num_keys, device=q.device))


def _repeat_heads(x: Tensor, num_heads: int) -> Tensor:
    """(B, G, M, D) -> (B, H, M, D): each key/value head serves H / G query heads in a row."""
    groups = x.shape[1]
    if groups == num_heads:
        return x
    if num_heads % groups:
        raise ValueError(f"{num_heads} query heads cannot share {groups} key/value heads evenly")
    return x.repeat_interleave(num_heads // groups, dim=1)
