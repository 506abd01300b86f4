"""Small models of every family that can be looked into, with weights unlike their first ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import timm
import torch
from timm.models.deit import VisionTransformerDistilled
from torch import Tensor, nn

from vitkit.models import create_model

SIZE = (16, 24)
GRID = (4, 6)
CLASSES, WIDTH, DEPTH, HEADS = 5, 24, 3, 3
SHAPE: dict[str, Any] = {"embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS}
SHAPE |= {"img_size": SIZE, "num_classes": CLASSES, "in_chans": 3}
AVERAGE: dict[str, Any] = {"class_token": False, "global_pool": "avg"}
STEM: list[dict[str, Any]] = [{"dim": 8, "kernel_size": 3, "pool": 2}, {"dim": 8, "pool": 2}]


def ours(name: str, **more: Any) -> Callable[[], nn.Module]:
    return lambda: create_model(name, **{**SHAPE, **more})


def timms(**more: Any) -> Callable[[], nn.Module]:
    return lambda: timm.models.VisionTransformer(patch_size=4, **{**SHAPE, **more})


TOKEN: dict[str, Any] = {"class_token": True, "global_pool": "token"}
VIT = "vit_mini_patch4_32"
MODELS: dict[str, Callable[[], nn.Module]] = {
    "token": ours(VIT, **TOKEN),
    "registers": ours(VIT, **TOKEN, reg_tokens=2, init_values=0.3),
    "average": ours(VIT, **AVERAGE),
    "average_of_normed": ours(VIT, class_token=True, global_pool="avg", fc_norm=False),
    "max": ours(VIT, class_token=False, global_pool="max"),
    "map": ours(VIT, class_token=False, global_pool="map"),
    "rotary": ours(VIT, **TOKEN, pos_embed="rotary", qk_norm=True),
    "sincos": ours(VIT, **TOKEN, pos_embed="sincos2d"),
    "stem": ours(VIT, **AVERAGE, conv_stem=STEM),
    "distilled": ours("vit_mini_distilled_patch4_32"),
    "cct": ours("cct_2_3x2_32"),
    "cvt": ours("cvt_6_4_32", patch_size=4),
    "vit_lite": ours("vit_lite_6_patch4_32", patch_size=4),
    "hybrid_of_attention": ours("nb01_vit", patch_size=4),
    "timm": timms(),
    "timm_average": timms(**AVERAGE),
    "timm_registers": timms(reg_tokens=2, no_embed_class=True, qk_norm=True),
    "timm_dynamic": timms(dynamic_img_size=True),
    "timm_distilled": lambda: VisionTransformerDistilled(patch_size=4, **SHAPE),
}
PREFIX = {"registers": 3, "distilled": 2, "timm_registers": 3, "timm_distilled": 2}
PREFIX |= dict.fromkeys(("token", "rotary", "sincos", "vit_lite", "timm", "timm_dynamic"), 1)
PREFIX |= {"average_of_normed": 1}
"""Model -> tokens before the patches; none in the others."""


def build(name: str, seed: int = 0) -> Any:
    """In evaluation mode; every parameter with noise, so that none is at a value that hides a
    mistake.
    """
    torch.manual_seed(seed)
    model = MODELS[name]()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def pictures(count: int = 2, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, *SIZE, generator=torch.Generator().manual_seed(seed))


def count_hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
