"""Small models of other libraries with random weights, and how each is run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import timm
import torch
import torch.nn.functional as F
import transformers as hf
from timm.layers import SwiGLUPacked
from timm.models.deit import VisionTransformerDistilled
from torch import Tensor, nn
from torchvision.models.vision_transformer import VisionTransformer as TorchvisionViT

Run = Callable[[nn.Module, Tensor], Tensor]

WIDTH, DEPTH, HEADS, CLASSES = 128, 2, 2, 5
TIMM: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": WIDTH, "depth": DEPTH}
TIMM |= {"num_heads": HEADS, "num_classes": CLASSES}
HF: dict[str, Any] = {"hidden_size": WIDTH, "num_hidden_layers": DEPTH, "image_size": 32}
HF |= {"num_attention_heads": HEADS, "patch_size": 8, "num_labels": CLASSES}
HF_VIT = {**HF, "intermediate_size": 4 * WIDTH}
OTHER_SIZE = (48, 24)


@dataclass(frozen=True)
class Case:
    """A foreign model.

    Attributes:
        make: with its own initialisation.
        run: normalised images (B, 3, height, width) -> what is compared.
        format: name of the format that should be recognised.
        features: compare all tokens after the last norm, in place of logits.
        resize: make the model take pictures of another (height, width); None: it does so itself.
    """

    make: Callable[[], nn.Module]
    run: Run
    format: str
    features: bool = False
    resize: Callable[[nn.Module, tuple[int, int]], None] | None = None


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """Every parameter normal noise, so that none is at a value that hides a mistake."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def images(size: tuple[int, int] = (32, 32), channels: int = 3) -> Tensor:
    """Two pictures of noise."""
    return torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(1))


def worst(given: Tensor, wanted: Tensor) -> float:
    """Largest difference over the largest value of the reference."""
    assert given.shape == wanted.shape
    return float((given - wanted).detach().abs().max() / wanted.detach().abs().max())


def _call(model: nn.Module, x: Tensor) -> Tensor:
    out: Tensor = model(x)
    return out


def _logits(model: nn.Module, x: Tensor) -> Tensor:
    out: Tensor = model(x, interpolate_pos_encoding=True).logits
    return out


def _dinov2_logits(model: nn.Module, x: Tensor) -> Tensor:
    out: Tensor = model(x).logits
    return out


def _clip_embeddings(model: nn.Module, x: Tensor) -> Tensor:
    out: Tensor = model(x, interpolate_pos_encoding=True).image_embeds
    return out


def _clip_pooled(model: nn.Module, x: Tensor) -> Tensor:
    out: Tensor = model(x, interpolate_pos_encoding=True).pooler_output
    return out


def _dinov2(model: nn.Module, x: Tensor) -> Tensor:
    out: Tensor = model(x).last_hidden_state
    return out


def _mae(model: Any, x: Tensor) -> Tensor:
    # Nothing masked, in the order of the grid.
    count = (x.shape[2] // 8) * (x.shape[3] // 8)
    noise = torch.arange(count, dtype=torch.float32).expand(x.shape[0], -1)
    out: Tensor = model.vit(x, noise=noise, interpolate_pos_encoding=True).last_hidden_state
    return out


def _resize_timm(model: Any, size: tuple[int, int]) -> None:
    model.set_input_size(size)


def _resize_deit(model: Any, size: tuple[int, int]) -> None:
    """As facebookresearch/deit resizes positions: bicubic, without antialiasing."""
    table, new = model.pos_embed.detach(), (size[0] // 8, size[1] // 8)
    cells = table[:, 2:].unflatten(1, model.patch_embed.grid_size).permute(0, 3, 1, 2)
    cells = F.interpolate(cells, size=new, mode="bicubic", align_corners=False)
    model.set_input_size(size)
    cells = cells.flatten(2).transpose(1, 2)
    model.pos_embed = nn.Parameter(torch.cat([table[:, :2], cells], dim=1))


def _timm(**more: Any) -> Callable[[], nn.Module]:
    return lambda: timm.models.VisionTransformer(**{**TIMM, **more})


def _hf(cls: Any, config: Any, **more: Any) -> Callable[[], nn.Module]:
    base = HF_VIT if "intermediate_size" in config().to_dict() else HF
    return lambda: cls(config(**{**base, **more}))


def timm_case(make: Callable[[], nn.Module], format: str = "timm ViT", **more: Any) -> Case:
    return Case(make, _call, format, resize=_resize_timm, **more)


REGISTERS: dict[str, Any] = {"reg_tokens": 4, "no_embed_class": True, "init_values": 1e-5}
SWIGLU: dict[str, Any] = {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU, "mlp_ratio": 5.5}
PLAIN_DINO, WITH_REGISTERS = hf.Dinov2Config, hf.Dinov2WithRegistersConfig

CASES: dict[str, Case] = {
    "timm": timm_case(_timm()),
    "timm-registers-layerscale": timm_case(_timm(**REGISTERS)),
    "timm-registers-with-positions": timm_case(_timm(reg_tokens=2)),
    "timm-swiglu": timm_case(_timm(**SWIGLU)),
    "timm-mean-no-class": timm_case(_timm(class_token=False, global_pool="avg")),
    "timm-mean-norm-first": timm_case(_timm(class_token=False, global_pool="avg", fc_norm=False)),
    "timm-map": timm_case(_timm(class_token=False, global_pool="map")),
    "timm-qk-norm-no-bias": timm_case(_timm(qk_norm=True, qkv_bias=False)),
    "timm-no-positions": timm_case(_timm(pos_embed="none")),
    "mae-finetuned": timm_case(_timm(global_pool="avg"), "MAE, fine-tuned"),
    "deit-distilled": Case(
        lambda: VisionTransformerDistilled(**TIMM), _call, "DeiT, distilled", resize=_resize_deit
    ),
    "hf-vit": Case(_hf(hf.ViTForImageClassification, hf.ViTConfig), _logits, "Hugging Face ViT"),
    "hf-vit-no-qkv-bias": Case(
        _hf(hf.ViTForImageClassification, hf.ViTConfig, qkv_bias=False),
        _logits,
        "Hugging Face ViT",
    ),
    "hf-deit": Case(
        _hf(hf.DeiTForImageClassificationWithTeacher, hf.DeiTConfig),
        _logits,
        "Hugging Face DeiT, distilled",
    ),
    "hf-mae": Case(
        _hf(
            hf.ViTMAEForPreTraining,
            hf.ViTMAEConfig,
            mask_ratio=0.0,
            decoder_hidden_size=32,
            decoder_num_attention_heads=2,
            decoder_num_hidden_layers=1,
            decoder_intermediate_size=64,
        ),
        _mae,
        "Hugging Face ViT-MAE",
        features=True,
    ),
    "hf-dinov2": Case(
        _hf(hf.Dinov2Model, PLAIN_DINO), _dinov2, "Hugging Face DINOv2", features=True
    ),
    "hf-dinov2-classifier": Case(
        _hf(hf.Dinov2ForImageClassification, PLAIN_DINO), _dinov2_logits, "Hugging Face DINOv2"
    ),
    "hf-dinov2-registers-classifier": Case(
        _hf(hf.Dinov2WithRegistersForImageClassification, WITH_REGISTERS),
        _dinov2_logits,
        "Hugging Face DINOv2 with registers",
    ),
    "hf-clip": Case(
        _hf(hf.CLIPVisionModelWithProjection, hf.CLIPVisionConfig, projection_dim=CLASSES),
        _clip_embeddings,
        "Hugging Face CLIP",
    ),
    "hf-clip-tower": Case(
        _hf(hf.CLIPVisionModel, hf.CLIPVisionConfig), _clip_pooled, "Hugging Face CLIP"
    ),
    "hf-dinov2-swiglu": Case(
        _hf(hf.Dinov2Model, PLAIN_DINO, use_swiglu_ffn=True),
        _dinov2,
        "Hugging Face DINOv2",
        features=True,
    ),
    "hf-dinov2-registers": Case(
        _hf(hf.Dinov2WithRegistersModel, WITH_REGISTERS),
        _dinov2,
        "Hugging Face DINOv2 with registers",
        features=True,
    ),
    "hf-dinov2-registers-swiglu": Case(
        _hf(hf.Dinov2WithRegistersModel, WITH_REGISTERS, use_swiglu_ffn=True),
        _dinov2,
        "Hugging Face DINOv2 with registers",
        features=True,
    ),
}


def torchvision_vit(size: int = 32, **more: Any) -> nn.Module:
    """torchvision's ViT; square pictures only."""
    shape: dict[str, Any] = {"patch_size": 8, "num_layers": DEPTH, "num_heads": HEADS}
    shape |= {"hidden_dim": WIDTH, "mlp_dim": 4 * WIDTH, "num_classes": CLASSES, **more}
    return TorchvisionViT(image_size=size, **shape)
