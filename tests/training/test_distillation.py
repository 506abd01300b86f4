"""Distillation: the losses against their definitions, the teacher's units, whole runs."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from vitkit.app import evaluate, train
from vitkit.app.build import build
from vitkit.app.jobs import classification
from vitkit.app.teacher import build_teacher
from vitkit.config import RunConfig, load_config
from vitkit.data.preprocess import Preprocessing
from vitkit.errors import ConfigError, DataError, WeightsError
from vitkit.models import create_model
from vitkit.training.distillation import Teacher, distillation_loss
from vitkit.weights import read_checkpoint

Tiny = Callable[..., RunConfig]


def logits(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(6, 5, generator=generator, dtype=torch.float64) * 3


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_soft_loss_is_the_divergence_written_out(temperature: float) -> None:
    student, taught = logits(0), logits(1)
    p = (taught / temperature).softmax(1)
    q = (student / temperature).softmax(1)
    expected = temperature**2 * (p * (p / q).log()).sum(1).mean()
    found = distillation_loss(student, taught, temperature=temperature)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    assert distillation_loss(student, student, temperature=temperature).abs() < 1e-6


def test_hard_loss_is_cross_entropy_with_the_teachers_choice() -> None:
    student, taught = logits(0), logits(1)
    expected = F.cross_entropy(student, taught.argmax(1))
    assert distillation_loss(student, taught, hard=True) == pytest.approx(expected.item())


def test_the_gradient_keeps_its_size_when_the_temperature_rises() -> None:
    sizes = []
    for temperature in (10.0, 40.0):
        student = logits(0).requires_grad_()
        distillation_loss(student, logits(1), temperature=temperature).backward()
        assert student.grad is not None
        sizes.append(student.grad.norm().item())
    assert sizes[0] == pytest.approx(sizes[1], rel=0.1)


def test_a_teacher_sees_images_in_its_own_units() -> None:
    images = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    student = Preprocessing((4, 4), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    own = Preprocessing((4, 4), mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    teacher = Teacher(
        nn.Identity(),
        mean=own.mean,
        std=own.std,
        student_mean=student.mean,
        student_std=student.std,
    )
    torch.testing.assert_close(teacher(student(images)), own(images), rtol=1e-5, atol=1e-6)


def test_a_bare_file_of_a_model_of_one_size_gets_that_size(tiny: Tiny, tmp_path: Path) -> None:
    torch.manual_seed(0)
    for name, size in (("vit_tiny_patch4_32", (32, 32)), ("resnet20_32", None)):
        path = tmp_path / f"{name}.pth"
        torch.save(create_model(name, num_classes=4).state_dict(), path)
        words = [f"task.distill.model={name}", f"task.distill.teacher={path}"]
        config = tiny(*words)
        teacher = build_teacher(config.task.distill, build(config))
        assert teacher is not None and teacher.img_size == size
        assert teacher(torch.randn(2, 3, 8, 8)).shape == (2, 4)


def test_a_teacher_gets_its_own_size_and_is_neither_trained_nor_saved(tiny: Tiny) -> None:
    teacher_run = train(tiny("trainer.max_epochs=1", folder="teacher"))
    before = read_checkpoint(teacher_run.checkpoint)
    student = tiny("model.img_size=12", f"task.distill.teacher={teacher_run.folder}")
    teacher = build_teacher(student.task.distill, build(student))
    assert teacher is not None and teacher.img_size == (8, 8)
    assert teacher(torch.randn(2, 3, 12, 12)).shape == (2, 4)
    result = train(student)
    after = read_checkpoint(result.checkpoint)
    assert set(after.trained) == set(before.trained)
    again = read_checkpoint(teacher_run.checkpoint)
    assert all(torch.equal(again.trained[k], v) for k, v in before.trained.items())


def test_a_student_follows_its_teacher_where_the_labels_say_nothing(tiny: Tiny) -> None:
    """With the whole loss the teacher's, a student agrees with it more than an untaught one."""
    teacher_run = train(tiny("trainer.max_epochs=30", folder="teacher"))
    assert teacher_run.metrics["test/acc"] > 0.5
    far = {}
    for weight in (1.0, 0.0):
        student = train(
            tiny(
                f"task.distill.teacher={teacher_run.folder}",
                f"task.distill.weight={weight}",
                "task.label_smoothing=0.9",
                "trainer.max_epochs=30",
                folder=str(weight),
            )
        )
        said, taught = (evaluate(run.folder).predictions for run in (student, teacher_run))
        assert said is not None and taught is not None
        far[weight] = float(distillation_loss(said.logits, taught.logits))
        assert weight == 0.0 or student.metrics["test/acc"] > 0.5
    assert far[1.0] < 0.5 * far[0.0]


def _always(class_index: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """A teacher that sees the same class in every image."""
    return lambda images: 9.0 * F.one_hot(torch.full((len(images),), class_index), 4).float()


def test_a_teacher_that_is_not_listened_to_is_none_and_one_that_is_alone_is_obeyed(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = ("trainer.max_epochs=20",)
    untaught = train(tiny(*more, folder="untaught"), progress=False)
    monkeypatch.setattr(classification, "build_teacher", lambda *_: _always(2))
    left = {}
    for weight in (0.0, 1.0):
        run = train(tiny(f"task.distill.weight={weight}", *more, folder=f"{weight}"))
        found = evaluate(run.folder, progress=False).predictions
        assert found is not None
        left[weight] = read_checkpoint(run.checkpoint).trained
        assert bool((found.logits.argmax(1) == 2).all()) == (weight == 1.0)
    alone = read_checkpoint(untaught.checkpoint).trained
    assert all(torch.equal(left[0.0][name], tensor) for name, tensor in alone.items())


@pytest.mark.parametrize(
    ("kind", "weight", "temperature"), [("soft", 0.3, 1.0), ("soft", 0.9, 4.0), ("hard", 0.2, 4.0)]
)
def test_the_loss_of_a_step_is_the_shares_of_labels_and_teacher(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, kind: str, weight: float, temperature: float
) -> None:
    """Of the first one, by the log and by the weights that it began with."""

    def first_loss(*more: str, folder: str) -> float:
        config = tiny("trainer.max_epochs=1", *more, folder=folder)
        with (train(config, progress=False).folder / "metrics.csv").open() as file:
            return float(next(row["train/loss"] for row in csv.DictReader(file)))

    of_labels = first_loss(folder="untaught")
    seen: list[torch.Tensor] = []

    def teacher(images: torch.Tensor) -> torch.Tensor:
        seen.append(images)
        return _always(2)(images)

    monkeypatch.setattr(classification, "build_teacher", lambda *_: teacher)
    shares = {"kind": kind, "weight": weight, "temperature": temperature}
    words = [f"task.distill.{name}={value}" for name, value in shares.items()]
    found = first_loss(*words, folder="taught")
    with torch.no_grad():
        begun = build(tiny(folder="fresh")).model(seen[0]).double()
    goal = (_always(2)(seen[0]).double() / temperature).softmax(1)
    said = (begun / temperature).log_softmax(1)
    of_teacher = temperature**2 * (goal * (goal.log() - said)).sum(1).mean()
    if kind == "hard":
        of_teacher = -begun.log_softmax(1)[:, 2].mean()
    wanted = (1 - weight) * of_labels + weight * float(of_teacher)
    assert found == pytest.approx(wanted, rel=1e-5)
    assert found != pytest.approx(weight * of_labels + (1 - weight) * float(of_teacher), rel=1e-2)


@pytest.mark.parametrize("kind", ["soft", "hard"])
def test_the_distillation_token_learns_beside_the_class_token(tiny: Tiny, kind: str) -> None:
    teacher_run = train(tiny("trainer.max_epochs=1", folder="teacher"))
    config = tiny(
        "model.name=vit_mini_distilled_patch4_32",
        f"task.distill.teacher={teacher_run.checkpoint}",
        f"task.distill.kind={kind}",
        "task.mixup=0.5",
        folder="student",
    )
    before = build(config).model.state_dict()
    result = train(config)
    after = read_checkpoint(result.checkpoint).weights
    moved = {head: (after[head] - before[head]) for head in ("head.bias", "head_dist.bias")}
    assert all(change.abs().max() > 1e-3 for change in moved.values())
    assert not torch.allclose(*moved.values())
    assert evaluate(result.folder).metrics["test/acc"] == result.metrics["test/acc"]


def test_two_runs_with_a_teacher_are_alike_bit_for_bit(tiny: Tiny) -> None:
    teacher_run = train(tiny("trainer.max_epochs=1", folder="teacher"))
    first, second = (
        read_checkpoint(
            train(tiny(f"task.distill.teacher={teacher_run.folder}", folder=name)).checkpoint
        )
        for name in ("one", "two")
    )
    assert all(torch.equal(first.trained[k], v) for k, v in second.trained.items())


def test_a_bare_file_needs_its_models_name_and_statistics_that_fit(
    tiny: Tiny, tmp_path: Path
) -> None:
    model = create_model("resnet20_32", num_classes=4)
    state = {k: v for k, v in model.state_dict().items() if "num_batches" not in k}
    path = tmp_path / "model.safetensors"  # of such a file what lies beside it counts
    save_file(state, path)
    named = [f"task.distill.teacher={path}", "task.distill.model=resnet20_32"]
    config = tiny(*named)
    teacher = build_teacher(config.task.distill, build(config))
    assert teacher is not None
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    own = build(config).preprocessing
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    expected = model.eval()((images / 255 - mean) / std)
    torch.testing.assert_close(teacher(own(images)), expected, rtol=1e-4, atol=1e-4)

    beside = {"architecture": "resnet20", "pretrained_cfg": {"mean": [0.1] * 3, "std": [0.5] * 3}}
    (tmp_path / "config.json").write_text(json.dumps(beside))
    told = build_teacher(config.task.distill, build(config))
    assert told is not None
    expected = model.eval()((images / 255 - 0.1) / 0.5)
    torch.testing.assert_close(told(own(images)), expected, rtol=1e-4, atol=1e-4)
    (tmp_path / "config.json").unlink()

    with pytest.raises(WeightsError, match="not a vitkit checkpoint"):
        bare = tiny(named[0])
        build_teacher(bare.task.distill, build(bare))
    with pytest.raises(ConfigError, match=r"task\.distill\.mean: 1 numbers, but .* 3 channels"):
        wrong = tiny(*named, "task.distill.mean=[0.5]")
        build_teacher(wrong.task.distill, build(wrong))
    with pytest.raises(ConfigError, match=r"task\.distill\.teacher"):
        load_config([], [named[1]])


def test_a_bare_file_with_a_head_for_other_classes_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    path = tmp_path / "vit.safetensors"
    save_file(create_model("vit_mini_patch4_32", num_classes=10).state_dict(), path)
    config = tiny(f"task.distill.teacher={path}", "task.distill.model=vit_mini_patch4_32")
    with pytest.raises(WeightsError, match=r"has no head.* of 4 classes, so it would guess"):
        build_teacher(config.task.distill, build(config))


def test_a_checkpoint_of_ours_is_told_no_model(tiny: Tiny) -> None:
    teacher_run = train(tiny("trainer.max_epochs=1", folder="teacher"))
    named = ["task.distill.model=vit_mini_patch4_32", f"task.distill.teacher={teacher_run.folder}"]
    with pytest.raises(ConfigError, match="says itself what it holds; leave it out"):
        train(tiny(*named, folder="student"))


def test_a_teacher_of_other_classes_is_refused(tiny: Tiny) -> None:
    teacher_run = train(tiny("trainer.max_epochs=1", "data.synthetic_classes=3", folder="teacher"))
    config = tiny(f"task.distill.teacher={teacher_run.folder}", folder="student")
    with pytest.raises(DataError, match="knows 3 classes"):
        train(config)
