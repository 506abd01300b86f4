"""On an accelerator as on the CPU; ``-m device`` runs these."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.interrupted import LIVELY, logged_rows, stopped_run
from vitkit.app import resume, train
from vitkit.app.jobs import job_class
from vitkit.config import RunConfig, load_config
from vitkit.data.augment import Augment
from vitkit.data.config import AugmentConfig
from vitkit.data.random import position_index, position_noise, position_uniform, position_uniforms
from vitkit.errors import TrainingError
from vitkit.nn import attention, attention_kernel
from vitkit.nn.functional import KERNELS
from vitkit.training.base import WATCH_EVERY, TrainingTask
from vitkit.training.budget import StepPlan
from vitkit.training.muon import orthogonalized
from vitkit.training.optimizers import build_optimizer
from vitkit.weights import read_file

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "mps"

pytestmark = [
    pytest.mark.device,
    pytest.mark.skipif(
        not (CUDA or torch.backends.mps.is_available()), reason="there is no accelerator"
    ),
]

HERE = (f"trainer.accelerator={DEVICE}", "trainer.devices=1", "trainer.precision=32-true")
STEADY = ("optimizer.name=sgd", "optimizer.lr=0.1")
"""No division by gradients that are zero but for rounding, as Adam's first steps have."""

Tiny = Callable[..., RunConfig]

on_cuda = pytest.mark.skipif(not CUDA, reason="CUDA's own ways")


def test_what_a_place_draws_are_the_same_bits() -> None:
    places = torch.cat([torch.arange(2000), 2**32 - 1 - torch.arange(100)])
    for draw in (0, 7001):
        assert torch.equal(
            position_uniform(3, 5, places.to(DEVICE), draw).cpu(),
            position_uniform(3, 5, places, draw),
        )
        assert torch.equal(
            position_uniforms(3, 5, places.to(DEVICE), draw, 65).cpu(),
            position_uniforms(3, 5, places, draw, 65),
        )
        assert torch.equal(
            position_index(3, 5, places.to(DEVICE), draw, 10).cpu(),
            position_index(3, 5, places, draw, 10),
        )


def test_the_noise_of_a_place_is_the_same_but_for_rounding() -> None:
    places, elements = torch.arange(20), torch.arange(300)
    image = torch.arange(20)[:, None]
    wanted = position_noise(3, 5, places, image, elements, 1)
    found = position_noise(3, 5, places.to(DEVICE), image.to(DEVICE), elements.to(DEVICE), 1)
    torch.testing.assert_close(found.cpu(), wanted, rtol=1e-4, atol=1e-5)


def test_pictures_are_moved_and_covered_as_on_the_cpu() -> None:
    config = AugmentConfig.model_validate(
        {"crop_padding": 2, "flip": "random", "cutout": 3, "erase_prob": 0.5}
        | {"erase_mode": "constant"}
    )
    draw = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (64, 3, 12, 16), generator=draw, dtype=torch.uint8)
    augment, places = Augment(config, seed=5, mean=[0.5] * 3), torch.arange(300, 364)

    def changed(images: Tensor) -> tuple[Tensor, Tensor]:
        moved = augment(images, places, 1)
        return moved.cpu(), augment.erase(moved.float() - 128, places, 1).cpu()

    moved, covered = changed(pictures)
    assert not torch.equal(moved, pictures) and not torch.equal(covered, moved.float() - 128)
    assert all(map(torch.equal, changed(pictures.to(DEVICE)), (moved, covered)))


@pytest.mark.parametrize("kind", ["plain", "mask", "causal"])
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-4), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize("kernel", KERNELS)
def test_attention_and_its_gradients(
    kernel: Any, dtype: torch.dtype, limit: float, kind: str
) -> None:
    """Against float64 on the CPU, relative to the largest value."""
    draw = torch.Generator().manual_seed(0)
    inputs = [torch.randn(2, 3, 65, 64, generator=draw).to(dtype) for _ in range(4)]
    allowed = torch.rand(2, 1, 65, 65, generator=draw) > 0.4

    def values(device: str, dtype: torch.dtype, kernel: Any) -> list[Tensor]:
        q, k, v, weight = (one.to(device, dtype).requires_grad_() for one in inputs)
        mask = allowed.to(device) if kind == "mask" else None
        with attention_kernel(kernel):
            out = attention(q, k, v, mask=mask, is_causal=kind == "causal")
            found = torch.autograd.grad(out, (q, k, v), weight)
        return [one.detach().cpu().double() for one in (out, *found)]

    wanted = values("cpu", torch.float64, "explicit")
    for found, exact in zip(values(DEVICE, dtype, kernel), wanted, strict=True):
        assert (found - exact).abs().max() <= limit * exact.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("learns", [True, False])
def test_a_query_that_may_attend_to_nothing(kernel: Any, dtype: torch.dtype, learns: bool) -> None:
    q, k, v = (torch.randn(2, 3, 65, 64, device=DEVICE, dtype=dtype) for _ in range(3))
    mask = torch.ones(2, 1, 65, 65, dtype=torch.bool, device=DEVICE)
    mask[0, 0, 7] = False
    with attention_kernel(kernel):
        out = attention(*(one.requires_grad_(learns) for one in (q, k, v)), mask=mask)
    assert not out[0, :, 7].any() and out.isfinite().all()
    if learns:
        found = torch.autograd.grad(out.float().square().sum(), (q, k, v))
        assert all(one.isfinite().all() for one in found)
        assert not found[0][0, :, 7].any()


def test_a_training_learns_what_the_cpus_learns(tiny: Tiny) -> None:
    on_cpu = train(tiny("trainer.precision=32-true", *STEADY, folder="cpu"), progress=False)
    here = train(tiny(*HERE, *STEADY, folder="here"), progress=False)
    losses = [[float(row["train/loss"]) for row in _steps(run.folder)] for run in (here, on_cpu)]
    assert len(losses[0]) == 9
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    for name in ("val/loss", "test/loss"):
        assert here.metrics[name] == pytest.approx(on_cpu.metrics[name], rel=1e-3)


@pytest.mark.parametrize(("precision", "limit"), [("32-true", 1e-5), ("16-mixed", 1e-3)])
def test_a_run_that_was_stopped_in_mid_epoch_goes_on_as_if_it_had_not(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, precision: str, limit: float
) -> None:
    """float16 also has the scale of its losses to go on with."""
    more = ("trainer.gradient_clip=1", "trainer.accumulate_grad_batches=2")
    settings = (*HERE, *LIVELY, *STEADY, *more, f"trainer.precision={precision}")
    whole = train(tiny(*settings, folder="whole"), progress=False)
    folder = stopped_run(monkeypatch, tiny(*settings, folder="parts"), 4)
    parts = resume(folder, progress=False)
    losses = [[float(row["train/loss"]) for row in _steps(run.folder)] for run in (parts, whole)]
    assert len(losses[0]) == 9
    assert losses[0] == pytest.approx(losses[1], rel=limit)
    assert parts.metrics["test/loss"] == pytest.approx(whole.metrics["test/loss"], rel=limit)
    scales = [read_file(run.checkpoint).get("MixedPrecision") for run in (parts, whole)]
    assert scales[0] == scales[1] and (scales[0] is None) == (precision == "32-true")


def test_a_diverging_loss_is_seen_in_time_and_its_first_step_is_named(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """65 steps an epoch, and no checkpoint before its end that would look."""
    more = ("data.synthetic_size=1600", "optimizer.name=sgd", "optimizer.lr=1e30")
    watch, seen = TrainingTask.watch, [0]

    def counted(self: TrainingTask, loss: Tensor) -> None:
        seen[0] += 1
        watch(self, loss)

    monkeypatch.setattr(TrainingTask, "watch", counted)
    named = []
    for settings in (("trainer.precision=32-true",), HERE):
        seen[0] = 0
        with pytest.raises(TrainingError, match=r"NaN or infinite at step \d+") as stopped:
            train(tiny(*more, *settings, folder=settings[0]), progress=False)
        found = re.search(r"at step (\d+)", str(stopped.value))
        assert found is not None
        named.append(int(found[1]))
    assert named[0] == named[1]
    assert named[1] <= seen[0] <= named[1] + WATCH_EVERY


@on_cuda
def test_muons_steps_lie_in_memory_as_their_weights_do() -> None:
    tall, wide = torch.randn(12, 5), torch.randn(5, 12)
    steps = orthogonalized([tall.to(DEVICE), wide.to(DEVICE)], [[12], [5]])
    wanted = orthogonalized([tall, wide], [[12], [5]])
    for step, exact in zip(steps, wanted, strict=True):
        assert step.is_contiguous()
        torch.testing.assert_close(step.cpu(), exact, rtol=1e-3, atol=1e-3)


@on_cuda
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("name", ["cifar10_gpu_stem", "cifar10_gpu_vit", "text_pixels_cifar10"])
def test_a_step_waits_for_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From its batch to its new weights; the first step may, for what is kept from then on."""
    path = Path(__file__).parents[1] / "configs" / f"{name}.yaml"
    sizes = ("data.name=synthetic", "data.synthetic_size=60", "data.batch_size=8")
    config = load_config([path], list(sizes))
    device = torch.device("cuda", torch.cuda.current_device())
    place: Any = SimpleNamespace(
        global_rank=0, world_size=1, strategy=SimpleNamespace(root_device=device)
    )
    job = job_class(config)(config)
    train_loader, _ = job.loaders(place)
    task = job.task(StepPlan(job.steps_per_epoch, 2)).to(device)
    task.on_fit_start()
    monkeypatch.setattr(TrainingTask, "rate", lambda task: 0.1)
    optimizer = build_optimizer(task.model, config.optimizer, dtype=torch.bfloat16)
    batches = list(train_loader)
    assert len(batches) > 3
    try:
        for index, batch in enumerate(batches):
            task.on_train_batch_start(batch, index)
            with torch.autocast("cuda", torch.bfloat16):
                loss: Any = task.training_step(batch, index)
            optimizer.zero_grad()
            loss.backward()
            task.configure_gradient_clipping(optimizer, 1.0)
            optimizer.step()
            torch.cuda.set_sync_debug_mode("error")
    finally:
        torch.cuda.set_sync_debug_mode("default")


def _steps(folder: Path) -> list[dict[str, str]]:
    """Rows of a run's curves that are a training step's."""
    return [row for row in logged_rows(folder) if row["train/loss"]]
