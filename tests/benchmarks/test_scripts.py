"""Every benchmark runs at its tiny size, and says what it should in 80 columns."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import (
    attention,
    epoch,
    eval_overhead,
    gpu,
    inference,
    input_pipeline,
    linear,
    memory,
    train_step,
    words,
)
from benchmarks.memory import CASES

pytestmark = [
    # Deprecations between torch, timm and transformers that nobody here can do anything about.
    pytest.mark.filterwarnings("default:::timm.*"),
    pytest.mark.filterwarnings("default:::transformers.*"),
]

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a script's main at its tiny size: what it wrote, and ``text``, what it printed."""

    def made(main: Callable[[list[str]], object], *more: str) -> dict[str, Any]:
        path = tmp_path / "numbers.json"
        capsys.readouterr()
        assert not main(["--quick", "--json", str(path), *more])
        text = capsys.readouterr().out
        for line in text.splitlines():
            assert len(line) <= 80 or str(tmp_path) in line, line
        read: dict[str, Any] = json.loads(path.read_text())
        return {**read, "text": text}

    return made


def test_train_step(run: Run) -> None:
    found = run(train_step.main)
    row = found["rows"][0]
    assert row["images_per_second"].keys() >= {"vitkit", "timm", "torchvision"}
    assert row["ratio"] > 0
    seconds = {name: median(row["seconds"][name]) for name in ("products", "vitkit")}
    assert row["share_of_products"] == pytest.approx(seconds["products"] / seconds["vitkit"])
    assert "timm 1." in found["text"]


def test_compile_compiles_everyone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[nn.Module, dict[str, Any]]] = []

    def fake(model: nn.Module, **options: Any) -> nn.Module:
        seen.append((model, options))
        return model

    monkeypatch.setattr(torch, "compile", fake)
    found = run(train_step.main, "--compile", "max-autotune")
    models = sum(len(row["images_per_second"]) for row in found["rows"])  # a row a number format
    assert len(seen) == models == len({id(model) for model, _ in seen})
    assert all(options == {"mode": "max-autotune", "dynamic": False} for _, options in seen)
    assert "torch.compile, mode max-autotune" in found["text"].replace("\n", " ")


def test_input_pipeline(run: Run, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"none of CIFAR's")
    try:
        found = run(input_pipeline.main, "--root", str(tmp_path))
    finally:
        torch.set_num_threads(threads)
    ours = next(row for row in found["rows"] if row["name"] == "vitkit")
    assert ours["images_per_second"].keys() == set(input_pipeline.RECIPES)
    peers = {row["name"]: row for row in found["rows"] if "ratios" in row}
    assert peers.keys() == {"v2 on tensors", "v2 on Pillow", "timm on Pillow"}
    assert peers["v2 on tensors"]["ratios"].keys() == {"crop, flip", "RandAugment"}
    assert "16 random images" in found["text"].replace("\n", " ")


def test_inference(run: Run) -> None:
    rows = {row["what"].strip(): row for row in run(inference.main)["rows"]}
    assert rows["micro/8 fp32 ms"]["medians"]["timm"] > 0
    assert set(rows["micro/8 fp32 img/s"]["batches"].values()) == {2}
    assert rows["--help  ms"]["medians"]["vitkit"] > 0


def test_linear(run: Run) -> None:
    found = run(linear.main)
    assert [row["backward"] for row in found["rows"]] == [False, True]
    for row in found["rows"]:
        assert row["gflops"].keys() == set(linear.CONTESTANTS) and row["ratio"] > 0


def test_attention(run: Run) -> None:
    rows = run(attention.main, "--masks", "none", "causal")["rows"]
    assert [(row["mask"], row["backward"]) for row in rows] == [
        *(("none", False), ("none", True), ("causal", False), ("causal", True))
    ]
    assert all(row["seconds"].keys() >= {"auto", "fused", "explicit", "math"} for row in rows)


def test_epoch(run: Run, tmp_path: Path) -> None:
    found = run(epoch.main, "--root", str(tmp_path))
    ours, theirs, verdict = found["rows"]
    assert (ours["name"], theirs["name"]) == ("vitkit", "timm, 0 workers")
    assert ours["epoch_seconds"] == pytest.approx(50_000 / ours["images_per_second"])
    assert verdict["ratio"] == theirs["ratio"]
    assert "random images" in found["text"].replace("\n", " ")


def test_eval_overhead(run: Run, tmp_path: Path) -> None:
    found = run(eval_overhead.main, "--root", str(tmp_path))
    rows = {row["name"]: row for row in found["rows"]}
    assert list(rows) == ["forward", "suite", "files", "report"]
    assert all(row["seconds"][0] > 0 for row in rows.values())
    assert rows["suite"]["share"] == pytest.approx(
        rows["suite"]["seconds"][0] / rows["forward"]["seconds"][0] - 1
    )
    assert "random images" in found["text"].replace("\n", " ")


def test_memory(run: Run) -> None:
    row = run(memory.main)["rows"][0]
    assert row["against"] == 3 * 512 * 512 * 4
    assert row["bytes"][0] > 0


METER = """
import torch
from benchmarks.memory import Meter

meter = Meter("cpu")
held = torch.ones(20_000_000)
first = meter.peak()
torch.ones(40_000_000)
print(first, meter.peak(), Meter("cpu").peak())
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux' own meter")
def test_the_meter_sees_what_is_held_and_what_was() -> None:
    """In a process of its own, as the benchmark's cases are: from an old one the system may take
    back as much memory in between.
    """
    done = subprocess.run(
        [sys.executable, "-c", METER], capture_output=True, text=True, check=True, timeout=120
    )
    first, peak, again = map(int, done.stdout.split())
    assert first == pytest.approx(80e6, rel=0.2)
    assert peak - first == pytest.approx(160e6, rel=0.2)
    assert again < 20e6


def test_every_row_of_memory_names_a_case() -> None:
    options = memory._options(["--root", "somewhere"])
    lines = memory._lines(options, "cpu")
    assert len(lines) == 11
    for line in lines:
        for case in (line.ours, line.against):
            if isinstance(case, tuple):
                assert case[0] in CASES
                assert CASES[str(case[0])].__code__.co_argcount == len(case)


def test_gpu_keeps_what_is_done(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = {"rows": [{"ratio": 1.5}]}  # these two have tests of their own
    monkeypatch.setattr(gpu, "_train_step", lambda options, device: tables)
    monkeypatch.setattr(gpu, "_attention", lambda options, device: tables)
    found = run(gpu.main)
    parts = found["parts"]
    stem = parts["stem to 94 % in 1 epochs"]
    assert 0 <= stem["accuracy"] <= 1
    assert stem["reached"] == (stem["accuracy"] >= 0.94)
    assert stem["training_seconds"] > 0 and stem["cold_seconds"] > 0
    images = stem["steps"] * 8
    assert stem["images_per_second"] == pytest.approx(images / stem["training_seconds"])
    lite = parts["training vit_lite_7_patch4_32"]
    assert lite["utilisation"]["measured"] == pytest.approx(
        lite["flops_per_image"] * lite["images_per_second"] / lite["peaks"]["measured"]
    )
    assert parts["train_step"]["rows"] == parts["attention"]["rows"] == tables["rows"]
    # Again: nothing is left to do, and nothing is done.
    monkeypatch.setattr(gpu, "_train", None)
    monkeypatch.setattr(gpu, "throughput", None)
    assert run(gpu.main)["parts"] == parts
    # Another recipe is not this one.
    asked: list[str] = []
    monkeypatch.setattr(gpu, "RECIPES", {**gpu.RECIPES, "stem": "configs/cifar10_gpu_vit.yaml"})
    monkeypatch.setattr(gpu, "_train", lambda recipe, *more: asked.append(recipe) or stem)
    run(gpu.main)
    assert asked == ["stem"]


def test_the_clock_of_the_steps_starts_when_they_are_warm(monkeypatch: pytest.MonkeyPatch) -> None:
    """And counts what lies between them and behind the last one."""
    now = [0.0]
    monkeypatch.setattr(gpu, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    trainer: Any = SimpleNamespace(global_step=0)
    clock: Any = gpu.StepClock("cpu", warm=2)
    for seconds in (50.0, 7.0, 2.0, 3.0):
        now[0] += seconds
        trainer.global_step += 1
        clock.on_train_batch_end(trainer, None, None, None, 0)
    now[0] += 1.0
    clock.on_train_end(trainer, None)
    assert clock.seconds_for(10) == pytest.approx(10 * (2 + 3 + 1) / 2)


def test_gpu_stops_at_its_budget_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, done = tmp_path / "new" / "bench.json", []

    def parts(options: object) -> list[gpu.Part]:
        def make(name: str) -> dict[str, Any]:
            done.append(name)
            return {"rows": [{"ratio": 2.0}]}

        return [gpu.Part(n, 100.0, lambda n=n: make(n)) for n in "abc"]  # type: ignore[misc]

    monkeypatch.setattr(gpu, "_parts", parts)
    words = ["--quick", "--json", str(path), "--budget", "50"]
    assert gpu.main(words) == 0
    assert done == ["a"], "one part is always done, or a short budget would never end"
    assert "Left for the next run of the same command: b, c." in capsys.readouterr().out
    assert gpu.main([*words[:-1], "250"]) == 0
    assert done == ["a", "b", "c"]
    # Numbers of another machine are not taken for this one's.
    read = json.loads(path.read_text())
    read["parts"]["b"]["hardware"] = "another"
    path.write_text(json.dumps(read))
    gpu.main([*words[:-1], "250"])
    assert done == ["a", "b", "c", "b"]
    gpu.main([*words[:-1], "1000", "--fresh"])
    assert done[4:] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (torch.OutOfMemoryError("too large\nand more"), "too large"),
        (ImportError("No module named 'timm'"), "No module named 'timm'"),
        (AssertionError(), "AssertionError"),
        (OSError("\nfull"), "OSError"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_gpu_leaves_out_what_fails(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    message: str,
) -> None:
    def fail() -> dict[str, Any]:
        raise error

    def parts(options: object) -> list[gpu.Part]:
        return [gpu.Part("a", 1.0, fail), gpu.Part("b", 1.0, lambda: {"rows": [{"ratio": 2.0}]})]

    monkeypatch.setattr(gpu, "_parts", parts)
    assert gpu.main(["--quick", "--json", str(tmp_path / "bench.json")]) == 1
    said = capsys.readouterr()
    assert f"failed: {message}\n" in said.err
    assert "Failed: a.\n" in said.out
    read = json.loads((tmp_path / "bench.json").read_text())
    assert read["parts"].keys() == {"b"}
    assert read["failed"].keys() == {"a"} and read["failed"]["a"]["error"] == message


def test_gpu_tries_last_what_failed_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what fails for minutes would use up each budget anew."""
    tried: list[str] = []
    path = tmp_path / "bench.json"

    def make(name: str) -> dict[str, Any]:
        tried.append(name)
        if tried == ["a"]:
            raise AssertionError
        return {"rows": [{"ratio": 2.0}]}

    def parts(options: object) -> list[gpu.Part]:
        return [gpu.Part(n, 100.0, lambda n=n: make(n)) for n in "abc"]  # type: ignore[misc]

    monkeypatch.setattr(gpu, "_parts", parts)
    assert gpu.main(["--quick", "--json", str(path), "--budget", "50"]) == 1
    assert gpu.main(["--quick", "--json", str(path), "--budget", "1000"]) == 0
    assert tried == ["a", "b", "c", "a"]
    read = json.loads(path.read_text())
    assert read["parts"].keys() == set("abc") and not read["failed"]


@pytest.mark.parametrize(
    ("seconds", "left", "limit"),
    [(100, 500, 150), (60, 500, 120), (65, 70, 90), (400, 500, 520), (400, 100, 400)],
)
def test_gpu_ends_a_training_that_takes_far_longer_than_thought(
    seconds: float, left: float, limit: float
) -> None:
    assert gpu._limit(seconds, left) == limit


def test_gpu_begins_with_what_is_short_and_sure() -> None:
    names = [part.name for part in gpu._parts(gpu._options([]))]
    assert names[:5] == [*(f"training {name}" for name in gpu.THROUGHPUT), "attention"]
    assert [name[:10] for name in names[5:8]] == ["stem to 94", "vit to 94 ", "train_step"]
    assert len(names) == len(set(names)) == 6 + 8


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_gpu_needs_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main([]) == 1
    assert "no GPU here; --quick tries" in capsys.readouterr().err


def test_the_recipes_for_a_gpu_exist() -> None:
    root = Path(__file__).parents[2]
    for name, file in gpu.RECIPES.items():
        assert (root / file).is_file()
        assert set(gpu.EPOCHS[name]) == {90, 94, 95, 96}


STAND_IN = """
from dataclasses import dataclass
import torch
from torch import nn

@dataclass
class GPTConfig:
    block_size: int
    vocab_size: int
    n_layer: int
    n_head: int
    n_embd: int
    dropout: float
    bias: bool

class GPT(nn.Module):
    def __init__(self, config):
        super().__init__()
        print("chatter")
        self.config = config
        self.table = nn.Embedding(config.vocab_size, config.vocab_size)

    def forward(self, ids, targets):
        logits = self.table(ids)
        return logits, nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def configure_optimizers(self, weight_decay, learning_rate, betas, device_type):
        return torch.optim.AdamW(self.parameters(), lr=learning_rate)

    def generate(self, ids, count, temperature, top_k):
        assert ids.shape[1] + count <= self.config.block_size
        return torch.cat([ids, ids.expand(-1, count)], dim=1)
"""
"""The face of nanoGPT's model file that the benchmark calls."""


def test_words(run: Run, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(STAND_IN)
    found = run(words.main, str(tmp_path), "--dtypes", "float32")
    assert [row["what"] for row in found["rows"]] == ["8 x 2", "4 written"]
    rates = [row["characters_per_second"] for row in found["rows"]]
    assert all(rate.keys() == {"vitkit", "nanoGPT"} for rate in rates)
    assert "chatter" not in found["text"]


def test_words_without_a_clone_say_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"model\.py: no such file; give a clone of github"):
        words.main([str(tmp_path), "--quick"])
