"""Attention maps out of any layer while every layer keeps its fast kernel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial

from torch import Tensor, nn

from vitkit.nn.attention import Attention

__all__ = ["record_attention"]

Layer = int | str


@contextmanager
def record_attention(
    model: nn.Module, layers: Iterable[Layer] | None = None
) -> Iterator[dict[Layer, Tensor]]:
    """Record the attention weights of some layers during the forward passes in the ``with`` block.

    The recorded layers compute their weights beside the fast kernel, so no output changes, not by a
    bit; the other layers are not touched.

    Args:
        model: any module that holds :class:`vitkit.nn.Attention` layers.
        layers: which of them: numbers in the order of ``model.modules()``, negative ones from the
            end, or names of ``model.named_modules()`` such as ``decoder.0.cross_attn``; None
            records all.

    Yields:
        A dict that fills during the forward pass: layer -> float32 (B, H, N, M), detached, of the
        newest pass. Keys are the layers as given; numbers where none were given. M differs from N
        in cross attention and with a cache.

    Raises:
        ValueError: the model has no attention of ours, or no such layer.
    """
    found = {name: m for name, m in model.named_modules() if isinstance(m, Attention)}
    if not found:
        raise ValueError(f"{type(model).__name__} has no vitkit.nn.Attention layer to record")
    wanted: list[Layer] = list(range(len(found))) if layers is None else list(layers)
    keys: dict[Attention, list[Layer]] = {}
    for layer in wanted:
        keys.setdefault(_layer(found, layer), []).append(layer)
    maps: dict[Layer, Tensor] = {}
    before = [(module, module.recorder) for module in keys]
    for module, own in keys.items():
        module.recorder = partial(_keep, maps, own)
    try:
        yield maps
    finally:
        for module, recorder in before:
            module.recorder = recorder


def _keep(maps: dict[Layer, Tensor], keys: list[Layer], weights: Tensor) -> None:
    maps.update(dict.fromkeys(keys, weights.detach()))


def _layer(found: dict[str, Attention], layer: Layer) -> Attention:
    if isinstance(layer, str):
        if layer not in found:
            raise ValueError(f"no attention layer {layer!r}; allowed: {', '.join(found)}")
        return found[layer]
    if not -len(found) <= layer < len(found):
        raise ValueError(
            f"attention layer {layer} does not exist; allowed: {-len(found)} to {len(found) - 1}"
        )
    return list(found.values())[layer]
