"""The kernel that vitkit picks against every kernel that torch offers.

    python -m benchmarks.attention                # the whole grid
    python -m benchmarks.attention --tokens 65 197 --masks none

Prints, for each point, how much faster vitkit's own choice is than the fastest of torch's kernels
that can do the job (above 1: vitkit is faster), and each kernel's time over the fastest one's.
The rule in ``vitkit/nn/functional.py`` is read off this table.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.timing import geometric_mean, interleaved, machine, table
from vitkit.nn import attention, attention_kernel, functional

TOKENS = (17, 65, 145, 197, 257, 577, 1025, 4096)
MASKS = ("none", "causal", "padding", "float")
HEADS, WIDTH = 3, 64
# Enough tokens in a batch to keep all cores busy, as in training; one sequence at the long end.
BATCH_TOKENS = 4160
BACKENDS = {
    "torch flash": SDPBackend.FLASH_ATTENTION,
    "torch efficient": SDPBackend.EFFICIENT_ATTENTION,
    "torch cudnn": SDPBackend.CUDNN_ATTENTION,
    "torch math": SDPBackend.MATH,
}
Call = Callable[[Tensor, Tensor, Tensor], Tensor]


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    options = _options(arguments)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(f"{machine()}\n{HEADS} heads of {WIDTH}; times over the fastest; (f) forward, (b) both\n")
    rows, ratios = [], []
    for dtype in (getattr(torch, name) for name in options.dtypes):
        for mask in options.masks:
            for tokens in options.tokens:
                for backward in (False, True):
                    row, ratio = _point(dtype, mask, tokens, backward, device, options.rounds)
                    rows.append(row)
                    ratios.append(ratio)
                    print(f"  {' '.join(row[:4])}: {row[4]}", flush=True)
    kernels = ["vitkit auto", *(f"vitkit {k}" for k in functional.KERNELS), *BACKENDS]
    used = [k for k in kernels if any(k in row[5] for row in rows)]
    header = ["dtype", "mask", "tokens", "pass", "ours / best of torch", *used]
    print("\n" + table(header, [[*r[:5], *(r[5].get(k, "-") for k in used)] for r in rows]))
    print(f"\ngeometric mean {geometric_mean(ratios):.2f}, worst {min(ratios):.2f}")


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tokens", type=int, nargs="+", default=TOKENS)
    parser.add_argument("--masks", nargs="+", choices=MASKS, default=("none",))
    parser.add_argument(
        "--dtypes", nargs="+", choices=("float32", "bfloat16"), default=("float32", "bfloat16")
    )
    parser.add_argument("--rounds", type=int, default=7)
    return parser.parse_args(arguments)


def _point(
    dtype: torch.dtype, mask: str, tokens: int, backward: bool, device: str, rounds: int
) -> tuple[list, float]:  # type: ignore[type-arg]
    batch = max(1, BATCH_TOKENS // tokens)
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
    times = interleaved(runs, rounds=rounds, device=device)
    fastest = min(times.values())
    ratio = min(t for name, t in times.items() if name.startswith("torch")) / times["vitkit auto"]
    row = [str(dtype)[6:], mask, str(tokens), "b" if backward else "f", f"{ratio:.2f}"]
    return [*row, {name: f"{t / fastest:.2f}" for name, t in times.items()}], ratio


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

    calls = {f"vitkit {kernel}": ours(kernel) for kernel in ("auto", *functional.KERNELS)}
    for name, backend in BACKENDS.items():
        if device == "cuda" or name in ("torch flash", "torch math"):
            calls[name] = torchs(backend)
    return calls


if __name__ == "__main__":
    main()
