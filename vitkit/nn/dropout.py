"""Dropout that does not wait for its random numbers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Dropout", "dropout", "dropout_or_none", "through"]

LEVELS = 1 << 16
"""Values of a random number of 16 bits: a rate is rounded to one of them."""


class Dropout(nn.Dropout):
    """:class:`torch.nn.Dropout` by :func:`dropout`."""

    def forward(self, input: Tensor) -> Tensor:
        """The same shape; in evaluation the same tensor."""
        return dropout(input, self.p) if self.training else input


def dropout_or_none(p: float) -> Dropout | None:
    """A dropout, or None where it would drop nothing: a call of a layer that does nothing costs a
    small model as much time as an addition.
    """
    return Dropout(p) if p > 0.0 else None


def through(layer: nn.Module | None, x: Tensor) -> Tensor:
    """What the layer makes of x; x itself where there is none."""
    return x if layer is None else layer(x)


def dropout(x: Tensor, p: float) -> Tensor:
    """Set each value to zero with probability ``p`` and divide the others by ``1 - p``.

    On a CPU torch draws 64 random bits for each value, in one thread. Here four values share them,
    several times as fast: ``p`` is rounded to a multiple of 2^-16 there, for what is left as for
    what is dropped. Elsewhere, and where a compiler makes one kernel of it, it is torch's.

    Args:
        x: floats of any shape.
        p: from 0 to 1.

    Source: Srivastava et al., "Dropout", JMLR 15, 2014.
    """
    dropped = round(p * LEVELS)
    if x.device.type != "cpu" or torch.compiler.is_compiling() or dropped in (0, LEVELS):
        return F.dropout(x, p)
    keep = (_numbers(x.numel(), x.device) >= dropped - LEVELS // 2).view(x.shape)
    # Scaled afterwards: as a value of the mask the scale would be rounded in bfloat16.
    return (x * keep.to(x.dtype)).mul_(LEVELS / (LEVELS - dropped))


def _numbers(count: int, device: torch.device) -> Tensor:
    """Random numbers of 16 bits, (count,) int16, all values equally likely."""
    drawn = torch.empty(-(-count // 4), dtype=torch.int64, device=device).random_(-(2**63), None)
    return drawn.view(torch.int16)[:count]
