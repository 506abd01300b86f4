"""Token ids to tokens: an embedding, positions, a class token; biases of relative positions; which
ids are padding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vitkit.models.options import check_option
from vitkit.nn import Alibi, RelativeBias, Rotary1d, Rotation, padding_mask, sincos_1d

__all__ = ["WordEmbed", "position_bias", "real_words"]

POSITIONS = ("learn", "sincos", "rotary", "alibi", "relative", "none")


class WordEmbed(nn.Module):
    """Token ids to tokens with positions, a class token in front if asked for.

    Args:
        vocab_size: number of different tokens; ids run from 0 to vocab_size - 1.
        embed_dim: C.
        max_len: longest sequence of tokens, the class token not counted.
        pos_embed: ``learn``, ``sincos`` (fixed), ``rotary`` (in the blocks), ``alibi`` or
            ``relative`` (on the scores, see :func:`position_bias`), or ``none``.
        class_token: prepend a learned token; it has its own position, and no rotary angle.
        head_dim: D, for ``rotary``.
        rope_base: base of the rotary wavelengths.
        std: of the normal that tokens and learned positions start from.
        scale: factor of the tokens, before positions are added.

    Raises:
        ValueError: an unknown position scheme.
    """

    def __init__(
        self,
        vocab_size: int,
        embed_dim: int,
        *,
        max_len: int,
        pos_embed: str = "learn",
        class_token: bool = False,
        head_dim: int = 64,
        rope_base: float = 10000.0,
        std: float = 0.02,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        check_option("pos_embed", pos_embed, POSITIONS)
        self.max_len, self.num_prefix_tokens, self.scale = max_len, int(class_token), scale
        self.tokens = nn.Embedding(vocab_size, embed_dim)
        nn.init.normal_(self.tokens.weight, std=std)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim)) if class_token else None
        rows = self.num_prefix_tokens + max_len
        self.pos_embed: nn.Parameter | Tensor | None
        if pos_embed == "learn":
            self.pos_embed = nn.Parameter(torch.empty(1, rows, embed_dim).normal_(std=std))
        elif pos_embed == "sincos":
            self.register_buffer("pos_embed", sincos_1d(rows, embed_dim)[None], persistent=False)
        else:
            self.pos_embed = None
        self.rotary = Rotary1d(head_dim, base=rope_base) if pos_embed == "rotary" else None

    def forward(self, ids: Tensor, offset: int = 0) -> Tensor:
        """Ids int (B, N) -> tokens (B, prefix + N, C).

        Args:
            ids: tokens.
            offset: tokens seen before these; only without a class token.

        Raises:
            ValueError: more tokens than ``max_len``.
        """
        self.check_length(offset + ids.shape[1])
        x = self.tokens(ids)
        x = x if self.scale == 1.0 else x * self.scale
        if self.cls_token is not None:
            x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        if self.pos_embed is None:
            return x
        return x + self.pos_embed[:, offset : offset + x.shape[1]]

    def rotation(self, count: int, offset: int = 0) -> Rotation | None:
        """Angles of the prefix and ``count`` tokens behind ``offset`` others.

        None unless positions are rotary.
        """
        if self.rotary is None:
            return None
        places = torch.arange(offset, offset + count, device=self.tokens.weight.device)
        return self.rotary(places).with_prefix(self.num_prefix_tokens)

    def check_length(self, count: int) -> None:
        """Refuse sequences longer than the model was built for.

        Args:
            count: tokens of the sequence, the class token not counted.

        Raises:
            ValueError: more than ``max_len``.
        """
        if count > self.max_len:
            raise ValueError(
                f"{count} tokens given to a model built for at most {self.max_len}; "
                "shorten the text or build the model with a larger max_len"
            )


def position_bias(
    pos_embed: str, num_heads: int, *, bidirectional: bool
) -> Alibi | RelativeBias | None:
    """What a position scheme adds to the scores of all blocks of a stack; None for most schemes.

    Args:
        pos_embed: ``alibi`` (arXiv 2108.12409), ``relative`` (T5's, arXiv 1910.10683), or one that
            adds nothing.
        num_heads: H.
        bidirectional: whether tokens see what follows.
    """
    if pos_embed == "alibi":
        return Alibi(num_heads)
    return RelativeBias(num_heads, bidirectional=bidirectional) if pos_embed == "relative" else None


def real_words(ids: Tensor, lengths: Tensor | None, pad_id: int | None) -> Tensor | None:
    """Which tokens are no padding: bool (B, N); None: all.

    Args:
        ids: tokens, int (B, N), padding behind the others.
        lengths: real tokens of each text, int (B,); None: all but ``pad_id``.
        pad_id: token that only fills up short texts; None: there is none.
    """
    if lengths is not None:
        return padding_mask(lengths, ids.shape[1])[:, 0, 0]
    return None if pad_id is None else ids != pad_id
