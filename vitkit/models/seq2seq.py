"""The Transformer of "Attention Is All You Need": one text in, another out."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from vitkit.models.first_weights import init_glorot_weights
from vitkit.models.words import WordEmbed, position_bias, real_words
from vitkit.nn import (
    Attention,
    Block,
    BlockContext,
    DecoderBlock,
    Dropout,
    GradientCheckpointing,
    LayerCache,
    Linear,
    Trunk,
    drop_path_ramp,
    linear,
    make_mlp,
    make_norm,
)

__all__ = ["EncoderDecoder", "Memory"]


@dataclass(frozen=True)
class Memory:
    """What a decoder knows of its sources.

    Attributes:
        tokens: what the encoder made of the source, (B, M, C).
        mask: which of them are no padding, bool (B, 1, 1, M); None: all.
        state: that a recurrent decoder starts from, (layers, B, hidden) each.
    """

    tokens: Tensor
    mask: Tensor | None = None
    state: tuple[Tensor, ...] | None = None

    def select(self, rows: Tensor) -> Memory:
        """The batch rows ``rows`` (int (B',)), in that order."""
        return dataclasses.replace(
            self,
            tokens=self.tokens[rows],
            mask=None if self.mask is None else self.mask[rows],
            state=None if self.state is None else tuple(part[:, rows] for part in self.state),
        )


class EncoderDecoder(GradientCheckpointing):
    """Encoder and decoder on two trunks, over one vocabulary for both languages.

    The defaults are the paper's: post-norm, no norms after the stacks, ReLU, sinusoids, embeddings
    scaled by the root of the width; dropout on what a sublayer adds and on the embeddings, none on
    attention weights or inside the MLP. All linear layers have biases, but for the output.

    Args:
        vocab_size: number of different tokens.
        max_len: longest source and longest target in tokens.
        embed_dim, depth, num_heads, mlp_ratio: C, blocks of each stack, H, MLP width over C.
        decoder_depth: blocks of the decoder; ``depth`` unless given.
        pos_embed: ``sincos``, ``learn``, ``rotary``, ``alibi``, ``relative`` or ``none``; learned
            positions are shared as the tokens are.
        tie_embeddings: one matrix for source, target and output; else three.
        pad_id: token that only fills up short sources; None: lengths say what is real.
        pos_drop_rate: dropout after the positions.
        proj_drop_rate: dropout behind each sublayer.
        mlp_drop_rate: dropout inside the MLP, behind its activation.
        attn_drop_rate, drop_path_rate: of the attention weights; of the last block of each stack.
        drop_rate: dropout before the output layer.
        norm_first: pre-norm blocks.
        final_norm: norms after both stacks; as ``norm_first`` unless given.

    The other arguments are those of :class:`vitkit.models.text.TextTransformer`.

    Raises:
        ValueError: options that are unknown or contradict each other.

    Source: Vaswani et al., "Attention Is All You Need", arXiv 1706.03762.
    """

    def __init__(
        self,
        vocab_size: int = 32000,
        max_len: int = 512,
        embed_dim: int = 512,
        depth: int = 6,
        num_heads: int = 8,
        mlp_ratio: float = 4.0,
        *,
        decoder_depth: int | None = None,
        pos_embed: str = "sincos",
        rope_base: float = 10000.0,
        tie_embeddings: bool = True,
        pad_id: int | None = 0,
        drop_rate: float = 0.0,
        pos_drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        mlp_drop_rate: float = 0.0,
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
        norm_first: bool = False,
        final_norm: bool | None = None,
        mlp_layer: str = "mlp",
        act_layer: str = "relu",
    ) -> None:
        super().__init__()
        self.vocab_size, self.max_len, self.embed_dim = vocab_size, max_len, embed_dim
        self.pad_id = pad_id
        norm = make_norm(norm_layer, norm_eps)
        attn = partial(
            Attention,
            embed_dim,
            num_heads,
            head_dim=head_dim,
            num_kv_heads=num_kv_heads,
            qkv_bias=qkv_bias,
            proj_bias=proj_bias,
            qk_norm=qk_norm,
            norm_layer=norm,
            attn_drop=attn_drop_rate,
            proj_drop=proj_drop_rate,
        )
        mlp = partial(
            make_mlp,
            mlp_layer,
            embed_dim,
            int(embed_dim * mlp_ratio),
            act_layer=act_layer,
            drop=(mlp_drop_rate, proj_drop_rate),
        )
        wiring: dict[str, Any] = {"norm_layer": norm, "norm_first": norm_first}
        wiring["init_values"] = init_values
        self.encoder = Trunk(
            Block(embed_dim, attn(), mlp(), drop_path=rate, **wiring)
            for rate in drop_path_ramp(drop_path_rate, depth)
        )
        self.decoder = Trunk(
            DecoderBlock(
                embed_dim, attn(), attn(context_dim=embed_dim), mlp(), drop_path=rate, **wiring
            )
            for rate in drop_path_ramp(drop_path_rate, decoder_depth or depth)
        )
        final_norm = norm_first if final_norm is None else final_norm
        self.norm = norm(embed_dim) if final_norm else nn.Identity()
        self.decoder_norm = norm(embed_dim) if final_norm else nn.Identity()
        self.apply(init_glorot_weights)
        words = partial(
            WordEmbed,
            vocab_size,
            embed_dim,
            max_len=max_len,
            pos_embed=pos_embed,
            head_dim=head_dim or embed_dim // num_heads,
            rope_base=rope_base,
            std=embed_dim**-0.5,
            scale=embed_dim**0.5,
        )
        self.words = words()
        self.target_words = None if tie_embeddings else words()
        self.head = None if tie_embeddings else Linear(embed_dim, vocab_size, bias=False)
        self.bias = position_bias(pos_embed, num_heads, bidirectional=True)
        self.decoder_bias = position_bias(pos_embed, num_heads, bidirectional=False)
        self.pos_drop = Dropout(pos_drop_rate)
        self.head_drop = Dropout(drop_rate)

    def forward(
        self, source: Tensor, target: Tensor, source_lengths: Tensor | None = None
    ) -> Tensor:
        """Logits of the token that follows each token of the target, (B, N, vocab_size).

        Args:
            source: tokens, int (B, M).
            target: tokens, int (B, N), a beginning-of-text token first; padding behind the others
                needs no mask, since no token sees a later one.
            source_lengths: real tokens of each source, int (B,); without it, all but ``pad_id``.

        Raises:
            ValueError: more tokens than ``max_len``.
        """
        return self.forward_head(self.decode(target, self.encode(source, source_lengths)))

    def encode(self, source: Tensor, lengths: Tensor | None = None) -> Memory:
        """Source ids, int (B, M), to what the decoder reads of them."""
        real = real_words(source, lengths, self.pad_id)
        mask = None if real is None else real[:, None, None, :]
        count = source.shape[1]
        ctx = BlockContext(
            mask=mask,
            rotary=self.words.rotation(count),
            bias=None if self.bias is None else self.bias(count),
        )
        tokens = self.norm(self.encoder(self.pos_drop(self.words(source)), ctx))
        return Memory(tokens, mask)

    def decode(
        self, target: Tensor, memory: Memory, caches: list[LayerCache] | None = None
    ) -> Tensor:
        """Target ids, int (B, N), to tokens (B, N, C) for :meth:`forward_head`.

        Args:
            target: tokens; with caches, those that the caches have not seen.
            memory: from :meth:`encode`.
            caches: from :meth:`new_caches`; this call appends to them, and the memory is projected
                in the first call alone.

        Raises:
            ValueError: more tokens than ``max_len``, those in the caches included.
        """
        seen = caches[0].tokens.length if caches else 0
        count = target.shape[1]
        words = self.words if self.target_words is None else self.target_words
        ctx = BlockContext(
            is_causal=True,
            rotary=words.rotation(count, seen),
            bias=None if self.decoder_bias is None else self.decoder_bias(count, seen + count),
            memory=memory.tokens,
            memory_mask=memory.mask,
            caches=caches,
        )
        x = self.decoder(self.pos_drop(words(target, seen)), ctx)
        features: Tensor = self.decoder_norm(x)
        return features

    def forward_head(self, tokens: Tensor) -> Tensor:
        """Tokens (B, N, C) -> logits (B, N, vocab_size)."""
        tokens = self.head_drop(tokens)
        return linear(tokens, self.words.tokens.weight) if self.head is None else self.head(tokens)

    def new_caches(self) -> list[LayerCache]:
        """Empty caches, one a layer of the decoder."""
        return self.decoder.new_caches()

    def no_weight_decay(self) -> set[str]:
        """Parameters that weight decay leaves alone, besides biases and norms."""
        embeds = ("words", "target_words")
        tables = {f"{embed}.{name}" for embed in embeds for name in ("tokens.weight", "pos_embed")}
        return tables | {"bias.table", "decoder_bias.table"}
