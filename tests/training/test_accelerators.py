"""What a training spares an accelerator, as far as a CPU can tell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning import LightningModule
from torch import Tensor

from tests.interrupted import logged_rows, stopped_run
from vitkit.app import resume, train
from vitkit.config import RunConfig
from vitkit.training.base import TrainingTask, _seed_torch

Tiny = Callable[..., RunConfig]


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps", "meta"])
def test_the_kind_of_device_in_use_is_seeded_and_no_other(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a kind that is not known torch seeds all."""
    cards = torch.Generator(), torch.Generator()
    asked: list[tuple[str, int]] = []
    monkeypatch.setattr(torch.cuda, "default_generators", cards)
    monkeypatch.setattr(torch.mps, "manual_seed", lambda seed: asked.append(("mps", seed)))
    monkeypatch.setattr(torch, "manual_seed", lambda seed: asked.append(("all", seed)))
    with torch.random.fork_rng(devices=[]):
        _seed_torch(7, device)
        own = torch.initial_seed()
    assert [card.initial_seed() == 7 for card in cards] == [device == "cuda"] * 2
    assert asked == {"mps": [("mps", 7)], "meta": [("all", 7)]}.get(device, [])
    assert own == 7 or device == "meta"


@pytest.mark.parametrize(
    ("device", "multiplies", "precision", "dtype"),
    [
        ("cpu", True, "32-true", torch.float32),
        ("cpu", False, "bf16-mixed", torch.bfloat16),
        ("cuda", True, "32-true", torch.bfloat16),
        ("cuda", True, "16-mixed", torch.bfloat16),
        ("cuda", False, "16-mixed", torch.float32),
    ],
)
def test_muon_multiplies_in_bfloat16_where_a_gpu_does(
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    multiplies: bool,
    precision: str,
    dtype: torch.dtype,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: multiplies)
    trainer = SimpleNamespace(precision=precision)
    task: Any = SimpleNamespace(device=torch.device(device), trainer=trainer)
    assert TrainingTask._products(task) == dtype


def test_what_is_logged_is_no_number_that_would_be_sent_to_the_device(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}
    log = LightningModule.log

    def spy(self: LightningModule, name: str, value: Any, **more: Any) -> None:
        given[name] = value
        log(self, name, value, **more)

    monkeypatch.setattr(LightningModule, "log", spy)
    train(tiny(), progress=False)
    steps, epochs = {"train/loss", "lr"}, {"train/loss_epoch", "val/loss", "val/acc"}
    assert {*steps, *epochs, "seconds", "images_per_second"} <= given.keys()
    assert all(isinstance(value, Tensor) for value in given.values())


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_is_logged_where_a_row_is_written_of_it_and_nowhere_else(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, accumulate: int
) -> None:
    """9 steps, a row every fourth; also of a run that was stopped at an epoch's end or within."""
    more = (f"trainer.accumulate_grad_batches={accumulate}", "schedule.name=linear")
    every = _steps(train(tiny(*more, folder="every"), progress=False).folder)
    assert [row["step"] for row in every] == list("012345678")
    more = (*more, "trainer.log_every_n_steps=4")
    logged: set[int] = set()
    log = LightningModule.log

    def spy(self: LightningModule, name: str, value: Any, **options: Any) -> None:
        if name == "train/loss":
            logged.add(self.global_step)
        log(self, name, value, **options)

    with monkeypatch.context() as patch:
        patch.setattr(LightningModule, "log", spy)
        fewer = _steps(train(tiny(*more, folder="fewer"), progress=False).folder)
    assert {4, 8} <= logged <= {0, 4, 8}  # 0: before the first step is whole
    assert fewer == [every[3], every[7]]
    for step in (3, 5):
        folder = stopped_run(monkeypatch, tiny(*more, folder=f"parts-{step}"), step)
        resume(folder, progress=False)
        assert _steps(folder) == fewer


def _steps(folder: Path) -> list[dict[str, str]]:
    """Rows of a run's curves that are a training step's: what they say of the step."""
    names = ("step", "train/loss", "lr")
    return [{name: row[name] for name in names} for row in logged_rows(folder) if row["train/loss"]]
