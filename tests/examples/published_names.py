"""The names and shapes that published two-view files hold, spelled out from their description."""

from __future__ import annotations

import torch
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]


def layer(name: str, out: int, *inner: int) -> Shapes:
    """A linear layer or convolution with its bias."""
    return {f"{name}.weight": (out, *inner), f"{name}.bias": (out,)}


def norm(name: str, dim: int) -> Shapes:
    """A layer norm."""
    return {f"{name}.weight": (dim,), f"{name}.bias": (dim,)}


def block(name: str, c: int) -> Shapes:
    """Self attention and perceptron."""
    return {
        **norm(f"{name}.norm1", c),
        **layer(f"{name}.attn.qkv", 3 * c, c),
        **layer(f"{name}.attn.proj", c, c),
        **norm(f"{name}.norm2", c),
        **layer(f"{name}.mlp.fc1", 4 * c, c),
        **layer(f"{name}.mlp.fc2", c, 4 * c),
    }


def cross_block(name: str, c: int) -> Shapes:
    """The same with cross attention, whose three projections are apart."""
    crossing: Shapes = {}
    for part in ("projq", "projk", "projv", "proj"):
        crossing |= layer(f"{name}.cross_attn.{part}", c, c)
    return block(name, c) | crossing | norm(f"{name}.norm3", c) | norm(f"{name}.norm_y", c)


def encoder(prefix: str = "") -> Shapes:
    """ViT-Large without a class token."""
    names = layer(f"{prefix}patch_embed.proj", 1024, 3, 16, 16) | norm(f"{prefix}enc_norm", 1024)
    for i in range(24):
        names |= block(f"{prefix}enc_blocks.{i}", 1024)
    return names


def core() -> Shapes:
    """Encoder and one base decoder."""
    names = encoder() | layer("decoder_embed", 768, 1024) | norm("dec_norm", 768)
    for i in range(12):
        names |= cross_block(f"dec_blocks.{i}", 768)
    return names | {"mask_token": (1, 1, 768)}


def dpt(name: str, dims: tuple[int, int, int, int]) -> Shapes:
    """A dense head of four channels; four of its convolutions under two names each."""
    widths = (96, 192, 384, 768)
    names: Shapes = {}
    for i, (dim, width) in enumerate(zip(dims, widths, strict=True)):
        names |= layer(f"{name}.act_postprocess.{i}.0", width, dim, 1, 1)
        names[f"{name}.scratch.layer{i + 1}_rn.weight"] = (256, width, 3, 3)
        names[f"{name}.scratch.layer_rn.{i}.weight"] = (256, width, 3, 3)
        fusion = f"{name}.scratch.refinenet{i + 1}"
        names |= layer(f"{fusion}.out_conv", 256, 256, 1, 1)
        for unit in ("resConfUnit1", "resConfUnit2"):
            for conv in ("conv1", "conv2"):
                names |= layer(f"{fusion}.{unit}.{conv}", 256, 256, 3, 3)
    names |= layer(f"{name}.act_postprocess.0.1", 96, 96, 4, 4)
    names |= layer(f"{name}.act_postprocess.1.1", 192, 192, 2, 2)
    names |= layer(f"{name}.act_postprocess.3.1", 768, 768, 3, 3)
    names |= layer(f"{name}.head.0", 128, 256, 3, 3)
    names |= layer(f"{name}.head.2", 128, 128, 3, 3)
    return names | layer(f"{name}.head.4", 4, 128, 1, 1)


def croco() -> Shapes:
    """CroCo v2, large encoder, base decoder."""
    return core() | layer("prediction_head", 768, 768)


def two_view(head: str) -> Shapes:
    """DUSt3R with ``linear`` or ``dpt``, MASt3R with ``catmlp+dpt``."""
    names = core()
    for i in range(12):
        names |= cross_block(f"dec_blocks2.{i}", 768)
    for number in (1, 2):
        own = f"downstream_head{number}"
        if head == "linear":
            names |= layer(f"{own}.proj", 1024, 768)
        else:
            names |= dpt(f"{own}.dpt", (1024, 768, 768, 768))
        if head == "catmlp+dpt":
            names |= layer(f"{own}.head_local_features.fc1", 7168, 1792)
            names |= layer(f"{own}.head_local_features.fc2", 6400, 7168)
    return names


def fast3r() -> Shapes:
    """Fast3R with the large fusion and both heads."""
    names = encoder("encoder.")
    names |= layer("decoder.decoder_embed", 1024, 1024) | norm("decoder.dec_norm", 1024)
    for i in range(24):
        names |= block(f"decoder.dec_blocks.{i}", 1024)
    for head in ("downstream_head", "downstream_head_local"):
        names |= dpt(f"{head}.dpt", (1024,) * 4)
    return names


def on_meta(shapes: Shapes) -> dict[str, Tensor]:
    """Tensors of these shapes that hold nothing."""
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
