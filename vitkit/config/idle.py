"""Settings that nothing reads in the company they are in.

They are told, not refused: a recipe may carry what belongs to a choice that somebody replaced.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from vitkit.config.run import RunConfig
from vitkit.models.presets import PRESETS
from vitkit.training.config import usual_of

__all__ = ["idle_settings"]

MATRICES_FROZEN = ("head", "bias", "lora")
"""Ways to fine-tune that train no matrix between hidden layers, which is what Muon is for."""

WITHOUT_WAVES = ("learn", "sincos2d", "sincos", "relative", "alibi", "none", "")
"""Position schemes that turn nothing."""

MADE_HERE = ("digits", "synthetic")
"""Data that are in no files."""


@dataclass(frozen=True)
class _Reader:
    """Who reads some settings.

    Attributes:
        keys: dotted ones.
        reads: whether that is so in a config that has them.
        by: who it would be.
        said: what holds in their place, where that is not all.
    """

    keys: tuple[str, ...]
    reads: Callable[[RunConfig], bool]
    by: str = ""
    said: str = ""


def _optimizer(*names: str) -> Callable[[RunConfig], bool]:
    def reads(config: RunConfig) -> bool:
        name = config.optimizer.name
        return name in names or ("timm" in names and name.startswith("timm/"))

    return reads


def _at(key: str) -> Callable[[RunConfig], Any]:
    """The value of a dotted key; None where the chosen kind of section has no such key."""

    def value(config: RunConfig) -> Any:
        found: Any = config
        for part in key.split("."):
            found = getattr(found, part, None)
        return found

    return value


def _is(key: str, *values: Any) -> Callable[[RunConfig], bool]:
    return lambda config: _at(key)(config) in values


def _on(*keys: str) -> Callable[[RunConfig], bool]:
    """All of them are on: true, above 0, named."""
    return lambda config: all(bool(_at(key)(config)) for key in keys)


def _any(*keys: str) -> Callable[[RunConfig], bool]:
    return lambda config: any(bool(_at(key)(config)) for key in keys)


def _keys(section: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{section}.{name}" for name in names)


def _has_matrices(config: RunConfig) -> bool:
    mode = _at("task.finetune.mode")(config)
    return config.optimizer.name != "muon" or mode not in MATRICES_FROZEN


def _has_patches(config: RunConfig) -> bool:
    built = config.model.constructor_kwargs()
    return not built.get("conv_stem") and built.get("tokenizer") != "conv"


def _positions(config: RunConfig) -> str:
    return str(config.model.constructor_kwargs().get("pos_embed", "learn"))


def _begins_trained(config: RunConfig) -> bool:
    mode, model = _at("task.finetune.mode")(config), config.model
    begins = model.weights or getattr(model, "pretrained", False)
    return mode == "full" or bool(begins) or model.name not in PRESETS


READERS: tuple[_Reader, ...] = (
    _Reader(_keys("optimizer", "adamw_lr", "ns_steps"), _optimizer("muon"), "optimizer.name=muon"),
    _Reader(
        _keys("optimizer", "momentum"),
        _optimizer("sgd", "muon", "timm"),
        "sgd, muon and some of timm's",
    ),
    _Reader(
        _keys("optimizer", "betas"),
        _optimizer("adamw", "lion", "muon", "timm"),
        "adamw, lion, muon and some of timm's",
    ),
    _Reader(
        _keys("optimizer", "eps"),
        _optimizer("adamw", "muon", "timm"),
        "adamw, muon and some of timm's",
    ),
    _Reader(
        _keys("optimizer", "lr", "momentum", "ns_steps"),
        _has_matrices,
        said="no matrix between hidden layers is trained, so AdamW trains all, at "
        "optimizer.adamw_lr",
    ),
    _Reader(_keys("schedule", "decay"), _is("schedule.name", "trapezoid"), "trapezoid"),
    _Reader(
        _keys("schedule", "min_lr"),
        lambda config: config.schedule.name != "constant",
        "a schedule that falls",
    ),
    _Reader(_keys("ema", "decay", "warmup"), _on("ema.enabled"), "ema.enabled=true"),
    _Reader(
        _keys("task", "mix_prob", "mix_mode"), _any("task.mixup", "task.cutmix"), "mixup and cutmix"
    ),
    _Reader(
        _keys("task", "mix_switch_prob"),
        _on("task.mixup", "task.cutmix"),
        "mixup and cutmix together",
    ),
    _Reader(
        _keys("task.distill", "kind", "weight", "mean", "std"),
        _on("task.distill.teacher"),
        "a distillation, which needs task.distill.teacher",
    ),
    _Reader(
        _keys("task.distill", "temperature"),
        lambda config: (
            _on("task.distill.teacher")(config) and _is("task.distill.kind", "soft")(config)
        ),
        "a soft distillation from task.distill.teacher",
    ),
    _Reader(
        _keys("task.finetune", "last_blocks"),
        _is("task.finetune.mode", "partial"),
        "task.finetune=partial",
    ),
    _Reader(
        _keys("task.finetune", "rank", "alpha", "targets"),
        _is("task.finetune.mode", "lora"),
        "task.finetune=lora",
    ),
    _Reader(
        _keys("task.finetune", "mode"),
        _begins_trained,
        said="the model begins with random weights, most of which stay as they are; give "
        "model.weights",
    ),
    _Reader(
        _keys("task", "local_crops_scale", "local_crops_size"),
        _on("task.local_crops_number"),
        "task.local_crops_number above 0",
    ),
    _Reader(
        _keys("task", "color_jitter", "color_jitter_hue"),
        _on("task.jitter_prob"),
        "task.jitter_prob above 0",
    ),
    _Reader(
        _keys("task", "warmup_teacher_temp"),
        _on("task.teacher_temp_warmup"),
        "task.teacher_temp_warmup above 0",
    ),
    _Reader(
        _keys("task", "length_penalty"),
        lambda config: (_at("task.num_beams")(config) or 0) > 1,
        "a search with beams, task.num_beams above 1",
    ),
    _Reader(
        _keys("data", "root"),
        lambda config: config.data.name not in MADE_HERE,
        "data in files: pictures in folders are data.name=image_folder",
    ),
    _Reader(
        _keys("data", "synthetic_size", "synthetic_classes"),
        _is("data.name", "synthetic"),
        "data.name=synthetic",
    ),
    _Reader(
        _keys("data", "on_bad_image", "max_pixels"),
        lambda config: config.data.name not in (*MADE_HERE, "cifar10", "cifar100"),
        "pictures in files of their own",
    ),
    _Reader(
        _keys("data", "resident_budget_mb"), _is("data.resident", "auto"), "data.resident=auto"
    ),
    _Reader(_keys("data", "vocab_size"), _is("data.tokenizer", "bpe", None), "data.tokenizer=bpe"),
    _Reader(
        _keys("data.augment", "padding_mode"),
        _on("data.augment.crop_padding"),
        "data.augment.crop_padding above 0",
    ),
    _Reader(
        _keys("data.augment", "resized_crop_largest", "resized_crop_ratio"),
        _on("data.augment.resized_crop_scale"),
        "data.augment.resized_crop_scale above 0",
    ),
    _Reader(
        _keys("data.augment", "erase_scale", "erase_ratio", "erase_mode"),
        _on("data.augment.erase_prob"),
        "data.augment.erase_prob above 0",
    ),
    _Reader(_keys("model", "patch_size"), _has_patches, "models whose first layer cuts patches"),
    _Reader(
        _keys("model", "rope_base"),
        lambda config: _positions(config) not in WITHOUT_WAVES,
        "rotary positions, model.pos_embed=rotary",
    ),
    _Reader(
        _keys("model", "rope_ref_grid"),
        lambda config: _positions(config) == "rotary",
        "model.pos_embed=rotary",
    ),
    _Reader(
        _keys("model", "rel_pos_locality"),
        lambda config: _positions(config) == "relative",
        "model.pos_embed=relative",
    ),
)


def idle_settings(config: RunConfig) -> list[str]:
    """A line for each group of settings that were given and change nothing.

    What equals its default cannot be told from what was not given, and is passed over.
    """
    lines = []
    for reader in READERS:
        given = [key for key in reader.keys if _is_given(config, key)]
        if given and not reader.reads(config):
            lines.append(f"{', '.join(given)}: {reader.said or f'read only by {reader.by}'}")
    return lines


def _is_given(config: RunConfig, key: str) -> bool:
    """Whether a setting differs from what it is where nothing says so."""
    path, _, name = key.rpartition(".")
    section = _at(path)(config)
    if not isinstance(section, BaseModel) or name not in type(section).model_fields:
        return False
    usual = [type(section).model_fields[name].default]
    if path == "optimizer":
        of_its_name = usual_of(config.optimizer.name).get(name)
        usual.append(tuple(of_its_name) if isinstance(of_its_name, list) else of_its_name)
    return getattr(section, name) not in usual
