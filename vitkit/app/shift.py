"""The shift suite: how a model does on images that are not those it is used to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vitkit.app.batches import eval_loader
from vitkit.app.other_sets import other_measures
from vitkit.app.progress import counted
from vitkit.app.subjects import Subject
from vitkit.app.suites import split_of
from vitkit.data.splits import Split
from vitkit.evaluation.adversarial import fgsm, pgd, pgd_l2
from vitkit.evaluation.config import EvalConfig
from vitkit.evaluation.corruptions.catalogue import CORRUPTIONS, SEVERITIES, SMALLEST, corrupt
from vitkit.evaluation.perturbations import (
    lower_resolution,
    occlude_patches,
    shuffle_patches,
    white_noise,
)
from vitkit.evaluation.robustness import corruption_measures
from vitkit.evaluation.scores import require_finite
from vitkit.evaluation.standard import Measured
from vitkit.records import Plain

__all__ = ["shift_facts", "shift_measures"]

TENTHS = range(1, 10)
"""Of the patches that occlusion drops; none dropped is the clean image."""
OCCLUSION_GRIDS = ((14, 14), (8, 8), (4, 4))
SHUFFLED = ((2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (14, 14), (16, 16))
NOISES = (0.05, 0.1, 0.2, 0.4)
RESOLUTIONS = (0.75, 0.5, 0.25)
CLEAN = "changed/clean/acc"
"""What the accuracy on the images is called that nothing was done to."""
FEWEST_PIXELS = 2
"""Side of a patch below which it is none."""

Change = Callable[[Tensor, Tensor], Tensor]
"""uint8 images (B, channels, height, width), places in the split (B,) -> uint8 images."""

Attack = Callable[..., Tensor]
"""Takes what :func:`fgsm` takes, and gives what it gives."""


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
    # First: a wrong folder is told at once.
    others = other_measures(subject, split, progress=progress)
    some = _Images.of(split_of(subject, split), options.shift_images)
    measured = Measured()
    changes = _changes(subject, some, progress=progress)
    if min(subject.preprocessing.img_size) >= SMALLEST:
        clean = changes.metrics[CLEAN]
        measured.add(_corruptions(subject, some, clean, progress=progress))
    measured.add(changes)
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


def _corruptions(subject: Subject, some: _Images, clean: float, *, progress: bool) -> Measured:
    """All corruptions at all severities; ``clean`` is the accuracy without any."""
    options = subject.config.eval
    kinds = [(name, severity) for name in CORRUPTIONS for severity in SEVERITIES]

    changes = [_placed(corrupt, name=n, severity=s, seed=options.seed) for n, s in kinds]
    right = _accuracies(subject, some, changes, "corrupted", progress=progress)
    found = dict(zip(kinds, right, strict=True))
    over_alexnet = options.mce_baseline == "alexnet"
    return corruption_measures(
        "corrupted", "corruptions", found, clean=clean if over_alexnet else None
    )


def _changes(subject: Subject, some: _Images, *, progress: bool) -> Measured:
    """Occlusion, shuffling, noise and fewer pixels."""
    size, seed = subject.preprocessing.img_size, subject.config.eval.seed
    changes: dict[str, Change] = {CLEAN: lambda images, places: images}
    for grid in [g for g in OCCLUSION_GRIDS if _divides(g, size)][:1]:
        for tenths in TENTHS:
            share = tenths / 10
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

    attacks = _attacks_by_name(options)
    hits = dict.fromkeys(attacks, 0)
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
            walk: dict[str, Any] = {"steps": options.pgd_steps, "seed": options.seed}
            for name, (attack, epsilon) in attacks.items() if len(targets) else ():
                more = {} if attack is fgsm else {**walk, "indices": places}
                changed = attack(predict, images, targets, epsilon, **more)
                hits[name] += int(_right(predict, changed, targets).sum())
            done += len(positions)
            tell(done, count)
    metrics = {f"{name}/acc": n / count for name, n in hits.items()}
    return Measured({"attacked/clean/acc": clean / count, **metrics})


def _attacks_by_name(options: EvalConfig) -> dict[str, tuple[Attack, float]]:
    """What is tried, and its epsilon on [0, 1]; the names of the usual ones count in 255ths."""
    pixels = {f"{epsilon:g}_255": epsilon / 255 for epsilon in options.epsilons}
    usual: dict[str, Attack] = {"fgsm": fgsm, "pgd": pgd}
    attacks: dict[str, tuple[Attack, float]] = {}
    for kind, attack in usual.items():
        attacks |= {f"{kind}/{name}": (attack, epsilon) for name, epsilon in pixels.items()}
    return attacks | {f"pgd_l2/{e:g}": (pgd_l2, e) for e in options.epsilons_l2}


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
