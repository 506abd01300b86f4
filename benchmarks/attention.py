"""The kernel that vitkit picks against every kernel that torch offers.

    python -m benchmarks.attention                # the whole grid
    python -m benchmarks.attention --tokens 65 197 --masks none

``ratio``: speed of vitkit's own choice over that of the fastest of torch's kernels that can do the
job. The other columns: each kernel's time over the fastest one's. The rule in
``vitkit/nn/functional.py`` is read off this table.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.timing import (
    DTYPES,
    SHORT,
    Report,
    arguments_of,
    duel,
    geometric_mean,
    samples,
    supported,
)
from vitkit.nn import attention, attention_kernel, functional

__all__ = ["main", "measure", "options_of"]

TOKENS = (17, 65, 145, 197, 257, 577, 1025, 4096)
MASKS = ("none", "causal", "padding", "float")
HEADS, WIDTH = 3, 64
# Enough tokens in a batch to keep all cores busy, as in training; one sequence at the long end.
BATCH_TOKENS = {"cpu": 4160, "cuda": 266_240}
AUTO = "auto"
BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "eff": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}
ON_CPU = ("flash", "math")
Call = Callable[[Tensor, Tensor, Tensor], Tensor]


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    options = options_of(arguments)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    measure(options, device).finish(options.json)


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = arguments_of(__doc__)
    parser.add_argument("--tokens", type=int, nargs="+", default=TOKENS)
    parser.add_argument("--masks", nargs="+", choices=MASKS, default=("none",))
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--seconds", type=float, default=0.05, help="length of a turn")
    options = parser.parse_args(arguments)
    if options.quick:
        options.tokens, options.dtypes = (5,), ["float32"]
        options.rounds, options.seconds = 1, 0.0
    return options


def measure(options: argparse.Namespace, device: str) -> Report:
    """All points of the grid."""
    kernels = [*functional.KERNELS, *(b for b in BACKENDS if device == "cuda" or b in ON_CPU)]
    dtypes, left_out = supported(options.dtypes, device)
    report = Report(
        f"Attention, {HEADS} heads of {WIDTH}: time over the fastest; f: forward, b: and backward",
        ["dtype, mask, tokens", "ratio", *kernels],
        [f"{', '.join(functional.KERNELS)}: vitkit's kernels. The others: torch's.", *left_out],
    )
    for dtype in dtypes:
        for mask in options.masks:
            for tokens in options.tokens:
                for backward in (False, True):
                    point = (DTYPES[dtype], mask, tokens, backward)
                    times = _point(*point, device, options.rounds, options.seconds)
                    _add(report, kernels, dtype, mask, tokens, backward, times)
    ratios = [values["ratio"] for values in report.values]
    report.notes.append(
        f"Ratio: geometric mean {geometric_mean(ratios):.2f}, worst {min(ratios):.2f}."
    )
    return report


def _add(
    report: Report,
    kernels: list[str],
    dtype: str,
    mask: str,
    tokens: int,
    backward: bool,
    times: dict[str, list[float]],
) -> None:
    medians = {name: median(values) for name, values in times.items()}
    fastest = min(medians.values())
    ours = {name: values for name, values in times.items() if name in (AUTO, *BACKENDS)}
    ratio, best = duel(ours, AUTO)
    case = f"{SHORT[dtype]} {mask} {tokens} {'b' if backward else 'f'}"
    others = [f"{medians[k] / fastest:.2f}" if k in medians else "-" for k in kernels]
    report.add(
        [case, f"{ratio:.2f}", *others],
        dtype=dtype,
        mask=mask,
        tokens=tokens,
        backward=backward,
        ratio=ratio,
        best_peer=best,
        seconds=times,
    )


def _point(
    dtype: torch.dtype,
    mask: str,
    tokens: int,
    backward: bool,
    device: str,
    rounds: int,
    seconds: float,
) -> dict[str, list[float]]:
    batch = max(1, BATCH_TOKENS[device] // tokens)
    shape = (batch, HEADS, tokens, WIDTH)
    q, k, v = (torch.randn(shape, device=device, dtype=dtype) for _ in range(3))
    grad = torch.randn_like(q)
    runs: dict[str, Callable[[], object]] = {}
    for name, call in _contestants(mask, batch, tokens, device).items():
        run = _runner(call, q, k, v, grad, backward)
        try:
            run()
        except RuntimeError:  # this kernel cannot do this
            continue
        runs[name] = run
    return samples(runs, rounds=rounds, seconds=seconds, device=device)


def _runner(
    call: Call, q: Tensor, k: Tensor, v: Tensor, grad: Tensor, backward: bool
) -> Callable[[], object]:
    if not backward:

        def forward() -> Tensor:
            with torch.no_grad():
                return call(q, k, v)

        return forward
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    return lambda: torch.autograd.grad(call(*leaves), leaves, grad)


def _contestants(mask: str, batch: int, tokens: int, device: str) -> dict[str, Call]:
    """Every kernel as a function of q, k, v; torch's get the mask in the form they like best."""
    given: Tensor | None = None
    if mask == "padding":
        lengths = torch.randint(tokens // 2, tokens + 1, (batch, 1, 1, 1), device=device)
        given = torch.arange(tokens, device=device) < lengths
    elif mask == "float":
        given = torch.randn(1, HEADS, tokens, tokens, device=device)
    causal = mask == "causal"

    def ours(kernel: str) -> Call:
        def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            with attention_kernel(kernel):  # type: ignore[arg-type]
                return attention(q, k, v, mask=given, is_causal=causal)

        return call

    def torchs(backend: SDPBackend) -> Call:
        def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            cast = given if given is None or given.dtype == torch.bool else given.to(q.dtype)
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(q, k, v, attn_mask=cast, is_causal=causal)

        return call

    calls = {kernel: ours(kernel) for kernel in (AUTO, *functional.KERNELS)}
    for name, backend in BACKENDS.items():
        if device == "cuda" or name in ON_CPU:
            calls[name] = torchs(backend)
    return calls


if __name__ == "__main__":
    main()
