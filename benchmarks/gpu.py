"""What vitkit does on a GPU, in one command that can be stopped and goes on where it was.

    make bench-gpu
    python -m benchmarks.gpu --json runs/bench-gpu.json --budget 540

Parts, each kept in the file as soon as it is done:

- images a second of a compiled training step in bfloat16, and the share of the GPU's peak that the
  model's operations make up (closed form, vitkit/models/flops.py), for four models;
- time to 90, 94, 95 and 96 % on CIFAR-10's test images, with a convolutional stem and with plain
  patches: ``training`` is the time of the steps after warm-up and compilation, scaled to all steps;
  ``cold`` goes from the start of a fresh process with an empty compilation cache to the accuracy;
- the tables of train_step.py and attention.py in bfloat16.

A new part starts only where it fits into the budget. Parts from another GPU or torch are redone.
What fails is noted in the file, and comes last when the command is run again.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from benchmarks import attention, train_step
from benchmarks.timing import Report, arguments_of, rate, samples
from benchmarks.train_step import compiled, make_step
from vitkit import create_model
from vitkit.app import assemble
from vitkit.app.devices import best_device, concrete_precision
from vitkit.app.evaluator import evaluate_checkpoint
from vitkit.app.facts import environment_facts, process_seconds
from vitkit.app.jobs.classification import ClassificationJob
from vitkit.app.runs import make_run_folder
from vitkit.config import RunConfig, load_config
from vitkit.evaluation.speed import synchronize
from vitkit.models.flops import training_flops
from vitkit.records import write_text
from vitkit.training.budget import Clock
from vitkit.training.progress import TrainingProgress

__all__ = ["main", "product_rate", "train_once"]

RECIPES = {"stem": "configs/cifar10_gpu_stem.yaml", "vit": "configs/cifar10_gpu_vit.yaml"}
EPOCHS = {
    "stem": {94: 30, 96: 100, 95: 50, 90: 8},
    "vit": {94: 250, 90: 60, 95: 400, 96: 600},
}
"""Recipe -> accuracy in per cent -> epochs that should reach it: the schedule ends with them."""
THROUGHPUT = {  # name -> (side in pixels, classes, images of a step)
    "vit_lite_7_patch4_32": (32, 10, 2048),
    "cct_7_3x1_32": (32, 10, 1024),
    "vit_small_patch16_224": (224, 1000, 256),
    "vit_base_patch16_224": (224, 1000, 128),
}
PEAKS = {
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "A100": 312e12,
    "L4": 121e12,
    "RTX 4090": 165e12,
}
"""Dense bfloat16 with float32 sums, operations a second, as the makers publish them; of two names
that fit, the first holds."""
WARM_STEPS = 20
"""Steps before the clock of the training starts: compilation, allocation, choice of kernels."""
QUICK = [
    *("data.name=synthetic", "data.synthetic_size=80", "data.batch_size=8"),
    *("model.depth=1", "model.embed_dim=16", "model.num_heads=2"),
    *("model.conv_stem=[{dim: 8, pool: 4}]", "trainer.accelerator=cpu"),
]


@dataclass(frozen=True)
class Part:
    """A piece of work that is done or not.

    Attributes:
        name: its key in the file.
        seconds: about how long it takes on a recent GPU; one in a process of its own is ended when
            it takes far longer.
        run: does it; returns plain values.
        recipe: mark of the recipe it trains; with another one it is to be done again.
    """

    name: str
    seconds: float
    run: Callable[[], dict[str, Any]]
    recipe: str = ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do the parts that are not done yet, as far as the budget goes; returns the exit code."""
    options = _options(arguments)
    if options.train is not None:
        print(json.dumps(train_once(load_config(options.train[:1], options.train[1:]))))
        return 0
    if not torch.cuda.is_available() and not options.quick:
        print("error: no GPU here; --quick tries the command on the CPU", file=sys.stderr)
        return 1
    options.ends = time.perf_counter() + options.budget
    facts = environment_facts()
    here = {**{key: facts[key] for key in ("hardware", "torch_version")}, "quick": options.quick}
    parts = list(_parts(options))
    found = {} if options.fresh else _read(options.json)
    done, failed = (_still_true(found.get(key, {}), parts, here) for key in ("parts", "failed"))
    # What failed may fail again, after minutes: it must not keep the others from their turn.
    to_do = sorted((p for p in parts if p.name not in done), key=lambda part: part.name in failed)
    left, failed_now = [], []
    for index, part in enumerate(to_do):
        if index and part.seconds > options.ends - time.perf_counter():
            left.append(part.name)
            continue
        print(f"{part.name} ...", flush=True)
        about = {**here, "recipe": part.recipe, "git_commit": facts["git_commit"]}
        result, error = _attempt(part)
        if error is None:
            done[part.name] = {**about, **result}
            failed.pop(part.name, None)
        else:
            print(f"  failed: {error}", file=sys.stderr)
            failed[part.name] = {**about, "error": error}
            failed_now.append(part.name)
        _free_memory()
        whole = {"environment": facts, "parts": done, "failed": failed}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        write_text(options.json, json.dumps(whole, indent=2) + "\n")
    print(f"\n{_table(done)}\n\nNumbers: {options.json}")
    if left:
        print(f"Left for the next run of the same command: {', '.join(left)}.")
    if failed_now:
        print(f"Failed: {', '.join(failed_now)}.")
    return 1 if failed_now else 0


def _attempt(part: Part) -> tuple[dict[str, Any], str | None]:
    """What a part gives and how long it took, or why it failed, in a line.

    Whatever it is, such as too little memory for one model or a library that is not there: the
    other parts can still be measured.
    """
    before = time.perf_counter()
    try:
        result = part.run()
    except Exception as error:
        first, *_ = [*str(error).splitlines(), ""]
        return {}, first.strip() or type(error).__name__
    return {"took_seconds": round(time.perf_counter() - before, 1), **result}, None


def _free_memory() -> None:
    """Give back what a part has left on the device: the next one may be another process."""
    gc.collect()
    torch.cuda.empty_cache()


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = arguments_of(__doc__, rounds=5)
    parser.set_defaults(json=Path("runs/bench-gpu.json"))
    parser.add_argument("--root", default="data", help="folder of CIFAR-10")
    parser.add_argument("--budget", type=float, default=540.0, help="seconds for this run")
    parser.add_argument("--fresh", action="store_true", help="forget the parts that are done")
    parser.add_argument(
        "--epochs",
        nargs=3,
        action="append",
        default=[],
        metavar=("RECIPE", "TARGET", "EPOCHS"),
        help="such as: --epochs stem 94 16",
    )
    parser.add_argument("--train", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.rounds = 1 if options.quick else options.rounds
    return options


def _read(path: Path) -> dict[str, Any]:
    """What an earlier run has left."""
    if not path.exists():
        return {}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _still_true(
    found: Mapping[str, dict[str, Any]], parts: Sequence[Part], here: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """The parts of an earlier run that were done here, by the recipe as it is now."""
    recipes = {part.name: part.recipe for part in parts}
    return {
        name: part
        for name, part in found.items()
        if {**here, "recipe": recipes.get(name, part.get("recipe"))}.items() <= part.items()
    }


def _parts(options: argparse.Namespace) -> Iterator[Part]:
    """What is short and sure comes first, then what is asked most often."""
    device = "cpu" if options.quick else "cuda"
    for name in list(THROUGHPUT)[: 1 if options.quick else None]:
        yield Part(f"training {name}", 40.0, lambda name=name: throughput(name, device, options))  # type: ignore[misc]
    yield Part("attention", 30.0, lambda: _attention(options, device))
    trainings = {(p.name, p.seconds): p for p in _trainings(options)}
    first = [p for p in trainings.values() if p.name.startswith(("stem to 94", "vit to 94"))]
    yield from first
    yield Part("train_step", 120.0, lambda: _train_step(options, device))
    yield from (p for p in trainings.values() if p not in first)


def _trainings(options: argparse.Namespace) -> Iterator[Part]:
    epochs = {(r, t): n for r, targets in EPOCHS.items() for t, n in targets.items()}
    epochs |= {(recipe, int(target)): int(count) for recipe, target, count in options.epochs}
    if options.quick:
        epochs = {("stem", 94): 1}
    for (recipe, target), count in epochs.items():
        seconds = 60.0 + 0.6 * count
        yield Part(
            f"{recipe} to {target} % in {count} epochs",
            seconds,
            lambda recipe=recipe, target=target, count=count, seconds=seconds: _train(  # type: ignore[misc]
                recipe, target, count, options, seconds
            ),
            hashlib.sha256(Path(RECIPES[recipe]).read_bytes()).hexdigest()[:12],
        )


def _train(
    recipe: str, target: int, epochs: int, options: argparse.Namespace, seconds: float
) -> dict[str, Any]:
    """A training in a process of its own, from nothing, thought to take so many seconds."""
    settings = [f"trainer.max_epochs={epochs}", "data.val_fraction=0", f"data.root={options.root}"]
    settings += ["trainer.save_every_n_epochs=100000"]  # its last one is enough
    settings += QUICK if options.quick else ["trainer.compile=true"]
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.gpu", "--train", RECIPES[recipe]]
    # Compilers that the process has left behind may still write there.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        done = subprocess.run(
            [*command, *settings, f"run.dir={folder}/run"],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            timeout=_limit(seconds, options.ends - time.perf_counter()),
            env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": f"{folder}/cache"},
        )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {"target": target, "reached": 100.0 * result["accuracy"] >= target, **result}


def _limit(seconds: float, left: float) -> float:
    """Seconds after which a training is ended that was thought to take so many: half as many more,
    and little more than is left; but two minutes, if there are, for how long compiling takes is
    not known, and what it was thought to take in any case.
    """
    return min(max(120.0, 1.5 * seconds), max(left + 20.0, seconds))


def train_once(config: RunConfig) -> dict[str, Any]:
    """Train and test as ``vitkit train`` does, with one more clock.

    Returns:
        accuracy (a fraction), epochs, steps, training_seconds (as the module's text defines it),
        cold_seconds since the process started, images_per_second of the training.
    """
    clock = Clock(process_seconds())
    device = best_device(config.trainer.accelerator)
    precision = concrete_precision(config.trainer.precision, device)
    trainer_config = config.trainer.model_copy(update={"precision": precision})
    config = config.model_copy(update={"trainer": trainer_config})
    job = ClassificationJob(config)
    run = assemble.Run(config, job, make_run_folder(config), clock)
    progress = TrainingProgress(run.plan, config.data.batch_size, show=False)
    checkpoints = assemble.make_checkpoints(run)
    steps = StepClock(device.type, min(WARM_STEPS, run.plan.total_steps // 2))
    trainer = assemble.make_trainer(
        config,
        max_epochs=config.trainer.max_epochs,
        gradient_clip_val=config.trainer.gradient_clip or None,
        callbacks=[*assemble.make_callbacks(run, progress, checkpoints), steps],
        logger=False,
        default_root_dir=run.folder,
        num_sanity_val_steps=0,
    )
    with assemble.quiet_lightning():
        trainer.fit(assemble.make_task(run), *job.loaders(trainer))
    result = evaluate_checkpoint(checkpoints.last_path, data=job.built.data, progress=False)
    training = steps.seconds_for(run.plan.total_steps)
    return {
        "accuracy": result.metrics["test/acc"],
        "epochs": config.trainer.max_epochs,
        "steps": trainer.global_step,
        "training_seconds": training,
        "cold_seconds": clock.seconds(),
        "images_per_second": run.plan.total_steps * config.data.batch_size / training,
    }


class StepClock(Callback):
    """Time of the steps after the first few, and of whatever lies between them."""

    def __init__(self, device: str, warm: int) -> None:
        self.device, self.warm = device, warm
        self._first: tuple[int, float] | None = None
        self._last = (0, 0.0)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Start after the warm-up."""
        if self._first is None and trainer.global_step >= self.warm:
            self._first = self._now(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop."""
        self._last = self._now(trainer)

    def seconds_for(self, steps: int) -> float:
        """Seconds of so many steps at the rate that was seen."""
        assert self._first is not None
        counted, took = (b - a for a, b in zip(self._first, self._last, strict=True))
        return took / max(counted, 1) * steps

    def _now(self, trainer: Trainer) -> tuple[int, float]:
        synchronize(self.device)
        return trainer.global_step, time.perf_counter()


def throughput(name: str, device: str, options: argparse.Namespace) -> dict[str, Any]:
    """Images a second of a training step, and its share of the peak."""
    side, classes, batch = THROUGHPUT[name]
    batch = 2 if options.quick else batch
    dtype = torch.float32 if options.quick else torch.bfloat16
    model = create_model(name, num_classes=classes).to(device)
    images = torch.randn(batch, 3, side, side, device=device)
    targets = torch.randint(0, classes, (batch,), device=device)
    runs = {
        "step": make_step(
            compiled(model, None if options.quick else "default"), images, targets, dtype
        )
    }
    turn = 0.0 if options.quick else 1.0
    try:
        times = samples(runs, rounds=options.rounds, seconds=turn, device=device)["step"]
    finally:
        torch.compiler.reset()  # what is compiled may hold memory
    speed = batch / median(times)
    peaks = {"measured": product_rate(device, dtype, 256 if options.quick else 8192)}
    published = [v for key, v in PEAKS.items() if re.search(rf"\b{key}\b", _device_name(device))]
    if published:
        peaks["published"] = published[0]
    work = training_flops({"name": name, "num_classes": classes})
    return {
        "batch": batch,
        "images_per_second": speed,
        "flops_per_image": work,
        "executed_flops_per_image": training_flops(
            {"name": name, "num_classes": classes}, executed=True
        ),
        "peaks": peaks,
        "utilisation": {kind: work * speed / peak for kind, peak in peaks.items()},
        "seconds": times,
    }


def product_rate(device: str, dtype: torch.dtype, size: int) -> float:
    """Operations a second of a square matrix product."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    times = samples({"product": lambda: a @ b}, rounds=5, seconds=0.1, device=device)["product"]
    return 2.0 * size**3 / min(times)


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name(0) if device == "cuda" else device


def _train_step(options: argparse.Namespace, device: str) -> dict[str, Any]:
    more = ["--quick"] if options.quick else ["--models", "tiny/4", "base/16"]
    dtypes = ["--dtypes", "float32" if options.quick else "bfloat16"]
    return train_step.measure(train_step.options_of([*more, *dtypes]), device).plain()


def _attention(options: argparse.Namespace, device: str) -> dict[str, Any]:
    more = ["--quick"] if options.quick else ["--dtypes", "bfloat16"]
    return attention.measure(attention.options_of(more), device).plain()


def _table(done: dict[str, Any]) -> str:
    """All parts, a line each."""
    report = Report("vitkit on a GPU", ["part", "result"])
    for name, part in done.items():
        if "cold_seconds" in part:
            verdict = "" if part["reached"] else ", MISSED"
            line = (
                f"{part['accuracy']:.2%}{verdict}, training {part['training_seconds']:.1f} s, "
                f"cold {part['cold_seconds']:.0f} s"
            )
        elif "utilisation" in part:
            shares = [f"{share:.0%} of {kind}" for kind, share in part["utilisation"].items()]
            line = f"{rate(part['images_per_second'])} images/s, {', '.join(shares)}"
        else:
            ratios = [row["ratio"] for row in part["rows"]]
            line = f"ratio {min(ratios):.2f} to {max(ratios):.2f} over {len(ratios)} rows"
        report.rows.append([name, line])
    return report.text()


if __name__ == "__main__":
    sys.exit(main())
