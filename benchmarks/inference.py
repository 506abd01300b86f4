"""Latency, throughput and start-up: vitkit against four other libraries.

    python -m benchmarks.inference
    python -m benchmarks.inference --models base/16 --batches 1 4 16 --dtypes bfloat16 --compile

The same ViT everywhere, on random images, without gradients; bfloat16 under autocast. ``ms``:
milliseconds of one image alone. ``img/s``: images a second, each library at its own best batch,
which may come from different rounds, so that their ratio is one of medians.
Start-up rows: milliseconds of a fresh Python that imports the library, or builds the first model in
it (vitkit imports torch only then), or shows the help. ``ratio``: vitkit's speed over that of the
fastest other library.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Sequence
from statistics import median

import torch
from torch import Tensor, nn

from benchmarks.peers import COLUMNS, MODULES, OURS, SIZES, Vit, build_all, libraries
from benchmarks.timing import (
    DTYPES,
    SHORT,
    Report,
    arguments_of,
    duel,
    rate,
    samples,
    supported,
    versions,
)
from benchmarks.train_step import compiled

__all__ = ["main"]

Times = dict[str, list[float]]


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    options = _options(arguments)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    names, notes = libraries()
    dtypes, left_out = supported(options.dtypes, device)
    how = "eager" if options.compile is None else f"torch.compile, mode {options.compile}"
    report = Report(
        f"Inference, {how}; {versions(names[1:])}",
        ["what", "", "", *(COLUMNS[name] for name in names), "ratio"],
        [*notes, *left_out],
    )
    for model in options.models:
        for dtype in dtypes:
            _add_model(report, model, dtype, names, device, options)
    if not options.no_startup:
        _add_startup(report, names, options)
    report.finish(options.json)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = arguments_of(__doc__)
    parser.add_argument("--models", nargs="+", choices=SIZES, default=["tiny/4", "small/4"])
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--batches", type=int, nargs="+", help="batches to try for throughput")
    parser.add_argument("--seconds", type=float, default=0.5, help="length of a turn")
    parser.add_argument(
        "--compile", nargs="?", const="default", metavar="MODE", help="torch.compile everyone"
    )
    parser.add_argument("--no-startup", action="store_true", help="leave out the start-up rows")
    options = parser.parse_args(arguments)
    if options.quick:
        options.models, options.batches, options.rounds = ["micro/8"], [2], 1
        options.seconds = 0.0
    return options


def _add_model(
    report: Report,
    model: str,
    dtype: str,
    names: list[str],
    device: str,
    options: argparse.Namespace,
) -> None:
    """A row of latencies and a row of throughputs."""
    vit = SIZES[model]
    torch.manual_seed(0)
    networks = {
        name: compiled(network.to(device).eval(), options.compile)
        for name, network in build_all(vit, names).items()
    }

    def timed(batch: int) -> Times:
        images = vit.images(batch, device)
        runs = {name: _forward(network, images, dtype) for name, network in networks.items()}
        return samples(runs, rounds=options.rounds, seconds=options.seconds, device=device)

    times = timed(1)
    _add(report, [model, SHORT[dtype], "ms"], times, 1e3)
    # Seconds an image of each library at its best batch.
    best: Times = {}
    batches: dict[str, int] = {}
    for batch in options.batches or _batches(vit, device):
        for name, values in timed(batch).items():
            an_image = [value / batch for value in values]
            if name not in best or median(an_image) < median(best[name]):
                best[name], batches[name] = an_image, batch
    _add(report, [model, SHORT[dtype], "img/s"], best, None, paired=False, batches=batches)
    torch.compiler.reset()


def _batches(vit: Vit, device: str) -> list[int]:
    """Around the batch of a training step, where throughput has its maximum."""
    usual = vit.batch[device == "cuda"]
    return [max(1, usual // 4), usual, 4 * usual]


def _forward(network: nn.Module, images: Tensor, dtype: str) -> Callable[[], object]:
    device = images.device.type

    def run() -> object:
        with (
            torch.inference_mode(),
            torch.autocast(device, dtype=DTYPES[dtype], enabled=dtype != "float32"),
        ):
            return network(images)

    return run


def _add_startup(report: Report, names: list[str], options: argparse.Namespace) -> None:
    """Fresh processes: each library's import, its first model, our ``--help``, Python alone."""
    names = names[:1] if options.quick else names

    def timed(commands: dict[str, list[str]]) -> Times:
        runs = {name: _process(words) for name, words in commands.items()}
        return samples(runs, rounds=options.rounds, seconds=0.0)

    imports = {name: ["-c", f"import {MODULES.get(name, name)}"] for name in names}
    _add(report, ["import", "", "ms"], timed(imports), 1e3)
    if not options.quick:
        first = "from benchmarks.peers import SIZES, build_all; build_all(SIZES['tiny/4'], [{!r}])"
        models = {name: ["-c", first.format(name)] for name in names}
        _add(report, ["first model", "", "ms"], timed(models), 1e3)
    alone = timed({OURS: ["-m", "vitkit", "--help"], "Python": ["-c", "pass"]})
    bare = median(alone.pop("Python"))
    _add(report, ["--help", "", "ms"], alone, 1e3)
    report.notes.append(f"Start-up of Python alone: {bare * 1e3:.0f} ms.")


def _process(words: list[str]) -> Callable[[], object]:
    return lambda: subprocess.run([sys.executable, *words], check=True, capture_output=True)


def _add(
    report: Report,
    what: list[str],
    times: Times,
    scale: float | None,
    *,
    paired: bool = True,
    **more: object,
) -> None:
    """A row of medians: ``scale`` times the seconds, or for None their inverse.

    ``paired``: all were timed in the same rounds; else the ratio is that of the medians.
    """
    names = [name for name in COLUMNS if COLUMNS[name] in report.header]
    medians = {name: median(values) for name, values in times.items()}
    shown = {
        name: 1.0 / value if scale is None else scale * value for name, value in medians.items()
    }
    ratio, best = duel(times) if len(times) > 1 else (None, None)
    if best is not None and not paired:
        ratio = medians[best] / medians[OURS]
    report.add(
        [
            *what,
            *(rate(shown[name]) if name in shown else "" for name in names),
            "" if ratio is None else f"{ratio:.2f}",
        ],
        what=" ".join(what),
        medians=shown,
        ratio=ratio,
        best_peer=best,
        seconds=times,
        **more,
    )


if __name__ == "__main__":
    main()
