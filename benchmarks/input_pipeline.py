"""Augmented images a second on one thread: vitkit's batches against one image at a time.

    python -m benchmarks.input_pipeline
    python -m benchmarks.input_pipeline --root data --batch 512

Three recipes on CIFAR's images (random ones of the same shape where ``--root`` holds none), each
up to normalised float32 batches: crop and flip; RandAugment in torchvision's form with erasing; in
timm's form (rand-m9-mstd0.5-inc1) with erasing by noise. torchvision's transforms v2 and timm's
run in a ``DataLoader`` without workers, on tensors or on Pillow's images; vitkit changes whole
batches of resident uint8 images.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import create_transform
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from benchmarks.images import MEAN, STD, cifar10_or_random
from benchmarks.peers import OURS
from benchmarks.timing import Report, arguments_of, duel, samples, versions
from vitkit.data.augment import Augment
from vitkit.data.config import AugmentConfig
from vitkit.data.loaders import TrainLoader
from vitkit.data.preprocess import Preprocessing
from vitkit.data.splits import ResidentSplit

TIMM_POLICY = "rand-m9-mstd0.5-inc1"
RECIPES: dict[str, dict[str, Any]] = {
    "crop, flip": {},
    "RandAugment": {
        "policy": "randaugment-n2-m9",
        "erase_prob": 0.25,
        "erase_mode": "constant",
    },
    TIMM_POLICY: {"policy": TIMM_POLICY, "erase_prob": 0.25},
}
Run = Callable[[], object]


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    options = _options(arguments)
    torch.set_num_threads(1)
    (images, _), _, source = cifar10_or_random(options.root, options.images)
    report = Report(
        f"Augmentation, {len(images):,} {source} images in batches of {options.batch}, images/s; "
        f"{versions(['torchvision', 'timm'])}",
        ["images/s", *RECIPES],
    )
    times: dict[str, dict[str, list[float]]] = {}  # contestant, recipe
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for recipe in RECIPES:
            runs = _contestants(recipe, images, options.batch)
            for name, seconds in samples(
                runs, rounds=options.rounds, seconds=options.seconds
            ).items():
                times.setdefault(name, {})[recipe] = seconds
    _fill(report, times, len(images))
    report.finish(options.json)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = arguments_of(__doc__)
    parser.add_argument("--root", type=Path, default=Path("data"), help="folder of CIFAR-10")
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=0.3, help="length of a turn")
    options = parser.parse_args(arguments)
    if options.quick:
        options.images, options.batch, options.rounds, options.seconds = 16, 8, 1, 0.0
    return options


def _fill(report: Report, times: dict[str, dict[str, list[float]]], images: int) -> None:
    """A row of rates for each contestant, then how many times each the last one, vitkit, is."""
    ours = times.pop(OURS)
    for name, own in {**times, OURS: ours}.items():
        rates = {recipe: images / median(seconds) for recipe, seconds in own.items()}
        cells = [f"{rates[r]:,.0f}" if r in rates else "-" for r in RECIPES]
        report.add([name, *cells], name=name, images_per_second=rates, seconds=own)
    for name, own in times.items():
        ratios = {r: duel({name: own[r], OURS: ours[r]})[0] for r in own}
        cells = [f"{ratios[r]:.1f}" if r in ratios else "-" for r in RECIPES]
        report.add([f"{OURS} / {name}", *cells], name=name, ratios=ratios)


def _contestants(recipe: str, images: Tensor, batch: int) -> dict[str, Run]:
    pictures = [Image.fromarray(np.asarray(image.permute(1, 2, 0))) for image in images]
    tensors, runs = list(images), {}
    if recipe != TIMM_POLICY:
        more = [v2.RandAugment(2, 9)] if recipe != "crop, flip" else []
        last = [v2.RandomErasing(0.25)] if recipe != "crop, flip" else []
        runs["v2 on tensors"] = _loader(tensors, _torchvision(more, last), batch)
        runs["v2 on Pillow"] = _loader(
            pictures, _torchvision([*more, v2.PILToTensor()], last), batch
        )
    if recipe != "RandAugment":
        runs["timm on Pillow"] = _loader(pictures, _timm(recipe == TIMM_POLICY), batch)
    return {**runs, OURS: _vitkit(RECIPES[recipe], images, batch)}


def _torchvision(more: list[Any], last: list[Any]) -> Callable[[Any], Tensor]:
    return v2.Compose(
        [
            v2.RandomCrop(32, padding=4),
            v2.RandomHorizontalFlip(),
            *more,
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
            *last,
        ]
    )


def _timm(policy: bool) -> Callable[[Any], Tensor]:
    """timm's recipe with the crop that small images get, as in DeiT's training code."""
    # Pillow from 12 on refuses to keep 0 bits, which posterize asks for at level 10.
    name = TIMM_POLICY.replace("-inc", "-mmax9-inc") if policy else None
    made = create_transform(
        (3, 32, 32),
        is_training=True,
        color_jitter=None,
        auto_augment=name,
        interpolation="bilinear",
        re_prob=0.25 if policy else 0.0,
        re_mode="pixel",
        mean=MEAN,
        std=STD,
    )
    made.transforms[0] = v2.RandomCrop(32, padding=4)
    return made


def _loader(items: list[Any], transform: Callable[[Any], Tensor], batch: int) -> Run:
    class Changed(torch.utils.data.Dataset[tuple[Tensor, int]]):
        def __len__(self) -> int:
            return len(items)

        def __getitem__(self, index: int) -> tuple[Tensor, int]:
            return transform(items[index]), 0

    loader = DataLoader(Changed(), batch_size=batch, shuffle=True, drop_last=True)

    def run() -> None:
        for _ in loader:
            pass

    return run


def _vitkit(recipe: dict[str, Any], images: Tensor, batch: int) -> Run:
    augment = Augment(AugmentConfig(crop_padding=4, flip=True, **recipe), mean=MEAN)
    prepare = Preprocessing((32, 32), MEAN, STD)
    split = ResidentSplit(images, torch.zeros(len(images), dtype=torch.int64))
    loader = TrainLoader(split, batch_size=batch)

    def run() -> None:
        epoch = loader.epoch
        for part, _, positions in loader:
            augment.erase(prepare(augment(part, positions, epoch)), positions, epoch)

    return run


if __name__ == "__main__":
    main()
