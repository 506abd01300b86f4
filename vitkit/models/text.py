"""The text Transformer on the shared trunk: classifier and causal language model."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from vitkit.models.first_weights import init_vit_weights, make_head
from vitkit.models.options import check_option
from vitkit.models.words import WordEmbed, position_bias, real_words
from vitkit.nn import (
    BlockContext,
    Dropout,
    GradientCheckpointing,
    LayerCache,
    Linear,
    Trunk,
    encoder_blocks,
    is_hooked,
    linear,
    make_norm,
    window_mask,
)

__all__ = ["CausalLanguageModel", "TextTransformer"]

POOLS = ("token", "avg")


class TextTransformer(GradientCheckpointing):
    """Encoder that classifies a text.

    Args:
        vocab_size: number of different tokens.
        max_len: longest text in tokens.
        num_classes: classes of the head; 0 leaves it out.
        embed_dim, depth, num_heads, mlp_ratio: C, number of blocks, H, MLP width over C.
        class_token: prepend a learned token.
        global_pool: ``token`` (class token) or ``avg`` (mean of the real tokens).
        pos_embed: ``learn``, ``sincos`` (fixed), ``rotary``, ``alibi``, ``relative`` or ``none``.
        rope_base: base of the rotary wavelengths.
        pad_id: token that only fills up short texts; None: lengths say what is real.
        head_hidden_dim: width of a hidden ReLU layer in the head; None leaves it out.
        drop_rate: dropout before the head.
        pos_drop_rate: dropout after the positions.
        proj_drop_rate, attn_drop_rate, drop_path_rate: see :func:`vitkit.nn.encoder_blocks`.
        head_dim, num_kv_heads, qkv_bias, qk_norm, proj_bias: see :class:`vitkit.nn.Attention`.
        init_values: LayerScale's first value; None leaves it out.
        norm_layer, norm_eps: ``layernorm`` or ``rmsnorm``, and its epsilon.
        norm_first: pre-norm blocks (True) or post-norm (arXiv 1706.03762).
        final_norm: norm after the blocks.
        mlp_layer, act_layer: ``mlp`` or ``swiglu``; ``gelu``, ``gelu_tanh``, ``quick_gelu``,
            ``relu``, ``silu``.

    Raises:
        ValueError: options that are unknown or contradict each other.
    """

    def __init__(
        self,
        vocab_size: int = 256,
        max_len: int = 512,
        num_classes: int = 2,
        embed_dim: int = 128,
        depth: int = 4,
        num_heads: int = 4,
        mlp_ratio: float = 4.0,
        *,
        class_token: bool = True,
        global_pool: str = "token",
        pos_embed: str = "learn",
        rope_base: float = 10000.0,
        pad_id: int | None = None,
        head_hidden_dim: int | None = None,
        drop_rate: float = 0.0,
        pos_drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        head_dim: int | None = None,
        num_kv_heads: int | None = None,
        qkv_bias: bool = True,
        qk_norm: bool = False,
        proj_bias: bool = True,
        init_values: float | None = None,
        norm_layer: str = "layernorm",
        norm_eps: float = 1e-6,
        norm_first: bool = True,
        final_norm: bool = True,
        mlp_layer: str = "mlp",
        act_layer: str = "gelu",
    ) -> None:
        super().__init__()
        _check_pool(global_pool, class_token)
        norm = make_norm(norm_layer, norm_eps)
        self.num_classes, self.embed_dim, self.pad_id = num_classes, embed_dim, pad_id
        self.global_pool, self.num_prefix_tokens = global_pool, int(class_token)
        self.blocks = encoder_blocks(
            depth,
            embed_dim,
            num_heads,
            mlp_ratio=mlp_ratio,
            head_dim=head_dim,
            num_kv_heads=num_kv_heads,
            qkv_bias=qkv_bias,
            proj_bias=proj_bias,
            qk_norm=qk_norm,
            init_values=init_values,
            norm_layer=norm,
            norm_first=norm_first,
            mlp_layer=mlp_layer,
            act_layer=act_layer,
            attn_drop_rate=attn_drop_rate,
            proj_drop_rate=proj_drop_rate,
            drop_path_rate=drop_path_rate,
        )
        self.norm = norm(embed_dim) if final_norm else nn.Identity()
        self.num_features = embed_dim if head_hidden_dim is None else head_hidden_dim
        self.head_hidden = (
            nn.Sequential(nn.Linear(embed_dim, head_hidden_dim), nn.ReLU())
            if head_hidden_dim is not None
            else nn.Identity()
        )
        self.head_drop = Dropout(drop_rate)
        self.head = make_head(self.num_features, num_classes)
        self.apply(init_vit_weights)
        self.words = WordEmbed(
            vocab_size,
            embed_dim,
            max_len=max_len,
            pos_embed=pos_embed,
            class_token=class_token,
            head_dim=head_dim or embed_dim // num_heads,
            rope_base=rope_base,
        )
        self.bias = position_bias(pos_embed, num_heads, bidirectional=True)
        self.pos_drop = Dropout(pos_drop_rate)

    def forward(self, ids: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Ids (B, N) -> logits (B, num_classes).

        Args:
            ids: tokens, int.
            lengths: real tokens of each text, int (B,); without it, all that is not ``pad_id``.
        """
        real = self.real_words(ids, lengths)
        norm: Any = self._modules["norm"]  # direct_calls may have put a function before it
        if self.global_pool == "token" and not (is_hooked(self.blocks) or is_hooked(norm)):
            # The head reads one token, so the last block computes no other.
            tokens, ctx = self._embed(ids, real)
            return self.forward_head(self.norm(self.blocks(tokens, ctx, read=1)))
        return self.forward_head(self._encode(ids, real), real)

    def forward_features(self, ids: Tensor, lengths: Tensor | None = None) -> Tensor:
        """All tokens after the last block and norm: (B, prefix + N, C)."""
        return self._encode(ids, self.real_words(ids, lengths))

    def forward_head(
        self, tokens: Tensor, real: Tensor | None = None, pre_logits: bool = False
    ) -> Tensor:
        """Tokens (B, prefix + N, C) -> logits (B, num_classes), or what the classifier reads.

        Args:
            tokens: what :meth:`forward_features` gave.
            real: which tokens are no padding, bool (B, N); None: all.
            pre_logits: leave out the classifier.
        """
        x = self.head_drop(self.head_hidden(self.pool(tokens, real)))
        return x if pre_logits else self.head(x)

    def pool(self, tokens: Tensor, real: Tensor | None = None) -> Tensor:
        """Tokens (B, prefix + N, C) -> one vector a text (B, C)."""
        if self.global_pool == "token":
            return tokens[:, 0]
        words = tokens[:, self.num_prefix_tokens :]
        if real is None:
            return words.mean(dim=1)
        kept = real[:, :, None].to(words.dtype)
        return (words * kept).sum(dim=1) / kept.sum(dim=1).clamp(min=1.0)

    def real_words(self, ids: Tensor, lengths: Tensor | None = None) -> Tensor | None:
        """Which tokens are no padding: bool (B, N), or None if all are real."""
        return real_words(ids, lengths, self.pad_id)

    def reset_classifier(self, num_classes: int) -> None:
        """A fresh last layer for another number of classes; 0 leaves it out."""
        self.num_classes = num_classes
        like, head = self.words.tokens.weight, make_head(self.num_features, num_classes)
        init_vit_weights(head)
        self.head = head.to(like.device, like.dtype)

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.head

    def no_weight_decay(self) -> set[str]:
        """Parameters that weight decay leaves alone, besides biases and norms."""
        return {"words.tokens.weight", "words.pos_embed", "words.cls_token", "bias.table"}

    def _embed(self, ids: Tensor, real: Tensor | None) -> tuple[Tensor, BlockContext]:
        x = self.pos_drop(self.words(ids))
        mask = None
        if real is not None:
            mask = F.pad(real, (self.num_prefix_tokens, 0), value=True)[:, None, None, :]
        rotary = self.words.rotation(ids.shape[1])
        bias = None if self.bias is None else self.bias(ids.shape[1])
        if bias is not None:  # the class token is at no distance from anything
            bias = F.pad(bias, (self.num_prefix_tokens, 0, self.num_prefix_tokens, 0))
        prefix = self.num_prefix_tokens
        return x, BlockContext(num_prefix=prefix, mask=mask, rotary=rotary, bias=bias)

    def _encode(self, ids: Tensor, real: Tensor | None) -> Tensor:
        features: Tensor = self.norm(self.blocks(*self._embed(ids, real)))
        return features


class CausalLanguageModel(GradientCheckpointing):
    """Next-token model in the manner of GPT-2.

    Args:
        vocab_size: number of different tokens.
        max_len: longest sequence in tokens.
        embed_dim, depth, num_heads, mlp_ratio: C, number of blocks, H, MLP width over C.
        pos_embed: ``learn`` (GPT-2), ``sincos`` (fixed), ``rotary``, ``alibi``, ``relative`` or
            ``none``.
        window: tokens that a token sees, itself included; None: all before it. Longformer's sliding
            window, arXiv 2004.05150.
        tie_embeddings: the output layer shares the token embedding's weight.
        drop_rate: dropout before the output layer.

    The other arguments are those of :class:`TextTransformer`.

    Source: Radford et al., "Language models are unsupervised multitask learners" (GPT-2), 2019.
    """

    def __init__(
        self,
        vocab_size: int = 256,
        max_len: int = 256,
        embed_dim: int = 384,
        depth: int = 6,
        num_heads: int = 6,
        mlp_ratio: float = 4.0,
        *,
        pos_embed: str = "learn",
        rope_base: float = 10000.0,
        window: int | None = None,
        tie_embeddings: bool = True,
        drop_rate: float = 0.0,
        pos_drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        head_dim: int | None = None,
        num_kv_heads: int | None = None,
        qkv_bias: bool = True,
        qk_norm: bool = False,
        proj_bias: bool = True,
        init_values: float | None = None,
        norm_layer: str = "layernorm",
        norm_eps: float = 1e-5,
        norm_first: bool = True,
        final_norm: bool = True,
        mlp_layer: str = "mlp",
        act_layer: str = "gelu_tanh",
    ) -> None:
        super().__init__()
        norm = make_norm(norm_layer, norm_eps)
        self.vocab_size, self.max_len, self.embed_dim = vocab_size, max_len, embed_dim
        self.window = window
        self.blocks = encoder_blocks(
            depth,
            embed_dim,
            num_heads,
            mlp_ratio=mlp_ratio,
            head_dim=head_dim,
            num_kv_heads=num_kv_heads,
            qkv_bias=qkv_bias,
            proj_bias=proj_bias,
            qk_norm=qk_norm,
            init_values=init_values,
            norm_layer=norm,
            norm_first=norm_first,
            mlp_layer=mlp_layer,
            act_layer=act_layer,
            attn_drop_rate=attn_drop_rate,
            proj_drop_rate=proj_drop_rate,
            drop_path_rate=drop_path_rate,
        )
        self.norm = norm(embed_dim) if final_norm else nn.Identity()
        self.head_drop = Dropout(drop_rate)
        self.head = None if tie_embeddings else Linear(embed_dim, vocab_size, bias=False)
        self.apply(init_vit_weights)
        _shrink_branches(self.blocks)
        self.words = WordEmbed(
            vocab_size,
            embed_dim,
            max_len=max_len,
            pos_embed=pos_embed,
            head_dim=head_dim or embed_dim // num_heads,
            rope_base=rope_base,
        )
        self.bias = position_bias(pos_embed, num_heads, bidirectional=False)
        self.pos_drop = Dropout(pos_drop_rate)

    def forward(self, ids: Tensor, caches: list[LayerCache] | None = None) -> Tensor:
        """Ids int (B, N) -> logits of the token that follows each, (B, N, vocab_size).

        Args:
            ids: tokens; with caches, those that the caches have not seen.
            caches: from :meth:`new_caches`; this call appends to them.

        Raises:
            ValueError: more tokens than ``max_len``, those in the caches included.
        """
        return self.forward_head(self.forward_features(ids, caches))

    def forward_features(self, ids: Tensor, caches: list[LayerCache] | None = None) -> Tensor:
        """All tokens after the last block and norm: (B, N, C)."""
        seen = caches[0].tokens.length if caches else 0
        fresh, known = ids.shape[1], seen + ids.shape[1]
        mask = None
        if self.window is not None:
            mask = window_mask(fresh, known, before=self.window - 1, device=ids.device)
        ctx = BlockContext(
            mask=mask,
            is_causal=True,
            rotary=self.words.rotation(fresh, seen),
            bias=None if self.bias is None else self.bias(fresh, known),
            caches=caches,
        )
        x = self.blocks(self.pos_drop(self.words(ids, seen)), ctx)
        features: Tensor = self.norm(x)
        return features

    def forward_head(self, tokens: Tensor) -> Tensor:
        """Tokens (B, N, C) -> logits (B, N, vocab_size)."""
        tokens = self.head_drop(tokens)
        return linear(tokens, self.words.tokens.weight) if self.head is None else self.head(tokens)

    def new_caches(self) -> list[LayerCache]:
        """Empty key/value caches, one a layer."""
        return self.blocks.new_caches()

    def check_length(self, count: int) -> None:
        """Refuse texts of more tokens than the model was built for.

        Raises:
            ValueError: ``count`` is more than ``max_len``.
        """
        self.words.check_length(count)

    def no_weight_decay(self) -> set[str]:
        """Parameters that weight decay leaves alone, besides biases and norms."""
        return {"words.tokens.weight", "words.pos_embed", "bias.table"}


def _shrink_branches(blocks: Trunk) -> None:
    """GPT-2: layers that end a residual branch start smaller by the root of their number."""
    factor = (2 * max(len(blocks), 1)) ** -0.5
    for name, weight in blocks.named_parameters():
        if name.endswith(("attn.proj.weight", "mlp.fc2.weight")):
            weight.data.mul_(factor)


def _check_pool(global_pool: str, class_token: bool) -> None:
    check_option("global_pool", global_pool, POOLS)
    if global_pool == "token" and not class_token:
        raise ValueError("global_pool 'token' reads the class token; class_token must be True")
