"""Whole pre-training runs: what they learn, that they resume exactly, that every setting counts."""

from __future__ import annotations

import csv
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.interrupted import assert_equal_checkpoints, same, stop_at
from vitkit.app import assemble, resume, train
from vitkit.app.jobs import job_class
from vitkit.config import RunConfig
from vitkit.errors import EvaluationError, Interrupted
from vitkit.training.pretraining import MeanSums
from vitkit.training.task_config import TASKS
from vitkit.weights import read_checkpoint, read_file

Tiny = Callable[..., RunConfig]

MAE = (
    "task.name=mae",
    "model.patch_size=2",
    "model.pos_embed=sincos2d",
    "task.decoder_embed_dim=8",
    "task.decoder_depth=1",
    "task.decoder_num_heads=2",
    "data.augment.flip=true",
)
DINO = (
    "task.name=dino",
    "model.patch_size=2",
    "task.out_dim=16",
    "task.head_hidden_dim=12",
    "task.head_bottleneck_dim=6",
    "task.local_crops_number=2",
)
TASK = {"mae": MAE, "dino": DINO}
LIVELY = ("model.drop_path_rate=0.2", "model.proj_drop_rate=0.1", "schedule.warmup=0.3")

each_task = pytest.mark.parametrize("name", TASK)


def _column(folder: Path, name: str) -> list[float]:
    with (folder / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


@each_task
@pytest.mark.parametrize("step", [2, 3, 4])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_resume_after_sigterm_is_exact(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, name: str, step: int, accumulate: int
) -> None:
    """Three steps an epoch: at an epoch's end, and in the middle of one."""
    more = (*TASK[name], *LIVELY, f"trainer.accumulate_grad_batches={accumulate}")
    whole = train(tiny(*more, "trainer.max_epochs=2", folder="whole"), progress=False)
    with monkeypatch.context() as patch:
        stop_at(patch, step)
        with pytest.raises(Interrupted) as stopped:
            train(tiny(*more, "trainer.max_epochs=2", folder="parts"), progress=False)
    assert stopped.value.exit_code == 128 + signal.SIGTERM
    folder = whole.folder.parent / "parts"
    assert read_checkpoint(folder / "checkpoints" / "last.ckpt").step == step
    parts = resume(folder, progress=False)
    assert_equal_checkpoints(whole.checkpoint, parts.checkpoint)
    own = [read_file(run.checkpoint)["vitkit"] for run in (whole, parts)]
    assert same(own[0].get("teacher_projection"), own[1].get("teacher_projection"))
    assert parts.metrics == whole.metrics
    name = "train/loss_epoch"  # of the epoch at whose end it stopped there is no row
    assert _column(parts.folder, name)[-1:] == _column(whole.folder, name)[-1:]


@each_task
def test_same_seed_same_weights_and_another_seed_others(tiny: Tiny, name: str) -> None:
    more = (*TASK[name], *LIVELY, "trainer.max_epochs=1")
    runs = [
        train(tiny(*more, f"run.seed={seed}", folder=f"run-{i}"), progress=False)
        for i, seed in enumerate((0, 0, 1))
    ]
    states = [read_checkpoint(run.checkpoint).trained for run in runs]
    assert same(states[0], states[1])
    assert not same(states[0], states[2])


def test_masked_autoencoding_learns_the_patterns(tiny: Tiny) -> None:
    """Half of each pixel is its class's pattern, half noise: what a painter knows of the class it
    sees in the patches that are left.
    """
    settings = ("trainer.max_epochs=16", "data.synthetic_size=400", "optimizer.lr=3e-3")
    shape = ("model.embed_dim=32", "model.patch_size=4", "data.augment.flip=false")
    paint = ("task.mask_ratio=0.5", "task.norm_pix=false", "task.decoder_embed_dim=32")
    config = tiny(*MAE, *settings, *shape, *paint)
    result = train(config, progress=False)
    losses = _column(result.folder, "val/loss")
    assert losses[0] > 0.9  # the variance of a pixel is 1
    assert losses[-1] < 0.88
    assert losses == sorted(losses, reverse=True)
    built = job_class(config)(config).built  # type: ignore[attr-defined]
    known, asked = (
        built.preprocessing(split.images) for split in (built.data.train, built.data.val)
    )
    blind = float((asked - known.mean(0)).square().mean())  # the mean image, whatever is seen
    assert losses[-1] < 0.9 * blind


def test_the_student_comes_to_agree_with_its_teacher(tiny: Tiny) -> None:
    """One that hardly moves, so that the loss can fall; the least it can be is the entropy."""
    still = ("task.momentum_teacher=0.99999", "task.center_momentum=0.99999")
    settings = ("trainer.max_epochs=4", "data.synthetic_size=200", "task.freeze_last_layer=0")
    result = train(tiny(*DINO, *still, *settings), progress=False)
    losses = _column(result.folder, "val/loss")
    assert losses[-1] < 0.9 * losses[0]
    assert result.metrics["val/teacher_entropy"] < result.metrics["val/loss"]


def test_what_a_run_of_mae_leaves(tiny: Tiny) -> None:
    result = train(tiny(*MAE, "trainer.max_epochs=1", "ema.enabled=true"), progress=False)
    assert {"val/loss", "val/knn_acc", "test/knn_acc"} <= set(result.metrics)
    facts = result.record.facts
    assert facts["task"] == "mae"
    assert facts["weights"] == "last, averaged"
    assert facts["neighbours"] == 20
    kept = read_checkpoint(result.checkpoint)
    assert kept.model["num_classes"] == 0
    spare = {name for name in kept.trained if name not in kept.weights}
    assert spare
    assert all(name.startswith(("decoder_", "mask_token")) for name in spare)
    assert _column(result.folder, "images_per_second")


def test_what_a_run_of_dino_leaves(tiny: Tiny) -> None:
    result = train(tiny(*DINO, "trainer.max_epochs=1"), progress=False)
    assert {"val/loss", "val/teacher_entropy", "test/knn_acc"} <= set(result.metrics)
    assert result.record.facts["weights"] == "last, averaged"
    kept = read_checkpoint(result.checkpoint)
    assert {name.split(".")[0] for name in kept.trained} == {"backbone", "projection"}
    student = {n.removeprefix("backbone."): t for n, t in kept.trained.items()}
    assert set(kept.weights) <= set(student)
    moved = [n for n, t in kept.weights.items() if not torch.equal(t, student[n])]
    assert len(moved) > 0.9 * len(kept.weights)
    # Momentum 0.996 and more, three steps: the teacher has hardly left the start.
    config = tiny(*DINO, "trainer.max_epochs=1", folder="fresh")
    fresh: Any = job_class(config)(config).model
    for name, start in fresh.backbone.state_dict().items():
        way = (student[name] - start).norm()
        assert (kept.weights[name] - start).norm() <= 0.02 * way + 1e-7, name


@each_task
def test_a_run_without_validation_and_with_early_stopping(tiny: Tiny, name: str) -> None:
    settings = ("data.val_fraction=0.0", "trainer.max_epochs=1")
    result = train(tiny(*TASK[name], *settings), progress=False)
    assert set(result.metrics) == {"test/knn_acc"}
    settings = ("trainer.early_stopping_patience=1", "trainer.max_epochs=2")
    best = train(tiny(*TASK[name], *settings, folder="early"), progress=False)
    assert str(best.record.facts["weights"]).startswith("best, ")
    assert best.checkpoint.name == "best.ckpt"


def test_means_of_a_split() -> None:
    sums = MeanSums(("loss", "entropy"))
    with pytest.raises(EvaluationError, match="no image was evaluated; the split is empty"):
        sums.metrics()
    sums.update({"loss": torch.tensor(2.0), "entropy": torch.tensor(1.0)}, 3)
    sums.update({"loss": torch.tensor(6.0), "entropy": torch.tensor(3.0)}, 1)
    assert sums.count == 4
    assert sums.metrics() == {"loss": 3.0, "entropy": 1.5}


FLIPS: dict[str, dict[str, tuple[str, ...]]] = {
    "mae": {
        "mask_ratio": ("task.mask_ratio=0.5",),
        "norm_pix": ("task.norm_pix=false",),
        "decoder_embed_dim": ("task.decoder_embed_dim=16",),
        "decoder_depth": ("task.decoder_depth=2",),
        "decoder_num_heads": ("task.decoder_num_heads=1",),
    },
    "dino": {
        "out_dim": ("task.out_dim=20",),
        "head_hidden_dim": ("task.head_hidden_dim=10",),
        "head_bottleneck_dim": ("task.head_bottleneck_dim=5",),
        "student_temp": ("task.student_temp=0.2",),
        "teacher_temp": ("task.teacher_temp=0.2",),
        "warmup_teacher_temp": ("task.warmup_teacher_temp=0.2",),
        "teacher_temp_warmup": ("task.teacher_temp_warmup=0.9",),
        "momentum_teacher": ("task.momentum_teacher=0.5",),
        "center_momentum": ("task.center_momentum=0.5",),
        "freeze_last_layer": ("task.freeze_last_layer=0",),
        "global_crops_scale": ("task.global_crops_scale=[0.8, 1.0]",),
        "local_crops_scale": ("task.local_crops_scale=[0.1, 0.3]",),
        "local_crops_number": ("task.local_crops_number=0",),
        "local_crops_size": ("task.local_crops_size=6",),
        "flip_prob": ("task.flip_prob=1.0",),
        "jitter_prob": ("task.jitter_prob=0.0",),
        "color_jitter": ("task.color_jitter=0.1",),
        "color_jitter_hue": ("task.color_jitter_hue=0.0",),
        "gray_prob": ("task.gray_prob=1.0",),
        "blur_prob": ("task.blur_prob=1.0",),
        "solarize_prob": ("task.solarize_prob=1.0",),
    },
}
"""Field -> settings that change it."""

SHORT = ("trainer.max_epochs=1", "task.teacher_temp_warmup=0.5", "data.synthetic_size=60")
SHORT_OF = {"mae": (SHORT[0], SHORT[2]), "dino": SHORT}


def _left(tiny: Tiny, name: str, *more: str, folder: str) -> dict[str, Tensor]:
    """All tensors that a short run leaves."""
    config = tiny(*TASK[name], *SHORT_OF[name], "data.batch_size=8", *more, folder=folder)
    content = read_file(train(config, progress=False).checkpoint)
    averaged = content["vitkit"].get("averaged") or {}
    return {**content["state_dict"], **{f"averaged.{n}": t for n, t in averaged.items()}}


@pytest.fixture(scope="module")
def bases() -> dict[str, dict[str, Tensor]]:
    """What the unchanged runs leave, by task."""
    return {}


@pytest.mark.parametrize(
    ("name", "field"), [(name, field) for name, flips in FLIPS.items() for field in flips]
)
def test_every_setting_is_felt(
    tiny: Tiny, bases: dict[str, dict[str, Tensor]], name: str, field: str
) -> None:
    if name not in bases:
        bases[name] = _left(tiny, name, folder="base")
        assert same(_left(tiny, name, folder="again"), bases[name])
    assert not same(_left(tiny, name, *FLIPS[name][field], folder="flipped"), bases[name])


@each_task
def test_no_setting_is_forgotten(name: str) -> None:
    assert set(FLIPS[name]) == set(TASKS[name].model_fields) - {"name"}


@each_task
def test_the_budget_counts_the_images_whose_features_are_compared(tiny: Tiny, name: str) -> None:
    """Validation for its loss, then train, validation and test for the neighbours."""
    config = tiny(*TASK[name])
    job = job_class(config)(config)
    run = assemble.Run(config, job, Path())
    assert (job.num_validated, job.num_tested) == (12, 52 + 12 + 16)
    assert run.monitor == ("val/loss", False)
