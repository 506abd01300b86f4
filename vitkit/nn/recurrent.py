"""Recurrent layers over tokens: torch's RNN, LSTM and GRU with padding, state, directions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

__all__ = ["CELLS", "Recurrent", "RecurrentState", "real_tokens"]

CELLS: dict[str, Callable[..., nn.RNNBase]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
"""Kinds of recurrence: tanh RNN (Elman, 1990), LSTM (Hochreiter & Schmidhuber, 1997), GRU (Cho et
al., arXiv 1406.1078)."""


class RecurrentState:
    """What a recurrent layer carries from one call to the next.

    Args:
        state: to start from, (layers x directions, B, hidden) each: one tensor, or LSTM's two.

    Attributes:
        state: what was left behind; None before the first token.
    """

    def __init__(self, state: tuple[Tensor, ...] | None = None) -> None:
        self.state = state

    def select(self, rows: Tensor) -> None:
        """Keep the batch rows ``rows`` (int (B',)), in that order."""
        if self.state is not None:
            self.state = tuple(part[:, rows] for part in self.state)


class Recurrent(nn.Module):
    """A stack of recurrent layers that reads tokens one after the other.

    Args:
        input_dim: width of the tokens.
        hidden_dim: width of the state in each direction.
        cell: ``rnn``, ``lstm`` or ``gru``.
        depth: number of layers.
        bidirectional: read from both ends; outputs lie side by side.
        drop: dropout between layers, in training.

    Attributes:
        output_dim: width of the outputs: hidden_dim, twice that in both directions.

    Raises:
        ValueError: an unknown cell.
    """

    def __init__(
        self,
        input_dim: int,
        hidden_dim: int,
        *,
        cell: str = "lstm",
        depth: int = 1,
        bidirectional: bool = False,
        drop: float = 0.0,
    ) -> None:
        super().__init__()
        if cell not in CELLS:
            raise ValueError(f"cell {cell!r}; allowed: {', '.join(map(repr, CELLS))}")
        self.bidirectional = bidirectional
        self.output_dim = hidden_dim * (2 if bidirectional else 1)
        # torch warns about a rate that one layer cannot use.
        self.rnn = CELLS[cell](
            input_dim,
            hidden_dim,
            num_layers=depth,
            batch_first=True,
            dropout=drop if depth > 1 else 0.0,
            bidirectional=bidirectional,
        )

    def forward(
        self, x: Tensor, *, real: Tensor | None = None, state: RecurrentState | None = None
    ) -> Tensor:
        """Read tokens in their order.

        Args:
            x: (B, N, input_dim).
            real: which tokens are no padding, bool (B, N); padding stands behind the others and is
                not read.
            state: where to start, and where the state after each text's last token is left.

        Returns:
            (B, N, output_dim); zeros at padding. Under autocast on a CPU in the weights' dtype.

        Raises:
            ValueError: padding in front of a token, or a reader of both directions that should go
                on from a state: it has seen the end already.
        """
        if x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            # Not every CPU has an LSTM in autocast's dtype: the weights' own is kept.
            with torch.autocast("cpu", enabled=False):
                dtype = next(self.rnn.parameters()).dtype
                out: Tensor = self(x.to(dtype), real=real, state=state)
                return out
        before = None if state is None or state.state is None else state.state
        if before is not None and self.bidirectional:
            raise ValueError(
                "a recurrent layer of both directions cannot go on from a state; take one direction"
            )
        # LSTM's state is a pair, the others' a tensor.
        given = before[0] if before is not None and len(before) == 1 else before
        if real is None:
            out, after = self.rnn(x, given)
        else:
            out, after = self._packed(x, real, given)
        if state is not None:
            state.state = after if isinstance(after, tuple) else (after,)
        return out

    def _packed(
        self, x: Tensor, real: Tensor, given: Tensor | tuple[Tensor, ...] | None
    ) -> tuple[Tensor, Tensor | tuple[Tensor, ...]]:
        if bool((real[:, 1:] & ~real[:, :-1]).any()):
            raise ValueError("padding in front of a token; a recurrent layer wants it behind")
        lengths = real.sum(dim=1).cpu()
        if bool((lengths == x.shape[1]).all()):
            out, after = self.rnn(x, given)  # quicker than packed
            return out, after
        # A text of nothing is read as one token, and its output cleared: torch refuses length 0.
        packed = pack_padded_sequence(
            x, lengths.clamp(min=1), batch_first=True, enforce_sorted=False
        )
        out, after = self.rnn(packed, given)
        out, _ = pad_packed_sequence(out, batch_first=True, total_length=x.shape[1])
        empty = bool((lengths == 0).any())
        return (out.masked_fill(~real[:, :, None], 0.0) if empty else out), after


def real_tokens(mask: Tensor | None, batch: int) -> Tensor | None:
    """Which tokens a padding mask, bool (B or 1, 1, 1, N), leaves: bool (B, N); None: all.

    Raises:
        ValueError: a mask that is no padding mask.
    """
    if mask is None:
        return None
    if mask.dtype != torch.bool or mask.ndim != 4 or mask.shape[1] != 1 or mask.shape[2] != 1:
        raise ValueError(
            "a recurrent block reads in order and keeps padding masks alone, bool (B, 1, 1, N), "
            f"given {tuple(mask.shape)}; take attention blocks"
        )
    return mask[:, 0, 0].expand(batch, -1)
