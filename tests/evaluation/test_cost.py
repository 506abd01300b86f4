"""Operations, activations, memory and speed, against closed forms."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from vitkit.evaluation import speed
from vitkit.evaluation.cost import count_activations, count_flops, count_parameters, peak_memory
from vitkit.evaluation.speed import measure_speed, synchronize
from vitkit.models import create_model
from vitkit.models.flops import forward_flops
from vitkit.nn import attention_kernel


@pytest.mark.parametrize("kernel", ["fused", "explicit"])
@pytest.mark.parametrize("name", ["vit_tiny_patch4_32", "cct_2_3x2_32"])
def test_ours_cost_their_closed_form_under_every_kernel(name: str, kernel: str) -> None:
    section = {"name": name, "num_classes": 10, "in_chans": 3, "img_size": 32}
    model = create_model(name, num_classes=10, in_chans=3, img_size=32).eval()
    image = torch.zeros(1, 3, 32, 32)
    with attention_kernel(kernel):  # type: ignore[arg-type]
        assert count_flops(lambda: model(image)) == forward_flops(section)


PUBLISHED = {"tiny": 2.507, "small": 9.198, "base": 35.128, "large": 123.11}
"""Closed form of specs and papers at 224 pixels, in 10^9 operations."""


@pytest.mark.parametrize("size", PUBLISHED)
def test_published_sizes_of_ours_and_of_timm(size: str) -> None:
    section: dict[str, Any] = {"name": f"vit_{size}_patch16_224", "num_classes": 1000}
    assert forward_flops(section) / 1e9 == pytest.approx(PUBLISHED[size], rel=5e-4)
    with torch.device("meta"):
        model = timm.create_model(section["name"], num_classes=1000).eval()
        image = torch.zeros(1, 3, 224, 224)
    for block in model.blocks:
        block.attn.fused_attn = False
    assert count_flops(lambda: model(image)) == forward_flops(section)


@pytest.mark.parametrize(
    "backend", [SDPBackend.MATH, SDPBackend.FLASH_ATTENTION], ids=lambda b: b.name
)
@pytest.mark.parametrize("fused", [True, False])
def test_timm_costs_the_same_under_every_kernel(backend: SDPBackend, fused: bool) -> None:
    model = timm.create_model("vit_tiny_patch16_224", num_classes=10).eval()
    for block in model.blocks:
        block.attn.fused_attn = fused
    image = torch.zeros(1, 3, 224, 224)
    with sdpa_kernel(backend):
        found = count_flops(lambda: model(image))
    assert found == forward_flops({"name": "vit_tiny_patch16_224", "num_classes": 10})


def test_activations_and_parameters_by_hand() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 7))
    image = torch.zeros(1, 3, 8, 8)
    assert count_activations(model, lambda: model(image)) == 4 * 36 + 7
    assert count_parameters(model) == (27 + 1) * 4 + (144 + 1) * 7
    assert count_flops(lambda: model(image)) == 2 * (36 * 27 * 4 + 144 * 7)
    assert not any(m._forward_hooks for m in model.modules())


@pytest.mark.parametrize(("rows", "width"), [(8, 32), (64, 128)])
def test_peak_memory_is_what_was_alive_at_once(rows: int, width: int) -> None:
    first, second, third = (nn.Linear(width, width, bias=False) for _ in range(3))
    x = torch.zeros(rows, width)
    one = rows * width * 4

    def freed() -> object:
        return third(second(first(x)))  # never more than a layer's input and output

    def held() -> object:
        a = first(x)
        b = second(a)
        return a, b, third(b)

    assert peak_memory(freed) == 2 * one
    assert peak_memory(held) == 3 * one
    assert peak_memory(lambda: x.view(-1)) == 0
    assert peak_memory(lambda: first.weight.t() @ first.weight) == width * width * 4


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the clock says, which moves as a test moves it."""
    seconds = [0.0]
    monkeypatch.setattr(speed, "time", SimpleNamespace(perf_counter=lambda: seconds[0]))
    return seconds


def test_speed_finds_the_batch_that_pays(now: list[float]) -> None:
    def seconds_of(batch: int) -> float:
        return 0.004 + 0.001 * max(0, batch - 4) ** 2

    def run(images: torch.Tensor) -> None:
        now[0] += seconds_of(len(images))

    found = measure_speed(run, lambda n: torch.zeros(n, 1), seconds=0.01, max_batch=64)
    assert found.best_batch == 4
    # 8 is slower for each image: no larger one is tried.
    expected = {n: n / seconds_of(n) for n in (1, 2, 4, 8)}
    assert found.rates == pytest.approx(expected, rel=1e-9)
    assert found.images_per_second == found.rates[4]
    assert found.latency == pytest.approx(0.004, rel=1e-9)


def test_speed_goes_on_without_the_batch_that_does_not_fit(now: list[float]) -> None:
    def run(images: torch.Tensor) -> None:
        if len(images) > 2:
            raise torch.OutOfMemoryError("too much")
        now[0] += 0.004

    found = measure_speed(run, lambda n: torch.zeros(n, 1), seconds=0.001, max_batch=64)
    assert set(found.rates) == {1, 2} and found.best_batch == 2


def test_only_devices_that_queue_work_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: waited.append(str(device)))
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waited.append("mps"))
    for device in ("cpu", "cuda:1", torch.device("mps")):
        synchronize(device)
    assert waited == ["cuda:1", "mps"]
