"""Self-distillation: the published formulas, the teacher in closed form, what is kept."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitkit.models import create_model
from vitkit.training.budget import StepPlan
from vitkit.training.config import OptimizerConfig, ScheduleConfig
from vitkit.training.dino import (
    DinoTask,
    MomentumTeacher,
    ProjectionHead,
    SelfDistilled,
    dino_loss,
    teacher_momentum,
    teacher_temperature,
)
from vitkit.training.optimizers import parameter_groups
from vitkit.training.task_config import DinoConfig

SMALL: dict[str, Any] = {"img_size": 8, "patch_size": 2, "embed_dim": 16, "depth": 2}
SMALL |= {"num_heads": 2, "num_classes": 0, "dynamic_img_size": True}


def student(out_dim: int = 12) -> SelfDistilled:
    torch.manual_seed(0)
    head = ProjectionHead(16, hidden_dim=10, bottleneck_dim=6, out_dim=out_dim)
    return SelfDistilled(create_model("vit_tiny_patch4_32", **SMALL), head)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("views", [2, 5])
def test_the_loss_is_the_published_double_loop(views: int) -> None:
    """Over the teacher's views and the student's, leaving out those that are the same."""
    rng, batch, outputs = np.random.default_rng(0), 3, 7
    student = rng.normal(size=(views, batch, outputs))
    teacher = rng.normal(size=(2, batch, outputs))
    total, terms = 0.0, 0
    for t in range(2):
        for v in range(views):
            if v != t:
                crossed = -softmax(teacher[t] / 0.05) * np.log(softmax(student[v] / 0.1))
                total, terms = total + crossed.sum(axis=-1).mean(), terms + 1
    shares = torch.tensor(softmax(teacher / 0.05), dtype=torch.float32).flatten(0, 1)
    found = dino_loss(torch.tensor(student).flatten(0, 1), shares, batch, 0.1)
    assert terms == 2 * (views - 1)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(total / terms, rel=1e-5)


def test_the_loss_is_computed_in_float32_under_autocast_too() -> None:
    """Where products of matrices are in bfloat16."""
    torch.manual_seed(0)
    student, teacher = torch.randn(5 * 3, 700), torch.randn(2 * 3, 700).softmax(dim=-1)
    wanted = dino_loss(student, teacher, 3, 0.1)
    with torch.autocast("cpu", torch.bfloat16):
        found = dino_loss(student, teacher, 3, 0.1)
    assert found.dtype == torch.float32
    assert torch.equal(found, wanted)


def test_the_head_is_weight_normalised_with_a_gain_of_one() -> None:
    head = ProjectionHead(16, hidden_dim=10, bottleneck_dim=6, out_dim=12)
    layers = nn.Linear(16, 10), nn.GELU(), nn.Linear(10, 10), nn.GELU(), nn.Linear(10, 6)
    mlp = nn.Sequential(*layers)
    for parameter in head.mlp.parameters():
        nn.init.normal_(parameter)
    mlp.load_state_dict(head.mlp.state_dict())
    last = nn.utils.parametrizations.weight_norm(nn.Linear(6, 12, bias=False))
    last.parametrizations.weight.original0.data.fill_(1.0)
    last.parametrizations.weight.original1.data.copy_(head.last_layer.weight.data)
    x = torch.randn(5, 16)
    torch.testing.assert_close(head(x), last(F.normalize(mlp(x), dim=-1)))
    with torch.no_grad():
        before = head(x)
        head.last_layer.weight *= 7.0
    torch.testing.assert_close(head(x), before)


def test_the_head_begins_small_and_without_biases() -> None:
    head = ProjectionHead(100, hidden_dim=90, bottleneck_dim=80, out_dim=12)
    layers = [layer for layer in head.mlp if isinstance(layer, nn.Linear)]
    assert len(layers) == 3
    for layer in layers:
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert not layer.bias.any()


def test_the_teacher_has_the_closed_form_of_an_average() -> None:
    """After n steps towards one and the same student: m^n of itself, 1 - m^n of the student."""
    made = student().double()
    teacher = MomentumTeacher(made)
    start = {n: t.clone() for n, t in teacher.network.state_dict().items()}
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn_like(parameter))
    for _ in range(5):
        teacher.follow(made, 0.9)
    kept = 0.9**5
    for name, tensor in teacher.network.state_dict().items():
        wanted = kept * start[name] + (1 - kept) * made.state_dict()[name]
        torch.testing.assert_close(tensor, wanted, rtol=1e-12, atol=1e-14)
    assert not any(p.requires_grad for p in teacher.network.parameters())
    assert not teacher.network.training
    assert all(p.requires_grad for p in made.parameters())


def test_the_teacher_follows_statistics_and_counts_too() -> None:
    made = student()
    made.backbone.extra = nn.BatchNorm1d(3)
    teacher = MomentumTeacher(made)
    made.backbone.extra(torch.randn(8, 3) + 5.0)
    teacher.follow(made, 0.5)
    own, theirs = teacher.network.backbone.extra, made.backbone.extra
    torch.testing.assert_close(own.running_mean, theirs.running_mean / 2)
    assert own.num_batches_tracked == 1


def test_momentum_and_temperature_over_the_training() -> None:
    """The momentum as the published schedule has it: a cosine from its start to 1."""
    steps = 50
    schedule = 1.0 + 0.5 * (0.996 - 1.0) * (1 + np.cos(np.pi * np.arange(steps) / steps))
    found = [teacher_momentum(step / steps, 0.996) for step in range(steps)]
    np.testing.assert_allclose(found, schedule, rtol=1e-12)
    assert teacher_momentum(1.0, 0.9) == 1.0
    warm = [teacher_temperature(p, start=0.04, end=0.07, warmup=0.3) for p in (0, 0.15, 0.3, 1)]
    assert warm == pytest.approx([0.04, 0.055, 0.07, 0.07])
    assert teacher_temperature(0.0, start=0.04, end=0.07, warmup=0.0) == 0.07


def _views(images: Tensor, positions: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
    """Made up, and different: two large ones and three small ones."""
    x = images / 255.0
    small = x[:, :, 2:6, 2:6]
    return torch.cat([x, x.flip(3)]), torch.cat([small, small.flip(2), 1 - small])


def task(config: DinoConfig, out_dim: int = 12) -> DinoTask:
    made = DinoTask(
        student(out_dim),
        task=config,
        views=_views,
        prepare_eval=lambda images: images / 255.0,
        optimizer=OptimizerConfig(),
        schedule=ScheduleConfig(),
        plan=StepPlan(10, 1),
    )
    made.trainer = SimpleNamespace(  # type: ignore[assignment]
        world_size=1, global_step=0, current_epoch=0
    )
    return made


def _images(count: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (count, 3, 8, 8), generator=generator, dtype=torch.uint8)


def test_a_batch_is_measured_as_written_out() -> None:
    """Teacher on large views, centred and sharpened; student on all; then the centre moves."""
    made = task(DinoConfig(out_dim=12, center_momentum=0.8, teacher_temp_warmup=0.0))
    made.center.copy_(torch.linspace(-0.1, 0.1, 12))
    x, places = _images(), torch.arange(4)
    large, small = _views(x, places, 0)
    with torch.no_grad():
        outputs = made.teacher.network(large)
        shares = ((outputs - made.center) / 0.07).softmax(-1)
        student_output = torch.cat([made.model(large), made.model(small)])
        wanted = dino_loss(student_output, shares, 4, 0.1)
        center = 0.8 * made.center + 0.2 * outputs.mean(0, keepdim=True)
    means = made.measure(x, places, 0, training=False)
    before = made.center.clone()
    means = made.measure(x, places, 0, training=True)
    assert means["loss"].item() == pytest.approx(wanted.item(), rel=1e-5)
    assert means["loss"].requires_grad
    entropy = -(shares * shares.log()).sum(-1).mean()
    assert means["teacher_entropy"].item() == pytest.approx(entropy.item(), rel=1e-5)
    assert torch.equal(before, made.center), "it moves with the step, not with a part of it"
    made._recenter()
    torch.testing.assert_close(made.center, center)


def test_the_centre_moves_once_a_step_by_the_mean_of_all_its_parts() -> None:
    whole, parts = (task(DinoConfig(out_dim=12, center_momentum=0.8)) for _ in range(2))
    parts.load_state_dict(whole.state_dict())
    parts.teacher.network.load_state_dict(whole.teacher.network.state_dict())
    x, places = _images(), torch.arange(4)
    whole.measure(x, places, 0, training=True)
    for half in (slice(0, 2), slice(2, 4)):
        parts.measure(x[half], places[half], 0, training=True)
    for made in (whole, parts):
        made._recenter()
    assert whole.center.abs().sum() > 0
    torch.testing.assert_close(parts.center, whole.center)


def test_entropy_shows_both_ways_to_collapse() -> None:
    made = task(DinoConfig(out_dim=12))
    made.teacher = lambda images: torch.zeros(len(images), 12)  # type: ignore[assignment]
    even = made.measure(_images(), torch.arange(4), 0, training=False)["teacher_entropy"]
    assert even.item() == pytest.approx(math.log(12), rel=1e-6)
    one = torch.zeros(12)
    one[3] = 50.0
    made.teacher = lambda images: one.expand(len(images), -1)  # type: ignore[assignment]
    single = made.measure(_images(), torch.arange(4), 0, training=False)["teacher_entropy"]
    assert single.item() == pytest.approx(0.0, abs=1e-6)


def test_the_teacher_is_no_part_of_the_module() -> None:
    made = task(DinoConfig(out_dim=12))
    assert {name.split(".")[0] for name in made.state_dict()} == {"model", "center"}
    own = {id(p) for p in made.model.parameters()}
    groups = parameter_groups(made.model, OptimizerConfig())
    assert {id(p) for group in groups for p in group["params"]} == own
    assert not own & {id(p) for p in made.teacher.network.parameters()}
    plain = [p for group in groups if group["weight_decay"] == 0 for p in group["params"]]
    assert any(p is made.model.backbone.cls_token for p in plain)
    assert made.model.get_classifier() is made.model.projection.last_layer


def test_features_are_the_teachers() -> None:
    made = task(DinoConfig(out_dim=12)).eval()
    x = _images()
    backbone = made.teacher.network.backbone
    wanted = backbone.forward_head(backbone.forward_features(x / 255.0), pre_logits=True)
    torch.testing.assert_close(made(x), wanted)
    with torch.no_grad():
        for parameter in made.model.parameters():
            parameter.zero_()
    torch.testing.assert_close(made(x), wanted)


def test_the_last_layer_rests_in_the_first_epochs() -> None:
    made = task(DinoConfig(out_dim=12, freeze_last_layer=1))
    optimizer = torch.optim.SGD(made.model.parameters(), lr=0.1)
    for epoch, rests in ((0, True), (1, False)):
        made.trainer.current_epoch = epoch
        optimizer.zero_grad()
        made.measure(_images(), torch.arange(4), epoch, training=True)["loss"].backward()
        made.on_before_optimizer_step(optimizer)
        gradients = {n: p.grad for n, p in made.model.named_parameters()}
        assert (gradients.pop("projection.last_layer.weight") is None) is rests
        assert all(gradient is not None for gradient in gradients.values())
