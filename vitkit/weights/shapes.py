"""What a model must be like, from the shapes of its tensors under our names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vitkit.errors import WeightsError
from vitkit.models.presets import PRESETS, resolve_name
from vitkit.weights.formats import block_indices

__all__ = ["grid_of_positions", "infer_section", "is_like_its_preset", "prefix_counts", "told"]

TOKENS = ("cls_token", "dist_token", "reg_token")
"""Parameters that are tokens before the patches, in their order."""
USUAL_HEAD_DIM = 64
OTHER_HEAD_DIMS = {1152: 72, 1280: 80, 1408: 88, 1664: 104}
"""Widths of published ViTs whose heads are not 64 wide: so400m, huge, giant, gigantic."""
BASES = {
    "vit": "vit_base_patch16_224",
    "vit_distilled": "deit_base_distilled_patch16_224",
    "compact": "cct_7_3x1_32",
}
"""The preset that a model is called by if none is just like it."""
SIZE_WITHOUT_POSITIONS = [224, 224]
FREE = ("num_classes", "in_chans", "img_size")

Pair = tuple[int, int]


def infer_section(tensors: Mapping[str, Tensor], known: Mapping[str, Any]) -> dict[str, Any]:
    """The model section that builds what the tensors belong to.

    Args:
        tensors: by our names.
        known: constructor arguments that are stated elsewhere; they win. An ``img_size`` that does
            not agree with the positions is left aside.

    Raises:
        WeightsError: the shapes leave something open, such as the number of heads.
    """
    try:
        if any(name.startswith("tokenizer.") for name in tensors):
            family, arguments = "compact", _compact(tensors, known)
        else:
            family = "vit_distilled" if "dist_token" in tensors else "vit"
            arguments = _vit(tensors, known)
    except KeyError as error:
        raise WeightsError(f"{error.args[0]} is missing: the file is not the whole model") from None
    stated = {key: value for key, value in known.items() if value is not None and key not in FREE}
    inner = int(tensors["blocks.0.attn.proj.weight"].shape[1])
    arguments = _with_heads(family, arguments | stated, inner)
    return {"name": _preset_like(family, arguments) or BASES[family], **arguments}


def is_like_its_preset(section: Mapping[str, Any]) -> bool:
    """Whether a section is of a preset's very shape, whatever its size and classes."""
    preset = PRESETS.get(resolve_name(section["name"]))
    return preset is not None and _fixed(preset.kwargs).items() <= section.items()


def told(section: Mapping[str, Any]) -> str:
    """A section in a few words for people: width, depth, heads, patch, size."""
    words = [f"width {section['embed_dim']}", f"depth {section['depth']}"]
    words.append(f"{section['num_heads']} heads")
    if "patch_size" in section:
        words.append(f"patch {_side(section['patch_size'])}")
    words.append(f"{_side(section['img_size'])} px")
    return ", ".join(words)


def prefix_counts(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """How many tokens the class, distillation and register parameters hold."""
    return {name: int(tensors[name].shape[1]) for name in TOKENS if name in tensors}


def grid_of_positions(
    tensors: Mapping[str, Tensor], likely: Pair | None = None, otherwise: Pair | None = None
) -> tuple[int, Pair]:
    """How a position table is made up: a state dict does not say its grid.

    Args:
        tensors: by our names, ``pos_embed`` (1, rows + cells, C) among them.
        likely: a grid that it should have. If that does not fit, it is a square.
        otherwise: a grid to try where no square fits.

    Returns:
        (rows that belong to the tokens before the patches: of all of them or of none, the grid).

    Raises:
        WeightsError: no grid fits.
    """
    count, prefix = int(tensors["pos_embed"].shape[1]), sum(prefix_counts(tensors).values())
    if (rows := _rows_beside(likely, count, prefix)) is not None and likely is not None:
        return rows, likely
    for rows in (prefix, 0):
        side = math.isqrt(max(count - rows, 0))
        if side and side * side == count - rows:
            return rows, (side, side)
    if (rows := _rows_beside(otherwise, count, prefix)) is not None and otherwise is not None:
        return rows, otherwise
    raise WeightsError(
        f"pos_embed has {count} positions, which with {prefix} tokens before the patches is no "
        "square grid; give img_size=(height, width) of the pictures it was trained on"
    )


def _rows_beside(grid: Pair | None, count: int, prefix: int) -> int | None:
    """Rows that a table has beside those of a grid, if these are rows of all tokens or none."""
    rows = count - grid[0] * grid[1] if grid is not None else -1
    return rows if rows in (prefix, 0) else None


def _vit(tensors: Mapping[str, Tensor], known: Mapping[str, Any]) -> dict[str, Any]:
    kernel = tensors["patch_embed.proj.weight"]
    patch = (int(kernel.shape[2]), int(kernel.shape[3]))
    has_class, has_fc_norm = "cls_token" in tensors, "fc_norm.weight" in tensors
    is_learned = "pos_embed" in tensors
    pool = "avg" if has_fc_norm or not has_class else "token"
    head = tensors.get("head.weight")
    if has_class and head is not None and head.shape[1] == 2 * kernel.shape[0]:
        pool = "token_avg"
    rows, size = _rows_and_size(tensors, known, patch)
    out = _trunk(tensors, known) | {
        "in_chans": int(kernel.shape[1]),
        "patch_size": patch[0] if patch[0] == patch[1] else list(patch),
        "img_size": size,
        "global_pool": "map" if "attn_pool.latent" in tensors else pool,
        "class_token": has_class,
        "reg_tokens": prefix_counts(tensors).get("reg_token", 0),
        "pos_embed": "learn" if is_learned else "none",
        "no_embed_class": is_learned and rows == 0 and bool(prefix_counts(tensors)),
        "pre_norm": "norm_pre.weight" in tensors,
        "final_norm": has_fc_norm or "norm.weight" in tensors,
        "fc_norm": has_fc_norm,
        "qkv_bias": "blocks.0.attn.qkv.bias" in tensors,
        "proj_bias": "blocks.0.attn.proj.bias" in tensors,
        "qk_norm": "blocks.0.attn.q_norm.weight" in tensors,
        "norm_layer": "layernorm" if "blocks.0.norm1.bias" in tensors else "rmsnorm",
    }
    if "blocks.0.ls1.gamma" in tensors:
        out["init_values"] = 1e-5
    return out


def _compact(tensors: Mapping[str, Tensor], known: Mapping[str, Any]) -> dict[str, Any]:
    out = _trunk(tensors, known)
    del out["mlp_layer"]
    out["global_pool"] = "token" if "cls_token" in tensors else "seq"
    out["positional_embedding"] = "learnable" if "pos_embed" in tensors else "none"
    if "tokenizer.proj.weight" in tensors:
        kernel = tensors["tokenizer.proj.weight"]
        stride = int(kernel.shape[2])
        out |= {"tokenizer": "patch", "patch_size": stride}
    else:
        convs = [name for name in tensors if name.startswith("tokenizer.layers.")]
        kernel = tensors["tokenizer.layers.0.weight"]
        side = int(kernel.shape[2])
        stride = (max(1, side // 2 - 1) * 2) ** len(convs)
        out |= {"tokenizer": "conv", "kernel_size": side, "num_conv_layers": len(convs)}
        if len(convs) > 1:
            out["conv_dim"] = int(kernel.shape[0])
    out["in_chans"] = int(kernel.shape[1])
    out["img_size"] = _rows_and_size(tensors, known, (stride, stride))[1]
    return out


def _trunk(tensors: Mapping[str, Tensor], known: Mapping[str, Any]) -> dict[str, Any]:
    """What every model of attention blocks has, but for its heads."""
    indices = block_indices(tensors)
    if indices != list(range(len(indices))):
        raise WeightsError(f"blocks are missing: the file has {indices}; is it one of several?")
    width = int(tensors["blocks.0.attn.proj.weight"].shape[0])
    hidden = int(tensors["blocks.0.mlp.fc2.weight"].shape[1])
    is_gated = int(tensors["blocks.0.mlp.fc1.weight"].shape[0]) == 2 * hidden
    head = tensors.get("head.weight")
    return {
        "num_classes": 0 if head is None else int(head.shape[0]),
        "embed_dim": width,
        "depth": len(indices),
        "mlp_ratio": _ratio(width, hidden),
        "mlp_layer": "swiglu" if is_gated else "mlp",
    }


def _with_heads(family: str, arguments: dict[str, Any], inner: int) -> dict[str, Any]:
    """The number of heads is nowhere in a state dict: that of a preset of the same shape, or as
    published ViTs have it, with heads of 64.
    """
    width = arguments["embed_dim"]
    heads = arguments.get("num_heads") or _heads_of_preset(family, arguments)
    if heads is None:
        head_dim = OTHER_HEAD_DIMS.get(width, USUAL_HEAD_DIM)
        heads, rest = divmod(inner, head_dim)
        if rest:
            raise WeightsError(
                f"the file does not say how many heads it has, and its width {inner} is no "
                f"multiple of {head_dim}; give num_heads"
            )
    out = {**arguments, "num_heads": heads}
    return out if inner == width else {**out, "head_dim": inner // heads}


def _heads_of_preset(family: str, arguments: Mapping[str, Any]) -> int | None:
    for preset in PRESETS.values():
        fixed = _fixed(preset.kwargs)
        heads = fixed.pop("num_heads", None)
        if preset.family == family and heads and fixed.items() <= arguments.items():
            return int(heads)
    return None


def _ratio(width: int, hidden: int) -> float:
    """mlp_ratio with int(width * ratio) == hidden, which a bare quotient may miss by rounding."""
    ratio = hidden / width
    while int(width * ratio) < hidden:
        ratio = math.nextafter(ratio, math.inf)
    return ratio


def _rows_and_size(
    tensors: Mapping[str, Tensor], known: Mapping[str, Any], patch: Pair
) -> tuple[int, list[int]]:
    """Prefix rows of the positions, and the size in pixels that these are laid out for."""
    size = known.get("img_size")
    stated = [size, size] if isinstance(size, int) else size and list(size)
    if "pos_embed" not in tensors:
        return 0, stated or SIZE_WITHOUT_POSITIONS
    likely = (stated[0] // patch[0], stated[1] // patch[1]) if stated else None
    rows, grid = grid_of_positions(tensors, likely)
    return rows, stated if stated and grid == likely else [grid[0] * patch[0], grid[1] * patch[1]]


def _preset_like(family: str, arguments: Mapping[str, Any]) -> str | None:
    """The preset of a family that the arguments leave as it is, but for size and classes: of
    several the one that says most, and of these the first.
    """
    said = {
        name: len(fixed)
        for name, preset in PRESETS.items()
        if preset.family == family and (fixed := _fixed(preset.kwargs)).items() <= arguments.items()
    }
    return max(said, key=lambda name: said[name], default=None)


def _fixed(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in kwargs.items() if key not in FREE}


def _side(size: Any) -> str:
    if isinstance(size, int):
        return str(size)
    return str(size[0]) if size[0] == size[1] else f"{size[0]} x {size[1]}"
