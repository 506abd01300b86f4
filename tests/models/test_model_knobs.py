"""Every field of every config class changes something: parameters, outputs, or training."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vitkit.errors import ConfigError
from vitkit.models import create_model
from vitkit.models.config import (
    CONFIGS,
    CompactConfig,
    CustomConfig,
    DistilledViTConfig,
    HybridConfig,
    LanguageModelConfig,
    ModelConfig,
    PixelTextConfig,
    RecurrentLanguageModelConfig,
    RecurrentSeq2SeqConfig,
    ResNetConfig,
    Seq2SeqConfig,
    TextClassifierConfig,
    TimmConfig,
    ViTConfig,
)

TRUNK: dict[str, Any] = {"embed_dim": 16, "depth": 2, "num_heads": 2}
# Field -> the value it is flipped to, or (value, what the base must have for it to matter).
TRUNK_FLIPS: dict[str, Any] = {
    "embed_dim": 32,
    "depth": 3,
    "num_heads": 4,
    "mlp_ratio": 3.0,
    "attn_drop_rate": 0.5,
    "proj_drop_rate": 0.5,
    "pos_drop_rate": 0.5,
    "drop_path_rate": 0.7,
}
WIDE_FLIPS: dict[str, Any] = {
    **TRUNK_FLIPS,
    "head_dim": 4,
    "qk_norm": True,
    "init_values": 0.1,
    "norm_layer": "rmsnorm",
    "norm_eps": 0.1,
    "norm_first": False,
    "final_norm": False,
    "mlp_layer": "swiglu",
    "act_layer": "relu",
    "drop_rate": 0.5,
}
TEXT_FLIPS: dict[str, Any] = {
    **WIDE_FLIPS,
    "qkv_bias": False,
    "proj_bias": False,
    "num_kv_heads": 1,
    "pos_embed": "none",
    "rope_base": (50.0, {"pos_embed": "rotary"}),
}
ENCODER_FLIPS: dict[str, Any] = {
    **TEXT_FLIPS,
    "num_classes": 3,
    "class_token": True,
    "global_pool": ("avg", {"class_token": True, "global_pool": "token"}),
    "head_hidden_dim": 8,
}
RECURRENT_FLIPS: dict[str, Any] = {
    "vocab_size": 12,
    "embed_dim": 12,
    "hidden_dim": 20,
    "depth": 2,
    "cell": "gru",
    "drop_rate": 0.5,
}
VIT_FLIPS: dict[str, Any] = {
    **WIDE_FLIPS,
    "num_classes": 3,
    "in_chans": 1,
    "img_size": 16,
    "patch_size": 4,
    "conv_stem": [{"dim": 8}, {"dim": 8, "pool": 2}],
    "whiten_stem": (True, {"conv_stem": [{"dim": 8}]}),
    "whiten_patches": True,
    "qkv_bias": False,
    "proj_bias": False,
    "pos_embed": "sincos2d",
    "rope_base": (10.0, {"pos_embed": "rotary"}),
    "rope_ref_grid": ((16, 16), {"pos_embed": "rotary"}),
    "rel_pos_locality": (2.0, {"pos_embed": "relative"}),
    "no_embed_class": True,
    "reg_tokens": 2,
    "pre_norm": True,
    "fc_norm": True,
    "dynamic_img_size": True,
    "patch_drop_rate": 0.5,
}
STARTS = {"rel_pos_locality", "whiten_patches"}
"""Fields that tell a model before its training from others, and no more."""

FIXED: dict[type[ModelConfig], dict[str, Any]] = {
    DistilledViTConfig: {"global_pool": "avg", "class_token": False}
}
"""Fields of a family that have one value, and another one, which is refused."""

FOLLOWED = {ResNetConfig: {"img_size": 16}}
"""Fields that data are made to fit, and that a network of any size does not feel."""

EXEMPT: set[type[ModelConfig]] = {TimmConfig, CustomConfig}
"""Models of others, which take what they take."""

KNOBS: dict[type[ModelConfig], tuple[str, dict[str, Any], dict[str, Any]]] = {
    ViTConfig: (
        "vit_tiny_patch4_32",
        {**TRUNK, "img_size": 8, "patch_size": 2},
        {
            **VIT_FLIPS,
            "global_pool": "avg",
            "class_token": (False, {"global_pool": "avg"}),
        },
    ),
    DistilledViTConfig: (
        "vit_mini_distilled_patch4_32",
        {**TRUNK, "img_size": 8, "patch_size": 2},
        VIT_FLIPS,
    ),
    ResNetConfig: (
        "resnet20_32",
        {"img_size": 8, "depth": 8, "embed_dim": 16},
        {"num_classes": 3, "in_chans": 1, "depth": 14, "embed_dim": 24},
    ),
    CompactConfig: (
        "cct_2_3x2_32",
        {**TRUNK, "img_size": 8, "attn_drop_rate": 0.0, "drop_path_rate": 0.0},
        {
            **TRUNK_FLIPS,
            "num_classes": 3,
            "in_chans": 1,
            "img_size": 16,
            "tokenizer": "patch",
            "kernel_size": 5,
            "num_conv_layers": 1,
            "conv_dim": 8,
            "patch_size": (2, {"tokenizer": "patch"}),
            "global_pool": "token",
            "positional_embedding": "sine",
            "drop_rate": 0.5,
        },
    ),
    HybridConfig: (
        "nb04_convmixer_mixer",
        {
            **TRUNK,
            "img_size": 8,
            "blocks": ("conv", "attention", "mixer"),
            "depth": 3,
            "mixer_drop_rate": 0.0,
        },
        {
            **TRUNK_FLIPS,
            "depth": 4,
            "num_classes": 3,
            "in_chans": 1,
            "img_size": 16,
            "patch_size": 4,
            "blocks": ("conv", "conv", "mixer"),
            "stem": "patch",
            "pos_embed": "sincos2d",
            "head_dim": 4,
            "qkv_bias": False,
            "mlp_act_last": True,
            "mlp_drop_rate": 0.5,
            "tokens_mlp_dim": 8,
            "channels_mlp_dim": 8,
            "shared_norm": False,
            "mixer_drop_rate": 0.5,
            "kernel_size": 3,
            "recurrent_dim": (8, {"blocks": ("lstm", "gru", "rnn")}),
            "bidirectional": (True, {"blocks": ("lstm", "mixer", "conv")}),
            "bn_eps": 0.1,
            "bn_momentum": 0.5,
            "final_norm": True,
            "norm_eps": 0.1,
            "act_layer": "relu",
            "global_pool": "max",
            "head_hidden_dims": (8,),
            "drop_rate": 0.5,
        },
    ),
    PixelTextConfig: (
        "text_pixels_mini_32",
        {**TRUNK, "img_size": 8},
        {**ENCODER_FLIPS, "in_chans": 1, "img_size": 16, "color": "palette", "pixel_pool": 4},
    ),
    TextClassifierConfig: (
        "text_mini",
        {**TRUNK, "vocab_size": 11, "max_len": 12},
        {**ENCODER_FLIPS, "vocab_size": 12, "max_len": 13, "pad_id": 0},
    ),
    LanguageModelConfig: (
        "lm_char_mini",
        {**TRUNK, "vocab_size": 11, "max_len": 12},
        {**TEXT_FLIPS, "vocab_size": 12, "max_len": 13, "tie_embeddings": False, "window": 2},
    ),
    Seq2SeqConfig: (
        "transformer_base",
        {
            **TRUNK,
            "vocab_size": 11,
            "max_len": 12,
            "proj_drop_rate": 0.0,
            "pos_drop_rate": 0.0,
        },
        {
            **TEXT_FLIPS,
            "norm_first": True,
            "final_norm": True,
            "act_layer": "gelu",
            "vocab_size": 12,
            "max_len": 11,  # the sinusoids are no parameters: felt by longer texts
            "decoder_depth": 3,
            "tie_embeddings": False,
            "pad_id": 1,
            "mlp_drop_rate": 0.5,
        },
    ),
    RecurrentLanguageModelConfig: (
        "lstm_music",
        {"vocab_size": 11, "embed_dim": 16, "hidden_dim": 16},
        {**RECURRENT_FLIPS, "tie_embeddings": True},
    ),
    RecurrentSeq2SeqConfig: (
        "lstm_seq2seq",
        {"vocab_size": 11, "embed_dim": 16, "hidden_dim": 16, "drop_rate": 0.0},
        {
            **RECURRENT_FLIPS,
            "tie_embeddings": False,
            "attention": True,
            "bidirectional": False,
            "pad_id": 1,
        },
    ),
}
CASES = [
    pytest.param(config, field, id=f"{config.__name__}-{field}")
    for config, (_, _, flips) in KNOBS.items()
    for field in flips
]


def inputs_of(config: type[ModelConfig]) -> list[Tensor]:
    """Inputs in two sizes."""
    draw = torch.Generator().manual_seed(0)
    if "vocab_size" in config.model_fields:
        return [_padded(torch.randint(0, 11, (4, n), generator=draw)) for n in (12, 5)]
    return [torch.rand(4, 3, n, n, generator=draw) for n in (8, 16)]


def _padded(ids: Tensor) -> Tensor:
    """Word 0 behind all others: as padding it stands at the end."""
    return ids.sort(dim=1, descending=True).values


def answer(model: nn.Module, value: Tensor) -> Tensor | str:
    torch.manual_seed(3)
    try:
        # What translates gets the same words as targets.
        out: Tensor = model(value, value) if hasattr(model, "encode") else model(value)
    except ValueError as error:
        return str(error)
    return out.detach()


def differs(a: Tensor | str, b: Tensor | str) -> bool:
    if isinstance(a, str) or isinstance(b, str):
        return not (isinstance(a, str) and isinstance(b, str))
    return a.shape != b.shape or not torch.allclose(a, b, rtol=1e-4, atol=1e-6)


def what_changed(config: type[ModelConfig], base: nn.Module, flipped: nn.Module) -> str:
    """The first thing that tells two models apart, or nothing."""
    shapes = [{k: v.shape for k, v in model.state_dict().items()} for model in (base, flipped)]
    trained = [{k: p.requires_grad for k, p in m.named_parameters()} for m in (base, flipped)]
    if shapes[0] != shapes[1] or trained[0] != trained[1]:
        return "parameters"
    with torch.no_grad():
        for p in base.parameters():
            p.add_(0.3 * torch.randn_like(p))
    flipped.load_state_dict(base.state_dict())
    for mode in ("evaluation", "training"):
        for value in inputs_of(config):
            answers = [answer(m.train(mode == "training"), value) for m in (base, flipped)]
            if differs(answers[0], answers[1]):
                return mode
    kept = [model.state_dict().values() for model in (base, flipped)]
    return "" if all(map(torch.equal, *kept)) else "statistics"


def first_weights(name: str, kwargs: dict[str, Any], config: type[ModelConfig]) -> list[Tensor]:
    """What a training begins with."""
    torch.manual_seed(0)
    model: Any = create_model(name, **kwargs)
    if getattr(model, "wants_images", False):
        model.init_from_images(inputs_of(config)[0])
    return list(model.state_dict().values())


@pytest.mark.parametrize(("config", "field"), CASES)
def test_a_flip_is_felt(config: type[ModelConfig], field: str) -> None:
    name, base, flips = KNOBS[config]
    flip = flips[field]
    needs_more = isinstance(flip, tuple) and isinstance(flip[-1], dict)
    value, more = flip if needs_more else (flip, {})
    base = {**base, **more}
    if field in STARTS:
        starts = [first_weights(name, {**base, **some}, config) for some in ({}, {field: value})]
        assert not all(map(torch.equal, *starts))
        return
    torch.manual_seed(0)
    changed = what_changed(
        config, create_model(name, **base), create_model(name, **{**base, field: value})
    )
    is_rate = field.endswith("_rate")
    expected = ("training",) if is_rate else ("parameters", "evaluation", "statistics")
    assert changed in expected


@pytest.mark.parametrize("config", KNOBS, ids=lambda config: config.__name__)
def test_no_field_is_forgotten(config: type[ModelConfig]) -> None:
    unused = {"name", "weights", *getattr(config, "unused_fields", ())}
    known = {*KNOBS[config][2], *FIXED.get(config, {}), *FOLLOWED.get(config, {})}
    assert known == set(config.model_fields) - unused


def test_no_family_is_forgotten() -> None:
    assert set(KNOBS) | EXEMPT == set(CONFIGS.values())


@pytest.mark.parametrize(
    ("config", "field"), [(config, field) for config, fields in FIXED.items() for field in fields]
)
def test_another_value_of_what_is_fixed_is_refused(config: type[ModelConfig], field: str) -> None:
    name, base, _ = KNOBS[config]
    with pytest.raises(ConfigError, match=field):
        create_model(name, **{**base, field: FIXED[config][field]})


@pytest.mark.parametrize("config", FOLLOWED, ids=lambda config: config.__name__)
def test_what_data_are_made_to_fit_is_said_and_changes_nothing(config: type[ModelConfig]) -> None:
    name, base, _ = KNOBS[config]
    torch.manual_seed(0)
    flipped: Any = create_model(name, **{**base, **FOLLOWED[config]})
    for field, value in FOLLOWED[config].items():
        assert base[field] != value == getattr(flipped, field)
    assert what_changed(config, create_model(name, **base), flipped) == ""


@pytest.mark.parametrize("config", KNOBS, ids=lambda config: config.__name__)
def test_nothing_is_felt_without_a_flip(config: type[ModelConfig]) -> None:
    name, base, _ = KNOBS[config]
    torch.manual_seed(0)
    assert what_changed(config, create_model(name, **base), create_model(name, **base)) == ""
