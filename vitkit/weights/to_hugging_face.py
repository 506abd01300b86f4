"""A folder that ``transformers.AutoModelForImageClassification.from_pretrained(FOLDER)`` reads.

Plain ViTs become ViT, distilled ones DeiT; those with LayerScale, registers, a gated MLP or a
pooling of means become DINOv2, whose head reads the class token beside the mean of the patches: the
half that a model does not read gets zero weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vitkit.errors import WeightsError
from vitkit.models.patches import as_pair
from vitkit.weights.arguments import VIT_FAMILIES, refuse, spelled_out
from vitkit.weights.formats import Names
from vitkit.weights.formats.hugging_face import VIT_NAMES
from vitkit.weights.formats.hugging_face_dinov2 import DINOV2_NAMES

__all__ = ["hugging_face_folder"]

WHAT = "Hugging Face"
ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "quick_gelu": "quick_gelu"}
ACTIVATIONS |= {"relu": "relu", "silu": "silu"}
CLASSES = {
    "vit": "ViTForImageClassification",
    "deit": "DeiTForImageClassificationWithTeacher",
    "dinov2": "Dinov2ForImageClassification",
    "dinov2_with_registers": "Dinov2WithRegistersForImageClassification",
}
HEADS = {
    "head": {"deit": "cls_classifier"},
    "head_dist": {"deit": "distillation_classifier"},
}


def hugging_face_folder(
    model: nn.Module,
    section: Mapping[str, Any],
    class_names: Sequence[str],
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and ``config.json`` for transformers.

    Args:
        model: to export.
        section: that rebuilds it.
        class_names: by index.

    Raises:
        WeightsError: none of transformers' classes can be what this model is.
    """
    family, full = spelled_out(section)
    if family not in VIT_FAMILIES:
        refuse(family, WHAT, ["such model"])
    kind = _kind(family, full)
    _check(family, full, kind)
    tensors = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    tensors["pos_embed"] = _positions(model, full)
    if kind.startswith("dinov2"):
        tensors = _as_dinov2(tensors, full)
    named = _named(tensors, kind)
    return named, _config(full, kind, class_names)


def _kind(family: str, full: Mapping[str, Any]) -> str:
    if family == "vit_distilled":
        return "deit"
    if full["reg_tokens"]:
        return "dinov2_with_registers"
    is_dinov2 = (
        full["init_values"] is not None
        or full["mlp_layer"] == "swiglu"
        or full["global_pool"] in ("avg", "token_avg")
    )
    return "dinov2" if is_dinov2 else "vit"


def _check(family: str, full: Mapping[str, Any], kind: str) -> None:
    rows, columns = as_pair(full["img_size"])
    patch = list(as_pair(full["patch_size"]))
    is_dinov2 = kind.startswith("dinov2")
    width = full["embed_dim"] // full["num_heads"]
    reasons = {
        "convolutional stem": full["conv_stem"] is not None,
        "ViT without class token": not full["class_token"],
        f"{full['global_pool']!r} pooling": full["global_pool"]
        not in ("token", "avg", "token_avg"),
        "norm behind the pooling": full["fc_norm"],
        "ViT without final norm": not full["final_norm"],
        "rotary positions in this class": full["pos_embed"].startswith("rotary"),
        "relative positions in this class": full["pos_embed"] == "relative",
        "post-norm blocks": not full["norm_first"],
        "norm before the blocks": full["pre_norm"],
        "RMSNorm": full["norm_layer"] != "layernorm",
        "norm of q and k": full["qk_norm"],
        "blocks without biases": not full["proj_bias"],
        "heads of another width": full["head_dim"] not in (None, width),
        "patches that are not square": patch[0] != patch[1],
        "classifier without classes": not full["num_classes"],
        "distilled model with registers, LayerScale or SwiGLU": family == "vit_distilled"
        and bool(full["reg_tokens"] or full["init_values"] or full["mlp_layer"] == "swiglu"),
        "pictures that are not square with LayerScale, registers, SwiGLU or mean pooling": is_dinov2
        and rows != columns,
        f"MLP of {full['mlp_ratio']:.4g} times the width with these": is_dinov2
        and _dinov2_ratio(full) is None,
    }
    refuse(family, WHAT, [what for what, is_so in reasons.items() if is_so])


def _dinov2_ratio(full: Mapping[str, Any]) -> int | None:
    """DINOv2's ``mlp_ratio``, a whole number; of a gated MLP two thirds of it are kept, in 8s."""
    width = full["embed_dim"]
    hidden = int(width * full["mlp_ratio"])
    for ratio in range(1, 17):
        made = width * ratio
        if full["mlp_layer"] == "swiglu":
            made = (int(made * 2 / 3) + 7) // 8 * 8
        if made == hidden:
            return ratio
    return None


def _positions(model: nn.Module, full: Mapping[str, Any]) -> Tensor:
    """Rows for every token before the patches but registers, zero where ours have none."""
    table = getattr(model, "pos_embed", None)
    if table is None:
        cells = int(model.patch_embed.num_patches)  # type: ignore[arg-type,union-attr]
        table = torch.zeros(1, cells, full["embed_dim"])
    table = table.detach()
    if full["no_embed_class"] or full["pos_embed"] != "learn":
        rows = int(getattr(model, "num_head_tokens", 1))
        table = torch.cat([table.new_zeros(1, rows, table.shape[2]), table], dim=1)
    return table


def _as_dinov2(tensors: dict[str, Tensor], full: Mapping[str, Any]) -> dict[str, Tensor]:
    """LayerScale everywhere, a head of twice the width, registers that carry their positions."""
    out, width = dict(tensors), full["embed_dim"]
    for index in range(full["depth"]):
        for scale in ("ls1", "ls2"):
            out.setdefault(f"blocks.{index}.{scale}.gamma", torch.ones(width))
    if full["global_pool"] != "token_avg":
        head = out["head.weight"]
        halves = [head, torch.zeros_like(head)]
        is_token = full["global_pool"] == "token"
        out["head.weight"] = torch.cat(halves if is_token else halves[::-1], 1)
    registers = full["reg_tokens"]
    if registers and not full["no_embed_class"] and full["pos_embed"] == "learn":
        table = out["pos_embed"]
        out["reg_token"] = out["reg_token"] + table[:, 1 : 1 + registers]
        out["pos_embed"] = torch.cat([table[:, :1], table[:, 1 + registers :]], dim=1)
    out["mask_token"] = torch.zeros(1, width)
    if full["mlp_layer"] == "swiglu":
        out = {_gated(name): tensor for name, tensor in out.items()}
    return out


def _gated(name: str) -> str:
    return name.replace(".mlp.fc1.", ".mlp.packed.")


def _named(tensors: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    """Names on disk: the base model's under its prefix, heads beside it."""
    names: Names = DINOV2_NAMES if kind.startswith("dinov2") else VIT_NAMES
    is_gated = any(".mlp.packed." in name for name in tensors)
    out: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        module, _, leaf = name.rpartition(".")
        if module in HEADS:
            out[f"{HEADS[module].get(kind, 'classifier')}.{leaf}"] = tensor
        elif name == "mask_token":
            out[f"{kind}.embeddings.mask_token"] = tensor
        elif module.endswith(".attn.qkv"):
            for part, rows in zip("qkv", tensor.chunk(3), strict=True):
                out[f"{kind}.{_theirs(names, f'{module[:-3]}{part}.{leaf}')}"] = rows
        elif is_gated and module.endswith(".mlp.fc2"):
            block = module.removesuffix(".mlp.fc2").replace("blocks", "encoder.layer")
            out[f"{kind}.{block}.mlp.weights_out.{leaf}"] = tensor
        else:
            out[f"{kind}.{_theirs(names, name)}"] = tensor
    return out


def _theirs(names: Names, name: str) -> str:
    theirs = names.from_ours(name)
    if theirs is None:
        raise WeightsError(
            f"{WHAT} has no name for the tensor {name}; --format safetensors keeps it as it is"
        )
    return theirs


def _config(full: Mapping[str, Any], kind: str, class_names: Sequence[str]) -> dict[str, Any]:
    size = list(as_pair(full["img_size"]))
    names = list(class_names) or [f"LABEL_{i}" for i in range(full["num_classes"])]
    config: dict[str, Any] = {
        "architectures": [CLASSES[kind]],
        "model_type": kind,
        "hidden_size": full["embed_dim"],
        "num_hidden_layers": full["depth"],
        "num_attention_heads": full["num_heads"],
        "hidden_act": ACTIVATIONS[full["act_layer"]],
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": full["norm_eps"],
        "image_size": size[0] if size[0] == size[1] else size,
        "patch_size": as_pair(full["patch_size"])[0],
        "num_channels": full["in_chans"],
        "qkv_bias": full["qkv_bias"],
        "id2label": {str(index): name for index, name in enumerate(names)},
        "label2id": {name: index for index, name in enumerate(names)},
        "dtype": "float32",
    }
    if kind.startswith("dinov2"):
        config["mlp_ratio"] = _dinov2_ratio(full)
        config["use_swiglu_ffn"] = full["mlp_layer"] == "swiglu"
        config["layerscale_value"] = full["init_values"] or 1.0
    else:
        config["intermediate_size"] = int(full["embed_dim"] * full["mlp_ratio"])
    if kind == "dinov2_with_registers":
        config["num_register_tokens"] = full["reg_tokens"]
    return config
