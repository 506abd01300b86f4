"""From names to models; one clear line for everything that cannot be built."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import timm
import torch
from torch import nn

import vitkit.models as face
from vitkit.errors import ConfigError, UnknownNameError, VitkitError, WeightsError
from vitkit.models import create_model, list_models, register_model, validate_model
from vitkit.models.config import CONFIGS
from vitkit.models.presets import CUSTOM, PRESETS
from vitkit.models.registry import _BUILDERS, MODELS


@pytest.fixture
def linear_model() -> Iterator[str]:
    @register_model("my_linear")
    def my_linear(num_classes: int, in_chans: int = 3, img_size: int = 8, *, bias: bool = True):
        """One linear layer.

        More text.
        """
        size = in_chans * img_size**2
        return nn.Sequential(nn.Flatten(), nn.Linear(size, num_classes, bias=bias))

    yield "my_linear"
    for table in (CUSTOM, _BUILDERS):
        table.pop("my_linear", None)


def test_every_family_has_a_builder() -> None:
    assert set(MODELS) | {"custom"} == set(CONFIGS)


def test_by_name_by_alias_and_by_config() -> None:
    with torch.device("meta"):
        for model in ("vit_tiny_patch16_224", "DeiT-Ti", validate_model({"name": "deit_tiny"})):
            built = create_model(model, depth=1, num_classes=7)
            assert len(built.blocks) == 1
            assert built(torch.zeros(2, 3, 224, 224)).shape == (2, 7)


def test_overrides_join_a_configs_own_fields() -> None:
    config = validate_model({"name": "vit_digits", "depth": 1, "weights": "somewhere.pt"})
    assert len(create_model(config, num_classes=3).blocks) == 1
    assert create_model(config, num_classes=3).num_classes == 3


def test_a_persons_own_module(linear_model: str) -> None:
    assert linear_model in list_models() and CUSTOM[linear_model] == "One linear layer."
    model = create_model(linear_model, num_classes=5, kwargs={"bias": False})
    assert model(torch.zeros(2, 3, 8, 8)).shape == (2, 5)
    assert len(list(model.parameters())) == 1
    with pytest.raises(ConfigError, match="num_classes"):
        create_model(linear_model)
    with pytest.raises(ConfigError, match="width"):
        create_model(linear_model, num_classes=5, kwargs={"width": 3})
    with pytest.raises(UnknownNameError, match=linear_model):
        create_model("my_liner")


@pytest.mark.parametrize("name", ["vit_digits", "vit_b_16", "timm/mine"])
def test_taken_names(name: str) -> None:
    with pytest.raises(ValueError, match="taken"):
        register_model(name)


def test_listing() -> None:
    assert set(list_models()) >= set(PRESETS)
    assert list_models("cvt_*") == ["cvt_6_4_32", "cvt_7_4_32"]
    timms = list_models("timm/resnet18*")
    assert "timm/resnet18" in timms and all(name.startswith("timm/resnet18") for name in timms)


@pytest.mark.parametrize(
    ("name", "overrides", "words"),
    [
        ("vit_tiny_patch4_32", {"img_size": 30}, ["30 x 30", "4 x 4", "32 x 32"]),
        ("vit_lite_6_patch4_32", {"img_size": (32, 30)}, ["32 x 30", "multiple"]),
        ("text_pixels_mini_32", {"img_size": 31}, ["31 x 31", "pixel_pool 2"]),
        ("text_pixels_lra_32", {"in_chans": 2}, ["2 channels", "1 or 3"]),
        ("text_pixels_lra_32", {"color": "rgb", "in_chans": 1}, ["'rgb'", "1 channels"]),
        ("vit_tiny_patch4_32", {"num_heads": 5}, ["192", "5"]),
        ("vit_tiny_patch4_32", {"class_token": False}, ["class_token"]),
        ("text_mini", {"global_pool": "token"}, ["class_token"]),
        ("vit_tiny_patch4_32", {"head_dim": 6, "pos_embed": "rotary"}, ["6"]),
        ("lm_char_mini", {"num_kv_heads": 3}, ["num_kv_heads 3", "num_heads 4"]),
        ("vit_tiny_patch4_32", {"dept": 3}, ["'dept'", "depth"]),
        ("vit_tiny_patch4_32", {"depth": "3"}, ["depth", "'3'", "integer"]),
        ("vit_tiny_patch4_32", {"drop_rate": 2.0}, ["drop_rate", "2.0", "less than 1"]),
        ("vit_tiny_patch4_32", {"weights": "x.pt"}, ["load_weights"]),
        ("nb03_mixer_vit", {"img_size": 60}, ["60 x 60", "8 x 8", "64 x 64"]),
        ("nb03_mixer_vit", {"blocks": ["mixer", "pool"]}, ["blocks", "pool", "conv"]),
        ("timm/resnet18", {"kwargs": {"no_such": 1}}, ["resnet18", "no_such"]),
    ],
)
def test_one_line_for_each_fault(name: str, overrides: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        create_model(name, **overrides)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_several_faults_are_all_listed() -> None:
    with pytest.raises(ConfigError) as caught:
        create_model("vit_tiny_patch4_32", dept=3, embed_dim=-1, norm_layer="batch")
    assert len(caught.value.faults) == 3


@pytest.mark.parametrize("name", ["vit_nano", "timm/resnet18000"])
def test_unknown_names(name: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        create_model(name)
    assert isinstance(caught.value, VitkitError) and "\n" not in str(caught.value)


def test_timm_models_fit_the_data() -> None:
    with torch.device("meta"):
        conv = create_model("timm/resnet10t", num_classes=7, in_chans=1, img_size=40)
        vit = create_model(
            "timm/vit_tiny_patch16_224", num_classes=7, img_size=(32, 48), kwargs={"depth": 1}
        )
        assert conv(torch.zeros(2, 1, 40, 40)).shape == (2, 7)
        assert vit(torch.zeros(2, 3, 32, 48)).shape == (2, 7)


def test_timm_weights_are_fetched_only_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def create(name: str, pretrained: bool, **kwargs: object) -> nn.Module:
        asked.append(pretrained)
        if pretrained:
            raise OSError("no network\nsecond line")
        return nn.Identity()

    monkeypatch.setattr(timm, "create_model", create)
    create_model("timm/resnet18")
    with pytest.raises(WeightsError, match="no network") as caught:
        create_model("timm/resnet18", pretrained=True)
    assert asked == [False, True] and "\n" not in str(caught.value)


def test_the_lazy_face() -> None:
    assert set(face.__all__) <= set(dir(face))
    for name in face.__all__:
        assert getattr(face, name) is not None
    with pytest.raises(AttributeError, match="no_such"):
        face.no_such  # noqa: B018
