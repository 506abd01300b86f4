"""What sections of all models share: kinds of fields, and the fields of the trunk. No torch."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from vitkit.models.presets import DEFAULT_MODEL, PRESETS, family_of, resolve_name

__all__ = [
    "Above0",
    "Activation",
    "ModelConfig",
    "Pair",
    "Positive",
    "Rate",
    "Size",
    "TrunkConfig",
    "WideTrunkConfig",
    "Widths",
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


def _widths(value: object) -> object:
    if isinstance(value, list | tuple) and all(map(_is_count, value)):
        return tuple(value)
    raise ValueError("should be a list of whole numbers from 1 up")


def _plain(value: object) -> object:
    """Sections inside a field as the mappings that constructors take."""
    if isinstance(value, tuple):
        return tuple(v.model_dump() if isinstance(v, BaseModel) else v for v in value)
    return value


Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(ge=0.0, lt=1.0)]
Pair = Annotated[tuple[int, int], BeforeValidator(_pair)]
Size = Annotated[int | tuple[int, int], BeforeValidator(_size)]
Widths = Annotated[tuple[int, ...], BeforeValidator(_widths)]
Above0 = Annotated[float, Field(gt=0.0)]
Norm = Literal["layernorm", "rmsnorm"]
Mixer = Literal["mlp", "swiglu"]
Activation = Literal["gelu", "gelu_tanh", "quick_gelu", "relu", "silu"]


class ModelConfig(BaseModel):
    """What every family takes. Use :func:`validate_model` to get the class of the right family."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=()
    )
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
        if cls.family is not None and cls.family != family:
            raise ValueError(f"{name!r} is of the family {family!r}, not {cls.family!r}")
        return name

    def without_weights(self) -> ModelConfig:
        """The same model, to be filled from a checkpoint: it needs none of what it began with."""
        return self.model_copy(update={"weights": None})

    def constructor_kwargs(self) -> dict[str, Any]:
        """The preset's arguments overlaid with the fields that were given."""
        preset = PRESETS[self.name].kwargs if self.name in PRESETS else {}
        given = {
            key: _plain(value)
            for key in type(self).model_fields
            if key not in ("name", "weights") and (value := getattr(self, key)) is not None
        }
        return {**preset, **given}


class TrunkConfig(ModelConfig):
    """Fields of every model on a trunk of blocks."""

    embed_dim: Positive | None = Field(None, description="C, width of the tokens")
    depth: Positive | None = Field(None, description="number of blocks")
    num_heads: Positive | None = Field(None, description="H, attention heads a block")
    mlp_ratio: Above0 | None = Field(None, description="width of the MLP over embed_dim")
    attn_drop_rate: Rate | None = Field(None, description="dropout of the attention weights")
    proj_drop_rate: Rate | None = Field(None, description="dropout after attention and in the MLP")
    pos_drop_rate: Rate | None = Field(None, description="dropout after the positions")
    drop_path_rate: Rate | None = Field(None, description="stochastic depth of the last block")


class WideTrunkConfig(TrunkConfig):
    """Fields of the models that use the whole range of the core."""

    head_dim: Positive | None = Field(None, description="D, width of a head")
    qkv_bias: bool | None = Field(None, description="bias of the q, k, v projections")
    qk_norm: bool | None = Field(None, description="normalise q and k of each head")
    proj_bias: bool | None = Field(
        None, description="biases of attention's output projection and, in a ViT, of the MLP"
    )
    init_values: Above0 | None = Field(None, description="first value of LayerScale")
    norm_layer: Norm | None = Field(None, description="kind of norm")
    norm_eps: Above0 | None = Field(None, description="epsilon of the norms")
    norm_first: bool | None = Field(None, description="pre-norm blocks; false: post-norm")
    final_norm: bool | None = Field(None, description="norm after the blocks")
    mlp_layer: Mixer | None = Field(None, description="kind of MLP")
    act_layer: Activation | None = Field(None, description="activation of the MLP")
