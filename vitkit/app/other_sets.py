"""Test sets of their own for classes that a model knows: those whose folders were named."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from vitkit.app.progress import counted
from vitkit.app.subjects import Subject
from vitkit.app.suites import predictions_of, split_of
from vitkit.data.imagenet import IMAGENET_A, IMAGENET_CLASSES, IMAGENET_R
from vitkit.data.shifted import (
    Published,
    read_cifar10_1,
    read_cifar10h,
    read_cifar_c,
    read_imagenet_c,
    read_imagenet_folder,
    read_imagenet_real,
)
from vitkit.data.splits import Split
from vitkit.errors import ConfigError, DataError
from vitkit.evaluation.classification import Predictions
from vitkit.evaluation.config import EvalConfig
from vitkit.evaluation.robustness import corruption_measures
from vitkit.evaluation.scores import require_finite, soft_nll
from vitkit.evaluation.standard import Measured

__all__ = ["NAMED", "other_measures", "require_named"]

NAMED = (
    "cifar10_1",
    "cifar10h",
    "cifar_c",
    "imagenet_v2",
    "imagenet_a",
    "imagenet_r",
    "imagenet_sketch",
    "imagenet_real",
    "imagenet_c",
)
"""Settings under ``eval.`` that name a folder with a test set."""

CIFAR10 = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


def require_named(options: EvalConfig) -> None:
    """See that there is a test set to be measured.

    Raises:
        ConfigError: none is named.
    """
    if all(getattr(options, name) is None for name in NAMED):
        first, *rest = NAMED
        raise ConfigError(
            f"--suite others: no test set is named; set eval.{first}=FOLDER, or one of "
            f"{', '.join(f'eval.{name}' for name in rest)}"
        )


def other_measures(subject: Subject, split: str, *, progress: bool = True) -> Measured:
    """Accuracy on the test sets whose folders were named; nothing of others.

    Args:
        subject: the model.
        split: of its own data, which two sets are held against: ``imagenet_a/clean/acc`` (and
            ``imagenet_r``) is the accuracy on its images of the set's 200 classes, told apart from
            each other alone as in the set; ``imagenet_c/clean/acc`` that on all of them.
        progress: show a bar on a terminal.

    Raises:
        DataError: a folder that does not hold what it should, or a model of other classes.
    """
    options, want = subject.config.eval, subject.preprocessing
    measured = Measured()
    if options.cifar10_1 is not None:
        _require_cifar10(subject, "eval.cifar10_1")
        found = _on(subject, read_cifar10_1(options.cifar10_1, want), "CIFAR-10.1", progress)
        measured.metrics |= {f"cifar10_1/{k}": v for k, v in found.metrics().items()}
    if options.cifar10h is not None:
        measured.add(_cifar10h(subject, options.cifar10h, progress=progress))
    folders = {
        "imagenet_v2": (options.imagenet_v2, None),
        "imagenet_a": (options.imagenet_a, IMAGENET_A),
        "imagenet_r": (options.imagenet_r, IMAGENET_R),
        "imagenet_sketch": (options.imagenet_sketch, None),
    }
    for name, (folder, classes) in folders.items():
        if folder is None:
            continue
        _require_imagenet(subject, f"eval.{name}")
        images = read_imagenet_folder(
            folder,
            want,
            setting=f"eval.{name}",
            classes=classes,
            class_names=subject.data.info.class_names,
            max_pixels=subject.pictures.max_pixels,
        )
        found = _among(_on(subject, images, name, progress), classes)
        measured.metrics |= {f"{name}/{k}": v for k, v in found.metrics().items()}
        if classes is not None:
            measured.metrics |= _clean(subject, split, name, classes, progress=progress)
    if options.imagenet_real is not None:
        measured.add(_imagenet_real(subject, options.imagenet_real, progress=progress))
    if options.cifar_c is not None:
        measured.add(_cifar_c(subject, options.cifar_c, progress=progress))
    if options.imagenet_c is not None:
        measured.add(_imagenet_c(subject, options.imagenet_c, split, progress=progress))
    return measured


def _cifar_c(subject: Subject, folder: str, *, progress: bool) -> Measured:
    """The published files of CIFAR-10-C or CIFAR-100-C."""
    info = subject.data.info
    if info.num_classes == len(CIFAR10):
        _require_cifar10(subject, "eval.cifar_c")
    elif info.name != "cifar100":
        raise DataError(
            f"eval.cifar_c needs a model of CIFAR-10's or CIFAR-100's classes; this one knows "
            f"{info.num_classes} ({info.name})"
        )
    sets = read_cifar_c(folder, subject.preprocessing, info.num_classes)
    found = _on_each(subject, sets, "CIFAR-C", progress=progress)
    return corruption_measures("cifar_c", "cifar_c", found)


def _clean(
    subject: Subject, split: str, name: str, classes: Sequence[int], *, progress: bool
) -> dict[str, float]:
    """Accuracy on the data's own images of some classes, where it has any."""
    images = split_of(subject, split)
    places = torch.isin(images.targets, torch.tensor(classes)).nonzero().flatten()
    if not len(places):
        return {}
    what = f"{split} images of {name}'s classes"
    found = _among(_on(subject, images.subset(places), what, progress), classes)
    return {f"{name}/clean/acc": found.metrics()["acc"]}


def _imagenet_c(subject: Subject, folder: str, split: str, *, progress: bool) -> Measured:
    """The published folders of ImageNet-C, also over AlexNet's errors and what they add to its."""
    _require_imagenet(subject, "eval.imagenet_c")
    sets = read_imagenet_c(
        folder,
        subject.preprocessing,
        class_names=subject.data.info.class_names,
        max_pixels=subject.pictures.max_pixels,
    )
    found = _on_each(subject, sets, "ImageNet-C", progress=progress)
    clean = _on(subject, split_of(subject, split), split, progress).metrics()["acc"]
    measured = corruption_measures("imagenet_c", "imagenet_c", found, clean=clean)
    measured.metrics["imagenet_c/clean/acc"] = clean
    return measured


def _on_each(
    subject: Subject, sets: Sequence[Published], what: str, *, progress: bool
) -> dict[tuple[str, int], float]:
    """(corruption, severity) -> accuracy on each of the published sets."""
    found: dict[tuple[str, int], float] = {}
    with counted(f"evaluating {what}", "sets", show=progress) as tell:
        for published in sets:
            known = _on(subject, published.read(), what, False).metrics()
            found[published.corruption, published.severity] = known["acc"]
            tell(len(found), len(sets))
    return found


def _on(subject: Subject, images: Split, what: str, progress: bool) -> Predictions:
    views = subject.config.eval.tta
    found = predictions_of(subject, images, what, views=views, progress=progress)
    require_finite(found.logits)
    return found


def _among(predictions: Predictions, classes: Sequence[int] | None) -> Predictions:
    """Only some classes are asked for: the others' logits are left out before the comparison."""
    if classes is None:
        return predictions
    order = torch.tensor(classes)
    targets = torch.searchsorted(order, predictions.targets)
    return Predictions(predictions.logits[:, order], targets, predictions.indices)


def _cifar10h(subject: Subject, path: str, *, progress: bool) -> Measured:
    """Against what people said: cross-entropy, and accuracy against their commonest answer."""
    shares = torch.from_numpy(read_cifar10h(path))
    _require_cifar10(subject, "eval.cifar10h")
    test = split_of(subject, "test")
    if subject.data.info.name != "cifar10" or len(test) != len(shares):
        raise DataError(
            f"eval.cifar10h belongs to the {len(shares):,} test images of cifar10; given "
            f"{len(test):,} of {subject.data.info.name}"
        )
    found = _on(subject, test, "CIFAR-10H", progress)
    said = shares.argmax(1)
    people = -torch.xlogy(shares, shares).sum(1).mean()
    return Measured(
        {
            "cifar10h/acc": float((found.logits.argmax(1) == said).double().mean()),
            "cifar10h/loss": soft_nll(found.logits, shares),
            "cifar10h/loss_of_people": float(people),
        }
    )


def _imagenet_real(subject: Subject, folder: str, *, progress: bool) -> Measured:
    """Right is whatever people see in the picture."""
    _require_imagenet(subject, "eval.imagenet_real")
    real = read_imagenet_real(folder, subject.preprocessing, max_pixels=subject.pictures.max_pixels)
    found = _on(subject, real.images, "ImageNet-ReaL", progress)
    predicted = found.logits.argmax(1).tolist()
    hits = sum(p in labels for p, labels in zip(predicted, real.labels, strict=True))
    return Measured({"imagenet_real/acc": hits / len(predicted)})


def _require_cifar10(subject: Subject, setting: str) -> None:
    info = subject.data.info
    if tuple(info.class_names) != CIFAR10:
        raise DataError(
            f"{setting} needs a model of CIFAR-10's ten classes; this one knows "
            f"{info.num_classes} ({info.name})"
        )


def _require_imagenet(subject: Subject, setting: str) -> None:
    info = subject.data.info
    if info.num_classes != IMAGENET_CLASSES:
        raise DataError(
            f"{setting} needs a model of ImageNet's {IMAGENET_CLASSES:,} classes; this one knows "
            f"{info.num_classes} ({info.name})"
        )
