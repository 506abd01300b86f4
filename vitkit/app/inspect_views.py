"""What is looked at inside a model: its weights, and one picture on the way through it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from vitkit.errors import EvaluationError
from vitkit.explain import (
    attention_distance,
    attention_entropy,
    attention_maps,
    attention_rollout,
    class_token_similarity,
    grad_cam,
    patch_filters,
    position_similarity,
    relevance,
    token_norms,
)
from vitkit.explain.anatomy import Anatomy
from vitkit.explain.pictures import TWO_SIDED, as_picture, heat, overlay, points, tiles

__all__ = ["Views", "embedding_plot", "heads_plot", "views_of_picture", "views_of_weights"]

Array = NDArray[Any]

TILE = 72
"""Longer side of a small map in pixels."""
A_ROW = 6
"""Maps side by side, where they are a list."""
FILTERS_A_ROW = 7
MOST_PLACES = 14
"""Rows and columns of places whose likeness is drawn; of larger grids every second, third, ..."""
OVER = {"rollout": "rollout", "relevance": "relevance", "grad_cam": "Grad-CAM"}
"""Arrays that are drawn over the picture, and what is written above them."""


@dataclass(frozen=True)
class Views:
    """What was seen.

    Attributes:
        numbers: arrays by name.
        pictures: drawings of them by name.
        notes: what could not be seen, and why.
    """

    numbers: dict[str, Array] = field(default_factory=dict)
    pictures: dict[str, Image.Image] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def views_of_weights(model: nn.Module) -> Views:
    """Filters and likeness of positions: what depends on no picture.

    ``filters`` (K, channels, height, width), ``filter_shares`` (K,), ``positions`` (rows, columns,
    rows, columns), as far as the model has them.
    """
    seen = Views()
    try:
        filters = patch_filters(model)
        seen.numbers["filters"] = _array(filters.components)
        seen.numbers["filter_shares"] = _array(filters.shares)
        seen.pictures["filters"] = _filter_tiles(seen.numbers["filters"])
    except EvaluationError as error:
        seen.notes.append(f"filters: {error}")
    try:
        seen.numbers["positions"] = _array(position_similarity(model))
        seen.pictures["positions"] = _position_tiles(seen.numbers["positions"])
    except EvaluationError as error:
        seen.notes.append(f"positions: {error}")
    return seen


def views_of_picture(
    anatomy: Anatomy,
    image: Tensor,
    given: Tensor,
    target: int,
    layers: Sequence[int],
    rolling: Mapping[str, Any],
) -> Views:
    """One picture on the way through a model with attention.

    ``attention`` (L, H, rows, columns): where the class token looks, or the patches on average
    where the head reads those; ``attention_distance`` (L, H) in pixels, ``attention_entropy``
    (L, H) in nats; ``rollout``, ``relevance``, ``grad_cam`` (rows, columns); ``similarity``
    (blocks, rows, columns); ``token_norms`` (blocks, N).

    Args:
        anatomy: of the model.
        image: uint8 (channels, height, width).
        given: the model's input, float (1, channels, height, width).
        target: class whose relevance is asked for.
        layers: attention layers to show.
        rolling: settings of the rollout.
    """
    seen, model = Views(), anatomy.model
    maps = attention_maps(model, given, layers)[0]
    looks = maps[..., 0, :] if anatomy.num_read else maps[..., anatomy.num_prefix :, :].mean(-2)
    rows, columns = grid = anatomy.grid(given)
    cell = (given.shape[-2] / rows, given.shape[-1] / columns)
    seen.numbers["attention"] = _array(anatomy.on_grid(looks, given))
    seen.numbers["attention_distance"] = _array(attention_distance(maps, grid, cell))
    seen.numbers["attention_entropy"] = _array(attention_entropy(maps))
    seen.numbers["similarity"] = _array(class_token_similarity(model, given)[0])
    seen.numbers["token_norms"] = _array(token_norms(model, given)[0])
    targets = torch.tensor([target], device=given.device)
    views: dict[str, Callable[[], Tensor]] = {
        "grad_cam": lambda: grad_cam(model, given, targets),
        "relevance": lambda: relevance(model, given, targets),
        "rollout": lambda: attention_rollout(model, given, **rolling),
    }
    for name, view in views.items():
        try:
            seen.numbers[name] = _array(view()[0])
        except EvaluationError as error:
            seen.notes.append(str(error))
    lengths = seen.numbers["token_norms"][:, anatomy.num_prefix :].reshape(-1, rows, columns)
    seen.pictures.update(_drawn(seen.numbers, lengths, image, layers))
    return seen


def _drawn(
    numbers: dict[str, Array], lengths: Array, image: Tensor, layers: Sequence[int]
) -> dict[str, Image.Image]:
    """The numbers of one picture, drawn; ``lengths`` of patch tokens (blocks, rows, columns)."""
    picture = as_picture(image.cpu().numpy())
    over = [name for name in OVER if name in numbers]
    heads = numbers["attention"]
    return {
        "overview": tiles(
            [[picture, *(overlay(picture, numbers[name]) for name in over)]],
            column_names=["picture", *(OVER[name] for name in over)],
        ),
        "heads": tiles(
            [[_tile(head) for head in layer] for layer in heads],
            [f"layer {index}" for index in layers],
            [f"head {index}" for index in range(heads.shape[1])],
        ),
        "similarity": _wrapped([_tile(one, two_sided=True) for one in numbers["similarity"]]),
        "norms": _wrapped([_tile(one) for one in lengths]),
    }


def heads_plot(values: Array, layers: Sequence[int], label: str) -> Image.Image:
    """A number of each head over depth: (L, H), of these layers, by its name and unit."""
    heads = values.shape[1]
    places = [(layer, values[i, h]) for i, layer in enumerate(layers) for h in range(heads)]
    return points(
        np.array(places, dtype=np.float64),
        [h for _ in layers for h in range(heads)],
        [f"head {h}" for h in range(heads)],
        labels=("layer", label),
        radius=4.0,
    )


def embedding_plot(
    places: Array, targets: Sequence[int], names: Sequence[str], method: str
) -> Image.Image:
    """A data set as points (n, 2), a colour a class."""
    return points(places, targets, names, labels=(f"{method} 1", f"{method} 2"))


def _array(tensor: Tensor) -> Array:
    array: Array = tensor.detach().float().cpu().numpy()
    return array


def _tile(values: Array, *, two_sided: bool = False, side: int = TILE) -> Image.Image:
    """A small map; two-sided ones run from -1 to 1."""
    factor = max(1, side // max(values.shape))
    size = (values.shape[0] * factor, values.shape[1] * factor)
    if two_sided:
        return heat(values, size, low=-1.0, high=1.0, colors=TWO_SIDED)
    return heat(values, size)


def _wrapped(pictures: list[Image.Image], count: int = A_ROW) -> Image.Image:
    """A list of pictures in rows, each row named by the block it begins with."""
    starts = range(0, len(pictures), count)
    return tiles(
        [pictures[start : start + count] for start in starts],
        [f"block {start}" for start in starts],
        [f"+{index}" for index in range(min(count, len(pictures)))],
    )


def _filter_tiles(filters: Array) -> Image.Image:
    """Each filter in colours (or grey), its own smallest value black and its largest white."""
    pictures = []
    for values in filters:
        shown = values if len(values) == 3 else values.mean(axis=0, keepdims=True)
        low, high = shown.min(), shown.max()
        pixels = (255 * (shown - low) / max(high - low, 1e-12)).round().astype(np.uint8)
        pictures.append(as_picture(pixels, least=TILE))
    starts = range(0, len(pictures), FILTERS_A_ROW)
    return tiles([pictures[start : start + FILTERS_A_ROW] for start in starts])


def _position_tiles(likeness: Array) -> Image.Image:
    """A map for each place, laid out as the places are."""
    rows, columns = likeness.shape[:2]
    step = max(1, -(-max(rows, columns) // MOST_PLACES))
    return tiles(
        [
            [_tile(likeness[r, c], two_sided=True, side=TILE // 2) for c in range(0, columns, step)]
            for r in range(0, rows, step)
        ],
        [f"row {r}" for r in range(0, rows, step)],
        [str(c) for c in range(0, columns, step)],
    )
