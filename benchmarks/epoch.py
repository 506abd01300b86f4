"""An epoch of CIFAR-10 with the full recipe: vitkit's training against timm's, on the same cores.

    python -m benchmarks.epoch
    python -m benchmarks.epoch --workers 0 1 2 4 --steps 120

RandAugment (m9-mstd0.5-inc1), crop and flip, mixup and cutmix, erasing, averaged weights, AdamW, on
the same network (CCT-2/3x2). vitkit: ``TrainLoader``, ``Augment``, ``ClassificationTask`` and
``WeightAverage`` under Lightning's ``Trainer``, as ``train.py`` runs them. timm: the parts of its
training script (``create_loader`` with ``FastCollateMixup`` and prefetching, ``ModelEmaV3``,
``SoftTargetCrossEntropy``), once for each number of loader processes. Both train in turn, a few
steps each; ``epoch`` is 50,000 images at the median rate. Ratio: vitkit's speed over timm's best.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Generator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from PIL import Image
from pytorch_lightning import Callback, LightningModule, Trainer
from timm.data.loader import create_loader
from timm.data.mixup import FastCollateMixup
from timm.loss.cross_entropy import SoftTargetCrossEntropy
from timm.optim._optim_factory import create_optimizer_v2
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision.transforms import v2

from benchmarks.images import MEAN, STD, cifar10_or_random
from benchmarks.timing import Report, arguments_of, duel, rate, versions
from vitkit import create_model
from vitkit.app.assemble import quiet_lightning
from vitkit.app.devices import best_device, concrete_precision
from vitkit.data.augment import Augment
from vitkit.data.config import AugmentConfig
from vitkit.data.loaders import TrainLoader
from vitkit.data.preprocess import Preprocessing
from vitkit.data.splits import ResidentSplit
from vitkit.evaluation.speed import synchronize
from vitkit.training.averaging import WeightAverage
from vitkit.training.budget import StepPlan
from vitkit.training.config import OptimizerConfig, ScheduleConfig
from vitkit.training.task import ClassificationTask
from vitkit.training.task_config import ClassificationConfig

__all__ = ["main"]

MODEL = "cct_2_3x2_32"
POLICY = "rand-m9-mstd0.5-inc1"
# Pillow from 12 on refuses to keep 0 bits, which posterize asks for at level 10.
TIMM_POLICY = POLICY.replace("-inc", "-mmax9-inc")
LR, WEIGHT_DECAY, DECAY, SMOOTHING = 1e-3, 0.05, 0.999, 0.1
MIXUP, CUTMIX, ERASE = 0.8, 1.0, 0.25
EPOCH = 50_000
WARM = 3
"""Steps of a turn before its clock starts: loader processes have started by then."""


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    options = _options(arguments)
    device = best_device("auto")
    precision = concrete_precision("auto", device)
    (images, targets), _, source = cifar10_or_random(options.root, 512 if options.quick else EPOCH)
    peers = {
        f"timm, {count} workers": TimmTraining(
            images, targets, options.batch, count, precision, device
        )
        for count in options.workers
    }
    turns = Turns(peers, options.chunk, device.type)
    _train_ours(images, targets, options, turns, precision)
    _report(turns.times, options, f"{source} images, {precision}").finish(options.json)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = arguments_of(__doc__)
    parser.add_argument("--root", type=Path, default=Path("data"), help="folder of CIFAR-10")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=70, help="measured steps of each, in all")
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[0, 2], help="timm's loader processes"
    )
    options = parser.parse_args(arguments)
    if options.quick:
        options.batch, options.steps, options.workers, options.rounds = 8, 2, [0], 1
    options.chunk = max(1, options.steps // options.rounds)
    return options


def _report(times: dict[str, list[float]], options: argparse.Namespace, what: str) -> Report:
    ratio, best = duel(times)
    report = Report(
        f"CIFAR-10 with the full recipe, {MODEL}, batch {options.batch}, {what}; "
        + versions(["timm", "pytorch-lightning"]),
        ["", "images/s", "epoch", "vitkit over it"],
        [f"Over the best of timm: {ratio:.2f}."],
    )
    for name, values in times.items():
        an_image = median(values) / options.batch
        pair, _ = duel({"vitkit": times["vitkit"], name: values}) if name != "vitkit" else (1.0, "")
        report.add(
            [name, rate(1.0 / an_image), f"{EPOCH * an_image:.0f} s", f"{pair:.2f}"],
            name=name,
            images_per_second=1.0 / an_image,
            epoch_seconds=EPOCH * an_image,
            ratio=pair,
            seconds=values,
        )
    report.values.append({"ratio": ratio, "best_peer": best})
    return report


class TimmTraining:
    """The loop of timm's training script over the same images."""

    def __init__(
        self,
        images: Tensor,
        targets: Tensor,
        batch: int,
        workers: int,
        precision: str,
        device: torch.device,
    ) -> None:
        self.device = device
        self.half = precision == "bf16-mixed"
        pictures: Any = Pictures(images, targets)
        self.loader = create_loader(
            pictures,
            input_size=(3, 32, 32),
            batch_size=batch,
            is_training=True,
            auto_augment=TIMM_POLICY,
            color_jitter=0.0,
            interpolation="bilinear",
            re_prob=ERASE,
            re_mode="pixel",
            mean=MEAN,
            std=STD,
            num_workers=workers,
            collate_fn=FastCollateMixup(
                mixup_alpha=MIXUP,
                cutmix_alpha=CUTMIX,
                label_smoothing=SMOOTHING,
                num_classes=10,
            ),
            pin_memory=device.type == "cuda",
            device=device,
            persistent_workers=False,
        )
        # The crop that small images get, in place of one for photographs.
        self.loader.dataset.transform.transforms[0] = v2.RandomCrop(32, padding=4)
        self.model = create_model(MODEL, num_classes=10).to(device)
        self.averaged = ModelEmaV3(self.model, decay=DECAY, use_warmup=True)
        self.optimizer = create_optimizer_v2(
            self.model, opt="adamw", lr=LR, weight_decay=WEIGHT_DECAY, fused=True
        )
        self.loss = SoftTargetCrossEntropy()
        self.updates = 0

    def seconds(self, steps: int) -> float:
        """Time of a step, over some of them; its loader's processes end with the turn."""
        batches = self._forever()
        for _ in range(WARM):
            self._step(*next(batches))
        synchronize(self.device)
        start = time.perf_counter()
        for _ in range(steps):
            self._step(*next(batches))
        synchronize(self.device)
        took = time.perf_counter() - start
        batches.close()
        return took / steps

    def _forever(self) -> Generator[tuple[Tensor, Tensor], None, None]:
        while True:
            yield from self.loader

    def _step(self, images: Tensor, targets: Tensor) -> None:
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.half):
            loss = self.loss(self.model(images), targets)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.updates += 1
        self.averaged.update(self.model, step=self.updates)


class Pictures(Dataset[tuple[Any, int]]):
    """Images as timm's transforms want them; ``create_loader`` sets ``transform``."""

    transform: Any = None

    def __init__(self, images: Tensor, targets: Tensor) -> None:
        self.images, self.targets = (
            images.permute(0, 2, 3, 1).contiguous().numpy(),
            targets.tolist(),
        )

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(Image.fromarray(self.images[index])), self.targets[index]


class Turns(Callback):
    """Times vitkit's training in pieces, and lets the others train in between.

    The clock runs from the end of one piece's last step to that of the next: loading, augmentation,
    step, averaging and all that Lightning does.
    """

    def __init__(self, peers: dict[str, TimmTraining], chunk: int, device: str) -> None:
        self.peers, self.chunk, self.device = peers, chunk, device
        self.times: dict[str, list[float]] = {"vitkit": [], **{name: [] for name in peers}}
        self._start = 0.0

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """At the end of a turn: the others' turns, then a few steps without a clock."""
        done = trainer.global_step % (self.chunk + WARM)
        if done not in (0, WARM):
            return
        synchronize(self.device)
        if done == 0:
            self.times["vitkit"].append((time.perf_counter() - self._start) / self.chunk)
            for name, peer in self.peers.items():
                self.times[name].append(peer.seconds(self.chunk))
        self._start = time.perf_counter()


def _train_ours(
    images: Tensor, targets: Tensor, options: argparse.Namespace, turns: Turns, precision: str
) -> None:
    device = best_device("auto")
    augment = Augment(
        AugmentConfig(crop_padding=4, flip="random", policy=POLICY, erase_prob=ERASE), mean=MEAN
    )
    preprocessing = Preprocessing((32, 32), MEAN, STD)
    split = ResidentSplit(images, targets)
    loader = TrainLoader(split, batch_size=options.batch, device=device)
    task = ClassificationTask(
        _network(),
        num_classes=10,
        task=ClassificationConfig(
            label_smoothing=SMOOTHING, mixup=MIXUP, cutmix=CUTMIX, mix_mode="batch"
        ),
        optimizer=OptimizerConfig(lr=LR, weight_decay=WEIGHT_DECAY),
        schedule=ScheduleConfig(name="constant"),
        plan=StepPlan(len(loader), 1000),
        prepare_train=lambda images, positions, epoch: augment.erase(
            preprocessing(augment(images, positions, epoch)), positions, epoch
        ),
        prepare_eval=preprocessing,
    )
    with quiet_lightning(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = Trainer(
            accelerator=device.type,
            devices=1,
            precision=precision,  # type: ignore[arg-type]
            max_steps=options.rounds * (options.chunk + WARM),
            callbacks=[WeightAverage(DECAY), turns],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        trainer.fit(task, loader)


def _network() -> nn.Module:
    return create_model(MODEL, num_classes=10)


if __name__ == "__main__":
    main()
