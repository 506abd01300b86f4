"""The teacher of a distillation: a checkpoint, or a bare file of weights and its model's name."""

from __future__ import annotations

from torch import nn

from vitkit.app.build import (
    Built,
    build_from_checkpoint,
    require_classes,
    require_same_classes,
)
from vitkit.app.runs import find_checkpoint
from vitkit.data.info import DataInfo
from vitkit.data.preprocess import Preprocessing
from vitkit.data.sources import IMAGENET
from vitkit.errors import ConfigError, WeightsError
from vitkit.models.registry import create_model
from vitkit.training.distillation import Teacher
from vitkit.training.task_config import DistillConfig
from vitkit.weights import load_weights, own_checkpoint, read_checkpoint

__all__ = ["build_teacher"]


def build_teacher(distill: DistillConfig, built: Built) -> Teacher | None:
    """What ``task.distill`` names; None if it names nothing.

    Raises:
        ConfigError: a bare file without the name of its model, a name for a checkpoint that knows
            its own, or statistics that do not fit.
        VitkitError: no such file, or a model of other classes.
    """
    if distill.teacher is None:
        return None
    own = built.preprocessing
    if distill.model is not None:
        return _from_bare_file(distill, built.info, own)
    checkpoint = read_checkpoint(find_checkpoint(distill.teacher))
    require_classes(checkpoint.model, checkpoint.path)
    model, theirs, trained_on = build_from_checkpoint(checkpoint)
    require_same_classes(trained_on, built.info)
    return Teacher(
        model,
        mean=theirs.mean,
        std=theirs.std,
        student_mean=own.mean,
        student_std=own.std,
        img_size=theirs.img_size,
    )


def _from_bare_file(distill: DistillConfig, info: DataInfo, own: Preprocessing) -> Teacher:
    assert distill.model is not None and distill.teacher is not None
    if own_checkpoint(distill.teacher) is not None:
        raise ConfigError(
            f"task.distill.model: {distill.teacher} is of vitkit and says itself what it holds; "
            "leave it out"
        )
    model = create_model(distill.model, num_classes=info.num_classes, in_chans=info.in_chans)
    report = load_weights(model, distill.teacher)
    if report.new:
        raise WeightsError(
            f"task.distill.teacher: {distill.teacher} has no {report.new[0]} for {distill.model} "
            f"of {info.num_classes} classes, so it would guess; give weights of these classes"
        )
    stated = report.preprocessing
    mean = distill.mean or tuple(stated.get("mean") or IMAGENET[0])
    std = distill.std or tuple(stated.get("std") or IMAGENET[1])
    for key, values in (("mean", mean), ("std", std)):
        if len(values) != info.in_chans:
            raise ConfigError(
                f"task.distill.{key}: {len(values)} numbers, but {info.name} has {info.in_chans} "
                f"channels; give one for each"
            )
    return Teacher(
        model,
        mean=mean,
        std=std,
        student_mean=own.mean,
        student_std=own.std,
        img_size=_fixed_size(model),
    )


def _fixed_size(model: nn.Module) -> tuple[int, int] | None:
    """(height, width) of a model that takes no other; None of one that takes any."""
    size = getattr(getattr(model, "patch_embed", None), "img_size", None)
    if getattr(model, "dynamic_img_size", False):
        return None
    return None if size is None else (int(size[0]), int(size[1]))
