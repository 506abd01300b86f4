"""Sections of the models of pictures; see :mod:`vitkit.models.config`. No torch."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, Field

from vitkit.models.config_base import (
    Above0,
    Activation,
    ModelConfig,
    Pair,
    Positive,
    Rate,
    Size,
    TrunkConfig,
    WideTrunkConfig,
    Widths,
)

__all__ = [
    "CompactConfig",
    "DistilledViTConfig",
    "HybridConfig",
    "ResNetConfig",
    "StemLayerConfig",
    "ViTConfig",
]

BLOCK_KINDS = ("attention", "mixer", "conv", "rnn", "lstm", "gru")


def _kinds(value: object) -> object:
    if isinstance(value, list | tuple) and value and all(kind in BLOCK_KINDS for kind in value):
        return tuple(value)
    raise ValueError(f"should be a list of {', '.join(BLOCK_KINDS)}")


def _layers(value: object) -> object:
    if isinstance(value, list | tuple) and value:
        return tuple(value)
    raise ValueError("should be a list of layers such as {dim: 64, kernel_size: 3, pool: 2}")


Kinds = Annotated[tuple[str, ...], BeforeValidator(_kinds)]


class StemLayerConfig(BaseModel, extra="forbid", frozen=True, strict=True, allow_inf_nan=False):
    """Arguments of :class:`vitkit.models.stem.StemLayer`."""

    dim: Positive = Field(description="channels out")
    kernel_size: Positive = Field(3, description="side of the kernel in pixels")
    stride: Positive = Field(1, description="of the convolution")
    pool: Positive = Field(1, description="side of the squares whose maximum is kept")
    norm: bool = Field(True, description="BatchNorm behind the convolution")
    residual: bool = Field(False, description="add the layer's input to its output")


class ViTConfig(WideTrunkConfig):
    """Arguments of :class:`vitkit.models.vit.VisionTransformer`."""

    family: ClassVar[str | None] = "vit"

    patch_size: Size | None = Field(None, description="patch side in pixels, or [height, width]")
    conv_stem: Annotated[tuple[StemLayerConfig, ...], BeforeValidator(_layers)] | None = Field(
        None, description="layers of a convolutional stem in place of patches"
    )
    whiten_stem: bool | None = Field(
        None, description="set the stem's first convolution from the images, and leave it so"
    )
    whiten_patches: bool | None = Field(
        None, description="set the patch embedding that training begins with from the images"
    )
    global_pool: Literal["", "token", "avg", "max", "map", "token_avg"] | None = Field(
        None,
        description="what the head reads: class token, mean, maximum, attention, class token "
        "beside mean, all tokens",
    )
    class_token: bool | None = Field(None, description="prepend a learned class token")
    pos_embed: (
        Literal["learn", "sincos2d", "rotary", "rotary_centred", "relative", "none", ""] | None
    ) = Field(None, description="position scheme")
    rope_base: Above0 | None = Field(None, description="base of the rotary wavelengths")
    rope_ref_grid: Pair | None = Field(
        None, description="[rows, columns] that pos_embed=rotary is rescaled to"
    )
    rel_pos_locality: Annotated[float, Field(ge=0.0)] | None = Field(
        None, description="relative positions: how steeply the first biases fall; 0: none at first"
    )
    no_embed_class: bool | None = Field(None, description="learned positions for patches only")
    reg_tokens: Annotated[int, Field(ge=0)] | None = Field(None, description="register tokens")
    pre_norm: bool | None = Field(None, description="norm before the blocks")
    fc_norm: bool | None = Field(None, description="final norm behind the pooling")
    dynamic_img_size: bool | None = Field(None, description="accept any multiple of the patch")
    drop_rate: Rate | None = Field(None, description="dropout before the head")
    patch_drop_rate: Rate | None = Field(None, description="share of patches left out in training")


class DistilledViTConfig(ViTConfig):
    """Arguments of :class:`vitkit.models.distilled.DistilledVisionTransformer`."""

    family: ClassVar[str | None] = "vit_distilled"


class CompactConfig(TrunkConfig):
    """Arguments of :class:`vitkit.models.compact.CompactTransformer`."""

    family: ClassVar[str | None] = "compact"

    tokenizer: Literal["conv", "patch"] | None = Field(
        None, description="convolutions with pooling (CCT), or patches (CVT, ViT-Lite)"
    )
    kernel_size: Positive | None = Field(None, description="conv: side of the kernels in pixels")
    num_conv_layers: Positive | None = Field(None, description="conv: number of convolutions")
    conv_dim: Positive | None = Field(None, description="conv: channels between convolutions")
    patch_size: Size | None = Field(None, description="patch: side in pixels, or [height, width]")
    global_pool: Literal["seq", "token"] | None = Field(
        None, description="sequence pooling (CCT, CVT) or a class token (ViT-Lite)"
    )
    positional_embedding: Literal["learnable", "sine", "none"] | None = Field(
        None, description="position scheme"
    )
    drop_rate: Rate | None = Field(None, description="dropout before the head")


class HybridConfig(TrunkConfig):
    """Arguments of :class:`vitkit.models.hybrid.HybridClassifier`."""

    family: ClassVar[str | None] = "hybrid"

    blocks: Kinds | None = Field(
        None,
        description="kinds of the blocks in their order: a list of attention, mixer, conv, rnn, "
        "lstm, gru",
    )
    depth: Positive | None = Field(
        None, description="number of blocks; the list of kinds is repeated to reach it"
    )
    patch_size: Size | None = Field(None, description="patch side in pixels, or [height, width]")
    stem: Literal["patch", "convmixer"] | None = Field(
        None, description="a bare projection, or with activation and BatchNorm behind it"
    )
    pos_embed: Literal["none", "learn", "sincos2d"] | None = Field(
        None, description="position scheme"
    )
    head_dim: Positive | None = Field(None, description="attention: D, width of a head")
    qkv_bias: bool | None = Field(None, description="attention: bias of the projections")
    mlp_act_last: bool | None = Field(
        None, description="attention: activation behind the MLP's second layer too"
    )
    mlp_drop_rate: Rate | None = Field(
        None, description="attention: dropout in the MLP; proj_drop_rate unless given"
    )
    tokens_mlp_dim: Positive | None = Field(
        None, description="mixer: hidden width of the MLP over tokens; embed_dim / 2 unless given"
    )
    channels_mlp_dim: Positive | None = Field(
        None, description="mixer: hidden width of the MLP over channels; by mlp_ratio unless given"
    )
    shared_norm: bool | None = Field(None, description="mixer: one norm instead of two")
    mixer_drop_rate: Rate | None = Field(
        None, description="mixer: dropout behind each MLP; proj_drop_rate, inside too, unless given"
    )
    kernel_size: Positive | None = Field(None, description="conv: side of the kernel in tokens")
    recurrent_dim: Positive | None = Field(
        None, description="rnn, lstm, gru: width of the state; embed_dim unless given"
    )
    bidirectional: bool | None = Field(None, description="rnn, lstm, gru: read from both ends")
    bn_eps: Above0 | None = Field(None, description="epsilon of the BatchNorms")
    bn_momentum: Annotated[float, Field(gt=0.0, le=1.0)] | None = Field(
        None, description="share of the new batch in BatchNorm's running statistics"
    )
    final_norm: bool | None = Field(None, description="norm after the blocks")
    norm_eps: Above0 | None = Field(None, description="epsilon of the LayerNorms")
    act_layer: Activation | None = Field(None, description="activation, everywhere")
    global_pool: Literal["avg", "max", "flatten"] | None = Field(
        None, description="what the head reads: mean, maximum, or all tokens side by side"
    )
    head_hidden_dims: Widths | None = Field(
        None, description="widths of hidden layers in the head, a list"
    )
    drop_rate: Rate | None = Field(
        None, description="dropout before the head and behind its hidden layers"
    )


class ResNetConfig(ModelConfig):
    """Arguments of :class:`vitkit.models.resnet.CifarResNet`."""

    family: ClassVar[str | None] = "resnet"

    depth: Positive | None = Field(None, description="number of layers: 20, 32, 44, 56, 110")
    embed_dim: Positive | None = Field(
        None, description="channels of the last stage; the first has a quarter"
    )
