"""CLIP's image tower against timm's with QuickGELU, and what files and configs of it say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers as hf
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor, nn

import vitkit
from tests.weights.foreign import CLASSES, HF_VIT, TIMM, images, randomised, worst
from vitkit.app.pretrained import load_classifier
from vitkit.errors import WeightsError
from vitkit.models import create_model
from vitkit.weights.stated import Stated, from_config, with_processor

TOLERANCE = 1e-5
NAME = "vit_base_patch32_clip_quickgelu_224"
# timm's names -> OpenAI's.
_IN_BLOCK, _BLOCK = r"blocks\.(\d+)\.", r"transformer.resblocks.\1."
PUBLISHED = (
    (r"cls_token", "class_embedding"),
    (r"pos_embed", "positional_embedding"),
    (r"patch_embed\.proj\.", "conv1."),
    (r"norm_pre\.", "ln_pre."),
    (r"norm\.", "ln_post."),
    (_IN_BLOCK + r"norm(\d)\.", _BLOCK + r"ln_\2."),
    (_IN_BLOCK + r"attn\.qkv\.", _BLOCK + "attn.in_proj_"),
    (_IN_BLOCK + r"attn\.proj\.", _BLOCK + "attn.out_proj."),
    (_IN_BLOCK + r"mlp\.fc1\.", _BLOCK + "mlp.c_fc."),
    (_IN_BLOCK + r"mlp\.fc2\.", _BLOCK + "mlp.c_proj."),
    (r"head\.weight", "proj"),
)


def _timms(name: str = NAME, **more: Any) -> nn.Module:
    """timm's image tower at a small size, its projection without a bias as OpenAI's is."""
    model: Any = randomised(timm.create_model(name, **{**TIMM, **more}))
    nn.init.zeros_(model.head.bias)
    built: nn.Module = model
    return built


def _published(state: dict[str, Tensor], prefix: str = "visual.") -> dict[str, Tensor]:
    """timm's tensors as OpenAI publishes them."""
    out = {}
    for name, tensor in state.items():
        if name == "head.bias":
            continue
        fit = next((pair for pair in PUBLISHED if re.match(pair[0], name)), None)
        assert fit is not None, name
        theirs = re.sub(f"^{fit[0]}", fit[1], name)
        if theirs == "class_embedding":
            tensor = tensor[0, 0]
        elif theirs == "positional_embedding":
            tensor = tensor[0]
        elif theirs == "proj":
            tensor = tensor.T
        out[prefix + theirs] = tensor
    return out


TEXT = {
    "positional_embedding": torch.zeros(77, 16),
    "token_embedding.weight": torch.zeros(11, 16),
    "transformer.resblocks.0.attn.in_proj_weight": torch.zeros(48, 16),
    "ln_final.weight": torch.zeros(16),
    "text_projection": torch.zeros(16, CLASSES),
    "logit_scale": torch.zeros(()),
    "input_resolution": torch.tensor(32),
}


@pytest.mark.parametrize("size", [(32, 32), (48, 24)])
@torch.no_grad()
def test_openais_names_give_what_timms_conversion_gives(size: tuple[int, int]) -> None:
    published = _published(_timms().state_dict())
    theirs: Any = timm.create_model(NAME, **TIMM).eval()
    theirs.load_state_dict(checkpoint_filter_fn(dict(published), theirs))
    loaded = vitkit.load_model(published, img_size=size)
    assert loaded.report.format == "CLIP"
    assert not loaded.report.new and not loaded.report.unused
    if size != (32, 32):
        theirs.set_input_size(size)
    x = images(size)
    assert worst(loaded.model(x), theirs(x)) <= TOLERANCE
    wanted = {"act_layer": "quick_gelu", "norm_eps": 1e-5, "pre_norm": True, "num_heads": 2}
    assert wanted.items() <= loaded.section.items()
    assert loaded.preprocessing.mean == pytest.approx((0.48145466, 0.4578275, 0.40821073))
    assert loaded.preprocessing.crop_pct == 1.0


@torch.no_grad()
def test_the_text_tower_is_left_and_prefixes_do_not_matter() -> None:
    theirs = _timms()
    x, published = images(), _published(theirs.state_dict())
    wanted = theirs(x)
    whole = vitkit.load_model({**TEXT, **published})
    assert set(whole.report.unused) == set(TEXT)
    assert any("of the text tower" in note for note in whole.report.notes)
    wrapped = {f"module.{name}": tensor for name, tensor in {**TEXT, **published}.items()}
    for source in (wrapped, _published(theirs.state_dict(), prefix="")):
        assert worst(vitkit.load_model(source).model(x), wanted) <= TOLERANCE
    assert worst(whole.model(x), wanted) <= TOLERANCE
    halves = vitkit.load_model({name: tensor.half() for name, tensor in published.items()})
    assert halves.model.head.weight.dtype == torch.float32
    assert worst(halves.model(x), wanted) <= 5e-2


@torch.no_grad()
def test_what_the_names_leave_open_is_told_and_can_be_said(tmp_path: Path) -> None:
    theirs = _timms("vit_base_patch32_clip_224")
    published = _published(theirs.state_dict())
    notes = " | ".join(vitkit.load_model(published).report.notes)
    assert "activation taken to be QuickGELU" in notes
    assert "embeddings of images" in notes
    torch.save(published, tmp_path / "clip.pth")
    with pytest.raises(WeightsError, match="makes embeddings of images and no scores of classes"):
        load_classifier(tmp_path / "clip.pth")
    exact = vitkit.load_model(published, act_layer="gelu")
    assert "QuickGELU" not in " | ".join(exact.report.notes)
    x = images()
    assert worst(exact.model(x), theirs(x)) <= TOLERANCE
    assert worst(vitkit.load_model(published).model(x), theirs(x)) > 10 * TOLERANCE


@torch.no_grad()
def test_a_preset_takes_the_tower_and_begins_a_head_anew() -> None:
    theirs: Any = _timms()
    ours = create_model(NAME, **{**TIMM, "num_classes": 3}).eval()
    report = vitkit.load_weights(ours, {**TEXT, **_published(theirs.state_dict())})
    assert set(report.new) == {"head.weight", "head.bias"}
    x = images()
    assert worst(ours.forward_features(x), theirs.forward_features(x)) <= TOLERANCE


@torch.no_grad()
def test_timms_towers_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = _timms()
    monkeypatch.setattr(timm, "create_model", lambda name, **more: theirs)
    loaded = vitkit.load_model(f"timm/{NAME}.openai", img_size=32)
    assert loaded.section["act_layer"] == "quick_gelu"
    x = images()
    assert worst(loaded.model(x), theirs(x)) <= TOLERANCE


@torch.no_grad()
def test_hugging_faces_whole_model_is_its_image_tower() -> None:
    text = {"vocab_size": 11, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    text |= {"num_attention_heads": 2, "eos_token_id": 2, "bos_token_id": 1, "pad_token_id": 0}
    vision = {name: value for name, value in HF_VIT.items() if name != "num_labels"}
    config = hf.CLIPConfig(text_config=text, vision_config=vision, projection_dim=CLASSES)
    theirs: Any = randomised(hf.CLIPModel(config))
    loaded = vitkit.load_model(theirs.state_dict())
    assert loaded.report.format == "Hugging Face CLIP"
    assert "logit_scale" in loaded.report.unused
    x = images()
    pooled = theirs.vision_model(x).pooler_output
    assert worst(loaded.model(x), theirs.visual_projection(pooled)) <= TOLERANCE


def test_configs_of_clip_say_what_differs_from_the_first() -> None:
    first = from_config({"model_type": "clip", "vision_config": {"hidden_size": 768}}).arguments
    assert first == {
        "num_heads": 12,
        "norm_eps": 1e-5,
        "img_size": [224, 224],
        "act_layer": "quick_gelu",
    }
    again = {"hidden_act": "gelu", "num_attention_heads": 16, "image_size": 336}
    retrained = from_config({"model_type": "clip", "vision_config": again}).arguments
    assert retrained["act_layer"] == "gelu"
    assert (retrained["num_heads"], retrained["img_size"]) == (16, [336, 336])
    alone = from_config(hf.CLIPVisionConfig(num_attention_heads=3).to_dict()).arguments
    assert (alone["num_heads"], alone["act_layer"]) == (3, "quick_gelu")
    stated = from_config({"architecture": "vit_huge_patch14_clip_quickgelu_378"})
    assert stated.arguments["act_layer"] == "quick_gelu"
    assert stated.arguments["norm_eps"] == 1e-5


def test_a_bare_size_of_clips_processor_is_the_shorter_side() -> None:
    old = {"size": 40, "crop_size": 40, "do_center_crop": True}
    for kind, mode in (("CLIPFeatureExtractor", "center"), ("ViTFeatureExtractor", "squash")):
        stated = with_processor(Stated(), {**old, "feature_extractor_type": kind})
        assert stated.preprocessing["crop_mode"] == mode
