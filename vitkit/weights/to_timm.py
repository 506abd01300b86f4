"""A folder that ``timm.create_model("local-dir:FOLDER", pretrained=True)`` reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vitkit.models.patches import as_pair
from vitkit.weights.arguments import VIT_FAMILIES, refuse, spelled_out

__all__ = ["timm_folder"]

PLAIN, PLAIN_1E5 = "vit_base_patch16_224", "vit_base_patch16_clip_224"
GATED, DISTILLED = "vit_giant_patch14_dinov2", "deit_base_distilled_patch16_224"
"""Architectures of timm whose own arguments are all overridden; each brings a class or epsilon
that a config file cannot spell."""
SHAPES = (
    *("in_chans", "num_classes", "global_pool", "embed_dim", "depth", "num_heads", "mlp_ratio"),
    *("qkv_bias", "qk_norm", "proj_bias", "class_token", "pre_norm", "final_norm", "fc_norm"),
    "dynamic_img_size",
)
NOT_DISTILLED = ("no_embed_class", "reg_tokens", "pos_embed")


def timm_folder(
    model: nn.Module,
    section: Mapping[str, Any],
    preprocessing: Mapping[str, Any],
    class_names: Sequence[str],
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and ``config.json`` for timm.

    Args:
        model: to export.
        section: that rebuilds it.
        preprocessing: plain values of ``Preprocessing``.
        class_names: by index.

    Raises:
        WeightsError: timm's models cannot be what this one is.
    """
    family, full = spelled_out(section)
    tensors = dict(model.state_dict())
    traits: Mapping[str, Any] = {"first_conv": "patch_embed.proj", "classifier": "head"}
    if family == "timm":
        traits = dict(getattr(model, "pretrained_cfg", None) or {})  # type: ignore[arg-type]
        name, arguments = _of_timm(full, traits)
    else:
        _check(family, full)
        tensors = _with_positions(model, tensors, family, full)
        name, arguments = _architecture(family, full), _arguments(family, full)
        if family == "vit_distilled":
            traits = {**traits, "classifier": ["head", "head_dist"]}
    return tensors, {
        "architecture": name,
        "num_classes": full["num_classes"],
        "num_features": int(getattr(model, "num_features", 0)),
        "global_pool": full.get("global_pool", traits.get("global_pool", "")),
        "label_names": list(class_names),
        "model_args": arguments,
        "pretrained_cfg": {
            "tag": "vitkit",
            "custom_load": False,
            "input_size": [full["in_chans"], *as_pair(full["img_size"])],
            "fixed_input_size": traits.get("fixed_input_size", not full.get("dynamic_img_size")),
            "interpolation": preprocessing.get("interpolation", "bicubic"),
            "crop_pct": preprocessing.get("crop_pct", 1.0),
            "crop_mode": preprocessing.get("crop_mode", "center"),
            "mean": list(preprocessing["mean"]),
            "std": list(preprocessing["std"]),
            "num_classes": full["num_classes"],
            "pool_size": None,
            "first_conv": traits.get("first_conv"),
            "classifier": traits.get("classifier"),
        },
    }


def _check(family: str, full: Mapping[str, Any]) -> None:
    if family not in VIT_FAMILIES:
        refuse(family, "timm", ["such model"])
    eps, norm = full["norm_eps"], full["norm_layer"]
    swiglu = full["mlp_layer"] == "swiglu"
    width = full["embed_dim"] // full["num_heads"]
    needs_1e5 = eps == 1e-5 and norm == "layernorm" and not swiglu and family == "vit"
    reasons = {
        "convolutional stem": full["conv_stem"] is not None,
        "rotary positions in this class": full["pos_embed"].startswith("rotary"),
        "relative positions in this class": full["pos_embed"] == "relative",
        "post-norm blocks with these names": not full["norm_first"],
        "class token beside the mean as pooling": full["global_pool"] == "token_avg",
        "heads of another width": full["head_dim"] not in (None, width),
        f"norm epsilon of {eps}": eps != 1e-6 and not needs_1e5,
        "SwiGLU with a distillation token": swiglu and family != "vit",
        "registers with a distillation token": family != "vit" and full["reg_tokens"] > 0,
    }
    refuse(family, "timm", [what for what, is_so in reasons.items() if is_so])


def _architecture(family: str, full: Mapping[str, Any]) -> str:
    if family == "vit_distilled":
        return DISTILLED
    if full["mlp_layer"] == "swiglu":
        return GATED
    return PLAIN if full["norm_eps"] == 1e-6 else PLAIN_1E5


def _arguments(family: str, full: Mapping[str, Any]) -> dict[str, Any]:
    """timm's keyword arguments: shapes, and what differs from its defaults."""
    out = {
        "img_size": list(as_pair(full["img_size"])),
        "patch_size": list(as_pair(full["patch_size"])),
        **{key: full[key] for key in SHAPES},
        "reg_tokens": full["reg_tokens"],
        "no_embed_class": full["no_embed_class"] or full["pos_embed"] != "learn",
        "pos_embed": "none" if full["pos_embed"] in ("none", "") else "learn",
    }
    if full["init_values"] is not None:
        out["init_values"] = full["init_values"]
    if full["norm_layer"] != "layernorm":
        out["norm_layer"] = full["norm_layer"]
    if full["mlp_layer"] == "swiglu":
        # timm counts gate and value together.
        hidden = int(full["embed_dim"] * full["mlp_ratio"])
        out["mlp_ratio"] = (2 * hidden + 0.5) / full["embed_dim"]
        out.setdefault("init_values", None)
    elif full["act_layer"] != "gelu":
        out["act_layer"] = full["act_layer"]
    if family == "vit_distilled":
        out = {key: value for key, value in out.items() if key not in NOT_DISTILLED}
    return out


def _of_timm(full: Mapping[str, Any], traits: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A model of timm's own goes back under its own name."""
    arguments = {"num_classes": full["num_classes"], "in_chans": full["in_chans"]}
    if traits.get("fixed_input_size"):
        arguments["img_size"] = list(as_pair(full["img_size"]))
    return str(full["model"]).partition(".")[0], {**arguments, **(full.get("kwargs") or {})}


def _with_positions(
    model: nn.Module, tensors: dict[str, Tensor], family: str, full: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Fixed positions as learned ones; rows of zeros where timm's table must have rows."""
    table = getattr(model, "pos_embed", None)
    if family == "vit":
        return tensors if table is None else {**tensors, "pos_embed": table.detach()}
    if table is None:
        cells = int(model.patch_embed.num_patches)  # type: ignore[arg-type,union-attr]
        table = torch.zeros(1, cells, full["embed_dim"])
    if full["no_embed_class"] or full["pos_embed"] != "learn":
        table = torch.cat([table.new_zeros(1, 2, table.shape[2]), table], dim=1)
    return {**tensors, "pos_embed": table.detach()}
