"""What a recurrence forgets and attention keeps, and what each costs: a study in a few minutes.

    python -m examples.sequence_mixers
    python -m examples.sequence_mixers --lengths 16 64 256 --picture study.png

A key lies somewhere in a sequence of noise, and must be named at the sequence's end. An RNN, an
LSTM and a causal Transformer of about 100,000 parameters each learn that, at growing lengths.
Prints a table: the share of right answers, also of those whose key lies nearest and farthest (the
last and the first quarter of the sequence: what fails at both has not learned, what fails at one
forgets), the time of a training step, and how much of the gradient that reaches the last token
reaches the first, in the fresh model. Each row is kept as soon as it is there: the same command
goes on where it was stopped. With matplotlib installed it also draws them.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vitkit
from vitkit.app.facts import environment_facts
from vitkit.evaluation.cost import count_parameters
from vitkit.records import write_text

__all__ = ["gradient_by_distance", "main", "recall_by_distance", "sequences"]

NOISE, KEYS = 16, 8
"""Different tokens of noise, and different keys behind them."""

MIXERS: dict[str, dict[str, Any]] = {
    "rnn": {"model": "lstm_music", "cell": "rnn", "embed_dim": 64, "hidden_dim": 288},
    "lstm": {"model": "lstm_music", "cell": "lstm", "embed_dim": 64, "hidden_dim": 128},
    "attention": {
        "model": "lm_char_mini",
        "embed_dim": 64,
        "depth": 2,
        "num_heads": 4,
        "pos_embed": "rotary",
    },
}
BATCH = 64
Row = dict[str, Any]


def main(arguments: Sequence[str] = ()) -> dict[str, Row]:
    """Measure what is missing, print the table, draw it; returns the rows by their name."""
    options = _options(arguments)
    rows: dict[str, Row] = {}
    if options.json.is_file():
        rows = json.loads(options.json.read_text(encoding="utf-8"))
    # Times of another machine are not this one's.
    same = f"{options.steps} steps, seed {options.seed}, {environment_facts()['hardware']}"
    for length in options.lengths:
        for mixer in MIXERS:
            key = f"{mixer}, {length} tokens, {same}"
            if key not in rows:
                rows[key] = study(mixer, length, options.steps, options.seed)
                write_text(options.json, json.dumps(rows, indent=2) + "\n")
    mine = [row for key, row in rows.items() if key.endswith(f" tokens, {same}")]
    print(_table(mine))
    print(f"numbers: {options.json}")
    if options.picture is not None and _draw(mine, options.picture):
        print(f"picture: {options.picture}")
    return rows


def study(mixer: str, length: int, steps: int, seed: int = 0) -> Row:
    """Train one mixer at one length, and measure it."""
    torch.manual_seed(seed)
    settings = dict(MIXERS[mixer])
    if mixer == "attention":
        settings["max_len"] = length
    model = vitkit.create_model(settings.pop("model"), vocab_size=NOISE + KEYS, **settings)
    fresh = gradient_by_distance(model, length)
    seconds = _train(model, length, steps, seed)
    by_distance = recall_by_distance(model, length)
    row: Row = {
        "mixer": mixer,
        "length": length,
        "steps": steps,
        "parameters": count_parameters(model),
        "accuracy": float(by_distance.mean()),
        "accuracy_near": float(by_distance[: max(1, length // 4)].mean()),
        "accuracy_far": float(by_distance[-max(1, length // 4) :].mean()),
        "seconds_per_step": seconds,
        "recall_by_distance": by_distance.tolist(),
        "gradient_by_distance": fresh.tolist(),
        "gradient_by_distance_trained": gradient_by_distance(model, length).tolist(),
    }
    print(f"  {mixer}, {length} tokens: {row['accuracy']:.1%} right", flush=True)
    return row


def sequences(places: Tensor, length: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Noise with a key at ``places``.

    Args:
        places: of the keys, int64 (B,).
        length: tokens of a sequence.
        draw: where noise and keys are from.

    Returns:
        Tokens int64 (B, length) and the keys' numbers int64 (B,).
    """
    tokens = torch.randint(NOISE, (len(places), length), generator=draw)
    keys = torch.randint(KEYS, (len(places),), generator=draw)
    return tokens.scatter(1, places[:, None], NOISE + keys[:, None]), keys


def recall_by_distance(model: nn.Module, length: int, each: int = 64) -> Tensor:
    """Share of right answers at each distance of the key from the end, float (length,)."""
    right = torch.zeros(length)
    model.eval()
    with torch.no_grad():
        for distance in range(length):
            places = torch.full((each,), length - 1 - distance)
            draw = torch.Generator().manual_seed(distance)
            tokens, keys = sequences(places, length, draw)
            right[distance] = (_answers(model, tokens).argmax(dim=1) == keys).float().mean()
    return right


def gradient_by_distance(model: nn.Module, length: int) -> Tensor:
    """Norm of the last answer's gradient by each embedded token, at its distance from the end.

    The mean over a batch of noise without keys, float (length,).
    """
    held: list[Tensor] = []

    def hold(module: nn.Module, inputs: Any, output: Tensor) -> None:
        output.retain_grad()
        held.append(output)

    tokens = torch.randint(NOISE, (BATCH, length), generator=torch.Generator().manual_seed(0))
    hook = model.get_submodule("words").register_forward_hook(hold)
    F.cross_entropy(_answers(model, tokens), torch.arange(BATCH) % KEYS, reduction="sum").backward()
    hook.remove()
    model.zero_grad()
    assert held[0].grad is not None
    return held[0].grad.norm(dim=2).mean(dim=0).flip(0)


def _answers(model: nn.Module, tokens: Tensor) -> Tensor:
    """Logits of the keys behind the last token, (B, KEYS)."""
    logits: Tensor = model(tokens)
    return logits[:, -1, NOISE:]


def _train(model: nn.Module, length: int, steps: int, seed: int) -> float:
    """Train, and give the median time of a step in seconds."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.0, fused=True)
    model.train()
    draw = torch.Generator().manual_seed(1_000_000_007 + seed)  # not those of the questions
    seconds = []
    for step in range(steps):
        for group in optimizer.param_groups:  # a straight fall behind a short rise
            group["lr"] = 2e-3 * min(1.0, (step + 1) / 20) * (1.0 - step / steps)
        places = torch.randint(length, (BATCH,), generator=draw)
        tokens, keys = sequences(places, length, draw)
        started = time.perf_counter()
        optimizer.zero_grad()
        F.cross_entropy(_answers(model, tokens), keys).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        seconds.append(time.perf_counter() - started)
    return median(seconds)


def _table(rows: list[Row]) -> str:
    head = ["mixer", "tokens", "right", "near keys", "far keys", "ms a step", "gradient far/near"]
    lines = ["".join(f"{name:>11}" for name in head[:-1]) + f"{head[-1]:>19}"]
    for row in rows:
        gradient = row["gradient_by_distance"]
        cells = [row["mixer"], f"{row['length']:,}", f"{row['accuracy']:.1%}"]
        cells += [f"{row[key]:.1%}" for key in ("accuracy_near", "accuracy_far")]
        cells += [f"{1e3 * row['seconds_per_step']:.1f}"]
        share = gradient[-1] / gradient[0] if gradient[0] else float("nan")
        lines.append("".join(f"{cell:>11}" for cell in cells) + f"{share:>19.1e}")
    return "\n".join(lines)


def _draw(rows: list[Row], path: Path) -> bool:
    """Four drawings in one picture; False where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure  # an extra
    except ImportError:
        return False
    figure = Figure(figsize=(10, 7), layout="constrained")
    length, time_, recall, gradient = figure.subplots(2, 2).flat
    longest = max(row["length"] for row in rows)
    for mixer in MIXERS:
        own = [row for row in rows if row["mixer"] == mixer]
        at = [row["length"] for row in own]
        length.plot(at, [row["accuracy"] for row in own], marker="o", label=mixer)
        time_.plot(at, [1e3 * row["seconds_per_step"] for row in own], marker="o", label=mixer)
        for row in own:
            if row["length"] == longest:
                recall.plot(row["recall_by_distance"], label=mixer)
                gradient.plot(row["gradient_by_distance"], label=mixer)
    labels = {
        length: ("tokens", "right answers"),
        time_: ("tokens", "ms a training step"),
        recall: (f"distance of the key, of {longest} tokens", "right answers"),
        gradient: (f"distance from the end, of {longest} tokens", "gradient, fresh model"),
    }
    for axes, (x, y) in labels.items():
        axes.set(xlabel=x, ylabel=y)
        axes.legend()
    for axes in (length, time_):
        axes.set_xscale("log", base=2)
    for axes in (time_, gradient):
        axes.set_yscale("log")
    figure.savefig(path)
    return True


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=[16, 32, 64, 128, 256])
    parser.add_argument("--steps", type=int, default=600, help="of each training")
    parser.add_argument("--seed", type=int, default=0, help="of weights and sequences")
    parser.add_argument("--json", type=Path, default=Path("sequence_mixers.json"), metavar="FILE")
    parser.add_argument("--picture", type=Path, default=None, metavar="FILE", help="to draw into")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run at all?")
    options = parser.parse_args(arguments)
    if options.quick:
        options.lengths, options.steps = [4, 8], 3
    return options


if __name__ == "__main__":
    main(sys.argv[1:])
