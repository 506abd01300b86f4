"""How every benchmark here measures: contestants in turn, medians, one table, the machine named."""

from __future__ import annotations

import argparse
import gc
import json
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

import torch

from vitkit.app.devices import multiplies_bfloat16
from vitkit.app.facts import environment_facts
from vitkit.evaluation.speed import synchronize
from vitkit.records import write_text

__all__ = [
    "DTYPES",
    "SHORT",
    "Report",
    "arguments_of",
    "duel",
    "geometric_mean",
    "machine",
    "rate",
    "samples",
    "supported",
    "table",
    "versions",
]

DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SHORT = {"float32": "fp32", "bfloat16": "bf16"}
WIDTH = 80


def samples(
    contestants: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 7,
    seconds: float = 0.05,
    device: str = "cpu",
) -> dict[str, list[float]]:
    """Seconds of one call of each contestant, one value a round.

    In every round each contestant runs in turn, another one first each time, so that a slow moment
    of the machine hits all of them; a turn calls as often as fits ``seconds``.

    Args:
        contestants: name -> what to time.
        rounds: how often each has its turn.
        seconds: length of one turn.
        device: waited for where work is queued.
    """
    names = list(contestants)
    calls = {}
    for name, run in contestants.items():
        run()  # warm-up: allocation, kernel choice, compilation
        calls[name] = max(1, round(seconds / max(_timed(run, 1, device), 1e-9)))
    times: dict[str, list[float]] = {name: [] for name in names}
    gc.disable()  # a collection would hit whoever's turn it is
    try:
        for turn in range(rounds):
            gc.collect()
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                times[name].append(_timed(contestants[name], calls[name], device))
    finally:
        gc.enable()
    return times


def duel(times: Mapping[str, Sequence[float]], ours: str = "vitkit") -> tuple[float, str]:
    """How many times as fast as the best peer we are, and who that is.

    The quotient is taken within each round, where both saw the same machine, and then its median.

    Args:
        times: seconds of each contestant, as :func:`samples` gives them.
        ours: whose time is below the line; all others are peers.
    """
    peers = [name for name in times if name != ours]
    best = min(peers, key=lambda name: median(times[name]))
    pairs = zip(times[best], times[ours], strict=True)
    return median(theirs / mine for theirs, mine in pairs), best


def supported(dtypes: Sequence[str], device: str) -> tuple[list[str], list[str]]:
    """(names of the formats to measure, a note on each that is left out)."""
    if "bfloat16" not in dtypes or multiplies_bfloat16(torch.device(device)):
        return list(dtypes), []
    note = "bfloat16 left out: this machine only emulates it."
    return [name for name in dtypes if name != "bfloat16"], [note]


def machine() -> str:
    """Processor, cores, threads, torch: what a table must say to mean anything."""
    facts = environment_facts()
    if torch.cuda.is_available():
        return f"{facts['hardware']}, torch {torch.__version__}"
    return (
        f"{facts['hardware']} ({torch.backends.cpu.get_cpu_capability()}), "
        f"{facts['threads']} threads, torch {torch.__version__}"
    )


def versions(packages: Sequence[str]) -> str:
    """Such as ``timm 1.0.31, torchvision 0.29.1``."""
    return ", ".join(f"{name} {metadata.version(name)}" for name in packages)


def rate(value: float) -> str:
    """Three digits in at most five characters: 0.123, 4.56, 78.9, 123, 4567, 12.3k."""
    if value >= 9999.5:
        return f"{value / 1e3:.3g}k" if value < 999.5e3 else f"{value / 1e6:.3g}M"
    if value >= 99.95:
        return f"{value:.0f}"
    return f"{value:#.3g}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table with aligned columns."""
    cells = [list(header), ["---"] * len(header), *(list(row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    return "\n".join(
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |"
        for row in cells
    )


@dataclass
class Report:
    """One table, the machine it was measured on, and the numbers behind it.

    Attributes:
        title: what was measured, with its unit.
        header: of the table.
        notes: what a reader must know, a sentence each.
        rows: of the table.
        values: the unrounded numbers, one object a row.
    """

    title: str
    header: Sequence[str]
    notes: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    values: list[dict[str, Any]] = field(default_factory=list)

    def add(self, row: list[str], **values: Any) -> None:
        """A row and its numbers; a line on the screen, since the next row may take minutes."""
        self.rows.append(row)
        self.values.append(values)
        print(f"  {'  '.join(row)}", flush=True)

    def text(self) -> str:
        """Heading, table and notes, in at most 80 columns."""
        heading = [textwrap.fill(line, WIDTH) for line in (self.title, machine())]
        notes = [textwrap.fill(note, WIDTH) for note in self.notes]
        return "\n".join([*heading, "", table(self.header, self.rows), *[""][: len(notes)], *notes])

    def plain(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        facts = {"title": self.title, "notes": self.notes, "environment": environment_facts()}
        return {**facts, "rows": self.values}

    def finish(self, path: Path | None) -> None:
        """Print the table, and write the numbers where ``--json`` asked for it."""
        print(f"\n{self.text()}")
        if path is not None:
            write_text(path, json.dumps(self.plain(), indent=2) + "\n")


def arguments_of(doc: str | None, *, rounds: int = 7) -> argparse.ArgumentParser:
    """A parser with the options of every benchmark.

    Args:
        doc: of the module; its first line describes the command.
        rounds: default of ``--rounds``.
    """
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers there")
    parser.add_argument("--rounds", type=int, default=rounds, help="turns of each contestant")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run at all?")
    return parser


def _timed(run: Callable[[], object], calls: int, device: str) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        run()
    synchronize(device)
    return (time.perf_counter() - start) / calls
