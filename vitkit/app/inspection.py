"""Look inside a trained model: numbers and pictures of what it does, written beside its run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitkit.app.batches import features_of
from vitkit.app.devices import memory_advice
from vitkit.app.inspect_views import (
    Views,
    embedding_plot,
    heads_plot,
    views_of_picture,
    views_of_weights,
)
from vitkit.app.inspected import opened_to_inspect
from vitkit.app.leavings import DRAWINGS, INSPECTED
from vitkit.app.predictor import Predictor, picture_files, read_picture
from vitkit.app.sources import Source, opened_source
from vitkit.app.subjects import Subject
from vitkit.app.suites import split_of
from vitkit.config import Overrides, override_words
from vitkit.errors import ConfigError, RunError, UnknownNameError
from vitkit.explain import FUSIONS, METHODS, ShapeStep, embedding_map, pooled_features, token_shapes
from vitkit.explain.anatomy import Anatomy, anatomy_of, chosen_layers
from vitkit.records import Plain, Record, Table, write_arrays, write_beside
from vitkit.weights import Checkpoint

__all__ = ["BlockSummary", "Inspection", "SeenPicture", "inspect"]

Array = NDArray[Any]
STEM = 60
"""Letters of a picture's name that go into those of its drawings: a file's name has 255 bytes."""

EMBEDDED = 2000
"""Most images of a data set that are laid out; more are sampled evenly."""


@dataclass(frozen=True)
class SeenPicture:
    """One picture and what the model says of it.

    Attributes:
        source: the file.
        top: (class name, probability), best first; three at most.
        explained: class that the relevance is for.
    """

    source: str
    top: tuple[tuple[str, float], ...]
    explained: str


@dataclass(frozen=True)
class BlockSummary:
    """One block, on average over the pictures.

    Attributes:
        block: its number.
        patch_norm: mean length of the patch tokens behind it.
        largest_norm: length of the longest patch token.
        class_norm: length of the class token; None without one.
        distances: mean attention distance of each head in pixels; empty where it was not asked for
            or the block has no attention.
        entropies: mean attention entropy of each head in nats; likewise.
    """

    block: int
    patch_norm: float
    largest_norm: float
    class_norm: float | None
    distances: tuple[float, ...] = ()
    entropies: tuple[float, ...] = ()


@dataclass(frozen=True)
class Inspection:
    """What an inspection found.

    Attributes:
        folder: where it was written.
        written: the files, sorted.
        checkpoint: whose weights they are.
        weights_name: ``trained`` or ``averaged``.
        model: its name.
        shapes: as they flow through the model.
        pictures: in the order given.
        blocks: summaries; empty without pictures.
        notes: how the weights were read, and what could not be looked at, and why.
        numbers: all arrays, as in ``inspect.npz``.
    """

    folder: Path
    written: tuple[Path, ...]
    checkpoint: Path
    weights_name: str
    model: str
    shapes: tuple[ShapeStep, ...]
    pictures: tuple[SeenPicture, ...]
    blocks: tuple[BlockSummary, ...]
    notes: tuple[str, ...]
    numbers: dict[str, Array]


def inspect(
    source: Source,
    pictures: Sequence[str | Path] | str | Path = (),
    overrides: Overrides = (),
    *,
    out: str | Path | None = None,
    layers: Sequence[int] | None = None,
    target: str | int | None = None,
    fusion: str | None = None,
    discard: float | None = None,
    embedding: str | None = None,
    progress: bool = True,
) -> Inspection:
    """Look inside a model and write what is seen: pictures, ``inspect.npz``, ``inspect.json``.

    Args:
        source: a run folder or checkpoint; a file or folder of weights; a model by name, as in
            ``hf-hub:<owner>/<model>``; ``("timm:<name>", <file of weights>)``.
        pictures: a file or folder, or several; without any, what depends on the weights alone is
            looked at.
        overrides: ``"data.key=value"`` strings for ``embedding``; a model of timm always needs
            ``data.name``, for the names of its classes; other weights need none, and take them from
            the data that are named. ``"model.key=value"`` of weights that do not say it, such as
            ``model.num_heads=3``.
        out: the folder; ``inspect`` in the run unless given, or for other weights than a run's
            under ``<run.root>/eval/``. Files of the same names are replaced.
        layers: attention layers to show, from 0, negative ones from the end; all unless given.
        target: class whose relevance is asked for, by name or number; the predicted one unless
            given.
        fusion: how the rollout makes one map of a layer's heads: ``mean`` (unless given), ``max``
            or ``min``.
        discard: share of each layer's map, the smallest entries, that the rollout leaves out; none
            unless given.
        embedding: also lay the data's test images out in two dimensions: ``pca``, ``tsne``,
            ``umap``.
        progress: show a bar on a terminal while images are read.

    Raises:
        RunError: no checkpoint, or a folder that cannot be.
        DataError: a picture that is missing or unreadable, or no test images.
        ConfigError: a layer, fusion or method that does not exist, or settings that nothing would
            read.
        UnknownNameError: a class that does not exist.
        EvaluationError: pictures for a model without attention that can be read.
    """
    pictures = [pictures] if isinstance(pictures, str | Path) else pictures
    overrides = override_words(overrides)
    found = opened_source(source)
    _check_embedding(overrides if isinstance(found, Checkpoint) else (), embedding)
    rolling: dict[str, Any] = {"fusion": fusion, "discard": discard}
    _check_of_pictures(pictures, {"layers": layers, "target": target, **rolling})
    rolling = {name: given for name, given in rolling.items() if given is not None}
    with_data = embedding is not None
    opened = opened_to_inspect(found, overrides, with_data=with_data, progress=progress)
    predictor = opened.predictor
    model, preprocessing = predictor.model, predictor.preprocessing
    folder, limit = _folder(opened.folder, out), predictor.max_pixels
    explained = _class_index(target, predictor.class_names)
    images = [(str(file), read_picture(file, preprocessing, limit)) for file in _files(pictures)]

    blank = torch.zeros(1, preprocessing.in_chans, *preprocessing.img_size)
    shapes = tuple(token_shapes(model, blank.to(predictor.device)))
    seen = views_of_weights(model)
    told: list[SeenPicture] = []
    blocks: tuple[BlockSummary, ...] = ()
    if images:
        told, blocks = _look_at(seen, predictor, images, explained, layers, rolling)
    if embedding is not None:
        subject = opened.subject(overrides, progress=progress)
        with memory_advice("lower data.eval_batch_size"):
            _embed(seen, subject, embedding, progress=progress)
    facts: dict[str, Plain] = {"checkpoint": str(opened.path), "weights": opened.weights_name}
    facts |= {"model": opened.name, "data": opened.data or None}
    facts |= _facts_of_pictures(seen, rolling)
    tables = _tables(shapes, told, blocks)
    tables[DRAWINGS] = {"file": [f"{name}.png" for name in seen.pictures]}
    return Inspection(
        folder=folder,
        written=_write(folder, seen, Record({}, facts, tables)),
        checkpoint=opened.path,
        weights_name=opened.weights_name,
        model=opened.name,
        shapes=shapes,
        pictures=tuple(told),
        blocks=blocks,
        notes=tuple(dict.fromkeys([*predictor.notes, *seen.notes])),
        numbers=seen.numbers,
    )


def _check_embedding(overrides: Sequence[str], embedding: str | None) -> None:
    """Refuse another method, and what would be left unread."""
    if embedding is not None and embedding not in METHODS:
        raise ConfigError(f"--embedding: given {embedding!r}, allowed: {', '.join(METHODS)}")
    if overrides and embedding is None:
        raise ConfigError(f"{overrides[0]}: settings are for --embedding, which reads the data")


def _check_of_pictures(pictures: Sequence[str | Path], options: Mapping[str, Any]) -> None:
    """The same of what is asked about pictures."""
    for option, given in options.items():
        if given is not None and not pictures:
            raise ConfigError(f"--{option}: on which picture? Name one behind the run")
    fusion, discard = options["fusion"], options["discard"]
    if fusion is not None and fusion not in FUSIONS:
        raise ConfigError(f"--fusion: given {fusion!r}, allowed: {', '.join(FUSIONS)}")
    if discard is not None and not 0 <= discard < 1:
        raise ConfigError(f"--discard: given {discard}, allowed: a share from 0 up, below 1")


def _facts_of_pictures(seen: Views, rolling: Mapping[str, Any]) -> dict[str, Plain]:
    """How the rollout was made, and what the entropies can be at most, if pictures were seen."""
    if "attention_entropy" not in seen.numbers:
        return {}
    most = _most_entropy(seen)
    return {"fusion": "mean", "discard": 0.0, **rolling, "attention_entropy_at_most": most}


def _most_entropy(seen: Views) -> float:
    """Of a token that looks at all alike, in nats."""
    return math.log(seen.numbers["token_norms"].shape[-1])


def _folder(run: Path, out: str | Path | None) -> Path:
    folder = Path(out) if out is not None else run / INSPECTED
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file; give --out a folder")
    return folder


def _files(pictures: Sequence[str | Path]) -> list[Path]:
    """Folders become the pictures in them."""
    found: list[Path] = []
    for picture in map(Path, pictures):
        found += picture_files(picture) if picture.is_dir() else [picture]
    return found


def _class_index(target: str | int | None, names: Sequence[str]) -> int | None:
    """The class that a name or number stands for."""
    if target is None:
        return None
    target = str(target)
    if target in names:
        return names.index(target)
    if target.isdecimal() and int(target) < len(names):
        return int(target)
    hint = f"(a class by its name, or a number from 0 to {len(names) - 1})"
    raise UnknownNameError("class", target, names, hint=hint)


def _look_at(
    seen: Views,
    predictor: Predictor,
    images: Sequence[tuple[str, Tensor]],
    explained: int | None,
    layers: Sequence[int] | None,
    rolling: Mapping[str, Any],
) -> tuple[list[SeenPicture], tuple[BlockSummary, ...]]:
    """Each picture by itself, for the maps of many would not fit in memory; then all together."""
    anatomy, names = anatomy_of(predictor.model), predictor.class_names
    shown = chosen_layers(len(anatomy.attending()), layers, "attention layer")
    told: list[SeenPicture] = []
    each: list[Views] = []
    for source, image in images:
        shares = predictor.probabilities(image[None])[0]
        best = shares.topk(min(3, len(names)))
        target = int(best.indices[0]) if explained is None else explained
        given = predictor.preprocessing(image[None].to(predictor.device))
        each.append(views_of_picture(anatomy, image, given, target, shown, rolling))
        top = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        told.append(SeenPicture(source, tuple((names[i], p) for i, p in top), names[target]))
    _gather(seen, images, each)
    labels = {"distance": "mean attention distance, pixels"}
    labels["entropy"] = f"mean attention entropy, nats (at most {_most_entropy(seen):.2f})"
    for name, label in labels.items():
        mean = seen.numbers[f"attention_{name}"].mean(axis=0)
        seen.pictures[name] = heads_plot(mean, shown, label)
    return told, _summaries(anatomy, shown, each)


def _gather(seen: Views, images: Sequence[tuple[str, Tensor]], each: Sequence[Views]) -> None:
    """Numbers of all pictures stacked; drawings named by number and file."""
    for name in each[0].numbers:
        seen.numbers[name] = np.stack([one.numbers[name] for one in each])
    for number, ((source, _), one) in enumerate(zip(images, each, strict=True), 1):
        stem = f"{number:02}-{Path(source).stem[:STEM]}"
        seen.pictures.update({f"{stem}-{name}": drawn for name, drawn in one.pictures.items()})
        seen.notes.extend(one.notes)
    sources = [source for source, _ in images]
    seen.numbers["sources"] = np.array(sources, dtype=np.str_)


def _summaries(
    anatomy: Anatomy, layers: Sequence[int], each: Sequence[Views]
) -> tuple[BlockSummary, ...]:
    """Means over the pictures."""
    norms = np.stack([one.numbers["token_norms"] for one in each])
    distances, entropies = (
        _by_block(anatomy, layers, np.stack([one.numbers[name] for one in each]).mean(axis=0))
        for name in ("attention_distance", "attention_entropy")
    )
    patches = norms[:, :, anatomy.num_prefix :]
    has_class = "class token" in anatomy.prefix_names
    return tuple(
        BlockSummary(
            block=index,
            patch_norm=float(patches[:, index].mean()),
            largest_norm=float(patches[:, index].max(axis=-1).mean()),
            class_norm=float(norms[:, index, 0].mean()) if has_class else None,
            distances=distances.get(index, ()),
            entropies=entropies.get(index, ()),
        )
        for index in range(norms.shape[1])
    )


def _by_block(
    anatomy: Anatomy, layers: Sequence[int], values: Array
) -> dict[int, tuple[float, ...]]:
    """Numbers of the heads (L, H) of these attention layers, by the numbers of their blocks."""
    return {
        anatomy.attention_blocks[layer]: tuple(map(float, values[index]))
        for index, layer in enumerate(layers)
    }


def _embed(seen: Views, subject: Subject, method: str, *, progress: bool) -> None:
    """The test images of the model's data as points."""
    split = split_of(subject, "test")
    if len(split) > EMBEDDED:
        split = split.subset(torch.arange(EMBEDDED) * len(split) // EMBEDDED)

    def features(images: Tensor) -> Tensor:
        return pooled_features(subject.model, subject.preprocessing(images))

    found, classes = features_of(
        features, split, subject.pictures, subject.device, "test", progress=progress
    )
    places = embedding_map(found, method).numpy()
    seen.numbers["embedding"], seen.numbers["embedding_targets"] = places, classes.numpy()
    names = subject.data.info.class_names
    seen.pictures[f"embedding-{method}"] = embedding_plot(places, classes.tolist(), names, method)


def _tables(
    shapes: Sequence[ShapeStep], told: Sequence[SeenPicture], blocks: Sequence[BlockSummary]
) -> dict[str, Table]:
    """What ``inspect.json`` holds in rows."""
    tables: dict[str, Table] = {
        "shapes": {
            "step": [step.name for step in shapes],
            "given": [list(step.given) for step in shapes],
            "made": [list(step.made) for step in shapes],
        }
    }
    if told:
        tables["pictures"] = {
            "file": [one.source for one in told],
            "predicted": [one.top[0][0] for one in told],
            "probability": [one.top[0][1] for one in told],
            "explained": [one.explained for one in told],
        }
        tables["blocks"] = {
            "block": [one.block for one in blocks],
            "patch_norm": [one.patch_norm for one in blocks],
            "largest_norm": [one.largest_norm for one in blocks],
            "class_norm": [one.class_norm for one in blocks],
            "attention_distance": [list(one.distances) for one in blocks],
            "attention_entropy": [list(one.entropies) for one in blocks],
        }
    return tables


def _write(folder: Path, seen: Views, record: Record) -> tuple[Path, ...]:
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / "inspect.json", folder / "inspect.npz"]
    record.write(written[0])
    write_arrays(written[1], seen.numbers, compressed=True)
    for name, picture in seen.pictures.items():
        written.append(folder / f"{name}.png")
        write_beside(written[-1], partial(picture.save, format="PNG"))
    return tuple(sorted(written))
