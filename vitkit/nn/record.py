"""Attention maps out of any layer while every layer keeps its fast kernel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from vitkit.nn.attention import Attention

__all__ = ["record_attention"]


@contextmanager
def record_attention(
    model: nn.Module, layers: Iterable[int] | None = None
) -> Iterator[dict[int, Tensor]]:
    """Record the attention weights of some layers during the forward passes in the ``with`` block.

    The recorded layers compute their weights beside the fast kernel, so no output changes; the
    other layers are not touched.

    Args:
        model: any module that holds :class:`vitkit.nn.Attention` layers.
        layers: which of them, counted in the order of ``model.modules()``; negative counts from
            the end; None records all.

    Yields:
        A dict that fills during the forward pass: layer index -> float32 (B, H, N, M), detached,
        of the newest pass. Keys are the indices as given.

    Raises:
        ValueError: the model has no attention of ours, or fewer layers than asked for.
    """
    found = [module for module in model.modules() if isinstance(module, Attention)]
    if not found:
        raise ValueError(f"{type(model).__name__} has no vitkit.nn.Attention layer to record")
    wanted = range(len(found)) if layers is None else list(layers)
    for index in wanted:
        if not -len(found) <= index < len(found):
            raise ValueError(
                f"attention layer {index} does not exist; "
                f"allowed: {-len(found)} to {len(found) - 1}"
            )
    maps: dict[int, Tensor] = {}
    before = [(found[index], found[index].recorder) for index in wanted]
    for index in wanted:
        found[index].recorder = lambda weights, index=index: maps.update({index: weights.detach()})
    try:
        yield maps
    finally:
        for module, recorder in before:
            module.recorder = recorder
