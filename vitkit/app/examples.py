"""Which pictures of a split a report keeps, and where the model looks in some of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vitkit.app.subjects import Subject
from vitkit.app.suites import split_of
from vitkit.data.preprocess import resize_images
from vitkit.data.splits import ResidentSplit, Split
from vitkit.errors import VitkitError
from vitkit.evaluation.classification import Predictions
from vitkit.evaluation.cost import count_parameters
from vitkit.explain import attention_maps, relevance
from vitkit.explain.anatomy import anatomy_of
from vitkit.records import ExampleRecord
from vitkit.report.classes import MOST_CLASSES, MOST_PAIRS

__all__ = ["Choice", "chosen_maps", "examples_of", "pictures_of_cells", "rows_with_buttons"]

A_CELL = 24
"""Most pictures of one cell of the confusion matrix."""

MOST_PICTURES = 1200
MOST_DECODED = 150
"""Of pictures that must be read from files one by one."""

MOST_PIXELS = 1_300_000
SMALL, LARGE = 64, 160
"""Longer sides of thumbnails and of scenes, at most."""

MOST_SCENES, ENOUGH_SCENES, FEWEST_SCENES = 24, 12, 4
MOST_WEIGHTS = 3_000_000
"""Attention weights that are kept: a byte each here, four thirds in the page."""

FEW = 4
"""Layers and heads that stay where there are too many for that."""

EFFORT = 1.5e10
"""Parameters times tokens, over all scenes: about two seconds of two CPU cores."""

AT_A_TIME = 4


@dataclass(frozen=True)
class Choice:
    """What is kept of a model's attention.

    Attributes:
        layers, heads: which, from 0.
        scenes: in how many pictures.
    """

    layers: tuple[int, ...]
    heads: tuple[int, ...]
    scenes: int


def examples_of(subject: Subject, predictions: Predictions, split: str) -> ExampleRecord:
    """What ``examples.npz`` holds: the same for the same model and images.

    Args:
        subject: the model.
        predictions: of every image of the split.
        split: ``test`` or ``val``.
    """
    images = split_of(subject, split)
    logits, targets = predictions.logits, predictions.targets.numpy()
    best = torch.cat([part.softmax(1).max(1).values for part in logits.split(4096)])
    predicted, confidence = logits.argmax(1).numpy(), best.numpy()
    most = _most_pictures(images, subject.preprocessing.img_size)
    own = rows_with_buttons(predicted, targets, logits.shape[1])
    rows = own[
        pictures_of_cells(predicted[own], targets[own], confidence[own], logits.shape[1], most)
    ]
    choice = _choice_for(subject)
    scenes_wanted = choice.scenes if choice else MOST_SCENES
    close = _looked_at_closely(predicted, targets, confidence, scenes_wanted)
    places = predictions.indices.numpy()
    scenes = _pixels(images, places[close])
    looks = _looks(subject, scenes, torch.from_numpy(predicted[close]), choice)
    return ExampleRecord(
        indices=places[rows],
        targets=targets[rows],
        pictures=_shrunk(_pixels(images, places[rows]), SMALL),
        studied=places[close],
        scenes=_shrunk(scenes, LARGE),
        **looks,
    )


def rows_with_buttons(
    predicted: NDArray[np.int64], targets: NDArray[np.int64], num_classes: int
) -> NDArray[np.int64]:
    """Rows of the images of those cells that the page has buttons for, ascending: all cells of a
    matrix, and of more classes than a matrix holds the fullest wrong ones.

    Args:
        predicted, targets: classes (N,).
        num_classes: how many there are.
    """
    wrong = predicted != targets
    if num_classes <= MOST_CLASSES or not wrong.any():
        return np.arange(len(targets))
    cell = targets * num_classes + predicted
    cells, counts = np.unique(cell[wrong], return_counts=True)
    shown = cells[np.argsort(-counts, kind="stable")[:MOST_PAIRS]]
    return np.flatnonzero(np.isin(cell, shown))


def pictures_of_cells(
    predicted: NDArray[np.int64],
    targets: NDArray[np.int64],
    confidence: NDArray[np.floating[Any]],
    num_classes: int,
    most: int,
) -> NDArray[np.int64]:
    """Rows of some images of every cell of the confusion matrix, ascending.

    Of a wrong cell the most confident come first, of a right one the least. If all cells together
    are too many, each gets fewer; if one each is too many, the fullest wrong cells are served.

    Args:
        predicted, targets: classes (N,).
        confidence: probability of the predicted class (N,).
        num_classes: how many there are.
        most: pictures in all.
    """
    cell = targets * num_classes + predicted
    right = predicted == targets
    order = np.lexsort((np.where(right, confidence, -confidence), cell))
    _, starts, counts = np.unique(cell[order], return_index=True, return_counts=True)
    rank = np.arange(len(order)) - np.repeat(starts, counts)
    size = np.repeat(counts, counts)
    each = max((n for n in range(1, A_CELL + 1) if np.minimum(counts, n).sum() <= most), default=0)
    if each:
        return np.sort(order[rank < each])
    first = rank == 0
    kept, sizes = order[first], size[first]
    fullest = np.lexsort((-sizes, right[kept]))
    return np.sort(kept[fullest[:most]])


def chosen_maps(layers: int, heads: int, tokens: int, parameters: int = 0) -> Choice | None:
    """As many pictures as the page has room for, with fewer layers and heads if there are many;
    None where one map alone is too large.

    Args:
        layers, heads, tokens: of the model.
        parameters: its size, by which pictures cost time.
    """
    kept_layers, kept_heads = _spread(layers, layers), _spread(heads, heads)
    a_map = tokens * tokens
    fit = MOST_WEIGHTS // (heads * a_map * ENOUGH_SCENES)
    if fit < layers:
        kept_layers = _spread(layers, max(FEW, fit))
    if len(kept_layers) * heads * a_map * FEWEST_SCENES > MOST_WEIGHTS:
        kept_heads = _spread(heads, FEW)
    few = FEW
    while len(kept_layers) * len(kept_heads) * a_map > MOST_WEIGHTS:
        if not (few := few - 1):
            return None
        kept_layers, kept_heads = _spread(layers, few), _spread(heads, few)
    room = MOST_WEIGHTS // (len(kept_layers) * len(kept_heads) * a_map)
    time = int(EFFORT / max(parameters * tokens, 1))
    scenes = min(MOST_SCENES, room, max(FEWEST_SCENES, time))
    return Choice(kept_layers, kept_heads, scenes)


def _spread(count: int, wanted: int) -> tuple[int, ...]:
    """Some of so many numbers, evenly, the first and the last among them; of one the last."""
    if wanted >= count:
        return tuple(range(count))
    if wanted == 1:
        return (count - 1,)
    return tuple(int(place) for place in np.linspace(0, count - 1, wanted).round())


def _most_pictures(images: Split, size: tuple[int, int]) -> int:
    height, width = _fitting(size, SMALL)
    most = min(MOST_PICTURES, MOST_PIXELS // (height * width))
    return most if isinstance(images, ResidentSplit) else min(most, MOST_DECODED)


def _looked_at_closely(
    predicted: NDArray[np.int64],
    targets: NDArray[np.int64],
    confidence: NDArray[np.floating[Any]],
    count: int,
) -> NDArray[np.int64]:
    """Rows of the most confident mistakes, then of right answers, a class after the other."""
    order = np.argsort(-confidence, kind="stable")
    wrong = order[predicted[order] != targets[order]]
    right = order[predicted[order] == targets[order]]
    seen: dict[int, int] = {}
    turns = np.empty(len(right), dtype=np.int64)
    for place, target in enumerate(targets[right].tolist()):
        turns[place] = seen.get(target, 0)
        seen[target] = turns[place] + 1
    right = right[np.lexsort((targets[right], turns))]
    mistakes = max(count - len(right), (count + 1) // 2)
    kept = wrong[:mistakes]
    return np.concatenate([kept, right[: count - len(kept)]])


def _pixels(images: Split, places: NDArray[np.int64]) -> Tensor:
    """uint8 (P, channels, height, width)."""
    chosen = torch.from_numpy(places)
    if isinstance(images, ResidentSplit):
        return images.take(chosen.to(images.images.device)).cpu()
    if not len(places):
        return torch.empty((0, *images[0][0].shape), dtype=torch.uint8)
    return torch.stack([images[int(place)][0] for place in places])


def _shrunk(pixels: Tensor, longest: int) -> NDArray[np.uint8]:
    """uint8 (P, channels, height, width) -> (P, height, width, channels), no longer than that."""
    shown = pixels if pixels.shape[1] in (1, 3) else pixels[:, :1]
    height, width = int(shown.shape[2]), int(shown.shape[3])
    size = _fitting((height, width), longest)
    small = resize_images(shown, size) if len(shown) else shown[..., : size[0], : size[1]]
    array: NDArray[np.uint8] = small.permute(0, 2, 3, 1).contiguous().numpy()
    return array


def _fitting(size: tuple[int, int], longest: int) -> tuple[int, int]:
    share = min(1.0, longest / max(size))
    return max(1, round(size[0] * share)), max(1, round(size[1] * share))


def _choice_for(subject: Subject) -> Choice | None:
    """None where the model has no attention that can be read."""
    model = subject.model
    try:
        layers = len(anatomy_of(model).attending())
        size = subject.preprocessing.img_size
        blank = torch.zeros(1, subject.preprocessing.in_chans, *size, device=subject.device)
        heads, tokens = attention_maps(model, blank, layers=[0]).shape[2:4]
    except VitkitError:
        return None
    return chosen_maps(layers, heads, tokens, count_parameters(model))


def _looks(
    subject: Subject, pixels: Tensor, predicted: Tensor, choice: Choice | None
) -> dict[str, NDArray[Any]]:
    """Maps and relevance, by the names that the record has for them."""
    count = len(pixels)
    empty: dict[str, NDArray[Any]] = {
        "layers": np.zeros(0, dtype=np.int64),
        "heads": np.zeros(0, dtype=np.int64),
        "grid": np.zeros(2, dtype=np.int64),
        "maps": np.zeros((count, 0, 0, 0, 0), dtype=np.uint8),
        "peaks": np.zeros((count, 0, 0, 0), dtype=np.float32),
        "relevance": np.zeros((count, 0, 0), dtype=np.float16),
    }
    if choice is None or not count:
        return empty
    parts = list(zip(pixels.split(AT_A_TIME), predicted.split(AT_A_TIME), strict=True))
    try:
        seen = [_maps(subject, images, choice) for images, _ in parts]
        anatomy = anatomy_of(subject.model)
        grid = anatomy.grid(subject.preprocessing(pixels[:1].to(subject.device)))
    except VitkitError:
        return empty
    found = {
        "layers": np.array(choice.layers, dtype=np.int64),
        "heads": np.array(choice.heads, dtype=np.int64),
        "grid": np.array(grid, dtype=np.int64),
        "fronts": np.array(anatomy.prefix_names, dtype=np.str_),
        "maps": np.concatenate([maps for maps, _ in seen]),
        "peaks": np.concatenate([peaks for _, peaks in seen]),
    }
    try:
        speaks = [_relevance(subject, images, classes) for images, classes in parts]
        found["relevance"] = np.concatenate(speaks)
    except VitkitError:  # such as blocks that mix tokens without attention
        pass
    return empty | found


def _maps(
    subject: Subject, images: Tensor, choice: Choice
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Weights as 255ths of each row's largest, and these."""
    inputs = subject.preprocessing(images.to(subject.device))
    weights = attention_maps(subject.model, inputs, layers=choice.layers)[:, :, list(choice.heads)]
    peaks = weights.amax(-1)
    shares = weights / peaks.clamp(min=torch.finfo(peaks.dtype).tiny)[..., None]
    maps: NDArray[np.uint8] = (255 * shares).round().to(torch.uint8).cpu().numpy()
    largest: NDArray[np.float32] = peaks.float().cpu().numpy()
    return maps, largest


def _relevance(subject: Subject, images: Tensor, classes: Tensor) -> NDArray[np.float16]:
    """Of the predicted class, each picture's largest being 1."""
    model: nn.Module = subject.model
    found = relevance(
        model, subject.preprocessing(images.to(subject.device)), classes.to(subject.device)
    )
    most = found.flatten(1).amax(1).clamp(min=torch.finfo(found.dtype).tiny)
    scaled: NDArray[np.float16] = (found / most[:, None, None]).cpu().numpy().astype(np.float16)
    return scaled
