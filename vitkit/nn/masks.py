"""Masks are data. Bool: True = may attend, everywhere in vitkit. Float: added to the scores.

``torch.nn.MultiheadAttention`` has the opposite sense for bool masks; its users must invert.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["causal_mask", "check_mask", "combine_masks", "padding_mask", "window_mask"]


def causal_mask(
    num_queries: int, num_keys: int | None = None, *, device: torch.device | str | None = None
) -> Tensor:
    """Query i sees keys up to M - N + i: aligned at the end, so the newest query sees all keys.

    Args:
        num_queries: N.
        num_keys: M; N unless given.

    Returns:
        bool (N, M). Where N > M the first N - M rows are empty.
    """
    num_keys = num_queries if num_keys is None else num_keys
    ones = torch.ones(num_queries, num_keys, dtype=torch.bool, device=device)
    return ones.tril(num_keys - num_queries)


def padding_mask(lengths: Tensor, num_keys: int) -> Tensor:
    """Keys beyond each example's length are hidden.

    Args:
        lengths: int (B,), number of real tokens.
        num_keys: M, the padded length.

    Returns:
        bool (B, 1, 1, M).
    """
    places = torch.arange(num_keys, device=lengths.device)
    return (places < lengths[:, None])[:, None, None, :]


def window_mask(
    num_queries: int,
    num_keys: int | None = None,
    *,
    before: int,
    after: int = 0,
    device: torch.device | str | None = None,
) -> Tensor:
    """Each query sees ``before`` keys to its left, itself, and ``after`` keys to its right.

    Queries and keys are aligned at the end, as in :func:`causal_mask`.

    Returns:
        bool (N, M).

    Source: Beltagy et al., "Longformer", arXiv 2004.05150 (sliding window).
    """
    num_keys = num_queries if num_keys is None else num_keys
    query = torch.arange(num_queries, device=device)[:, None] + (num_keys - num_queries)
    key = torch.arange(num_keys, device=device)[None, :]
    return (key >= query - before) & (key <= query + after)


def check_mask(mask: Tensor) -> None:
    """Refuse a mask that does not say whether it allows or adds.

    Raises:
        ValueError: a mask of whole numbers.
    """
    if mask.dtype != torch.bool and not mask.dtype.is_floating_point:
        raise ValueError(
            f"a mask of {mask.dtype}; allowed: bool (True = may attend) or float, which is added "
            "to the scores"
        )


def combine_masks(*masks: Tensor | None) -> Tensor | None:
    """A query may attend where every mask allows it; float masks add up.

    Args:
        masks: bool or float masks that broadcast against each other; None is skipped.

    Returns:
        None if all are None, bool if all are bool, else float with -inf where a bool mask forbids.

    Raises:
        ValueError: a mask of whole numbers.
    """
    given = [mask for mask in masks if mask is not None]
    for mask in given:
        check_mask(mask)
    if len(given) < 2:
        return given[0] if given else None
    bools = [mask for mask in given if mask.dtype == torch.bool]
    floats = [mask for mask in given if mask.dtype != torch.bool]
    allowed: Tensor | None = None
    for mask in bools:
        allowed = mask if allowed is None else allowed & mask
    if not floats:
        return allowed
    total = floats[0]
    for mask in floats[1:]:
        total = total + mask
    if allowed is None:
        return total
    total, allowed = torch.broadcast_tensors(total, allowed)
    return total.masked_fill(~allowed, float("-inf"))
