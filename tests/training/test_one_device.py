"""A training step stays where the model is: no tensor of another device, and no look at a value.

Tensors of the meta device have shapes and no values: whatever would read one, such as ``item()``,
a condition, or a copy to the CPU, fails there. On an accelerator each of them would wait for all
that is queued; and a tensor made on the wrong device would not go with the others.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.small_words import pair_run, text_run
from vitkit.app.jobs import job_class
from vitkit.config import RunConfig, load_config
from vitkit.training.base import TrainingTask
from vitkit.training.budget import StepPlan
from vitkit.training.optimizers import build_optimizer

META = torch.device("meta")
SIZE = ["data.name=synthetic", "data.synthetic_size=40", "data.batch_size=8"]


def pictures(*overrides: str, config: str = "vit_mini_cifar10") -> Callable[[Path], RunConfig]:
    """Makes a config of the repository small."""
    path = Path(__file__).parents[2] / "configs" / f"{config}.yaml"
    return lambda folder: load_config([path], [*SIZE, *overrides])


def augmented(settings: str) -> Callable[[Path], RunConfig]:
    """Makes one with augmentation of its own."""
    return pictures(f"data.augment={settings}")


RUNS: dict[str, Callable[[Path], RunConfig]] = {
    "stem": pictures(config="cifar10_gpu_stem"),
    "plain ViT": pictures(config="cifar10_gpu_vit"),
    "CCT": pictures(config="cct_2_3x2_cifar10"),
    "mixed": pictures("task.mixup=0.2", "task.cutmix=1.0", "optimizer.name=adamw"),
    "randaugment": augmented("{policy: randaugment}"),
    "timm's": augmented("{policy: rand-m9-mstd0.5-inc1}"),
    "trivial": augmented("{policy: trivialaugment}"),
    "3-augment": augmented("{policy: three_augment, color_jitter: 0.3, color_jitter_hue: 0.1}"),
    "resized crop": augmented("{crop_padding: 0, resized_crop_scale: 0.4}"),
    "alternate flip": augmented("{crop_padding: 2, flip: alternate}"),
    "cutout": augmented("{cutout: 8}"),
    "erasing": augmented("{erase_prob: 0.5}"),
    "lion": pictures("optimizer.name=lion"),
    "MAE": pictures(config="mae_cifar10"),
    "DINO": pictures(config="dino_cifar10"),
    "language model": text_run,
    "LSTM": lambda folder: text_run(
        folder, "model.name=lstm_music", "data.window=16", recurrent=True
    ),
    "translator": pair_run,
    # No LSTM translator: torch wants the lengths of packed sequences on the CPU.
}


@pytest.mark.parametrize("name", RUNS)
def test_a_step_reads_nothing_from_the_device(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = RUNS[name](tmp_path / "run")
    job = job_class(config)(config)
    place: Any = SimpleNamespace(
        global_rank=0, world_size=1, strategy=SimpleNamespace(root_device=META)
    )
    train_loader, val_loader = job.loaders(place)
    task = job.task(StepPlan(job.steps_per_epoch, 2)).to(META)
    task.on_fit_start()
    monkeypatch.setattr(TrainingTask, "rate", lambda task: 0.1)
    optimizer = build_optimizer(task.model, config.optimizer, fused=False, dtype=torch.float32)
    for index, batch in enumerate(train_loader):
        task.on_train_batch_start(batch, index)
        loss: Any = task.training_step(batch, index)
        loss.backward()
        task.configure_gradient_clipping(optimizer, 1.0)
        optimizer.step()
        assert loss.device == META
    task.on_validation_epoch_start()
    for index, batch in enumerate(val_loader or []):
        task.validation_step(batch, index)
