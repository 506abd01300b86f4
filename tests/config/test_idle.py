"""Settings that change nothing where they stand are told, and only those."""

from __future__ import annotations

from pathlib import Path

import pytest

from vitkit.config import idle_settings, load_config
from vitkit.config.idle import READERS
from vitkit.config.load import describe_keys

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
CIFAR = "data.name=cifar10"


def idle(*overrides: str) -> list[str]:
    return idle_settings(load_config([], overrides))


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_no_config_of_ours_has_any(file: Path) -> None:
    assert idle_settings(load_config([file])) == []


def test_the_built_in_recipe_has_none() -> None:
    assert idle() == []


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["optimizer.adamw_lr=1e-3"], "optimizer.adamw_lr: read only by optimizer.name=muon"),
        (["optimizer.momentum=0.5"], "optimizer.momentum: read only by sgd"),
        (["optimizer.name=sgd", "optimizer.betas=[0.8, 0.9]"], "optimizer.betas: read only by"),
        (["optimizer.name=lion", "optimizer.eps=1e-6"], "optimizer.eps: read only by"),
        (["schedule.decay=0.5"], "schedule.decay: read only by trapezoid"),
        (["schedule.name=constant", "schedule.min_lr=1e-5"], "schedule.min_lr: read only by"),
        ([CIFAR, "ema.decay=0.5", "ema.warmup=false"], "ema.decay, ema.warmup: read only by ema"),
        ([CIFAR, "task.mix_mode=batch"], "task.mix_mode: read only by mixup and cutmix"),
        ([CIFAR, "task.mixup=0.2", "task.mix_switch_prob=0.1"], "read only by mixup and cutmix to"),
        (["task.distill.weight=0.9"], "task.distill.weight: read only by a distillation"),
        (
            ["task.distill.teacher=x", "task.distill.kind=hard", "task.distill.temperature=2.0"],
            "task.distill.temperature: read only by a soft distillation",
        ),
        (["task.finetune.rank=4"], "task.finetune.rank: read only by task.finetune=lora"),
        (["task.finetune.last_blocks=1"], "read only by task.finetune=partial"),
        (["task.finetune=head"], "the model begins with random weights"),
        (["task.name=dino", "task.local_crops_number=0", "task.local_crops_size=8"], "above 0"),
        (["data.root=pictures"], "data.root: read only by data in files: pictures in folders are"),
        (["data.synthetic_size=9"], "data.synthetic_size: read only by data.name=synthetic"),
        ([CIFAR, "data.on_bad_image=trust"], "read only by pictures in files of their own"),
        (["data.augment.padding_mode=reflect"], "data.augment.crop_padding above 0"),
        (["data.augment.erase_mode=constant"], "data.augment.erase_prob above 0"),
        (["data.augment.resized_crop_ratio=0.5"], "data.augment.resized_crop_scale above 0"),
        (
            ["model.name=vit_stem_nano_32", CIFAR, "model.patch_size=8"],
            "model.patch_size: read only by models whose first layer cuts patches",
        ),
        ([CIFAR, "model.rope_base=50.0"], "model.rope_base: read only by rotary positions"),
        ([CIFAR, "model.rope_ref_grid=[4, 4]"], "read only by model.pos_embed=rotary"),
        ([CIFAR, "model.rel_pos_locality=2.0"], "read only by model.pos_embed=relative"),
    ],
)
def test_what_is_idle_is_told(settings: list[str], told: str) -> None:
    (line,) = idle(*settings)
    assert told in line


@pytest.mark.parametrize(
    "settings",
    [
        ["optimizer.name=muon", "optimizer.adamw_lr=1e-3", "optimizer.ns_steps=3"],
        ["optimizer.name=timm/sgd", "optimizer.momentum=0.5"],
        ["schedule.name=trapezoid", "schedule.decay=0.5"],
        ["ema.decay=0.5"],  # the built-in recipe averages
        ["task.finetune=lora", "task.finetune.rank=4", "model.weights=x"],
        ["data.name=image_folder", "data.root=pictures", "data.on_bad_image=trust"],
        [CIFAR, "model.pos_embed=rotary", "model.rope_base=50.0"],
        [CIFAR, "model.patch_size=8"],
        ["data.name=text", "task.name=language_model", "model.name=lm_char_mini"],
    ],
)
def test_what_is_read_is_not_told(settings: list[str]) -> None:
    assert idle(*settings) == []


def test_a_rate_that_no_matrix_learns_by_is_told() -> None:
    muon = ["optimizer.name=muon", "optimizer.lr=0.1", "model.weights=x"]
    (line,) = idle(*muon, "task.finetune=head")
    assert line.startswith("optimizer.lr: no matrix") and "optimizer.adamw_lr" in line
    assert idle(*muon, "task.finetune=partial") == idle(*muon) == []


def test_every_key_that_is_asked_about_exists() -> None:
    known = {key for key, _, _ in describe_keys()}
    assert {key for reader in READERS for key in reader.keys} <= known
