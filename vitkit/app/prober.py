"""What the features of a finished model are worth without training it: four simple classifiers."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from vitkit.app.build import fitted_data
from vitkit.app.devices import memory_advice
from vitkit.app.encoders import Encoder, open_encoder
from vitkit.app.facts import environment_facts
from vitkit.app.features import cached_features
from vitkit.app.leavings import left
from vitkit.app.progress import counted
from vitkit.app.sources import Source
from vitkit.config import Overrides, override_words
from vitkit.data.splits import ImageData, Split
from vitkit.errors import DataError
from vitkit.evaluation.few_shot import (
    RIDGE_L2,
    RIDGE_SHOTS,
    SHOTS,
    Labelled,
    by_centroids,
    by_ridge,
    few_shot,
)
from vitkit.evaluation.logistic import LinearProbe, choose_l2, fit_linear_probe
from vitkit.evaluation.neighbours import NEIGHBOURS, TEMPERATURE, neighbour_accuracies
from vitkit.records import Plain, Record, Table, write_beside
from vitkit.weights import write_head

__all__ = ["ProbeResult", "probe"]

DRAWS = 10

FEW_SHOTS = {"few_shot": (by_centroids, SHOTS), "few_shot_ridge": (by_ridge, RIDGE_SHOTS)}
"""In the names of metrics -> what classifies, and from how many examples a class."""


@dataclass(frozen=True)
class ProbeResult:
    """What probing found.

    Attributes:
        metrics: accuracies on the test images, as fractions: ``probe/linear_acc``;
            ``probe/knn_<k>_acc``; ``probe/few_shot_<n>_acc`` and ``probe/few_shot_ridge_<n>_acc``,
            means over draws, and ``_sd``, their standard deviations. ``probe/linear_l2`` is the
            penalty that was chosen, by ``probe/linear_val_acc``.
        record: all of ``probe.json``.
        path: of that file; its name tells a checkpoint that the run did not test
            (``probe-best.json``).
        notes: what a person should know about how the weights were read, a line each.
        head: file of the linear probe of the training images alone, for ``task.finetune.head``.
    """

    metrics: dict[str, float]
    record: Record
    path: Path
    notes: tuple[str, ...]
    head: Path


def probe(
    source: Source,
    overrides: Overrides = (),
    *,
    data: ImageData | None = None,
    progress: bool = True,
) -> ProbeResult:
    """Measure a model's frozen features on labelled images, and write ``probe.json``.

    A linear probe, its penalty chosen on the validation images and then fitted to training and
    validation images together; the nearest neighbours among these; and the nearest centroid of a
    few of them a class. Features are cached, see
    :func:`~vitkit.app.features.cached_features`.

    Args:
        source: a run folder or checkpoint; a file or folder of weights; a model by name, as in
            ``hf-hub:<owner>/<model>``; ``("timm:<name>", <file of weights>)``.
        overrides: ``"data.key=value"`` strings; ``"model.key=value"`` of weights that do not say
            it, such as ``model.num_heads=3``.
        data: data of your own in place of the source's.
        progress: show a bar on a terminal.

    Raises:
        VitkitError: nothing there, damaged, a model without features, or data without validation
            or test images.
    """
    started = time.perf_counter()
    overrides = override_words(overrides)
    encoder = open_encoder(source, overrides, data_name=data.info.name if data else None)
    if data is None:
        data = fitted_data(encoder.config, encoder.preprocessing, progress=progress)
    train, val, test = (_required(data, split) for split in ("train", "val", "test"))
    with memory_advice("lower data.eval_batch_size"):
        parts = {
            name: _labelled(encoder, split, name, progress=progress)
            for name, split in {"training": train, "validation": val, "test": test}.items()
        }
    classes, seed = data.info.num_classes, encoder.config.eval.seed
    metrics, tables, head = _measured(parts, classes, seed, progress=progress)
    facts: dict[str, Plain] = {
        **encoder.facts,
        "data": data.info.name,
        "classes": classes,
        "train_images": len(train),
        "val_images": len(val),
        "test_images": len(test),
        "features": parts["test"][0].shape[1],
        "knn_temperature": TEMPERATURE,
        "few_shot_classifier": "nearest centroid of L2-normalised features",
        "few_shot_ridge_classifier": f"least squares on standardised features, l2 {RIDGE_L2:g}",
        "few_shot_draws": DRAWS,
        "eval_seed": seed,
        "wall_seconds": round(time.perf_counter() - started, 2),
        **environment_facts(encoder.device),
    }
    record = Record(metrics, facts, tables)
    path = left(encoder.folder, "probe", encoder.suffix)
    encoder.folder.mkdir(parents=True, exist_ok=True)
    record.write(path)
    weight, bias = head.layer()
    names = data.info.class_names
    beside = left(encoder.folder, "head", encoder.suffix)
    write_beside(beside, lambda part: write_head(part, weight, bias, names))
    return ProbeResult(metrics, record, path, encoder.notes, beside)


def _measured(
    parts: dict[str, Labelled], classes: int, seed: int, *, progress: bool
) -> tuple[dict[str, float], dict[str, Table], LinearProbe]:
    """Metrics, tables, and the probe that was fitted to the training images alone."""
    train, val, test = parts["training"], parts["validation"], parts["test"]
    known = torch.cat([train[0], val[0]]), torch.cat([train[1], val[1]])
    with counted("linear probe", "fits", show=progress) as tell:
        choice = choose_l2(train, val, classes, on_fit=tell)
    linear = fit_linear_probe(*known, classes, choice.l2, start=choice.probe)
    metrics = {
        "probe/linear_acc": linear.accuracy(*test),
        "probe/linear_val_acc": choice.accuracies[choice.l2],
        "probe/linear_l2": choice.l2,
    }
    for count, accuracy in neighbour_accuracies(known, test, classes, ks=NEIGHBOURS).items():
        metrics[f"probe/knn_{count}_acc"] = accuracy
    tables: dict[str, Table] = {
        "l2": {"l2": list(choice.accuracies), "val_acc": list(choice.accuracies.values())}
    }
    for kind, (classifier, shots) in FEW_SHOTS.items():
        found = few_shot(
            known, test, classes, classifier=classifier, shots=shots, draws=DRAWS, seed=seed
        )
        for count, few in found.items():
            metrics[f"probe/{kind}_{count}_acc"] = few.mean
            metrics[f"probe/{kind}_{count}_sd"] = few.deviation
        if found:
            tables[kind] = {f"{count}": list(few.accuracies) for count, few in found.items()}
    return metrics, tables, choice.probe


def _labelled(encoder: Encoder, split: Split, what: str, *, progress: bool) -> Labelled:
    features = cached_features(encoder, split, what, progress=progress)
    return features.to(encoder.device), split.targets.to(encoder.device)


def _required(data: ImageData, split: str) -> Split:
    """A split that probing cannot do without.

    Raises:
        DataError: it is empty, or there is but one class.
    """
    if data.info.num_classes < 2:
        raise DataError(
            f"{data.info.name} has one class only; probing needs labelled pictures of two or more"
        )
    images: Split | None = getattr(data, split)
    if images is None or not len(images):
        more = "; set data.val_fraction, such as 0.1" if split == "val" else ""
        raise DataError(f"{data.info.name} has no {split} images, and probing needs some{more}")
    return images
