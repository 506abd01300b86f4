"""Names: every spelling leads to one preset, and nothing here imports torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from vitkit.errors import UnknownNameError
from vitkit.models.presets import (
    ALIASES,
    DEFAULT_MODEL,
    FAMILIES,
    PRESETS,
    family_of,
    matching_names,
    resolve_name,
)


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("vit_b_16", "vit_base_patch16_224"),
        ("vit_l_16", "vit_large_patch16_224"),
        ("ViT-B/16", "vit_base_patch16_224"),
        ("ViT-Ti/16", "vit_tiny_patch16_224"),
        ("google/vit-base-patch16-224", "vit_base_patch16_224"),
        ("deit_tiny_patch16_224", "vit_tiny_patch16_224"),
        ("DeiT-S", "vit_small_patch16_224"),
        ("vit-lite-7/4", "vit_lite_7_patch4_32"),
        ("CVT-6/4", "cvt_6_4_32"),
        ("openai/clip-vit-base-patch32", "vit_base_patch32_clip_quickgelu_224"),
        ("openai/clip-vit-large-patch14-336", "vit_large_patch14_clip_quickgelu_336"),
        ("cct-7/3x1", "cct_7_3x1_32"),
        ("CCT_14_7x2", "cct_14_7x2_224"),
        ("VIT_TINY_PATCH4_32", "vit_tiny_patch4_32"),
        ("dinov3_vits16plus", "vit_small_plus_patch16_dinov3_qkvb"),
        ("dinov3_vit7b16", "vit_7b_patch16_dinov3"),
        ("timm/resnet18.a1_in1k", "timm/resnet18.a1_in1k"),
    ],
)
def test_spellings(spelling: str, name: str) -> None:
    assert resolve_name(spelling) == name


def test_every_alias_leads_to_a_preset_and_hides_none() -> None:
    assert set(ALIASES.values()) <= set(PRESETS)
    assert not set(ALIASES) & set(PRESETS)
    assert all(alias == alias.lower() for alias in ALIASES)


def test_every_preset_is_documented_and_of_a_known_family() -> None:
    assert DEFAULT_MODEL in PRESETS
    for name, preset in PRESETS.items():
        assert preset.doc, name
        assert preset.family == family_of(name)
        assert preset.family in FAMILIES


def test_unknown_name_offers_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="vit_tiny_patch4_32") as caught:
        resolve_name("vit_tny_patch4_32")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "timm/", "timm", "no such model at all"])
def test_nonsense_is_refused(name: str) -> None:
    with pytest.raises(UnknownNameError):
        resolve_name(name)


def test_patterns() -> None:
    assert matching_names("cct_7_3x1*") == ["cct_7_3x1_32", "cct_7_3x1_32_sine"]
    assert set(matching_names()) >= set(PRESETS)
    assert matching_names("*nothing*") == []


def test_names_and_configs_import_no_torch() -> None:
    code = (
        "import sys, vitkit.models, vitkit.models.presets, vitkit.models.config;"
        "vitkit.models.config.validate_model({'name': 'vit_b_16'}).constructor_kwargs();"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
