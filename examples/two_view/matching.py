"""Which pixel of one view shows what a pixel of the other shows."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["match_views", "reciprocal_matches"]


def reciprocal_matches(
    first: Tensor, second: Tensor, *, chunk: int = 4096
) -> tuple[Tensor, Tensor]:
    """Pairs that are each other's nearest by dot product.

    Args:
        first: (N, D) descriptors of length 1.
        second: (M, D).
        chunk: rows of ``first`` compared at once, so that memory stays at chunk x M.

    Returns:
        Rows of ``first`` and of ``second``, int64 (pairs,) each, the former rising.

    Source: Leroy et al., MASt3R, arXiv 2406.09756, section 3.3.
    """
    best = torch.full((len(second),), float("-inf"), dtype=first.dtype, device=first.device)
    backward = torch.zeros(len(second), dtype=torch.long, device=first.device)
    forward = []
    for start in range(0, len(first), chunk):
        scores = first[start : start + chunk] @ second.mT
        forward.append(scores.argmax(dim=1))
        value, row = scores.max(dim=0)
        better = value > best
        best = torch.where(better, value, best)
        backward = torch.where(better, row + start, backward)
    there = torch.cat(forward)
    rows = torch.arange(len(first), device=first.device)
    mutual = backward[there] == rows
    return rows[mutual], there[mutual]


def match_views(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Matching pixels of two descriptor maps (height, width, D) and (height', width', D).

    Returns:
        (row, column) of the matches in each view, int64 (pairs, 2) each.
    """
    rows, others = reciprocal_matches(first.flatten(0, 1), second.flatten(0, 1))
    return _places(rows, first.shape[1]), _places(others, second.shape[1])


def _places(index: Tensor, width: int) -> Tensor:
    return torch.stack([index // width, index % width], dim=1)
