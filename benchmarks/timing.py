"""How every benchmark here measures: contestants in turn, medians, one table, the machine named."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import geometric_mean, median

import torch

__all__ = ["geometric_mean", "interleaved", "machine", "table"]


def interleaved(
    contestants: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 7,
    seconds: float = 0.05,
    device: str = "cpu",
) -> dict[str, float]:
    """Median seconds of one call of each contestant.

    In every round each contestant runs in turn, so that a slow moment of the machine hits all of
    them; a round calls each as often as fits ``seconds``.

    Args:
        contestants: name -> what to time.
        rounds: how often each has its turn.
        seconds: length of one turn.
        device: waited for where work is queued.
    """
    calls = {}
    for name, run in contestants.items():
        run()  # warm-up: allocation, kernel choice, compilation
        calls[name] = max(1, round(seconds / max(_timed(run, 1, device), 1e-9)))
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            times[name].append(_timed(run, calls[name], device))
    return {name: median(values) for name, values in times.items()}


def machine() -> str:
    """Processor, cores, threads, torch: what a table must say to mean anything."""
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name(0)}, torch {torch.__version__}"
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        name = next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), name)
    return (
        f"{name} ({torch.backends.cpu.get_cpu_capability()}), {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}"
    )


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table with aligned columns."""
    cells = [list(header), ["---"] * len(header), *(list(row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    return "\n".join(
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |"
        for row in cells
    )


def _timed(run: Callable[[], object], calls: int, device: str) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        run()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / calls
