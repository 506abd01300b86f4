"""Layouts that are known and not read: what to tell someone who brings one."""

from __future__ import annotations

import re

from vitkit.weights.formats.layout import Shapes

__all__ = ["stranger"]

_SIGNS: tuple[tuple[str, str], ...] = (
    (r"visual\.layer1\.0\.conv1\.weight", "OpenAI CLIP (ResNet tower)"),
    (r"(vision_model\.)?(head\.probe|embeddings\.patch_embedding\.bias)", "Hugging Face SigLIP"),
    (r".*relative_position_bias_table", "BEiT, EVA or Swin"),
    (r"enc_blocks\.0\..*", "CroCo or DUSt3R"),
    (r"transformer\.layers\.0\.0\..*", "vit-pytorch (lucidrains) ViT"),
    (r"(module\.)?(layer1\.0\.conv1|bn1)\.weight", "a ResNet"),
    (r"(stages|downsample_layers)\.0\..*", "ConvNeXt"),
    (r"features\.0(\.0)?\.weight", "a convolutional network (torchvision)"),
    (r"(bert|roberta)\..*", "BERT"),
    (r"(model\.)?layers\.0\.self_attn\.q_proj\.weight", "a large language model (LLaMA's names)"),
)


def stranger(shapes: Shapes) -> str:
    """What a file looks like that is of no format we read; empty if nothing is known of it."""
    for sign, name in _SIGNS:
        if any(re.fullmatch(sign, each) for each in shapes):
            return name
    # DINOv3's biases are apart in timm too, but it has no table of positions.
    return "BEiT or EVA" if {"blocks.0.attn.q_bias", "pos_embed"} <= set(shapes) else ""
