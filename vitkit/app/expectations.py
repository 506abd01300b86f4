"""What a model expects of a picture: as its weights state it, or as its data are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from vitkit.config import RunConfig
from vitkit.data.config import ImageDataConfig
from vitkit.data.info import DataInfo
from vitkit.data.preprocess import Preprocessing
from vitkit.models.config import TimmConfig
from vitkit.weights import LoadReport, stated_by_timm

__all__ = [
    "FITTING",
    "fitting_of",
    "pretrained_report",
    "run_preprocessing",
    "stated_preprocessing",
]

FITTING = ("interpolation", "crop_pct", "crop_mode")
"""Fields of ``Preprocessing`` that are settings of the data too: how pictures are fitted."""

HALF, UNIT_MEAN, UNIT_STD = (0.5,), (0.0,), (1.0,)


def stated_preprocessing(
    values: Mapping[str, Any], *, img_size: tuple[int, int], in_chans: int
) -> Preprocessing:
    """What weights state, at the size and with the channels of the model that has them.

    Args:
        values: fields of ``Preprocessing`` as plain values; what is missing is usual.
        img_size: (height, width) of the model.
        in_chans: channels of the model; statistics of others are averaged.
    """
    return Preprocessing(
        img_size=img_size,
        mean=_for_channels(values.get("mean") or HALF, in_chans),
        std=_for_channels(values.get("std") or HALF, in_chans),
        in_chans=in_chans,
        interpolation=str(values.get("interpolation", "bicubic")),
        crop_pct=float(values.get("crop_pct", 1.0)),
        crop_mode=str(values.get("crop_mode", "center")),
    )


def pretrained_report(config: RunConfig, model: nn.Module) -> LoadReport | None:
    """Of a timm model that came with its weights: the report; None of any other."""
    section, built = config.model, getattr(model, "pretrained_cfg", None)
    if not (isinstance(section, TimmConfig) and section.pretrained and built):
        return None
    stated = stated_by_timm(section.name, built)
    return LoadReport(
        loaded=list(model.state_dict()), format="timm", preprocessing=stated.preprocessing
    )


def run_preprocessing(
    model: nn.Module, info: DataInfo, config: RunConfig, report: LoadReport | None
) -> Preprocessing:
    """What a model in training expects of a picture.

    Mean and standard deviation are those of the weights that it starts from, else the data's.
    Models that read pixel values as words want [0, 1]. What the config overrides is noted in the
    report. Pictures are fitted as the data are, by the settings, not by the weights' own crop.
    """
    mean, std = info.mean, info.std
    if getattr(model, "unit_pixels", False):
        mean, std = UNIT_MEAN * info.in_chans, UNIT_STD * info.in_chans
    elif report is not None:
        mean, std = _own_or_overridden(info, config, report)
    return Preprocessing(
        img_size=info.img_size,
        mean=mean,
        std=std,
        in_chans=info.in_chans,
        **fitting_of(info),
    )


def fitting_of(info: DataInfo) -> dict[str, Any]:
    """How a data set's pictures are brought to one size, as fields of ``Preprocessing``."""
    return {key: getattr(info, key) for key in FITTING}


def _own_or_overridden(
    info: DataInfo, config: RunConfig, report: LoadReport
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation, and a note in the report where they are a choice."""
    assert isinstance(config.data, ImageDataConfig)
    values, normalize = report.preprocessing, config.data.normalize
    size = values.get("img_size")
    if size is not None and tuple(size) != tuple(info.img_size):
        report.notes.append(f"trained on {_by(size)} px, used at {_by(info.img_size)} px")
    if own := _way_to_fit(values, info):
        report.notes.append(f"pictures are fitted otherwise than for these weights; theirs: {own}")
    if not values.get("mean"):
        return info.mean, info.std
    mean = _for_channels(values["mean"], info.in_chans)
    std = _for_channels(values["std"], info.in_chans)
    if normalize == "auto":
        return mean, std
    if (mean, std) != (info.mean, info.std):
        report.notes.append(
            f"data.normalize={normalize} overrides the weights' own mean {_rounded(mean)} and std "
            f"{_rounded(std)}"
        )
    return info.mean, info.std


def _way_to_fit(values: Mapping[str, Any], info: DataInfo) -> str:
    """The settings by which pictures would be fitted as weights want them, where others hold."""
    ours = fitting_of(info)
    other = {key: values[key] for key in ours if values.get(key, ours[key]) != ours[key]}
    return ", ".join(f"data.{key}={value}" for key, value in other.items())


def _for_channels(values: Any, in_chans: int) -> tuple[float, ...]:
    """One number a channel; those of other channels are averaged."""
    given = tuple(float(value) for value in values)
    return given if len(given) == in_chans else (sum(given) / len(given),) * in_chans


def _by(size: Any) -> str:
    return f"{size[0]} x {size[1]}"


def _rounded(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.3g}" for value in values)
