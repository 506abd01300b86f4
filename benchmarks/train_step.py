"""One optimiser step of the same ViT: vitkit against four other libraries.

    python -m benchmarks.train_step
    python -m benchmarks.train_step --models base/16 --batch 8 --dtypes bfloat16 --compile

Forward pass, cross-entropy, backward pass and the same fused AdamW for all, on random images;
bfloat16 under autocast. ``ratio`` is vitkit's speed over that of the fastest other library.
``peak`` is the share of the time that the model's linear layers alone take as bare matrix products
in the same run; vitkit computes only what the class token reads in the last block, so that it can
do a little better than the model's whole count would allow.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.peers import COLUMNS, OURS, SIZES, Vit, build_all, libraries
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
from vitkit.nn import linear

__all__ = ["compiled", "main", "make_step", "measure", "options_of", "products"]

PRODUCTS = "products"
"""Name of the contestant that only multiplies."""


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    options = options_of(arguments)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    measure(options, device).finish(options.json)


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = arguments_of(__doc__)
    sizes = [name for name in SIZES if name != "micro/8"]
    parser.add_argument("--models", nargs="+", choices=SIZES, default=["tiny/4", "small/4"])
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--batch", type=int, help="images of a step, in place of the size's own")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a turn")
    parser.add_argument(
        "--compile", nargs="?", const="default", metavar="MODE", help="torch.compile everyone"
    )
    parser.epilog = f"Models: {', '.join(sizes)}."
    options = parser.parse_args(arguments)
    if options.quick:
        options.models, options.rounds, options.seconds = ["micro/8"], 2, 0.0
    return options


def measure(options: argparse.Namespace, device: str) -> Report:
    """All models in all formats."""
    names, notes = libraries()
    dtypes, left_out = supported(options.dtypes, device)
    how = "eager" if options.compile is None else f"torch.compile, mode {options.compile}"
    report = Report(
        f"One optimiser step (AdamW), images/s, {how}; {versions(names[1:])}",
        ["model", "batch", "", *(COLUMNS[name] for name in names), "ratio", "peak"],
        [*notes, *left_out],
    )
    for model in options.models:
        vit = SIZES[model]
        batch = options.batch or vit.batch[device == "cuda"]
        for dtype in dtypes:
            times = _times(vit, names, batch, DTYPES[dtype], device, options)
            seconds = {name: median(values) for name, values in times.items()}
            bare = seconds.pop(PRODUCTS)
            ratio, best = duel({name: times[name] for name in names})
            report.add(
                [
                    *(model, str(batch), SHORT[dtype]),
                    *(rate(batch / seconds[name]) for name in names),
                    *(f"{ratio:.2f}", f"{bare / seconds[OURS]:.0%}"),
                ],
                model=model,
                batch=batch,
                dtype=dtype,
                compile=options.compile,
                images_per_second={name: batch / value for name, value in seconds.items()},
                ratio=ratio,
                best_peer=best,
                share_of_products=bare / seconds[OURS],
                seconds=times,
            )
    return report


def _times(
    vit: Vit,
    names: list[str],
    batch: int,
    dtype: torch.dtype,
    device: str,
    options: argparse.Namespace,
) -> dict[str, list[float]]:
    torch.manual_seed(0)
    images = vit.images(batch, device)
    targets = torch.randint(0, vit.num_classes, (batch,), device=device)
    runs: dict[str, Callable[[], object]] = {
        name: make_step(compiled(model.to(device), options.compile), images, targets, dtype)
        for name, model in build_all(vit, names).items()
    }
    runs[PRODUCTS] = products(vit, batch, dtype, device)
    times = samples(runs, rounds=options.rounds, seconds=options.seconds, device=device)
    times[PRODUCTS] = [vit.depth * value for value in times[PRODUCTS]]
    torch.compiler.reset()
    return times


def compiled(model: nn.Module, mode: str | None) -> nn.Module:
    """The model under ``torch.compile``; as it is for None."""
    if mode is None:
        return model
    wrapped: nn.Module = torch.compile(model, mode=mode, dynamic=False)  # type: ignore[assignment]
    return wrapped


def make_step(
    model: nn.Module, images: Tensor, targets: Tensor, dtype: torch.dtype
) -> Callable[[], None]:
    """One optimiser step as a function."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.05, fused=True)
    device = images.device.type

    def step() -> None:
        with torch.autocast(device, dtype=dtype, enabled=dtype != torch.float32):
            logits = model(images)
        loss = F.cross_entropy(logits.float(), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def products(vit: Vit, batch: int, dtype: torch.dtype, device: str) -> Callable[[], None]:
    """The matrix products of one block's linear layers in a training step, and nothing else, by the
    library that vitkit takes.

    Each layer of weight (b, a) multiplies three times: x W^T forward, dy W and dy^T x backward.
    """
    width, rows = vit.embed_dim, batch * vit.tokens
    shapes = [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)]

    def made(*shape: int) -> Tensor:
        return torch.randn(shape, device=device, dtype=dtype)

    layers = [
        (made(rows, a).requires_grad_(), made(b, a).requires_grad_(), made(rows, b))
        for a, b in shapes
    ]

    def multiply() -> None:
        for x, weight, grad in layers:
            torch.autograd.grad(linear(x, weight), (x, weight), grad)

    return multiply


if __name__ == "__main__":
    main()
