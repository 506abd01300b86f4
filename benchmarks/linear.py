"""A float32 linear layer on a CPU: vitkit's choice of library against both that torch has.

    python -m benchmarks.linear

``ratio``: speed of vitkit's own choice over that of ``torch.nn.functional.linear``. The other
columns: thousands of millions of operations a second, two a multiplication, of torch's function
(MKL, in most builds) and of oneDNN. The rule in ``vitkit/nn/products.py`` is read off this table.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.timing import Report, arguments_of, duel, geometric_mean, rate, samples
from vitkit.nn import hardware, linear
from vitkit.nn.products import OneDnnProduct

__all__ = ["main", "measure", "options_of"]

SHAPES = (
    *((64, 192, 192), (65, 192, 768), (256, 128, 128), (768, 128, 512), (768, 512, 128)),
    *((4160, 192, 576), (4160, 192, 768), (4160, 768, 192), (3152, 384, 1536), (788, 768, 3072)),
)
"""(rows, inputs, outputs): of one picture and of batches, in the widths of small ViTs."""

OURS, TORCH, ONEDNN = "vitkit", "torch", "oneDNN"


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    options = options_of(arguments)
    measure(options).finish(options.json)


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = arguments_of(__doc__)
    parser.add_argument("--seconds", type=float, default=0.1, help="length of a turn")
    options = parser.parse_args(arguments)
    options.shapes = SHAPES
    if options.quick:
        options.shapes, options.rounds, options.seconds = [(8, 16, 16)], 1, 0.0
    return options


def measure(options: argparse.Namespace) -> Report:
    """All shapes, without and with a backward pass."""
    report = Report(
        "A linear layer, GFLOP/s, float32; f: forward, b: and backward",
        ["rows, in, out", "ratio", TORCH, ONEDNN],
    )
    for rows, inputs, outputs in options.shapes:
        for backward in (False, True):
            runs = {
                name: _runner(call, rows, inputs, outputs, backward)
                for name, call in CONTESTANTS.items()
            }
            times = samples(runs, rounds=options.rounds, seconds=options.seconds)
            ratio, _ = duel({name: times[name] for name in (OURS, TORCH)}, OURS)
            operations = 2 * rows * inputs * outputs * (3 if backward else 1)
            rates = {name: operations / median(values) / 1e9 for name, values in times.items()}
            report.add(
                [
                    f"{rows} {inputs} {outputs} {'b' if backward else 'f'}",
                    *(f"{ratio:.2f}", rate(rates[TORCH])),
                    rate(rates[ONEDNN]) if ONEDNN in rates else "-",
                ],
                shape=[rows, inputs, outputs],
                backward=backward,
                ratio=ratio,
                gflops=rates,
                seconds=times,
            )
    ratios = [values["ratio"] for values in report.values]
    report.notes.append(
        f"Ratio: geometric mean {geometric_mean(ratios):.2f}, worst {min(ratios):.2f}."
    )
    return report


def _onednn(x: Tensor, weight: Tensor) -> Tensor:
    product: Tensor = OneDnnProduct.apply(x, weight, None)  # type: ignore[no-untyped-call]
    return product


CONTESTANTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {OURS: linear, TORCH: F.linear}
if hardware.HAS_ONEDNN_LINEAR:
    CONTESTANTS[ONEDNN] = _onednn


def _runner(
    call: Callable[[Tensor, Tensor], Tensor], rows: int, inputs: int, outputs: int, backward: bool
) -> Callable[[], object]:
    x = torch.randn(rows, inputs, requires_grad=backward)
    weight = torch.randn(outputs, inputs, requires_grad=backward)
    if backward:
        grad = torch.randn(rows, outputs)
        return lambda: torch.autograd.grad(call(x, weight), (x, weight), grad)

    def forward() -> Tensor:
        with torch.no_grad():
            return call(x, weight)

    return forward


if __name__ == "__main__":
    main()
