"""One recipe over several seeds, each in a process of its own, summed up in one table."""

from __future__ import annotations

import json
import signal
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen

from vitkit.app.runs import discard_run_folder, runs_folder
from vitkit.config import RunConfig, dump_yaml, load_config, to_plain
from vitkit.errors import Interrupted, RunError
from vitkit.evaluation.uncertainty import mean_interval
from vitkit.records import Record, write_text

__all__ = ["SeedSummary", "train_seeds"]

HANGUP: signal.Signals | None = getattr(signal, "SIGHUP", None)  # not on Windows

STOPPING = {signal.SIGINT, signal.SIGTERM, HANGUP} - {None}
"""Signals by which a run is stopped, to go on later; any other way to end early is a failure."""


@dataclass(frozen=True)
class SeedSummary:
    """What several seeds of one recipe gave.

    Attributes:
        folder: holds a run folder a seed, and ``seeds.json``.
        records: ``results.json`` of each seed.
        record: ``seeds.json``: mean, standard deviation and, of two seeds or more, the 95 %
            interval of the mean, of every metric.
    """

    folder: Path
    records: dict[int, Record]
    record: Record


def train_seeds(config: RunConfig, count: int, *, quiet: bool = False) -> SeedSummary:
    """Train ``count`` seeds from ``run.seed`` on, one after the other.

    Seeds that are done are not trained again, and one that was stopped goes on: the same call
    finishes what an earlier one began, on another day too. All are kept in ``run.dir``, or in
    ``<run.root>/<run.name>/seeds``.

    Args:
        config: the recipe.
        count: how many seeds.
        quiet: the runs print their results only.

    Raises:
        RunError: a seed failed, or the folder holds seeds of another recipe.
        Interrupted: a signal stopped it.
    """
    folder = _folder(config)
    recipe = folder / "recipe.yaml"
    _same_recipe(config, recipe)
    records = {}
    for seed in range(config.run.seed, config.run.seed + count):
        run = folder / f"seed-{seed}"
        if not (run / "results.json").exists():
            _train_one(recipe, run, seed, quiet)
        records[seed] = Record.read(run / "results.json")
    record = _summary(records)
    record.write(folder / "seeds.json")
    return SeedSummary(folder, records, record)


def _folder(config: RunConfig) -> Path:
    return Path(config.run.dir) if config.run.dir else runs_folder(config) / "seeds"


def _same_recipe(config: RunConfig, path: Path) -> None:
    """Write the recipe, or see that the one there is the same."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, dump_yaml(config))
        return
    ours, theirs = to_plain(config), to_plain(load_config([path]))
    differ = [name for name in ours if name != "run" and ours[name] != theirs.get(name)]
    if differ:
        raise RunError(
            f"{path} is another recipe (its {', '.join(differ)} differ); "
            "give this one a run.name, or run.dir, of its own"
        )


def _train_one(recipe: Path, run: Path, seed: int, quiet: bool) -> None:
    command = [sys.executable, "-m", "vitkit", "train"]
    if (run / "checkpoints" / "last.ckpt").exists():
        command += ["--resume", str(run)]
    else:
        discard_run_folder(run)
        command += [str(recipe), f"run.seed={seed}", f"run.dir={json.dumps(str(run))}"]
    print(f"seed {seed}", flush=True)
    with Popen([*command, *(["--quiet"] if quiet else [])]) as child, _leave_to(child):
        code = child.wait()
    signum = code - 128 if code > 128 else -code  # Popen counts a death by signal below zero
    if signum in STOPPING:
        raise Interrupted(f"stopped in seed {seed}; the same command goes on", signum)
    if code:
        raise RunError(
            f"seed {seed} failed (exit code {code}); seeds before it are kept in {run.parent}"
        )


@contextmanager
def _leave_to(child: Popen[bytes]) -> Iterator[None]:
    """Leave signals to the child: it writes its checkpoint and ends first, and this process then.

    A terminal's Ctrl-C and its closing reach both processes by themselves; SIGTERM is handed on.
    A closing that is ignored, as under ``nohup``, stays so.
    """
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, lambda *_: None),
        signal.SIGTERM: signal.signal(signal.SIGTERM, lambda *_: child.terminate()),
    }
    if HANGUP is not None and signal.getsignal(HANGUP) is not signal.SIG_IGN:
        before[HANGUP] = signal.signal(HANGUP, lambda *_: None)
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _summary(records: dict[int, Record]) -> Record:
    """Mean, sample standard deviation and interval of what every seed measured."""
    names = set.intersection(*(set(record.metrics) for record in records.values()))
    metrics = {}
    for name in sorted(names):
        values = [record.metrics[name] for record in records.values()]
        metrics[f"{name}/mean"] = statistics.fmean(values)
        metrics[f"{name}/sd"] = statistics.stdev(values) if len(values) > 1 else 0.0
        if len(values) > 1:
            metrics[f"{name}/low"], metrics[f"{name}/high"] = mean_interval(values)
        metrics |= {f"{name}/seed-{s}": r.metrics[name] for s, r in records.items()}
    first = next(iter(records.values()))
    shared = ("model", "data", "parameters", "hardware", "threads", "precision", "torch_version")
    facts = {key: first.facts.get(key) for key in shared}
    return Record(metrics, {"seeds": ", ".join(map(str, records)), **facts})
