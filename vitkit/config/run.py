"""The whole of a run's configuration: the sections that the rooms define, checked together."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field, SerializeAsAny

from vitkit.data.config import DataConfig
from vitkit.evaluation.config import EvalConfig
from vitkit.models.config import ModelConfig
from vitkit.training.config import (
    EmaConfig,
    OptimizerConfig,
    ScheduleConfig,
    TaskConfig,
    TrainerConfig,
)

__all__ = ["RunConfig", "RunSection", "contradictions", "to_plain"]

OWN_VALIDATION = {"image_folder"}
"""Sources that may bring validation images of their own."""


class RunSection(BaseModel, extra="forbid", frozen=True, strict=True):
    """The run itself: its name, its folder, its seed."""

    name: str | None = Field(None, description="folder under run.root; <model>-<data> by default")
    root: str = Field("runs", description="folder that holds all runs")
    dir: str | None = Field(None, description="exactly this folder instead; must be new or empty")
    seed: int = Field(0, ge=0, description="seed of everything random in training")


class RunConfig(BaseModel, extra="forbid", frozen=True, strict=True):
    """All sections. No class but this one, and no function outside ``app``, sees them together."""

    model: SerializeAsAny[ModelConfig] = Field(default_factory=ModelConfig)
    data: DataConfig = Field(default_factory=DataConfig)
    task: TaskConfig = Field(default_factory=TaskConfig)
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
    if schedule.min_lr > config.optimizer.lr:
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
    if config.task.distill.model and not config.task.distill.teacher:
        faults.append("task.distill.teacher: the file of weights for task.distill.model is missing")
    no_val = data.val_fraction == 0 and data.name not in OWN_VALIDATION
    if trainer.early_stopping_patience and no_val:
        faults.append(
            "trainer.early_stopping_patience: needs validation images, but data.val_fraction is 0"
        )
    return faults


def to_plain(config: RunConfig) -> dict[str, Any]:
    """Plain values only: what a checkpoint and ``config.yaml`` hold."""
    plain: dict[str, Any] = _plain(config.model_dump())
    plain["model"] = {key: value for key, value in plain["model"].items() if value is not None}
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
