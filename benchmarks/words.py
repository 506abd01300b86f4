"""Words: a training step and writing of the same character model, against nanoGPT.

    git clone https://github.com/karpathy/nanoGPT
    python -m benchmarks.words nanoGPT

The folder's ``model.py`` is imported and run as it is. A step is what nanoGPT's training script
does of it: forward pass with the loss, backward pass, gradients clipped to 1, its own AdamW; vitkit
takes the same step with torch's fused AdamW. Writing is drawing from the 200 likeliest characters,
one text, 256 characters after the first; vitkit keeps keys and values, nanoGPT reads the whole text
for every character. Both models have the same parameters but for vitkit's biases of the norms and
of the MLP.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.timing import DTYPES, SHORT, Report, arguments_of, duel, rate, samples, supported
from vitkit import create_model
from vitkit.models.decoding import generate

__all__ = ["main", "measure", "options_of", "peer", "writers"]

VOCABULARY = 65
OURS, PEER = "vitkit", "nanoGPT"


@dataclass(frozen=True)
class Size:
    """A character model and the batch it trains with."""

    depth: int
    num_heads: int
    embed_dim: int
    window: int
    batch: int


SIZES = {
    "cpu": Size(4, 4, 128, 64, 12),
    "gpu": Size(6, 6, 384, 256, 64),
    "micro": Size(1, 2, 16, 8, 2),
}
"""nanoGPT's two settings for Shakespeare, and one to try whether this runs."""


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    options = options_of(arguments)
    measure(options).finish(options.json)


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = arguments_of(__doc__)
    parser.add_argument("folder", type=Path, help="a clone of github.com/karpathy/nanoGPT")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["cpu"])
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--tokens", type=int, default=256, help="characters to write")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a turn")
    options = parser.parse_args(arguments)
    if options.quick:
        options.sizes, options.rounds, options.seconds, options.tokens = ["micro"], 2, 0.0, 4
    return options


def measure(options: argparse.Namespace) -> Report:
    """All sizes in all formats, training and writing."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtypes, notes = supported(options.dtypes, device)
    report = Report(
        "Characters a second, eager; a training step, and writing one text",
        ["size", "what", "", OURS, PEER, "ratio"],
        notes,
    )
    for name in options.sizes:
        for dtype in dtypes:
            size = SIZES[name]
            learning = steps(options.folder, size, DTYPES[dtype], device)
            jobs = [(f"{size.window} x {size.batch}", size.window * size.batch, learning)]
            if dtype == "float32":
                writing = writers(options.folder, size, options.tokens, device)
                jobs.append((f"{options.tokens} written", options.tokens, writing))
            for what, characters, runs in jobs:
                times = samples(runs, rounds=options.rounds, seconds=options.seconds, device=device)
                ratio, _ = duel(times, OURS)
                rates = {who: characters / median(values) for who, values in times.items()}
                shown = [rate(rates[OURS]), rate(rates[PEER]), f"{ratio:.2f}"]
                report.add(
                    [name, what, SHORT[dtype], *shown],
                    size=name,
                    what=what,
                    dtype=dtype,
                    characters_per_second=rates,
                    ratio=ratio,
                    seconds=times,
                )
    return report


def peer(folder: Path, size: Size, window: int, device: str) -> Any:
    """nanoGPT's model of that size, from its own file."""
    file = folder / "model.py"
    if not file.is_file():
        raise SystemExit(f"{file}: no such file; give a clone of github.com/karpathy/nanoGPT")
    spec = importlib.util.spec_from_file_location("nanogpt_model", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["nanogpt_model"] = module  # its dataclass looks itself up there
    spec.loader.exec_module(module)
    config = module.GPTConfig(
        block_size=window,
        vocab_size=VOCABULARY,
        n_layer=size.depth,
        n_head=size.num_heads,
        n_embd=size.embed_dim,
        dropout=0.0,
        bias=False,
    )
    with contextlib.redirect_stdout(io.StringIO()):
        return module.GPT(config).to(device)


def ours(size: Size, window: int, device: str) -> Any:
    """The same model of vitkit, as configs/shakespeare_char.yaml builds it."""
    model: Any = create_model(
        "lm_char_mini",
        vocab_size=VOCABULARY,
        max_len=window,
        depth=size.depth,
        num_heads=size.num_heads,
        embed_dim=size.embed_dim,
        qkv_bias=False,
        proj_bias=False,
        act_layer="gelu",
    )
    return model.to(device)


def steps(
    folder: Path, size: Size, dtype: torch.dtype, device: str
) -> dict[str, Callable[[], object]]:
    """One training step of each."""
    text = torch.randint(0, VOCABULARY, (size.batch, size.window + 1), device=device)
    theirs, mine = peer(folder, size, size.window, device), ours(size, size.window, device)
    with contextlib.redirect_stdout(io.StringIO()):
        their_adamw = theirs.configure_optimizers(0.1, 1e-3, (0.9, 0.99), device)
    settings: dict[str, Any] = {"lr": 1e-3, "betas": (0.9, 0.99), "weight_decay": 0.1}
    my_adamw = torch.optim.AdamW(mine.parameters(), fused=True, **settings)
    inputs, targets = text[:, :-1].contiguous(), text[:, 1:].contiguous()

    def my_loss() -> Tensor:
        return F.cross_entropy(mine(inputs).flatten(0, 1).float(), targets.flatten())

    def their_loss() -> Tensor:
        loss: Tensor = theirs(inputs, targets)[1]
        return loss

    def step(model: nn.Module, loss_of: Callable[[], Tensor], optimizer: Any) -> None:
        with torch.autocast(device, dtype=dtype, enabled=dtype != torch.float32):
            loss = loss_of()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return {
        OURS: lambda: step(mine, my_loss, my_adamw),
        PEER: lambda: step(theirs, their_loss, their_adamw),
    }


def writers(folder: Path, size: Size, tokens: int, device: str) -> dict[str, Callable[[], object]]:
    """``tokens`` characters of each, after one that is given."""
    theirs = peer(folder, size, tokens + 1, device).eval()
    mine = ours(size, tokens + 1, device).eval()
    start = torch.zeros(1, 1, dtype=torch.long, device=device)
    top_k = min(200, VOCABULARY)
    return {
        OURS: lambda: generate(mine, start, tokens, temperature=0.8, top_k=top_k),
        PEER: lambda: theirs.generate(start, tokens, temperature=0.8, top_k=top_k),
    }


if __name__ == "__main__":
    main()
