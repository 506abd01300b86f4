"""The whole of a run's configuration: the sections that the rooms define, checked together."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field, SerializeAsAny

from vitkit.data.config import DataConfig, ImageDataConfig
from vitkit.evaluation.config import EvalConfig
from vitkit.models.config import ModelConfig
from vitkit.models.presets import PRESETS, READS, family_of
from vitkit.training.config import (
    EmaConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainerConfig,
)
from vitkit.training.task_config import ClassificationConfig, TaskConfig

__all__ = ["RunConfig", "RunSection", "contradictions", "to_plain"]


class RunSection(BaseModel, extra="forbid", frozen=True, strict=True):
    """The run itself: its name, its folder, its seed."""

    name: str | None = Field(None, description="folder under run.root; <model>-<data> by default")
    root: str = Field("runs", description="folder that holds all runs")
    dir: str | None = Field(None, description="exactly this folder instead; must be new or empty")
    seed: int = Field(0, ge=0, description="seed of everything random in training")
    report: bool = Field(True, description="write report/index.html after training and evaluating")


class RunConfig(BaseModel, extra="forbid", frozen=True, strict=True):
    """All sections together. The rooms below get their own section each, and never see this."""

    model: SerializeAsAny[ModelConfig] = Field(default_factory=ModelConfig)
    data: SerializeAsAny[DataConfig] = Field(default_factory=ImageDataConfig)
    task: SerializeAsAny[TaskConfig] = Field(default_factory=ClassificationConfig)
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = Field(default_factory=ScheduleConfig)
    ema: EmaConfig = Field(default_factory=EmaConfig)
    trainer: TrainerConfig = Field(default_factory=TrainerConfig)
    eval: EvalConfig = Field(default_factory=EvalConfig)
    run: RunSection = Field(default_factory=RunSection)


def contradictions(config: RunConfig) -> list[str]:
    """Faults that no section can see alone, a line each."""
    trainer, data, schedule = config.trainer, config.data, config.schedule
    faults = []
    if schedule.name != "constant" and schedule.min_lr > config.optimizer.lr:
        faults.append(
            f"schedule.min_lr: given {schedule.min_lr}, above optimizer.lr {config.optimizer.lr}"
        )
    devices = trainer.devices if isinstance(trainer.devices, int) else 1
    parts = devices * trainer.accumulate_grad_batches
    if data.batch_size % parts:
        faults.append(
            f"data.batch_size: given {data.batch_size}, must divide by trainer.devices x "
            f"trainer.accumulate_grad_batches = {parts}"
        )
    if config.task.learns_from != data.kind:
        faults.append(
            f"task.name: {config.task.name} learns from {config.task.learns_from}, but "
            f"data.name={data.name} is {data.kind}; change one of the two"
        )
    faults += _distilling(config.task)
    faults += _balanced_twice(config)
    if trainer.monitor == "val/acc" and config.task.metric[0] != "val/acc":
        faults.append(f"trainer.monitor: {config.task.name} has no val/acc; set val/loss or auto")
    if trainer.early_stopping_patience and not data.may_validate:
        faults.append(
            f"trainer.early_stopping_patience: needs validation {data.kind}, but the data section "
            "sets none aside"
        )
    faults += _growing(config)
    faults += _misread(config)
    return faults


def _growing(config: RunConfig) -> list[str]:
    """Smaller images for a model whose positions are made for one size."""
    task, family = config.task, family_of(config.model.name)
    sizes = task.progressive_sizes if isinstance(task, ClassificationConfig) else ()
    if not sizes or family not in ("vit", "vit_distilled"):
        return []
    if config.model.constructor_kwargs().get("dynamic_img_size"):
        return []
    return [
        f"task.progressive_sizes: {config.model.name} takes one image size only; add "
        "model.dynamic_img_size=true"
    ]


def _misread(config: RunConfig) -> list[str]:
    """A model of pictures for words, or one of words for other data than its own."""
    name, kind = config.model.name, config.data.kind
    family = family_of(name)
    reads = READS.get(family, "images")
    if reads == kind or not {reads, kind} & set(READS.values()):
        return []
    fitting = [n for n, preset in PRESETS.items() if READS.get(preset.family, "images") == kind]
    hint = f"; take a model such as {', '.join(fitting[:3])}" if fitting else ""
    return [f"model.name: {name} reads {reads}, but data.name={config.data.name} is {kind}{hint}"]


def _balanced_twice(config: RunConfig) -> list[str]:
    weights = getattr(config.task, "class_weights", "none")
    if weights != "balanced" or getattr(config.data, "sampling", "shuffle") != "balanced":
        return []
    return [
        "task.class_weights: these and data.sampling=balanced each even out the classes; take one "
        "of them"
    ]


def _distilling(task: TaskConfig) -> list[str]:
    distill = task.distill if isinstance(task, ClassificationConfig) else None
    if distill is None or distill.teacher or not distill.model:
        return []
    return ["task.distill.teacher: the file of weights for task.distill.model is missing"]


def to_plain(config: RunConfig) -> dict[str, Any]:
    """Plain values only: what a checkpoint and ``config.yaml`` hold."""
    plain: dict[str, Any] = _plain(config.model_dump())
    plain["model"] = {key: value for key, value in plain["model"].items() if value is not None}
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
