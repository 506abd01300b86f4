"""Sections of the models of words; see :mod:`vitkit.models.config`. No torch."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, Field, model_validator

from vitkit.models.config_base import Above0, ModelConfig, Positive, Rate, WideTrunkConfig

__all__ = [
    "LanguageModelConfig",
    "PixelTextConfig",
    "RecurrentLanguageModelConfig",
    "RecurrentSeq2SeqConfig",
    "Seq2SeqConfig",
    "TextClassifierConfig",
]

Cell = Literal["rnn", "lstm", "gru"]


class _TextConfig(WideTrunkConfig):
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

    vocab_size: Positive | None = Field(None, description="number of different tokens")
    max_len: Positive | None = Field(None, description="longest sequence in tokens")
    pad_id: Annotated[int, Field(ge=0)] | None = Field(
        None, description="token that fills short sequences and is not read"
    )


class PixelTextConfig(_EncoderConfig):
    """Arguments of :class:`vitkit.models.pixels.PixelTextClassifier`."""

    family: ClassVar[str | None] = "pixels"

    color: Literal["grey", "rgb", "palette"] | None = Field(
        None, description="tokens: 256 grey levels, 3 x 256 colour levels, or 256 colours"
    )
    pixel_pool: Positive | None = Field(
        None, description="side in pixels of the squares that are averaged into one"
    )


class LanguageModelConfig(_NoPictures, _TextConfig):
    """Arguments of :class:`vitkit.models.text.CausalLanguageModel`."""

    family: ClassVar[str | None] = "lm"
    unused_fields: ClassVar[tuple[str, ...]] = ("img_size", "in_chans", "num_classes")

    vocab_size: Positive | None = Field(None, description="number of different tokens")
    max_len: Positive | None = Field(None, description="longest sequence in tokens")
    tie_embeddings: bool | None = Field(
        None, description="the output layer shares the token embedding's weight"
    )
    window: Positive | None = Field(
        None, description="tokens that a token sees, itself included; all before it unless given"
    )


class Seq2SeqConfig(_NoPictures, _TextConfig):
    """Arguments of :class:`vitkit.models.seq2seq.EncoderDecoder`."""

    family: ClassVar[str | None] = "seq2seq"
    unused_fields: ClassVar[tuple[str, ...]] = ("img_size", "in_chans", "num_classes")

    vocab_size: Positive | None = Field(None, description="different tokens of both languages")
    max_len: Positive | None = Field(None, description="longest source or target in tokens")
    decoder_depth: Positive | None = Field(
        None, description="number of blocks of the decoder; depth unless given"
    )
    tie_embeddings: bool | None = Field(
        None, description="one matrix for source, target and output; false: three"
    )
    pad_id: Annotated[int, Field(ge=0)] | None = Field(
        None, description="token that fills short sources and is not read"
    )
    mlp_drop_rate: Rate | None = Field(
        None, description="dropout inside the MLP, behind its activation"
    )


class _RecurrentConfig(_NoPictures, ModelConfig):
    """Fields of the models that read text by recurrence."""

    unused_fields: ClassVar[tuple[str, ...]] = ("img_size", "in_chans", "num_classes")

    vocab_size: Positive | None = Field(None, description="number of different tokens")
    embed_dim: Positive | None = Field(None, description="width of the embedded tokens")
    hidden_dim: Positive | None = Field(None, description="width of the state")
    depth: Positive | None = Field(None, description="number of recurrent layers of a stack")
    cell: Cell | None = Field(None, description="kind of recurrence")
    tie_embeddings: bool | None = Field(
        None, description="the output layer shares the token embedding's weight"
    )
    drop_rate: Rate | None = Field(
        None, description="dropout of the tokens, between layers and before the head"
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
        None, description="token that fills short sources and is not read"
    )
