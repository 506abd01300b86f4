"""Attention as a layer: project, rotate, attend, merge; and the key/value cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vitkit.nn.dropout import dropout_or_none, through
from vitkit.nn.functional import attention, attention_weights
from vitkit.nn.masks import combine_masks
from vitkit.nn.products import Linear, linear
from vitkit.nn.rotary import Rotation

__all__ = ["Attention", "KeyValueCache"]

NormLayer = Callable[[int], nn.Module]
Recorder = Callable[[Tensor], None]


class KeyValueCache:
    """Keys and values of the tokens seen so far, for one attention layer.

    Storage grows by doubling, so that a token costs amortised constant time.

    Attributes:
        length: number of tokens held.
    """

    def __init__(self) -> None:
        self.length = 0
        self._keys: Tensor | None = None
        self._values: Tensor | None = None

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add (B, G, N, D) keys and values; return all of them, (B, G, length, D)."""
        end = self.length + k.shape[2]
        self._keys = self._stored(self._keys, k, end)
        self._values = self._stored(self._values, v, end)
        self.length = end
        return self._keys.narrow(2, 0, end), self._values.narrow(2, 0, end)

    def contents(self) -> tuple[Tensor, Tensor] | None:
        """All keys and values, (B, G, length, D) each, or None while empty."""
        if self._keys is None or self._values is None:
            return None
        return self._keys[:, :, : self.length], self._values[:, :, : self.length]

    def select(self, rows: Tensor) -> None:
        """Keep the batch rows ``rows`` (int (B',)), in that order: what beam search needs."""
        if self._keys is not None and self._values is not None:
            self._keys, self._values = self._keys[rows], self._values[rows]

    def _stored(self, store: Tensor | None, new: Tensor, end: int) -> Tensor:
        if torch.is_grad_enabled() and new.requires_grad:
            # Writing in place would break autograd, so under gradients the cache concatenates.
            return new if store is None else torch.cat([store[:, :, : self.length], new], dim=2)
        if store is None or store.shape[2] < end:
            batch, heads, _, width = new.shape
            room = end if store is None else max(16, 2 * end)  # a memory never grows
            grown = new.new_empty(batch, heads, room, width)
            if store is not None:
                grown[:, :, : self.length] = store[:, :, : self.length]
            store = grown
        store.narrow(2, self.length, new.shape[2]).copy_(new)
        return store


class Attention(nn.Module):
    """Multi-head attention: self, cross, grouped-query; any head count and head width.

    Self attention holds one ``qkv`` of (H + 2 G) D rows in the order q, k, v, as timm does; cross
    attention (``context_dim`` given) holds ``q`` and ``kv``.

    Args:
        embed_dim: C, width of the tokens.
        num_heads: H.
        head_dim: D; embed_dim / num_heads unless given.
        num_kv_heads: G, must divide H; H unless given.
        context_dim: width of the tokens attended to, for cross attention; None for self attention.
        qkv_bias: bias of the q, k, v projections.
        proj_bias: bias of the output projection.
        qk_norm: normalise each head's q and k before the product (Dehghani et al., ViT-22B,
            arXiv 2302.05442).
        norm_layer: makes the norm of ``qk_norm`` from the head width.
        attn_drop: dropout of the attention weights, in training.
        proj_drop: dropout after the output projection, in training.
        scale: factor of the scores; 1 / sqrt(D) unless given.

    Raises:
        ValueError: widths or head counts that do not divide.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int = 8,
        *,
        head_dim: int | None = None,
        num_kv_heads: int | None = None,
        context_dim: int | None = None,
        qkv_bias: bool = False,
        proj_bias: bool = True,
        qk_norm: bool = False,
        norm_layer: NormLayer = nn.LayerNorm,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        scale: float | None = None,
    ) -> None:
        super().__init__()
        if num_heads < 1 or (num_kv_heads is not None and num_kv_heads < 1):
            raise ValueError(
                f"num_heads {num_heads}, num_kv_heads {num_kv_heads}; allowed: 1 and more"
            )
        if head_dim is None and embed_dim % num_heads:
            raise ValueError(
                f"embed_dim {embed_dim} is not a multiple of num_heads {num_heads}; "
                "choose another head count or give head_dim"
            )
        self.num_heads = num_heads
        self.head_dim = embed_dim // num_heads if head_dim is None else head_dim
        self.num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        if num_heads % self.num_kv_heads:
            raise ValueError(f"num_kv_heads {num_kv_heads} does not divide num_heads {num_heads}")
        self.scale = scale
        self.attn_drop = attn_drop
        inner, shared = num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        self.is_cross = context_dim is not None
        if context_dim is None:
            self.qkv = Linear(embed_dim, inner + 2 * shared, bias=qkv_bias)
        else:
            self.q = Linear(embed_dim, inner, bias=qkv_bias)
            self.kv = Linear(context_dim, 2 * shared, bias=qkv_bias)
        self.q_norm = norm_layer(self.head_dim) if qk_norm else None
        self.k_norm = norm_layer(self.head_dim) if qk_norm else None
        self.proj = Linear(inner, embed_dim, bias=proj_bias)
        self.proj_drop = dropout_or_none(proj_drop)
        self.recorder: Recorder | None = None

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        is_causal: bool = False,
        rotary: Rotation | tuple[Rotation, Rotation] | None = None,
        bias: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Attend from x to itself, or to ``context``.

        Args:
            x: queries' tokens, (B, N, C).
            context: tokens attended to, (B, M, C'). Cross attention needs it (unless its cache
                holds it already); self attention, given one, reads it with its own projections.
            mask: bool (True = may attend) or float, broadcastable to (B, H, N, M).
            is_causal: aligned at the end; combines with ``mask``.
            rotary: turns q and k; a pair turns each by its own positions.
            bias: float and finite, added to the scores, broadcastable to (B, H, N, M); what hides
                keys is a mask.
            cache: self attention appends to it and attends to all it holds; cross attention fills
                it once and reads it from then on.

        Returns:
            (B, N, C).

        Raises:
            ValueError: cross attention without ``context``, nor a cache that holds it.
        """
        q, k, v = self.project(x, context, rotary, cache)
        if self.recorder is not None:
            self.recorder(self._weights(q, k, combine_masks(mask, bias), is_causal))
        x = attention(
            q,
            k,
            v,
            mask=mask,
            bias=bias,
            is_causal=is_causal,
            dropout_p=self.attn_drop if self.training else 0.0,
            scale=self.scale,
        )
        return self.merge(x)

    def project(
        self,
        x: Tensor,
        context: Tensor | None,
        rotary: Rotation | tuple[Rotation, Rotation] | None,
        cache: KeyValueCache | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """q (B, H, N, D), k and v (B, G, M, D): projected, normalised, rotated, cached.

        Raises:
            ValueError: cross attention without ``context``, nor a cache that holds it.
        """
        turn_q, turn_k = rotary if isinstance(rotary, tuple) else (rotary, rotary)
        if self.is_cross:
            held = cache.contents() if cache is not None else None
            (q,) = self._split(self.q(x), (self.num_heads,))
            q = _turned(q, self.q_norm, turn_q)
            if held is not None:
                return q, *held
            if context is None:
                raise ValueError("cross attention needs `context`, the tokens to attend to")
            k, v = self._split(self.kv(context), (self.num_kv_heads,) * 2)
        else:
            q, k, v = self._project_self(x, context)
            q = _turned(q, self.q_norm, turn_q)
        k = _turned(k, self.k_norm, turn_k)
        if cache is not None:
            k, v = cache.append(k, v)
        return q, k, v

    def merge(self, x: Tensor) -> Tensor:
        """(B, H, N, D) -> (B, N, C): heads side by side, projected."""
        return through(self.proj_drop, self.proj(x.transpose(1, 2).flatten(2)))

    def first(
        self,
        x: Tensor,
        count: int,
        *,
        mask: Tensor | None = None,
        rotary: Rotation | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        """Self attention of the first ``count`` queries alone: (B, N, C) -> (B, count, C).

        Keys and values come from all tokens of x. A recorder still gets the weights of all queries.
        """
        if self.recorder is not None:
            return self._first_recorded(x, count, mask, rotary, bias)
        turns = None if rotary is None else (rotary[:count], rotary)
        out: Tensor = self(
            x[:, :count], x, mask=_rows(mask, count), rotary=turns, bias=_rows(bias, count)
        )
        return out

    def _first_recorded(
        self,
        x: Tensor,
        count: int,
        mask: Tensor | None,
        rotary: Rotation | None,
        bias: Tensor | None,
    ) -> Tensor:
        recorder, self.recorder = self.recorder, None
        try:
            out = self.first(x, count, mask=mask, rotary=rotary, bias=bias)
        finally:
            self.recorder = recorder
        if recorder is not None:
            with torch.no_grad():
                q, k, _ = self.project(x, None, rotary, None)
            recorder(self._weights(q, k, combine_masks(mask, bias), False))
        return out

    def _weights(self, q: Tensor, k: Tensor, mask: Tensor | None, is_causal: bool) -> Tensor:
        with torch.no_grad():  # beside the graph, so that recomputing a block finds it alike
            return attention_weights(q, k, mask=mask, is_causal=is_causal, scale=self.scale)

    def _project_self(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, ...]:
        heads, shared = self.num_heads, self.num_kv_heads
        if context is None:
            return self._split(self.qkv(x), (heads, shared, shared))
        # Queries for x alone, keys and values for all of context: the rows of one weight.
        split = [heads * self.head_dim, 2 * shared * self.head_dim]
        own: Any = self._modules["qkv"]  # direct_calls may have put a function before it
        weight = own.whole_weight() if hasattr(own, "whole_weight") else own.weight
        w_q, w_kv = weight.split(split)
        b_q, b_kv = (None, None) if own.bias is None else own.bias.split(split)
        (q,) = self._split(linear(x, w_q, b_q), (heads,))
        return q, *self._split(linear(context, w_kv, b_kv), (shared, shared))

    def _split(self, x: Tensor, counts: tuple[int, ...]) -> tuple[Tensor, ...]:
        """(B, N, sum(counts) D) -> (B, count, N, D) for each count: the views that
        'b n (h d) -> b h n d' means; einops would cost 2 % of a small step. Heads are parted before
        they are turned, so that the backward pass puts the gradients together in one copy.
        """
        heads = x.view(x.shape[0], x.shape[1], -1, self.head_dim)
        return tuple([part.transpose(1, 2) for part in heads.split_with_sizes(counts, 2)])


def _turned(x: Tensor, norm: nn.Module | None, rotation: Rotation | None) -> Tensor:
    """Queries or keys as they are compared: normalised, then rotated, where that is on."""
    x = through(norm, x)
    return x if rotation is None else rotation(x)


def _rows(mask: Tensor | None, count: int) -> Tensor | None:
    """The first ``count`` query rows of a mask that may broadcast over them."""
    if mask is None or mask.ndim < 2 or mask.shape[-2] == 1:
        return mask
    return mask[..., :count, :]
