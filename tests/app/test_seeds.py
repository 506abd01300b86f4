"""Several seeds of one recipe: what is run, what is left alone, and how they are summed up."""

from __future__ import annotations

import json
import os
import signal
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from scipy import stats

from tests.conftest import TINY
from vitkit.app import resume, seeds, train
from vitkit.app.seeds import train_seeds
from vitkit.cli import main
from vitkit.cli.tables import seed_table
from vitkit.config import RunConfig, load_config
from vitkit.errors import Interrupted, RunError

Tiny = Callable[..., RunConfig]


class Child:
    """Stands for the process of one seed: does its work in this one."""

    commands: list[list[str]] = []
    code = 0

    def __init__(self, command: list[str]) -> None:
        self.commands.append(command)
        self.arguments = command[command.index("train") + 1 :]

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *args: object) -> None: ...

    def wait(self) -> int:
        if self.code == 0 and self.arguments[0] == "--resume":
            resume(self.arguments[1], progress=False)
        elif self.code == 0:
            file, *overrides = self.arguments
            train(load_config([file], overrides), progress=False)
        return self.code


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> type[Child]:
    monkeypatch.setattr(Child, "commands", [])
    monkeypatch.setattr(seeds, "Popen", Child)
    return Child


def _recipe(tiny: Tiny, tmp_path: Path, *more: str) -> RunConfig:
    config = tiny("trainer.max_epochs=1", f"run.root={tmp_path}", "run.name=x", *more)
    return config.model_copy(update={"run": config.run.model_copy(update={"dir": None})})


def test_mean_and_deviation_of_every_seed(tiny: Tiny, tmp_path: Path, child: type[Child]) -> None:
    summary = train_seeds(_recipe(tiny, tmp_path), 3)
    assert summary.folder == tmp_path / "x" / "seeds"
    each = [
        json.loads((summary.folder / f"seed-{s}" / "results.json").read_text()) for s in range(3)
    ]
    assert [one["seed"] for one in each] == [0, 1, 2]
    losses = [one["test/loss"] for one in each]
    assert len(set(losses)) == 3
    written = json.loads((summary.folder / "seeds.json").read_text())
    assert written["test/loss/mean"] == pytest.approx(statistics.mean(losses))
    assert written["test/loss/sd"] == pytest.approx(statistics.stdev(losses))
    assert written["test/loss/seed-2"] == losses[2]
    interval = stats.ttest_1samp(losses, 0.0).confidence_interval(0.95)
    assert written["test/loss/low"] == pytest.approx(interval.low)
    assert written["test/loss/high"] == pytest.approx(interval.high)
    assert [row.split()[0] for row in seed_table(summary.records, summary.record).splitlines()] == [
        "seed", "0", "1", "2", "mean", "sd", "low", "high"
    ]  # fmt: skip
    alone = train_seeds(_recipe(tiny, tmp_path), 1)
    assert "test/loss/mean" in alone.record.metrics
    assert "test/loss/low" not in alone.record.metrics
    assert seed_table(alone.records, alone.record).splitlines()[-1].split()[0] == "sd"


def test_what_is_done_is_left_alone_and_what_was_stopped_goes_on(
    tiny: Tiny, tmp_path: Path, child: type[Child]
) -> None:
    recipe = _recipe(tiny, tmp_path)
    train_seeds(recipe, 2)
    folder = tmp_path / "x" / "seeds"
    (folder / "seed-1" / "results.json").unlink()
    child.commands.clear()
    train_seeds(recipe, 3)
    one, two = child.commands
    assert one[-2:] == ["--resume", str(folder / "seed-1")]
    assert two[-2:] == ["run.seed=2", f'run.dir="{folder / "seed-2"}"']


def test_a_folder_that_is_named_holds_all_seeds(
    tiny: Tiny, tmp_path: Path, child: type[Child]
) -> None:
    summary = train_seeds(tiny("trainer.max_epochs=1", f"run.dir={tmp_path / 'mine'}"), 1)
    assert summary.folder == tmp_path / "mine"
    assert (summary.folder / "seed-0" / "results.json").exists()
    assert (summary.folder / "seeds.json").exists()


def test_another_recipe_in_the_same_folder_is_refused(
    tiny: Tiny, tmp_path: Path, child: type[Child]
) -> None:
    train_seeds(_recipe(tiny, tmp_path), 1)
    with pytest.raises(RunError, match=r"its optimizer differ.*run\.name"):
        train_seeds(_recipe(tiny, tmp_path, "optimizer.lr=0.5"), 1)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (129, Interrupted),
        (130, Interrupted),
        (143, Interrupted),
        (-1, Interrupted),
        (-15, Interrupted),
        (1, RunError),
        (2, RunError),
        (-9, RunError),
        (137, RunError),
    ],
)
def test_a_stopped_or_failed_seed_says_so(
    tiny: Tiny,
    tmp_path: Path,
    child: type[Child],
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    error: type[Exception],
) -> None:
    monkeypatch.setattr(child, "code", code)
    with pytest.raises(error, match="seed 0") as ended:
        train_seeds(_recipe(tiny, tmp_path), 1)
    if error is Interrupted:
        assert isinstance(ended.value, Interrupted)
        assert ended.value.exit_code == (code if code > 0 else 128 - code)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN])
def test_a_closed_terminal_leaves_the_seed_time_for_its_checkpoint(
    tiny: Tiny,
    tmp_path: Path,
    child: type[Child],
    monkeypatch: pytest.MonkeyPatch,
    handler: signal.Handlers,
) -> None:
    """The signal comes while a seed trains; as usual it would end this very process."""
    seen: list[object] = []

    def wait(self: Child) -> int:
        seen.append(signal.getsignal(signal.SIGHUP))
        os.kill(os.getpid(), signal.SIGHUP)
        return 129

    monkeypatch.setattr(child, "wait", wait)
    before = signal.signal(signal.SIGHUP, handler)
    try:
        with pytest.raises(Interrupted, match="seed 0; the same command goes on"):
            train_seeds(_recipe(tiny, tmp_path), 1)
        assert signal.getsignal(signal.SIGHUP) is handler
    finally:
        signal.signal(signal.SIGHUP, before)
    # Ignored, as under nohup, it stays so for the seed's process, which inherits it.
    assert (seen[0] is signal.SIG_IGN) == (handler is signal.SIG_IGN)


def test_sigterm_is_handed_on_to_the_seed(
    tiny: Tiny, tmp_path: Path, child: type[Child], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C reaches its process without us; either way we end once it has."""
    told: list[int] = []

    def wait(self: Child) -> int:
        signal.raise_signal(signal.SIGINT)
        assert told == []
        signal.raise_signal(signal.SIGTERM)
        return 128 + signal.SIGTERM

    monkeypatch.setattr(child, "wait", wait)
    monkeypatch.setattr(child, "terminate", lambda self: told.append(1), raising=False)
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match="seed 0; the same command goes on") as ended:
        train_seeds(_recipe(tiny, tmp_path), 1)
    assert told == [1] and ended.value.exit_code == 128 + signal.SIGTERM
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_the_command_starts_a_process_a_seed(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A real one: it reads the recipe, its seed and its folder, and is as quiet as we are."""
    folder = tmp_path / "two seeds"
    alone = train(tiny("run.seed=1", folder="alone"), progress=False)
    first = train(tiny(folder="two seeds/seed-0"), progress=False)
    monkeypatch.delenv("VITKIT_RUN_DIR")
    settings = [*TINY, f"run.dir={folder}"]
    monkeypatch.setattr(sys, "argv", ["vitkit", "train", *settings, "--seeds", "2", "--quiet"])
    capfd.readouterr()
    with pytest.raises(SystemExit) as left:
        main()
    said = capfd.readouterr()
    assert not left.value.code and said.err == ""
    lines = said.out.splitlines()
    assert lines[0] == "seed 1" and lines[-1] == f"results: {folder / 'seeds.json'}"
    assert f"results: {folder / 'seed-1' / 'results.json'}" in lines
    assert not any(word in said.out for word in ("epoch", "next:", "steps,"))
    losses = json.loads((folder / "seeds.json").read_text())
    assert losses["test/loss/seed-0"] == first.metrics["test/loss"]
    assert losses["test/loss/seed-1"] == pytest.approx(alone.metrics["test/loss"], rel=1e-6)
