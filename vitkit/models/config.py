"""What a person may say about a model, and its checks. No torch is imported here.

Each family of models has one config class whose fields are the arguments of the family's
constructor. A field left at None keeps the preset's own value. :func:`validate_model` picks the
class by name; :meth:`ModelConfig.constructor_kwargs` overlays the preset with what was given.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from vitkit.models.presets import DEFAULT_MODEL, PRESETS, TIMM_PREFIX, family_of, resolve_name

__all__ = [
    "CONFIGS",
    "CompactConfig",
    "CustomConfig",
    "DistilledViTConfig",
    "HybridConfig",
    "LanguageModelConfig",
    "ModelConfig",
    "PixelTextConfig",
    "RecurrentLanguageModelConfig",
    "RecurrentSeq2SeqConfig",
    "ResNetConfig",
    "Seq2SeqConfig",
    "TextClassifierConfig",
    "TimmConfig",
    "ViTConfig",
    "validate_model",
]


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _pair(value: object) -> object:
    # YAML and JSON know lists only. Checked here, because pydantic reports every branch of a union.
    if isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_count, value)):
        return tuple(value)
    raise ValueError("should be a pair of whole numbers from 1 up")


def _size(value: object) -> object:
    if _is_count(value):
        return value
    if isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_count, value)):
        return tuple(value)
    raise ValueError("should be a whole number from 1 up or a pair [height, width] of them")


def _kinds(value: object) -> object:
    if isinstance(value, list | tuple) and value and all(kind in BLOCK_KINDS for kind in value):
        return tuple(value)
    raise ValueError(f"should be a list of {', '.join(BLOCK_KINDS)}")


def _widths(value: object) -> object:
    if isinstance(value, list | tuple) and all(map(_is_count, value)):
        return tuple(value)
    raise ValueError("should be a list of whole numbers from 1 up")


BLOCK_KINDS = ("attention", "mixer", "conv", "rnn", "lstm", "gru")


def _layers(value: object) -> object:
    if isinstance(value, list | tuple) and value:
        return tuple(value)
    raise ValueError("should be a list of layers such as {dim: 64, kernel_size: 3, pool: 2}")


def _plain(value: object) -> object:
    """Sections inside a field as the mappings that constructors take."""
    if isinstance(value, tuple):
        return tuple(v.model_dump() if isinstance(v, BaseModel) else v for v in value)
    return value


Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(ge=0.0, lt=1.0)]
Pair = Annotated[tuple[int, int], BeforeValidator(_pair)]
Size = Annotated[int | tuple[int, int], BeforeValidator(_size)]
Kinds = Annotated[tuple[str, ...], BeforeValidator(_kinds)]
Widths = Annotated[tuple[int, ...], BeforeValidator(_widths)]
Above0 = Annotated[float, Field(gt=0.0)]
Norm = Literal["layernorm", "rmsnorm"]
Mixer = Literal["mlp", "swiglu"]
Activation = Literal["gelu", "gelu_tanh", "relu", "silu"]
Cell = Literal["rnn", "lstm", "gru"]


class ModelConfig(BaseModel):
    """What every family takes. Use :func:`validate_model` to get the class of the right family."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())
    family: ClassVar[str | None] = None

    name: str = Field(DEFAULT_MODEL, description="model name; `vitkit models` lists them")
    num_classes: Annotated[int, Field(ge=0)] | None = Field(
        None, description="classes of the head; from the data unless given; 0: no head"
    )
    in_chans: Positive | None = Field(
        None, description="channels of the images; from the data unless given"
    )
    img_size: Size | None = Field(
        None, description="image side in pixels, or [height, width]; images are resized to it"
    )
    weights: str | None = Field(None, description="file of weights to start from")

    @field_validator("name")
    @classmethod
    def _resolve(cls, name: str) -> str:
        name = resolve_name(name)
        family = family_of(name)
        if cls.family not in (None, family):
            raise ValueError(f"{name!r} belongs to {CONFIGS[family].__name__}")
        return name

    def constructor_kwargs(self) -> dict[str, Any]:
        """The preset's arguments overlaid with the fields that were given."""
        preset = PRESETS[self.name].kwargs if self.name in PRESETS else {}
        given = {
            key: _plain(value)
            for key in type(self).model_fields
            if key not in ("name", "weights") and (value := getattr(self, key)) is not None
        }
        return {**preset, **given}


class _TrunkConfig(ModelConfig):
    """Fields of every model of our own: the trunk of blocks."""

    embed_dim: Positive | None = Field(None, description="C, width of the tokens")
    depth: Positive | None = Field(None, description="number of blocks")
    num_heads: Positive | None = Field(None, description="H, attention heads a block")
    mlp_ratio: Above0 | None = Field(None, description="width of the MLP over embed_dim")
    attn_drop_rate: Rate | None = Field(None, description="dropout of the attention weights")
    proj_drop_rate: Rate | None = Field(None, description="dropout after attention and in the MLP")
    pos_drop_rate: Rate | None = Field(None, description="dropout after the positions")
    drop_path_rate: Rate | None = Field(None, description="stochastic depth of the last block")


class _WideTrunkConfig(_TrunkConfig):
    """Fields of the models that use the whole range of the core."""

    head_dim: Positive | None = Field(None, description="D, width of a head")
    qkv_bias: bool | None = Field(None, description="bias of the q, k, v projections")
    qk_norm: bool | None = Field(None, description="normalise q and k of each head")
    proj_bias: bool | None = Field(None, description="bias of attention's output projection")
    init_values: Above0 | None = Field(None, description="first value of LayerScale")
    norm_layer: Norm | None = Field(None, description="kind of norm")
    norm_eps: Above0 | None = Field(None, description="epsilon of the norms")
    norm_first: bool | None = Field(None, description="pre-norm blocks; false: post-norm")
    final_norm: bool | None = Field(None, description="norm after the blocks")
    mlp_layer: Mixer | None = Field(None, description="kind of MLP")
    act_layer: Activation | None = Field(None, description="activation of the MLP")


class StemLayerConfig(BaseModel, extra="forbid", frozen=True, strict=True):
    """Arguments of :class:`vitkit.models.stem.StemLayer`."""

    dim: Positive = Field(description="channels out")
    kernel_size: Positive = Field(3, description="side of the kernel in pixels")
    stride: Positive = Field(1, description="of the convolution")
    pool: Positive = Field(1, description="side of the squares whose maximum is kept")
    norm: bool = Field(True, description="BatchNorm behind the convolution")
    residual: bool = Field(False, description="add the layer's input to its output")


class ViTConfig(_WideTrunkConfig):
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
    global_pool: Literal["", "token", "avg", "max", "map"] | None = Field(
        None, description="what the head reads: class token, mean, maximum, attention, all tokens"
    )
    class_token: bool | None = Field(None, description="prepend a learned class token")
    pos_embed: Literal["learn", "sincos2d", "rotary", "relative", "none", ""] | None = Field(
        None, description="position scheme"
    )
    rope_base: Above0 | None = Field(None, description="base of the rotary wavelengths")
    rope_ref_grid: Pair | None = Field(
        None, description="[rows, columns] that rotary positions are rescaled to"
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


class CompactConfig(_TrunkConfig):
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


class HybridConfig(_TrunkConfig):
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


class _TextConfig(_WideTrunkConfig):
    """Fields of every model that reads tokens."""

    num_kv_heads: Positive | None = Field(None, description="G, key/value heads; divides num_heads")
    pos_embed: Literal["learn", "sincos", "rotary", "alibi", "relative", "none"] | None = Field(
        None, description="position scheme"
    )
    rope_base: Above0 | None = Field(None, description="base of the rotary wavelengths")
    drop_rate: Rate | None = Field(None, description="dropout before the head")


class _EncoderConfig(_TextConfig):
    class_token: bool | None = Field(None, description="prepend a learned class token")
    global_pool: Literal["token", "avg"] | None = Field(
        None, description="what the head reads: the class token or the mean of the real tokens"
    )
    head_hidden_dim: Positive | None = Field(
        None, description="width of a hidden ReLU layer in the head"
    )


class _NoPictures(BaseModel):
    @model_validator(mode="after")
    def _no_pictures(self) -> _NoPictures:
        for key in self.unused_fields:
            if getattr(self, key) is not None:
                raise ValueError(f"{key} means nothing to a model that reads words")
        return self

    unused_fields: ClassVar[tuple[str, ...]] = ("img_size", "in_chans")


class TextClassifierConfig(_NoPictures, _EncoderConfig):
    """Arguments of :class:`vitkit.models.text.TextTransformer`."""

    family: ClassVar[str | None] = "text"

    vocab_size: Positive | None = Field(None, description="number of words")
    max_len: Positive | None = Field(None, description="longest sequence in tokens")
    pad_id: Annotated[int, Field(ge=0)] | None = Field(
        None, description="word that fills short sequences and is not read"
    )


class PixelTextConfig(_EncoderConfig):
    """Arguments of :class:`vitkit.models.pixels.PixelTextClassifier`."""

    family: ClassVar[str | None] = "pixels"

    color: Literal["grey", "rgb", "palette"] | None = Field(
        None, description="words: 256 grey levels, 3 x 256 colour levels, or 256 colours"
    )
    pixel_pool: Positive | None = Field(
        None, description="side in pixels of the squares that are averaged into one"
    )


class LanguageModelConfig(_NoPictures, _TextConfig):
    """Arguments of :class:`vitkit.models.text.CausalLanguageModel`."""

    family: ClassVar[str | None] = "lm"
    unused_fields: ClassVar[tuple[str, ...]] = ("img_size", "in_chans", "num_classes")

    vocab_size: Positive | None = Field(None, description="number of words")
    max_len: Positive | None = Field(None, description="longest sequence in tokens")
    tie_embeddings: bool | None = Field(
        None, description="the output layer shares the word embedding's weight"
    )
    window: Positive | None = Field(
        None, description="words that a word sees, itself included; all before it unless given"
    )


class Seq2SeqConfig(_NoPictures, _TextConfig):
    """Arguments of :class:`vitkit.models.seq2seq.EncoderDecoder`."""

    family: ClassVar[str | None] = "seq2seq"
    unused_fields: ClassVar[tuple[str, ...]] = ("img_size", "in_chans", "num_classes")

    vocab_size: Positive | None = Field(None, description="number of words of both languages")
    max_len: Positive | None = Field(None, description="longest source or target in tokens")
    decoder_depth: Positive | None = Field(
        None, description="number of blocks of the decoder; depth unless given"
    )
    tie_embeddings: bool | None = Field(
        None, description="one matrix for source, target and output; false: three"
    )
    pad_id: Annotated[int, Field(ge=0)] | None = Field(
        None, description="word that fills short sources and is not read"
    )
    mlp_drop_rate: Rate | None = Field(
        None, description="dropout inside the MLP, behind its activation"
    )


class _RecurrentConfig(_NoPictures, ModelConfig):
    """Fields of the models that read text by recurrence."""

    unused_fields: ClassVar[tuple[str, ...]] = ("img_size", "in_chans", "num_classes")

    vocab_size: Positive | None = Field(None, description="number of words")
    embed_dim: Positive | None = Field(None, description="width of the embedded words")
    hidden_dim: Positive | None = Field(None, description="width of the state")
    depth: Positive | None = Field(None, description="number of recurrent layers of a stack")
    cell: Cell | None = Field(None, description="kind of recurrence")
    tie_embeddings: bool | None = Field(
        None, description="the output layer shares the word embedding's weight"
    )
    drop_rate: Rate | None = Field(
        None, description="dropout of the words, between layers and before the head"
    )


class RecurrentLanguageModelConfig(_RecurrentConfig):
    """Arguments of :class:`vitkit.models.recurrent.RecurrentLanguageModel`."""

    family: ClassVar[str | None] = "lm_recurrent"


class RecurrentSeq2SeqConfig(_RecurrentConfig):
    """Arguments of :class:`vitkit.models.recurrent.RecurrentSeq2Seq`."""

    family: ClassVar[str | None] = "seq2seq_recurrent"

    attention: bool | None = Field(
        None, description="the decoder attends to the encoder's outputs; false: the bottleneck"
    )
    bidirectional: bool | None = Field(
        None, description="the encoder reads from both ends, with half of the width each"
    )
    pad_id: Annotated[int, Field(ge=0)] | None = Field(
        None, description="word that fills short sources and is not read"
    )


class TimmConfig(ModelConfig):
    """A model of timm, named ``timm/<model>``."""

    family: ClassVar[str | None] = "timm"

    pretrained: bool = Field(False, description="download timm's weights (needs the network)")
    kwargs: dict[str, Any] = Field({}, description="further arguments of timm.create_model")

    def constructor_kwargs(self) -> dict[str, Any]:
        """What :func:`vitkit.models.timm_baseline.build_timm` takes."""
        return {"model": self.name.removeprefix(TIMM_PREFIX), **super().constructor_kwargs()}


class CustomConfig(ModelConfig):
    """A person's own module, registered with ``register_model``."""

    family: ClassVar[str | None] = "custom"

    kwargs: dict[str, Any] = Field({}, description="further arguments of the registered function")


CONFIGS: dict[str, type[ModelConfig]] = {
    "vit": ViTConfig,
    "vit_distilled": DistilledViTConfig,
    "compact": CompactConfig,
    "hybrid": HybridConfig,
    "resnet": ResNetConfig,
    "pixels": PixelTextConfig,
    "text": TextClassifierConfig,
    "lm": LanguageModelConfig,
    "lm_recurrent": RecurrentLanguageModelConfig,
    "seq2seq": Seq2SeqConfig,
    "seq2seq_recurrent": RecurrentSeq2SeqConfig,
    "timm": TimmConfig,
    "custom": CustomConfig,
}
"""The config class of each family."""


def validate_model(section: Mapping[str, Any]) -> ModelConfig:
    """The checked config of a model, of the class that its name asks for.

    Args:
        section: ``name`` and any fields of that family; without a name the default model.

    Raises:
        UnknownNameError: no such model; the message offers the nearest names.
        pydantic.ValidationError: a field that is unknown, of the wrong type or out of range.
    """
    name = section.get("name", DEFAULT_MODEL)
    if not isinstance(name, str):
        return ModelConfig.model_validate({"name": name})  # raises, naming the type
    name = resolve_name(name)
    return CONFIGS[family_of(name)].model_validate({**section, "name": name})
