"""Config classes: they know exactly the constructors' arguments, check them, and expand."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from pydantic import ValidationError

from vitkit.errors import UnknownNameError
from vitkit.models import (
    CausalLanguageModel,
    CifarResNet,
    CompactTransformer,
    EncoderDecoder,
    HybridClassifier,
    PixelTextClassifier,
    RecurrentLanguageModel,
    RecurrentSeq2Seq,
    TextTransformer,
    VisionTransformer,
)
from vitkit.models.config import (
    CONFIGS,
    CompactConfig,
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
    validate_model,
)
from vitkit.models.hybrid import BLOCKS
from vitkit.models.picture_config import BLOCK_KINDS
from vitkit.models.presets import DEFAULT_MODEL, FAMILIES, PRESETS
from vitkit.models.timm_baseline import build_timm

NOT_ARGUMENTS = {"name", "weights"}
NO_PICTURES = {"in_chans", "img_size", "num_classes"}


def arguments_of(constructor: Any) -> set[str]:
    return {key for key in inspect.signature(constructor).parameters if key not in ("self", "text")}


@pytest.mark.parametrize(
    ("config", "arguments"),
    [
        (ViTConfig, arguments_of(VisionTransformer)),
        (DistilledViTConfig, arguments_of(VisionTransformer)),
        (CompactConfig, arguments_of(CompactTransformer)),
        (HybridConfig, arguments_of(HybridClassifier)),
        (ResNetConfig, arguments_of(CifarResNet)),
        (TextClassifierConfig, arguments_of(TextTransformer) | {"in_chans", "img_size"}),
        (
            PixelTextConfig,
            arguments_of(PixelTextClassifier)
            | (arguments_of(TextTransformer) - {"vocab_size", "max_len", "pad_id"}),
        ),
        (
            LanguageModelConfig,
            arguments_of(CausalLanguageModel) | {"in_chans", "img_size", "num_classes"},
        ),
        (Seq2SeqConfig, arguments_of(EncoderDecoder) | NO_PICTURES),
        (RecurrentLanguageModelConfig, arguments_of(RecurrentLanguageModel) | NO_PICTURES),
        (RecurrentSeq2SeqConfig, arguments_of(RecurrentSeq2Seq) | NO_PICTURES),
        (TimmConfig, arguments_of(build_timm) - {"model"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_fields_are_the_constructors_arguments(
    config: type[ModelConfig], arguments: set[str]
) -> None:
    assert set(config.model_fields) - NOT_ARGUMENTS == arguments


def test_every_field_has_a_line_for_people() -> None:
    assert set(CONFIGS) == set(FAMILIES)
    for config in CONFIGS.values():
        for key, field in config.model_fields.items():
            assert field.description and "\n" not in field.description, key


@pytest.mark.parametrize("name", PRESETS)
def test_presets_pass_their_own_checks(name: str) -> None:
    preset = PRESETS[name]
    config = validate_model({"name": name, **preset.kwargs})
    assert type(config) is CONFIGS[preset.family]
    assert config.constructor_kwargs() == preset.kwargs
    assert validate_model({"name": name}).constructor_kwargs() == preset.kwargs


def test_given_fields_overlay_the_preset() -> None:
    config = validate_model({"name": "ViT-B/16", "img_size": [64, 32], "class_token": False})
    assert config.name == "vit_base_patch16_224"
    kwargs = config.constructor_kwargs()
    assert kwargs["img_size"] == (64, 32)
    assert kwargs["class_token"] is False
    assert kwargs["embed_dim"] == 768
    assert "weights" not in kwargs and "name" not in kwargs


def test_without_a_name_it_is_the_default_model() -> None:
    assert validate_model({"depth": 3}).name == DEFAULT_MODEL


def test_timm_names_and_arguments() -> None:
    config = validate_model({"name": "timm/resnet18", "kwargs": {"stem_width": 16}})
    assert config.constructor_kwargs() == {
        "model": "resnet18",
        "pretrained": False,
        "kwargs": {"stem_width": 16},
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("depth", 0),
        ("depth", "3"),
        ("depth", 3.5),
        ("depth", True),
        ("num_classes", -1),
        ("drop_rate", 1.0),
        ("attn_drop_rate", -0.1),
        ("global_pool", "mean"),
        ("norm_layer", "batchnorm"),
        ("class_token", "yes"),
        ("img_size", 0),
        ("img_size", [32]),
        ("img_size", [32, "32"]),
        ("img_size", True),
        ("rope_ref_grid", 14),
        ("no_such_field", 1),
    ],
)
def test_faults_name_their_field_once(field: str, value: object) -> None:
    with pytest.raises(ValidationError) as caught:
        validate_model({"name": "vit_tiny_patch4_32", field: value})
    assert [fault["loc"] for fault in caught.value.errors()] == [(field,)]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("blocks", "mixer"),
        ("blocks", []),
        ("blocks", ["mixer", "pool"]),
        ("head_hidden_dims", 64),
        ("head_hidden_dims", [64, 0]),
        ("bn_momentum", 0.0),
        ("bn_momentum", 1.5),
        ("mixer_drop_rate", 1.0),
    ],
)
def test_faults_of_lists_name_their_field_once(field: str, value: object) -> None:
    with pytest.raises(ValidationError) as caught:
        validate_model({"name": "nb02_mixer", field: value})
    assert [fault["loc"] for fault in caught.value.errors()] == [(field,)]


def test_the_kinds_of_block_are_those_that_can_be_built() -> None:
    assert set(BLOCK_KINDS) == set(BLOCKS)


def test_all_faults_at_once() -> None:
    section = {"name": "cct_2_3x2_32", "kernel_sise": 3, "depth": "two", "mlp_ratio": 0}
    with pytest.raises(ValidationError) as caught:
        validate_model(section)
    assert {fault["loc"][0] for fault in caught.value.errors()} == {
        "kernel_sise",
        "depth",
        "mlp_ratio",
    }


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("text_mini", "img_size"),
        ("lm_char_mini", "num_classes"),
        ("lm_char_mini", "in_chans"),
        ("transformer_tiny", "num_classes"),
        ("lstm_music", "img_size"),
        ("lstm_seq2seq", "in_chans"),
    ],
)
def test_text_models_refuse_picture_fields(name: str, field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        validate_model({"name": name, field: 3})


def test_a_name_that_is_no_text_or_unknown() -> None:
    with pytest.raises(ValidationError, match="string"):
        validate_model({"name": 3})
    with pytest.raises(UnknownNameError):
        validate_model({"name": "vit_nano"})


def test_a_config_of_another_family_is_refused() -> None:
    with pytest.raises(ValidationError, match="of the family 'compact', not 'vit'"):
        ViTConfig(name="cct_2_3x2_32")


def test_configs_are_frozen_and_survive_plain_values() -> None:
    config = validate_model({"name": "vit_tiny_patch4_32", "img_size": [16, 32]})
    with pytest.raises(ValidationError, match="frozen"):
        config.num_classes = 3  # type: ignore[misc]
    plain = config.model_dump(mode="json", exclude_none=True)
    assert validate_model(plain) == config
