"""What the standard suite and the report add to the forward passes of an evaluation.

    python -m benchmarks.eval_overhead
    python -m benchmarks.eval_overhead --model vit_mini_patch4_32 --rounds 5

CIFAR-10's 10,000 test images and the validation images that the temperature is fitted on, with
fresh weights: what is measured does not depend on them. ``forward``: the model over both, batch by
batch, its logits kept. ``suite``: the same, and all numbers of ``eval --suite standard``.
``files``: what the evaluation writes besides. ``report``: pictures, attention maps and page. In
turn, medians; ``share`` is of the forward passes, and the suite's should stay below 15 %.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from benchmarks.images import MEAN, STD, cifar10_or_random
from benchmarks.timing import Report, arguments_of, samples
from vitkit.app.build import build
from vitkit.app.devices import best_device
from vitkit.app.reporter import Tested, report_evaluation
from vitkit.app.subjects import Subject
from vitkit.app.suites import predictions_of, record_of, standard_measures
from vitkit.config import load_config
from vitkit.data.info import DataInfo
from vitkit.data.splits import ImageData, ResidentSplit
from vitkit.records import Record

__all__ = ["main"]

MODEL = "cct_2_3x2_32"
TEST, VALIDATION, QUICK = 10_000, 5_000, 64
TARGET = 0.15


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    options = _options(arguments)
    data, source = _data(options.root, QUICK if options.quick else TEST)
    with tempfile.TemporaryDirectory() as folder:
        subject = _subject(options, data, Path(folder))
        times = samples(_contestants(subject), rounds=options.rounds, seconds=0.0)
    _report(times, f"{options.model} on {source} images").finish(options.json)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = arguments_of(__doc__, rounds=3)
    parser.add_argument("--root", type=Path, default=Path("data"), help="folder of CIFAR-10")
    parser.add_argument("--model", default=MODEL, help="of images of 32 x 32")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds = 1
    return options


def _data(root: Path, count: int) -> tuple[ImageData, str]:
    """Images to evaluate, half as many to fit a temperature on, and what they are."""
    half = min(VALIDATION, count // 2)
    train, test, source = cifar10_or_random(root, half, count)
    names = tuple(f"class {index}" for index in range(10))
    info = DataInfo("cifar10", names, 3, (32, 32), MEAN, STD, num_test=count)
    held_out = ResidentSplit(*train)
    return ImageData(info, held_out, held_out, ResidentSplit(*test)), source


def _subject(options: argparse.Namespace, data: ImageData, folder: Path) -> Subject:
    """An untrained model, opened as an evaluation opens a trained one."""
    config = load_config([], [f"model.name={options.model}", "data.name=cifar10"])
    built = build(config, data)
    device = best_device("auto")
    return Subject(
        model=built.model.eval().to(device),
        section=built.section,
        preprocessing=built.preprocessing,
        data=data,
        config=config,
        device=device,
        path=folder / "none.ckpt",
        weights_name="trained",
        folder=folder,
        facts={"model": options.model, "data": "cifar10"},
    )


def _contestants(subject: Subject) -> dict[str, Callable[[], object]]:
    """What is timed; the later ones work on what the suite found."""
    data, folder = subject.data, subject.folder
    test, val = data.test, data.val
    assert test is not None and val is not None
    measured, predictions = standard_measures(subject, "test", progress=False)

    def forward() -> None:
        for images, what in ((test, "test"), (val, "val")):
            predictions_of(subject, images, what, progress=False)

    def files() -> None:
        record_of(subject, predictions, "test").write(folder / "predictions.npz")
        Record(measured.metrics, dict(subject.facts), dict(measured.tables)).write(
            folder / "eval.json"
        )

    def report() -> None:
        if report_evaluation(folder, Tested(subject, predictions, "test")) is None:
            raise SystemExit(1)  # why not is on the screen already

    files()
    return {
        "forward": forward,
        "suite": lambda: standard_measures(subject, "test", progress=False),
        "files": files,
        "report": report,
    }


def _report(times: dict[str, list[float]], what: str) -> Report:
    report = Report(f"Evaluation, {what}", ["what", "s", "share"])
    forward = times["forward"]
    shares = {
        "forward": None,
        # Within each round, where both saw the same machine.
        "suite": median(s / f - 1 for s, f in zip(times["suite"], forward, strict=True)),
        "files": median(times["files"]) / median(forward),
        "report": median(times["report"]) / median(forward),
    }
    labels = {"suite": "suite, forward included", "files": "files", "report": "report"}
    for name, share in shares.items():
        seconds = median(times[name])
        shown = "" if share is None else f"{share:+.1%}"
        report.add(
            [labels.get(name, name), f"{seconds:.2f}", shown],
            name=name,
            seconds=times[name],
            share=share,
        )
    report.notes.append(f"The suite should add less than {TARGET:.0%} to the forward passes.")
    return report


if __name__ == "__main__":
    main()
