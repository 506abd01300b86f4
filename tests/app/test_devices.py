"""What `auto` stands for where the hardware multiplies bfloat16, and where it does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vitkit.app import eval_results, evaluate, probe, prober, train, trainer
from vitkit.app.devices import best_device, concrete_precision
from vitkit.app.facts import environment_facts
from vitkit.config import RunConfig
from vitkit.errors import ConfigError
from vitkit.nn import hardware

CPU = torch.device("cpu")


@pytest.mark.parametrize(("able", "precision"), [(True, "bf16-mixed"), (False, "32-true")])
def test_auto_is_bfloat16_only_where_the_processor_multiplies_it(
    monkeypatch: pytest.MonkeyPatch, able: bool, precision: str
) -> None:
    monkeypatch.setattr(hardware, "MULTIPLIES_BFLOAT16", able)
    assert concrete_precision("auto", CPU) == precision
    assert concrete_precision("auto", torch.device("mps")) == "32-true"
    for given in ("32-true", "bf16-mixed", "16-mixed"):
        assert concrete_precision(given, torch.device("cuda")) == given
    for given in ("32-true", "bf16-mixed"):
        assert concrete_precision(given, CPU) == given


def test_float16_is_refused_on_a_cpu(tiny: Callable[..., RunConfig], tmp_path: Path) -> None:
    """Lightning would take bfloat16 without a word."""
    config = tiny("trainer.precision=16-mixed", "trainer.accelerator=cpu")
    with pytest.raises(
        ConfigError, match="16-mixed: float16 trains on accelerators only; on a CPU"
    ):
        train(config, progress=False)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("able", [True, False])
def test_emulated_bfloat16_is_told(
    tiny: Callable[..., RunConfig],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    able: bool,
) -> None:
    monkeypatch.setattr(hardware, "MULTIPLIES_BFLOAT16", able)
    train(tiny("trainer.precision=bf16-mixed", "trainer.max_epochs=1"))
    assert ("bfloat16 is emulated" in capsys.readouterr().out) != able
    result = train(tiny("trainer.precision=auto", "trainer.max_epochs=1", folder="auto"))
    said = capsys.readouterr().out
    assert "bfloat16 is emulated" not in said
    assert result.record.facts["precision"] == ("bf16-mixed" if able else "32-true")


@pytest.mark.parametrize("name", ["gpu", "cuda", "mps"])
def test_a_device_that_is_not_there(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    with pytest.raises(ConfigError, match=f"accelerator={name}: this machine has no such device"):
        best_device(name)
    assert best_device("auto").type == best_device("cpu").type == "cpu"


def test_devices_by_name_and_number(monkeypatch: pytest.MonkeyPatch) -> None:
    assert best_device(torch.device("cpu")) == torch.device("cpu")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert best_device("cuda:1") == best_device(torch.device("cuda:1")) == torch.device("cuda:1")
    assert best_device("gpu") == torch.device("cuda")
    with pytest.raises(ConfigError, match="accelerator=cuda:2: this machine has no such device"):
        best_device("cuda:2")
    for name in ("xpu", "cudda", "cuda:first"):
        with pytest.raises(ConfigError, match=f"device '{name}'; allowed: auto, cpu, cuda"):
            best_device(name)


def test_the_hardware_is_that_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device=None: f"Giant {device}")
    assert "Giant" not in str(environment_facts(CPU)["hardware"])
    assert environment_facts(torch.device("cuda:1"))["hardware"] == "Giant cuda:1"
    assert "Giant" in str(environment_facts()["hardware"])


def test_results_name_the_hardware_that_was_used(
    tiny: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not another that is there too."""
    for module in (trainer, eval_results, prober):
        monkeypatch.setattr(module, "environment_facts", lambda device: {"hardware": str(device)})
    done = train(tiny("trainer.max_epochs=1"), progress=False)
    measured = evaluate(done.folder, progress=False), probe(done.folder, progress=False)
    for result in (done, *measured):
        assert result.record.facts["hardware"] == "cpu"
