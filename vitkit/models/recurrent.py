"""The Transformer's ancestors: recurrent models of text, and of one text after another."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from vitkit.models.seq2seq import Memory
from vitkit.models.words import real_words
from vitkit.nn import Attention, Dropout, LayerCache, Linear, Recurrent, RecurrentState, linear

__all__ = ["RecurrentLanguageModel", "RecurrentSeq2Seq"]


class RecurrentLanguageModel(nn.Module):
    """Next-token model: an embedding, recurrent layers, a linear layer.

    Weights start as torch's layers do. Any length can be read: the state has one size.

    Args:
        vocab_size: number of different tokens.
        embed_dim: width of the embedded tokens.
        hidden_dim: width of the state.
        depth: number of recurrent layers.
        cell: ``lstm``, ``gru`` or ``rnn``.
        tie_embeddings: the output layer shares the embedding's weight; needs equal widths.
        drop_rate: dropout of the embedded tokens, between layers and before the output layer
            (Zaremba et al., arXiv 1409.2329).

    Raises:
        ValueError: an unknown cell, or tied embeddings of another width than the state.
    """

    def __init__(
        self,
        vocab_size: int = 256,
        embed_dim: int = 256,
        hidden_dim: int = 1024,
        depth: int = 1,
        *,
        cell: str = "lstm",
        tie_embeddings: bool = False,
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        if tie_embeddings and embed_dim != hidden_dim:
            raise ValueError(
                f"tie_embeddings needs embed_dim and hidden_dim alike, given {embed_dim} and "
                f"{hidden_dim}"
            )
        self.vocab_size, self.embed_dim, self.num_features = vocab_size, embed_dim, hidden_dim
        self.words = nn.Embedding(vocab_size, embed_dim)
        self.rnn = Recurrent(embed_dim, hidden_dim, cell=cell, depth=depth, drop=drop_rate)
        self.drop = Dropout(drop_rate)
        self.head = None if tie_embeddings else Linear(hidden_dim, vocab_size)
        if tie_embeddings:
            nn.init.normal_(self.words.weight, std=embed_dim**-0.5)

    def forward(self, ids: Tensor, caches: list[LayerCache] | None = None) -> Tensor:
        """Ids int (B, N) -> logits of the token that follows each, (B, N, vocab_size).

        Args:
            ids: tokens; with caches, those that the caches have not seen.
            caches: from :meth:`new_caches`; they carry the state.
        """
        return self.forward_head(self.forward_features(ids, caches))

    def forward_features(self, ids: Tensor, caches: list[LayerCache] | None = None) -> Tensor:
        """Outputs of the last layer: (B, N, hidden_dim)."""
        state = caches[0].state if caches else None
        features: Tensor = self.rnn(self.drop(self.words(ids)), state=state)
        return features

    def forward_head(self, tokens: Tensor) -> Tensor:
        """Outputs (B, N, hidden_dim) -> logits (B, N, vocab_size)."""
        tokens = self.drop(tokens)
        return linear(tokens, self.words.weight) if self.head is None else self.head(tokens)

    def new_caches(self) -> list[LayerCache]:
        """One cache that holds the state of all layers."""
        return [LayerCache()]

    def check_length(self, count: int) -> None:
        """Any length will do."""

    def no_weight_decay(self) -> set[str]:
        """Parameters that weight decay leaves alone, besides biases."""
        return {"words.weight"}


class RecurrentSeq2Seq(nn.Module):
    """A recurrent encoder hands its last state to a recurrent decoder, over one vocabulary.

    Without attention that state is all the decoder learns of the source: the bottleneck. With it
    each output of the decoder also reads all outputs of the encoder.

    Args:
        vocab_size: number of different tokens.
        embed_dim: width of the embedded tokens.
        hidden_dim: width of the state, of both directions together.
        depth: layers of the encoder, and of the decoder.
        cell: ``lstm``, ``gru`` or ``rnn``.
        attention: the decoder attends to the encoder's outputs (one head).
        bidirectional: the encoder reads from both ends, with half of the width each.
        tie_embeddings: one matrix for source, target and output; else three.
        pad_id: token that only fills up short sources; None: lengths say what is real.
        drop_rate: dropout of the embedded tokens, between layers and around the last layer.

    Raises:
        ValueError: an unknown cell, or an odd width to halve.

    Sources: Sutskever et al., arXiv 1409.3215 (without attention); Bahdanau et al., arXiv
    1409.0473, and Luong et al., arXiv 1508.04025 (attention behind the decoder, no input feeding).
    """

    def __init__(
        self,
        vocab_size: int = 32000,
        embed_dim: int = 256,
        hidden_dim: int = 256,
        depth: int = 1,
        *,
        cell: str = "lstm",
        attention: bool = True,
        bidirectional: bool = False,
        tie_embeddings: bool = True,
        pad_id: int | None = 0,
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        if bidirectional and hidden_dim % 2:
            raise ValueError(f"hidden_dim {hidden_dim} cannot be halved for two directions")
        self.vocab_size, self.embed_dim, self.pad_id = vocab_size, embed_dim, pad_id
        self.max_len: int | None = None
        self.words = nn.Embedding(vocab_size, embed_dim)
        self.target_words = None if tie_embeddings else nn.Embedding(vocab_size, embed_dim)
        for words in (self.words, self.target_words):
            if words is not None:
                nn.init.normal_(words.weight, std=embed_dim**-0.5)
        self.encoder = Recurrent(
            embed_dim,
            hidden_dim // 2 if bidirectional else hidden_dim,
            cell=cell,
            depth=depth,
            bidirectional=bidirectional,
            drop=drop_rate,
        )
        self.decoder = Recurrent(embed_dim, hidden_dim, cell=cell, depth=depth, drop=drop_rate)
        self.cross_attn = (
            Attention(hidden_dim, 1, context_dim=hidden_dim, proj_bias=False) if attention else None
        )
        self.mix = Linear(hidden_dim * (2 if attention else 1), embed_dim)
        self.drop = Dropout(drop_rate)
        self.head = None if tie_embeddings else Linear(embed_dim, vocab_size, bias=False)

    def forward(
        self, source: Tensor, target: Tensor, source_lengths: Tensor | None = None
    ) -> Tensor:
        """Logits of the token that follows each token of the target, (B, N, vocab_size).

        Args:
            source: tokens, int (B, M), padding behind the others.
            target: tokens, int (B, N), a beginning-of-text token first.
            source_lengths: real tokens of each source, int (B,); without it, all but ``pad_id``.
        """
        return self.forward_head(self.decode(target, self.encode(source, source_lengths)))

    def encode(self, source: Tensor, lengths: Tensor | None = None) -> Memory:
        """Source ids, int (B, M), to what the decoder starts from and may read."""
        real = real_words(source, lengths, self.pad_id)
        mask = None if real is None else real[:, None, None, :]
        last = RecurrentState()
        tokens = self.encoder(self.drop(self.words(source)), real=real, state=last)
        assert last.state is not None
        state = last.state
        if self.encoder.bidirectional:
            state = tuple(rearrange(part, "(l d) b c -> l b (d c)", d=2) for part in state)
        return Memory(tokens, mask, tuple(part.contiguous() for part in state))

    def decode(
        self, target: Tensor, memory: Memory, caches: list[LayerCache] | None = None
    ) -> Tensor:
        """Target ids, int (B, N), to tokens (B, N, embed_dim) for :meth:`forward_head`.

        Args:
            target: tokens; with caches, those that the caches have not seen.
            memory: from :meth:`encode`.
            caches: from :meth:`new_caches`; they carry the state, and the memory is projected in
                the first call alone.
        """
        cache = caches[0] if caches else LayerCache()
        if cache.state.state is None:
            cache.state.state = memory.state
        words = self.words if self.target_words is None else self.target_words
        tokens = self.decoder(self.drop(words(target)), state=cache.state)
        if self.cross_attn is not None:
            held = cache.memory if caches else None
            read = self.cross_attn(tokens, memory.tokens, mask=memory.mask, cache=held)
            tokens = torch.cat([tokens, read], dim=-1)
        return torch.tanh(self.mix(self.drop(tokens)))

    def forward_head(self, tokens: Tensor) -> Tensor:
        """Tokens (B, N, embed_dim) -> logits (B, N, vocab_size)."""
        tokens = self.drop(tokens)
        return linear(tokens, self.words.weight) if self.head is None else self.head(tokens)

    def new_caches(self) -> list[LayerCache]:
        """One cache that holds the decoder's state and the projected memory."""
        return [LayerCache()]

    def no_weight_decay(self) -> set[str]:
        """Parameters that weight decay leaves alone, besides biases."""
        return {"words.weight", "target_words.weight"}
