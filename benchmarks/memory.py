"""Peak memory: a step against timm's, adapters, checkpointing, long attention, resident CIFAR-10.

    python -m benchmarks.memory
    python -m benchmarks.memory --only checkpointing attention

Every measurement has a process of its own. On a CPU it is the growth of the resident memory from
after the imports to its peak, under an allocator that gives back what is freed; on a GPU what torch
allocated at most. Medians over the rounds. ``ratio`` is what the row says over what it is held
against, and should stay at or below the target.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.images import MEAN, STD
from benchmarks.peers import OURS, SIZES, build_all
from benchmarks.timing import SHORT, Report, arguments_of, versions
from benchmarks.train_step import make_step
from vitkit.data.augment import Augment
from vitkit.data.config import AugmentConfig, ImageDataConfig
from vitkit.data.loaders import TrainLoader
from vitkit.data.preprocess import Preprocessing
from vitkit.data.sources import load_data
from vitkit.data.splits import ResidentSplit
from vitkit.nn import LORA_TARGETS, attention
from vitkit.training.finetune import adapt
from vitkit.training.mixing import mix_batch
from vitkit.training.task_config import FinetuneConfig

__all__ = ["main"]

MB = 1e6
# Freed memory goes back to the system, as far as glibc lets it: growth is then what is in use.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
ADAPTED = {"in attention": ["q", "k", "v", "proj"], "everywhere": list(LORA_TARGETS)}


class Meter:
    """Growth of memory since the meter was made, at its peak, in bytes."""

    def __init__(self, device: str) -> None:
        self.device = device
        gc.collect()
        if device == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
        else:
            with contextlib.suppress(OSError):  # elsewhere the peak counts from the start
                Path("/proc/self/clear_refs").write_text("5")
            self.before = _status("VmRSS")

    def peak(self) -> int:
        """Bytes at the peak, beyond the start."""
        if self.device == "cuda":
            return torch.cuda.max_memory_allocated() - self.before
        return _status("VmHWM") - self.before


def _status(key: str) -> int:
    """A line of the process's status in bytes; where there is none, the peak since its start."""
    path = Path("/proc/self/status")
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith(f"{key}:"):
                return 1024 * int(line.split()[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def train_step(device: str, library: str, size: str, batch: int) -> int:
    """Weights, gradients, optimiser and activations: everything a training holds."""
    vit = SIZES[size]
    build_all(SIZES["micro/8"], [library])  # imports
    images, targets = vit.images(batch, device), torch.zeros(batch, dtype=torch.long, device=device)
    meter = Meter(device)
    step = make_step(build_all(vit, [library])[library].to(device), images, targets, torch.float32)
    for _ in range(3):
        step()
    return meter.peak()


def adapted_step(device: str, size: str, batch: int, targets: list[str]) -> int:
    """The same of a model of ours with adapters on these layers; on none: all weights train."""
    vit = SIZES[size]
    images, classes = vit.images(batch, device), torch.zeros(batch, dtype=torch.long, device=device)
    config = FinetuneConfig(mode="lora", targets=tuple(targets)) if targets else FinetuneConfig()
    meter = Meter(device)
    model = adapt(build_all(vit, [OURS])[OURS].to(device), config)
    step = make_step(model, images, classes, torch.float32)
    for _ in range(3):
        step()
    return meter.peak()


def activations(device: str, size: str, batch: int, checkpointing: bool) -> int:
    """What a forward and backward pass needs beyond weights and gradients."""
    vit = SIZES[size]
    model = build_all(vit, [OURS])[OURS].to(device)
    model.set_grad_checkpointing(checkpointing)  # type: ignore[operator]
    images, targets = vit.images(batch, device), torch.zeros(batch, dtype=torch.long, device=device)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    _pass(model, images[:1], targets[:1])
    meter = Meter(device)
    _pass(model, images, targets)
    return meter.peak()


def _pass(model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> None:
    F.cross_entropy(model(images), targets).backward()


def long_attention(device: str, tokens: int, dtype: str) -> int:
    """A forward pass over many tokens, its output included."""
    q, k, v = (
        torch.randn(1, 3, tokens, 64, device=device, dtype=getattr(torch, dtype)) for _ in range(3)
    )
    with torch.no_grad():
        attention(q[:, :, :64], k[:, :, :64], v[:, :, :64])
        meter = Meter(device)
        attention(q, k, v)
        return meter.peak()


def resident(device: str, root: str, batch: int, reading: bool) -> int:
    """All images on the device, and a batch under everything that changes it.

    With ``reading`` the files are read and split under the meter; else that is over when it starts,
    and what is kept is added.
    """
    meter = Meter(device)
    there = (Path(root) / "cifar-10-batches-py").is_dir()
    config = ImageDataConfig(
        name="cifar10" if there else "synthetic", root=root, synthetic_size=60_000
    )
    data = load_data(config)
    if reading:
        return meter.peak()
    loader = TrainLoader(data.train, batch_size=batch, device=device)
    held = 0
    for split in (data.train, data.val, data.test):
        assert isinstance(split, ResidentSplit)
        held += split.images.nbytes + split.targets.nbytes
    policy = AugmentConfig(
        crop_padding=4, flip="random", policy="rand-m9-mstd0.5-inc1", erase_prob=0.25
    )
    augment, preprocessing = Augment(policy, mean=MEAN), Preprocessing((32, 32), MEAN, STD)
    meter = Meter(device)
    for index, (images, targets, positions) in enumerate(loader):
        inputs = augment.erase(preprocessing(augment(images, positions, 0)), positions, 0)
        mix_batch(inputs, targets, num_classes=10, mixup=0.8, cutmix=1.0)
        if index == 2:
            break
    return held + meter.peak()


CASES: dict[str, Callable[..., int]] = {
    case.__name__: case
    for case in (train_step, adapted_step, activations, long_attention, resident)
}


@dataclass(frozen=True)
class Line:
    """A row: two measurements, or one and a bound, and how large the quotient may be.

    Attributes:
        group: what ``--only`` names.
        what: shown.
        ours: case and its arguments.
        against: the same, or bytes.
        limit: largest quotient.
    """

    group: str
    what: str
    ours: tuple[object, ...]
    against: tuple[object, ...] | float
    limit: float


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    options = _options(arguments)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if options.case:
        name, *given = json.loads(options.case)
        print(CASES[name](device, *given))
        return
    report = Report(
        f"Peak memory in MB; {versions(['timm'])}",
        ["what", "vitkit", "against", "ratio", "limit", ""],
    )
    for line in _lines(options, device):
        if options.only and line.group not in options.only:
            continue
        ours, against = [], []
        for _ in range(options.rounds):
            ours.append(_measured(line.ours))
            if isinstance(line.against, tuple):
                against.append(_measured(line.against))
        bound = line.against if isinstance(line.against, float) else median(against)
        ratio = median(ours) / bound
        report.add(
            [
                *(line.what, f"{median(ours) / MB:.1f}", f"{bound / MB:.1f}", f"{ratio:.2f}"),
                *(f"{line.limit:.2f}", "met" if ratio <= line.limit else "MISSED"),
            ],
            what=line.what,
            bytes=ours,
            against=against or bound,
            ratio=ratio,
            limit=line.limit,
        )
    report.finish(options.json)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = arguments_of(__doc__, rounds=3)
    groups = ("step", "adapters", "checkpointing", "attention", "resident")
    parser.add_argument("--only", nargs="+", choices=groups, help="some of the rows")
    parser.add_argument("--root", default="data", help="folder of CIFAR-10")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.rounds = 1 if options.quick else options.rounds
    return options


def _lines(options: argparse.Namespace, device: str) -> list[Line]:
    if options.quick:
        scores = 3 * 512 * 512 * 4.0
        case = ("long_attention", 512, "float32")
        return [Line("attention", "attention, 512 fp32 / scores", case, scores, 10.0)]
    gpu = device == "cuda"
    lines = []
    for size, batch in (("tiny/4", 512 if gpu else 64), ("small/16", 64 if gpu else 8)):
        ours, theirs = (("train_step", name, size, batch) for name in (OURS, "timm"))
        lines.append(Line("step", f"step, {size}, batch {batch} / timm", ours, theirs, 1.0))
    for size, batch in (("small/16", 64 if gpu else 8), ("base/16", 64 if gpu else 4)):
        for where, targets in ADAPTED.items():
            ours, all_ = (("adapted_step", size, batch, layers) for layers in (targets, []))
            what = f"adapters {where}, {size} / all weights"
            lines.append(Line("adapters", what, ours, all_, 1.0))
    batch = 64 if gpu else 8
    less, all_ = (("activations", "small/16", batch, saving) for saving in (True, False))
    what = "checkpointed small/16 / usual"
    lines.append(Line("checkpointing", what, less, all_, 0.4))
    for dtype in ("float32", "bfloat16"):
        what = f"attention, 4,096 {SHORT[dtype]} / scores"
        long = ("long_attention", 4096, dtype)
        lines.append(Line("attention", what, long, 3 * 4096 * 4096 * 4.0, 0.1))
    for what, reading in (("CIFAR-10, batch 512", False), ("reading CIFAR-10", True)):
        images = ("resident", options.root, 512, reading)
        lines.append(Line("resident", f"{what} / 400 MB", images, 400 * MB, 1.0))
    return lines


def _measured(case: tuple[object, ...]) -> int:
    """A case in a process of its own."""
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "benchmarks.memory",
        "--case",
        json.dumps(case),
    ]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, **ALLOCATOR}
    )
    return int(done.stdout.split()[-1])


if __name__ == "__main__":
    main()
