"""Train a tiny two-view model on rendered rooms, until it knows the points of rooms it never saw.

    python -m examples.two_view.toy
    python -m examples.two_view.toy --steps 500 --picture two_view.svg

Prints the error of held-out rooms' point maps before and after, as a share of the points' mean
distance, and that of the best guess without looking, the mean point map of the training rooms. What
is learned is kept in ``--state`` from time to time: the same command goes on where it was stopped,
and ends with the same weights. With ``--picture`` it draws both.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from examples.two_view.dust3r import TwoView
from examples.two_view.losses import confidence_loss, point_error
from examples.two_view.picture import draw
from examples.two_view.scene import Pair, make_pairs
from examples.two_view.sizes import TOY
from vitkit.errors import RunError
from vitkit.evaluation.cost import count_parameters
from vitkit.records import write_beside

__all__ = ["Result", "main"]

SIDE, BATCH, LR, WARMUP = 48, 16, 1e-3, 0.05
HELD_OUT, SAMPLE = 10_000_000, 128
"""Number of the first held-out room, far behind the last one trained on; and how many there are."""

SAVE_EVERY = 100


@dataclass(frozen=True)
class Result:
    """Errors of held-out point maps, as shares of the points' mean distance.

    Attributes:
        before, after: of the model.
        blind: of the mean point map of training rooms.
        seconds: spent in training.
    """

    before: float
    after: float
    blind: float
    seconds: float


def main(arguments: Sequence[str] = ()) -> Result:
    """Train, print, draw."""
    options = _options(arguments)
    held_out = make_pairs(HELD_OUT, SAMPLE, SIDE)
    model = _fresh_model()
    before_points = _predict(model, held_out)
    before = _error(before_points, held_out)
    blind = _error(_mean_points(SAMPLE), held_out)
    print(f"{count_parameters(model):,} parameters; held-out rooms: {SAMPLE}")
    print(f"point-map error before: {before:.1%} of the mean distance", flush=True)
    seconds = _train(model, options.steps, options.state)
    after_points = _predict(model, held_out)
    after = _error(after_points, held_out)
    print(f"point-map error after {options.steps} steps, {seconds:.0f} s: {after:.1%}")
    print(f"without looking, by the mean point map: {blind:.1%}")
    if options.picture is not None:
        index = _typical(after_points, held_out)
        draw(options.picture, held_out, before_points, after_points, index)
        print(f"picture: {options.picture}")
    return Result(before, after, blind, seconds)


def _fresh_model() -> TwoView:
    torch.manual_seed(0)
    return TwoView("linear", TOY)


def _train(model: TwoView, steps: int, state: Path) -> float:
    """Train up to ``steps``; returns the seconds it took, those before a stop included."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, betas=(0.9, 0.95), weight_decay=0.05)
    done, seconds = _restore(model, optimizer, state, steps)
    model.train()
    started = time.perf_counter()
    for step in range(done, steps):
        for group in optimizer.param_groups:
            group["lr"] = LR * _schedule(step / steps)
        pair = make_pairs(step * BATCH, BATCH, SIDE)
        loss = confidence_loss(model(*pair.images), pair.points)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps:
            now = seconds + time.perf_counter() - started
            print(f"  step {step + 1} of {steps}: loss {loss.item():.3f}, {now:.0f} s", flush=True)
            _save(model, optimizer, state, step + 1, steps, now)
    return seconds + time.perf_counter() - started


def _schedule(progress: float) -> float:
    """Factor of the learning rate: a short rise, then half a cosine."""
    if progress < WARMUP:
        return (progress + 1e-3) / (WARMUP + 1e-3)
    return 0.5 * (1 + math.cos(math.pi * (progress - WARMUP) / (1 - WARMUP)))


def _save(
    model: TwoView,
    optimizer: torch.optim.Optimizer,
    path: Path,
    step: int,
    steps: int,
    seconds: float,
) -> None:
    content: dict[str, Any] = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
        "steps": steps,
        "seconds": seconds,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_beside(path, lambda beside: torch.save(content, beside))


def _restore(
    model: TwoView, optimizer: torch.optim.Optimizer, path: Path, steps: int
) -> tuple[int, float]:
    """Steps and seconds that are behind, 0 where nothing is.

    Raises:
        RunError: a state of a training of another length.
    """
    if not path.is_file():
        return 0, 0.0
    content = torch.load(path, weights_only=True)
    if content["steps"] != steps:
        raise RunError(
            f"{path} belongs to a training of {content['steps']} steps, not {steps}; give "
            f"--steps {content['steps']}, or another --state"
        )
    model.load_state_dict(content["model"])
    optimizer.load_state_dict(content["optimizer"])
    print(f"  going on behind step {content['step']} of {path}")
    return content["step"], content["seconds"]


def _predict(model: TwoView, pair: Pair) -> tuple[Tensor, Tensor]:
    model.eval()
    with torch.inference_mode():
        first, second = model(*pair.images)
    return first.points, second.points


def _mean_points(count: int) -> tuple[Tensor, Tensor]:
    """The mean point map of each view over training rooms, (1, side, side, 3)."""
    first, second = make_pairs(0, count, SIDE).points
    return first.mean(dim=0, keepdim=True), second.mean(dim=0, keepdim=True)


def _error(points: tuple[Tensor, Tensor], pair: Pair) -> float:
    return float(point_error(points, pair.points).mean())


def _typical(points: tuple[Tensor, Tensor], pair: Pair) -> int:
    """The room whose error is the median."""
    errors = point_error(points, pair.points)
    return int(errors.argsort()[len(errors) // 2])


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=1000, help="of training")
    parser.add_argument(
        "--state", type=Path, default=Path("runs/two_view/state.pt"), metavar="FILE"
    )
    parser.add_argument("--picture", type=Path, default=None, metavar="FILE", help="SVG to draw")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
