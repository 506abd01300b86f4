"""The shift suite: how a model does on images that are not those it is used to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vitkit.app.batches import eval_loader
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
from vitkit.errors import DataError
from vitkit.evaluation.adversarial import fgsm, pgd
from vitkit.evaluation.classification import Predictions
from vitkit.evaluation.corruptions.catalogue import CORRUPTIONS, SEVERITIES, SMALLEST, corrupt
from vitkit.evaluation.perturbations import (
    lower_resolution,
    occlude_patches,
    shuffle_patches,
    white_noise,
)
from vitkit.evaluation.robustness import ALEXNET_ERRORS, mean_corruption_error
from vitkit.evaluation.scores import require_finite, soft_nll
from vitkit.evaluation.standard import Measured
from vitkit.records import Plain

__all__ = ["shift_facts", "shift_measures"]

OCCLUDED = (0.25, 0.5, 0.75)
OCCLUSION_GRIDS = ((14, 14), (8, 8), (4, 4))
SHUFFLED = ((2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (14, 14), (16, 16))
NOISES = (0.05, 0.1, 0.2, 0.4)
RESOLUTIONS = (0.75, 0.5, 0.25)
FEWEST_PIXELS = 2
"""Side of a patch below which it is none."""

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

Change = Callable[[Tensor, Tensor], Tensor]
"""uint8 images (B, channels, height, width), places in the split (B,) -> uint8 images."""


@dataclass(frozen=True)
class _Images:
    """Some images of a split, spread evenly, and where they stand in it."""

    images: Split
    places: Tensor

    @classmethod
    def of(cls, split: Split, wanted: int, places: Tensor | None = None) -> _Images:
        """About ``wanted`` of them; 0: all."""
        count = len(split)
        places = torch.arange(count) if places is None else places
        if wanted == 0 or wanted >= count:
            return cls(split, places)
        chosen = torch.arange(wanted) * count // wanted
        return cls(split.subset(chosen), places[chosen])


def shift_measures(subject: Subject, split: str, *, progress: bool = True) -> Measured:
    """Accuracy under changes of the images, under attacks, and on other test sets.

    ``<split>/changed/clean/acc`` is that of the same images unchanged,
    ``<split>/corrupted/<name>/acc`` the mean over five severities (each of them in the table
    ``corruptions``), ``<split>/corrupted/err`` the mean error over 15 corruptions; the rest is
    named by what was done. Corruptions need 32 pixels a side and are left out below.
    """
    options = subject.config.eval
    others = _other_sets(subject, progress=progress)  # first: a wrong folder is told at once
    some = _Images.of(split_of(subject, split), options.shift_images)
    measured = Measured()
    size = subject.preprocessing.img_size
    if min(size) >= SMALLEST:
        measured.add(_corruptions(subject, some, progress=progress))
    measured.add(_changes(subject, some, progress=progress))
    attacked = _Images.of(some.images, options.attack_images, some.places)
    measured.add(_attacks(subject, attacked, progress=progress))
    metrics = {f"{split}/{name}": value for name, value in measured.metrics.items()}
    measured = Measured(metrics, measured.tables)
    measured.add(others)
    return measured


def shift_facts(subject: Subject, images: int) -> dict[str, Plain]:
    """What must be known beside the suite's numbers, of so many images in the split."""
    options = subject.config.eval
    changed = min(images, options.shift_images or images)
    facts: dict[str, Plain] = {
        "changed_images": changed,
        "attacked_images": min(changed, options.attack_images),
        "pgd_steps": options.pgd_steps,
        "frost": "textures are made, not photographed",
    }
    if options.tta != "none":
        facts["tta"] = f"{options.tta}, on other test sets alone"
    if min(subject.preprocessing.img_size) < SMALLEST:
        facts["corruptions"] = f"left out: they need {SMALLEST} pixels a side"
    return facts


def _corruptions(subject: Subject, some: _Images, *, progress: bool) -> Measured:
    options = subject.config.eval
    kinds = [(name, severity) for name in CORRUPTIONS for severity in SEVERITIES]

    changes = [_placed(corrupt, name=n, severity=s, seed=options.seed) for n, s in kinds]
    right = _accuracies(subject, some, changes, "corrupted", progress=progress)
    found = dict(zip(kinds, right, strict=True))
    return _corrupted("corrupted", "corruptions", found, options.mce_baseline == "alexnet")


def _corrupted(
    prefix: str, table: str, found: Mapping[tuple[str, int], float], over_alexnet: bool
) -> Measured:
    """Accuracy under each corruption, and the mean error over those that count.

    Args:
        prefix: of the metrics.
        table: name of the table of severities.
        found: (corruption, severity) -> accuracy.
        over_alexnet: also the errors over AlexNet's.
    """
    names = list(dict.fromkeys(name for name, _ in found))
    errors = {name: [1 - found[name, severity] for severity in SEVERITIES] for name in names}
    metrics = {
        f"{prefix}/{name}/acc": 1 - sum(values) / len(values) for name, values in errors.items()
    }
    metrics[f"{prefix}/err"] = mean_corruption_error(errors)
    if over_alexnet:
        metrics[f"{prefix}/mce"] = mean_corruption_error(errors, ALEXNET_ERRORS)
    columns = {f"severity_{s}": [found[name, s] for name in names] for s in SEVERITIES}
    return Measured(metrics, {table: {"corruption": names, **columns}})


def _changes(subject: Subject, some: _Images, *, progress: bool) -> Measured:
    """Occlusion, shuffling, noise and fewer pixels."""
    size, seed = subject.preprocessing.img_size, subject.config.eval.seed
    changes: dict[str, Change] = {"changed/clean/acc": lambda images, places: images}
    for grid in [g for g in OCCLUSION_GRIDS if _divides(g, size)][:1]:
        for share in OCCLUDED:
            changes[f"occluded/{share:g}/acc"] = _placed(
                occlude_patches, grid=grid, share=share, seed=seed
            )
    for grid in (g for g in SHUFFLED if _divides(g, size)):
        name = f"shuffled/{grid[0]}x{grid[1]}/acc"
        changes[name] = _placed(shuffle_patches, grid=grid, seed=seed)
    for sigma in NOISES:
        changes[f"white_noise/{sigma:g}/acc"] = _placed(white_noise, sigma=sigma, seed=seed)
    for share in RESOLUTIONS:
        few = (max(1, round(size[0] * share)), max(1, round(size[1] * share)))
        changes[f"resolution/{few[0]}x{few[1]}/acc"] = _unplaced(lower_resolution, size=few)
    right = _accuracies(subject, some, list(changes.values()), "changed", progress=progress)
    return Measured(dict(zip(changes, right, strict=True)))


def _placed(function: Callable[..., Tensor], **settings: Any) -> Change:
    """A change whose random numbers come from where the images stand."""
    return lambda images, places: function(images, indices=places, **settings)


def _unplaced(function: Callable[..., Tensor], **settings: Any) -> Change:
    """A change without random numbers."""
    return lambda images, places: function(images, **settings)


def _divides(grid: tuple[int, int], size: tuple[int, int]) -> bool:
    pairs = list(zip(grid, size, strict=True))
    return all(n % g == 0 and n // g >= FEWEST_PIXELS for g, n in pairs)


def _accuracies(
    subject: Subject, some: _Images, changes: Sequence[Change], what: str, *, progress: bool
) -> list[float]:
    """Top-1 accuracy under each of some changes."""
    loader = eval_loader(some.images, subject.pictures, subject.device)
    count = len(some.places)
    right = [0] * len(changes)
    with (
        counted(f"evaluating {what}", "images", show=progress) as tell,
        torch.inference_mode(),
    ):
        done = 0
        for images, targets, positions in loader:  # outside: images may have to be decoded
            places = some.places[positions].to(images.device)
            for index, change in enumerate(changes):
                logits = subject.predict(change(images, places)).float()
                require_finite(logits, "of a batch")
                right[index] += int((logits.argmax(1) == targets).sum())
                done += len(targets)
                tell(done, count * len(changes))
    return [hits / count for hits in right]


def _attacks(subject: Subject, some: _Images, *, progress: bool) -> Measured:
    """Share of images that are right before and after an attack."""
    options = subject.config.eval

    def predict(images: Tensor) -> Tensor:
        return subject.predict(images * 255)

    kinds = [
        (kind, epsilon) for kind in ("fgsm", "pgd") for epsilon in dict.fromkeys(options.epsilons)
    ]
    hits = dict.fromkeys(kinds, 0)
    clean = done = 0
    count = len(some.places)
    loader = eval_loader(some.images, subject.pictures, subject.device)
    with counted("attacking", "images", show=progress) as tell, _frozen(subject):
        for batch, targets, positions in loader:
            images = batch.to(torch.float32) / 255
            places = some.places[positions].to(images.device)
            right = _right(predict, images, targets)
            clean += int(right.sum())
            # What is wrong without an attack is wrong with it.
            images, targets, places = images[right], targets[right], places[right]
            for kind, epsilon in kinds if len(targets) else ():
                attack = fgsm
                if kind == "pgd":
                    attack = partial(
                        pgd, steps=options.pgd_steps, indices=places, seed=options.seed
                    )
                changed = attack(predict, images, targets, epsilon / 255)
                hits[kind, epsilon] += int(_right(predict, changed, targets).sum())
            done += len(positions)
            tell(done, count)
    metrics = {f"{kind}/{epsilon:g}_255/acc": n / count for (kind, epsilon), n in hits.items()}
    return Measured({"attacked/clean/acc": clean / count, **metrics})


def _right(predict: Callable[[Tensor], Tensor], images: Tensor, targets: Tensor) -> Tensor:
    with torch.no_grad():
        logits = predict(images).float()
    require_finite(logits, "of a batch")
    return logits.argmax(1) == targets


@contextmanager
def _frozen(subject: Subject) -> Iterator[None]:
    """Gradients go to the images alone meanwhile."""
    trained = [p for p in subject.model.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def _other_sets(subject: Subject, *, progress: bool) -> Measured:
    """Those whose folders were named."""
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
    if options.imagenet_real is not None:
        measured.add(_imagenet_real(subject, options.imagenet_real, progress=progress))
    if options.cifar_c is not None:
        measured.add(_cifar_c(subject, options.cifar_c, progress=progress))
    if options.imagenet_c is not None:
        measured.add(_imagenet_c(subject, options.imagenet_c, progress=progress))
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
    return _corrupted("cifar_c", "cifar_c", found, over_alexnet=False)


def _imagenet_c(subject: Subject, folder: str, *, progress: bool) -> Measured:
    """The published folders of ImageNet-C, also over AlexNet's errors."""
    _require_imagenet(subject, "eval.imagenet_c")
    sets = read_imagenet_c(
        folder,
        subject.preprocessing,
        class_names=subject.data.info.class_names,
        max_pixels=subject.pictures.max_pixels,
    )
    found = _on_each(subject, sets, "ImageNet-C", progress=progress)
    return _corrupted("imagenet_c", "imagenet_c", found, over_alexnet=True)


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
