"""What a file says about the model beside its tensors: ``config.json``, the image processor's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from vitkit.errors import WeightsError
from vitkit.models.presets import ALIASES, PRESETS

__all__ = ["Stated", "from_config", "processor_config", "stated_by_timm", "with_processor"]

OWN_TYPE = "vitkit"
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
RESAMPLE = {0: "bilinear", 1: "bicubic", 2: "bilinear", 3: "bicubic", 4: "bilinear", 5: "bilinear"}
"""PIL's numbers; what cannot be done in a batch is done by its nearest kin."""
PIL_NUMBER = {"bilinear": 2, "bicubic": 3}
CLIP_VISION: dict[str, Any] = {"num_attention_heads": 12, "layer_norm_eps": 1e-5}
CLIP_VISION |= {"image_size": 224, "hidden_act": "quick_gelu"}
"""What a ``config.json`` of CLIP leaves out where it is as of the first published model."""
NOT_SHAPES = ("num_heads", "norm_eps", "act_layer", "global_pool", "dynamic_img_size")
"""Arguments of timm's models that their tensors do not show."""


@dataclass(frozen=True)
class Stated:
    """Facts that a source states.

    Attributes:
        arguments: of the model's constructor.
        preprocessing: fields of ``Preprocessing``: mean, std, interpolation, crop_pct, ...
        class_names: by index; empty if unknown.
        section: the whole model section, where the source is ours.
        published_as: timm's name of the published weights that the source says it is, tag
            included; empty if it says none.
    """

    arguments: dict[str, Any] = field(default_factory=dict)
    preprocessing: dict[str, Any] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    section: dict[str, Any] | None = None
    published_as: str = ""


def from_config(config: Mapping[str, Any]) -> Stated:
    """What a ``config.json`` of vitkit, timm or Hugging Face says.

    Raises:
        WeightsError: it asks for something that vitkit's models lack.
    """
    if config.get("model_type") == OWN_TYPE:
        return Stated(
            preprocessing=dict(config.get("preprocessing") or {}),
            class_names=tuple(config.get("class_names") or ()),
            section=dict(config["model"]),
        )
    if "architecture" in config:
        return _from_timm(config)
    return _from_hugging_face(config) if "model_type" in config else Stated()


def stated_by_timm(
    name: str, pretrained_cfg: Mapping[str, Any] | None, *, global_pool: str | None = None
) -> Stated:
    """What timm states about a model of its own.

    Args:
        name: of its architecture; empty where nothing is asked of that.
        pretrained_cfg: as timm keeps it beside the model, or publishes it for a name.
        global_pool: of the model, where it is known.

    Raises:
        WeightsError: as of :func:`from_config`.
    """
    config: dict[str, Any] = {"architecture": name}
    config["pretrained_cfg"] = dict(pretrained_cfg or {})
    if global_pool is not None:
        config["global_pool"] = global_pool
    return from_config(config)


def with_processor(stated: Stated, processor: Mapping[str, Any]) -> Stated:
    """The same with what a ``preprocessor_config.json`` says on top."""
    out: dict[str, Any] = {}
    # Ours divides by 255 always.
    rescale = float(processor.get("rescale_factor") or 1 / 255)
    factor = 255.0 * (rescale if processor.get("do_rescale", True) else 1.0)
    if not processor.get("do_normalize", True):
        out |= {"mean": [0.0] * 3, "std": [1.0 / factor] * 3}
    elif "image_mean" in processor:
        out["mean"] = [float(v) / factor for v in processor["image_mean"]]
        out["std"] = [float(v) / factor for v in processor["image_std"]]
    if "resample" in processor:
        out["interpolation"] = RESAMPLE.get(processor["resample"], "bicubic")
    if processor.get("do_resize", True) and processor.get("size"):
        out |= _sizes(processor)
    return replace(stated, preprocessing={**stated.preprocessing, **out})


def processor_config(preprocessing: Mapping[str, Any]) -> dict[str, Any]:
    """Our preprocessing as a ``preprocessor_config.json``.

    Args:
        preprocessing: plain values of ``Preprocessing``.
    """
    height, width = preprocessing["img_size"]
    share = preprocessing.get("crop_pct", 1.0)
    is_squash = preprocessing.get("crop_mode") == "squash"
    # Rounded down as pictures are, but not for the noise of a division.
    resized = [math.floor(side / share + 1e-6) for side in (height, width)]
    # Their shorter side: of a model that is not square the longer one, or black bars would fill it.
    edge = max(resized)
    squash = {"height": resized[0], "width": resized[1]}
    crops = not is_squash or share < 1.0
    kind = "Bit" if not is_squash else "DeiT" if crops else "ViT"
    return {
        "image_processor_type": f"{kind}ImageProcessor",
        "do_convert_rgb": preprocessing.get("in_chans", 3) == 3,
        "do_resize": True,
        "size": squash if is_squash else {"shortest_edge": edge},
        "resample": PIL_NUMBER.get(str(preprocessing.get("interpolation")), 3),
        "do_center_crop": crops,
        "crop_size": {"height": height, "width": width},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocessing["mean"]),
        "image_std": list(preprocessing["std"]),
    }


def _from_timm(config: Mapping[str, Any]) -> Stated:
    cfg: Mapping[str, Any] = config.get("pretrained_cfg") or config
    arguments = _timm_arguments(config)
    out: dict[str, Any] = {}
    for key in ("mean", "std"):
        if cfg.get(key):
            out[key] = [float(value) for value in cfg[key]]
    if cfg.get("interpolation"):
        out["interpolation"] = "bilinear" if cfg["interpolation"] == "bilinear" else "bicubic"
    if cfg.get("crop_pct"):
        out["crop_pct"] = float(cfg["crop_pct"])
    if cfg.get("crop_mode"):
        out["crop_mode"] = "squash" if cfg["crop_mode"] == "squash" else "center"
    if cfg.get("input_size"):
        out["img_size"] = [int(side) for side in cfg["input_size"][1:]]
        arguments.setdefault("img_size", out["img_size"])
    labels = config.get("label_names") or cfg.get("label_names") or ()
    return Stated(arguments, out, _names(labels), published_as=_published_as(config, cfg))


def _published_as(config: Mapping[str, Any], cfg: Mapping[str, Any]) -> str:
    """Architecture and tag of timm's; empty without a tag, which says of which weights."""
    name, tag = str(config["architecture"]), str(cfg.get("tag") or "")
    if "." in name:
        return name
    return f"{name}.{tag}" if name and tag else ""


def _timm_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """What an architecture of timm fixes, and what was given to it, as far as no shape shows it."""
    name = str(config["architecture"]).partition(".")[0]
    out: dict[str, Any] = {"norm_eps": 1e-5} if "_clip_" in name else {}
    out |= {"act_layer": "quick_gelu"} if "_quickgelu_" in name else {}
    preset = PRESETS.get(ALIASES.get(name, name))
    given = {**(preset.kwargs if preset else {}), **config.get("model_args", {})}
    if "global_pool" in config:
        given.setdefault("global_pool", config["global_pool"])
    return out | {key: value for key, value in given.items() if key in NOT_SHAPES}


def _from_hugging_face(config: Mapping[str, Any]) -> Stated:
    if config["model_type"] == "gpt2":
        return _from_gpt2(config)
    arguments: dict[str, Any] = {}
    tower = _tower(config)
    for ours, theirs in (("num_heads", "num_attention_heads"), ("norm_eps", "layer_norm_eps")):
        if theirs in tower:
            arguments[ours] = tower[theirs]
    if size := tower.get("image_size"):
        arguments["img_size"] = [size, size] if isinstance(size, int) else list(size)
    activation = str(tower.get("hidden_act", "gelu"))
    if activation not in ACTIVATIONS:
        allowed = ", ".join(sorted(ACTIVATIONS))
        raise WeightsError(f"config.json: hidden_act {activation!r}; vitkit has {allowed}")
    arguments["act_layer"] = ACTIVATIONS[activation]
    if config["model_type"] == "dinov3_vit":
        arguments |= _of_dinov3(config, activation)
    names = _names(config.get("id2label") or {})
    return Stated(arguments, {}, () if names[:1] == ("LABEL_0",) else names)


def _tower(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What describes the model of pictures: of CLIP a part of the whole, with its defaults."""
    if config["model_type"] not in ("clip", "clip_vision_model"):
        return config
    return {**CLIP_VISION, **(config.get("vision_config") or config)}


def _of_dinov3(config: Mapping[str, Any], activation: str) -> dict[str, Any]:
    """The base of the rotary wavelengths; a gate that the MLP has not is refused."""
    if config.get("use_gated_mlp") and ACTIVATIONS[activation] != "silu":
        raise WeightsError(
            f"config.json: hidden_act {activation!r} of a gated MLP; vitkit's gate has silu"
        )
    return {"rope_base": float(config["rope_theta"])} if "rope_theta" in config else {}


def _from_gpt2(config: Mapping[str, Any]) -> Stated:
    """Nothing: the model's own section says it. What it would compute otherwise is refused."""
    activation = config.get("activation_function", "gelu_new")
    if ACTIVATIONS.get(activation) != "gelu_tanh":
        raise WeightsError(
            f"config.json: activation_function {activation!r}; allowed for GPT-2: gelu_new"
        )
    usual: dict[str, Any] = {"scale_attn_weights": True, "layer_norm_epsilon": 1e-5}
    usual |= dict.fromkeys(("scale_attn_by_inverse_layer_idx", "add_cross_attention"), False)
    for key, value in usual.items():
        if config.get(key, value) != value:
            raise WeightsError(f"config.json: {key} {config[key]}; allowed for GPT-2: {value}")
    return Stated()


def _names(labels: Any) -> tuple[str, ...]:
    """Class names by index, of a list or of a mapping whose keys are the indices as text."""
    if isinstance(labels, Mapping):
        try:
            order = sorted(labels, key=int)
        except ValueError:
            return ()
        return tuple(str(labels[key]) for key in order)
    return tuple(map(str, labels))


def _sizes(processor: Mapping[str, Any]) -> dict[str, Any]:
    """Size, share and manner of the crop of a processor that resizes."""
    resized, keeps_ratio = _side(processor["size"])
    # A bare number is a square for ViT, and of older files of CLIP the shorter side.
    kind = processor.get("image_processor_type") or processor.get("feature_extractor_type")
    keeps_ratio |= isinstance(processor["size"], int) and str(kind).startswith("CLIP")
    mode = "center" if keeps_ratio else "squash"
    crop = processor.get("crop_size")
    if not (processor.get("do_center_crop") and crop):
        return {"img_size": resized, "crop_pct": 1.0, "crop_mode": mode}
    size, _ = _side(crop)
    share = min(1.0, max(size) / max(resized))
    return {"img_size": size, "crop_pct": share, "crop_mode": mode}


def _side(size: Any) -> tuple[list[int], bool]:
    """[height, width], and whether the proportions of a picture are kept."""
    if isinstance(size, int):
        return [size, size], False
    if "shortest_edge" in size:
        return [int(size["shortest_edge"])] * 2, True
    return [int(size["height"]), int(size["width"])], False
