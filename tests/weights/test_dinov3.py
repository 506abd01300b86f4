"""DINOv3 in its three layouts, against transformers and timm: random weights, the same numbers.

What is asked for is a relative error of 1e-5 in float32.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers as hf
from timm.layers import LayerNorm
from timm.models.eva import Eva, checkpoint_filter_fn
from torch import Tensor, nn

import vitkit
from tests.weights.foreign import images, worst
from vitkit.errors import WeightsError
from vitkit.models import create_model
from vitkit.models.presets import PRESETS
from vitkit.nn import record_attention
from vitkit.weights.formats import recognise, stranger
from vitkit.weights.shapes import infer_section
from vitkit.weights.stated import from_config

TOLERANCE = 1e-5
SIZES = [(32, 32), (48, 24), (24, 64)]
HF: dict[str, Any] = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
HF |= {"patch_size": 8, "image_size": 32, "intermediate_size": 512}
GATED: dict[str, Any] = {"use_gated_mlp": True, "hidden_act": "silu", "intermediate_size": 352}
KINDS: dict[str, dict[str, Any]] = {
    "registers": {"num_register_tokens": 4},
    "no registers": {},
    "gated": {"num_register_tokens": 4, **GATED},
    "gated without biases": {"query_bias": False, "value_bias": False, **GATED},
    "bias of q alone": {"value_bias": False, "num_register_tokens": 1},
    "biases of all": {"key_bias": True},
}
EVA: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 128, "depth": 2}
EVA |= {"num_heads": 2, "num_classes": 0, "dynamic_img_size": True, "init_values": 1e-5}
EVA |= {"rope_type": "dinov3", "rope_temperature": 100, "rope_rotate_half": True}
EVA |= {"use_rot_pos_emb": True, "use_abs_pos_emb": False, "num_reg_tokens": 4}
EVA |= {"use_fc_norm": False, "norm_layer": partial(LayerNorm, eps=1e-5)}
ALIGNED: dict[str, Any] = {"swiglu_mlp": True, "swiglu_align_to": 8, "mlp_ratio": 2.7}
EVAS: dict[str, dict[str, Any]] = {
    "biases": {},
    "no biases": {"qkv_bias": False},
    "gated": ALIGNED,
    "gated without biases": {**ALIGNED, "qkv_bias": False},
}
PUBLISHED = [name for name in PRESETS if "dinov3" in name]
FACTORS = ("norm1.weight", "norm2.weight", "norm.weight", "lambda1", "gamma_1", "gamma_2")


def noisy(model: nn.Module) -> nn.Module:
    """Noise everywhere, so large that each part of a block is felt behind it."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.3 * noise if name.endswith(FACTORS) else 0.1 * noise)
    return model.eval()


def transformers_model(**more: Any) -> Any:
    return noisy(hf.DINOv3ViTModel(hf.DINOv3ViTConfig(**{**HF, **more})))


def timm_model(**more: Any) -> Any:
    return noisy(Eva(**{**EVA, **more}))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_same_numbers_as_transformers(kind: str, size: tuple[int, int]) -> None:
    theirs = transformers_model(**KINDS[kind])
    loaded = vitkit.load_model(theirs.state_dict())
    assert loaded.report.format == "Hugging Face DINOv3"
    assert not loaded.report.new
    assert loaded.report.unused == ["embeddings.mask_token"]
    x = images(size)
    wanted = theirs(x)
    assert worst(loaded.model.forward_features(x), wanted.last_hidden_state) <= TOLERANCE
    assert worst(loaded.model(x), wanted.pooler_output) <= TOLERANCE


@torch.no_grad()
def test_positions_are_felt_in_these_tests() -> None:
    state, x = transformers_model(**KINDS["registers"]).state_dict(), images()
    with_them = vitkit.load_model(state).model.forward_features(x)
    without = vitkit.load_model(state, pos_embed="none").model.forward_features(x)
    others = vitkit.load_model(state, pos_embed="rotary").model.forward_features(x)
    assert min(worst(without, with_them), worst(others, with_them)) > 100 * TOLERANCE


@torch.no_grad()
def test_a_folder_of_hugging_face(tmp_path: Path) -> None:
    more = {"num_attention_heads": 4, "layer_norm_eps": 1e-3, "rope_theta": 50.0}
    theirs = transformers_model(**KINDS["gated"], **more)
    theirs.save_pretrained(tmp_path)
    loaded = vitkit.load_model(tmp_path)
    assert loaded.report.format == "Hugging Face DINOv3"
    assert loaded.section["num_heads"] == 4
    assert loaded.section["norm_eps"] == 1e-3
    assert loaded.section["rope_base"] == 50.0
    assert loaded.section["img_size"] == [32, 32]
    assert loaded.preprocessing.mean == (0.485, 0.456, 0.406)
    assert loaded.preprocessing.crop_mode == "squash"
    assert loaded.preprocessing.interpolation == "bilinear"
    for size in SIZES:
        x = images(size)
        wanted = theirs(x).last_hidden_state
        assert worst(loaded.model.forward_features(x), wanted) <= TOLERANCE


def test_a_gate_of_another_kind_is_refused() -> None:
    config = {"model_type": "dinov3_vit", "use_gated_mlp": True, "hidden_act": "gelu"}
    with pytest.raises(WeightsError, match=r"'gelu' of a gated MLP; vitkit's gate has silu"):
        from_config(config)
    plain = from_config({**config, "use_gated_mlp": False, "rope_theta": 100})
    assert plain.arguments == {"act_layer": "gelu", "rope_base": 100.0}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", EVAS)
@torch.no_grad()
def test_same_numbers_as_timm(kind: str, size: tuple[int, int]) -> None:
    theirs = timm_model(**EVAS[kind])
    loaded = vitkit.load_model(theirs.state_dict())
    assert loaded.report.format == "timm DINOv3"
    assert not loaded.report.new and not loaded.report.unused
    x = images(size)
    assert worst(loaded.model.forward_features(x), theirs.forward_features(x)) <= TOLERANCE


@torch.no_grad()
def test_a_head_of_timms_and_its_pooling(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = timm_model(num_classes=5, global_pool="token")
    x = images()
    assert worst(vitkit.load_model(theirs.state_dict()).model(x), theirs(x)) <= TOLERANCE
    # By name the model is there, and says what it pools.
    theirs = timm_model(num_classes=5, num_heads=4)
    monkeypatch.setattr(timm, "create_model", lambda *args, **more: theirs)
    loaded = vitkit.load_model("timm/vit_small_patch16_dinov3_qkvb")
    assert loaded.section["global_pool"] == "avg"
    assert loaded.section["num_heads"] == 4
    assert worst(loaded.model(x), theirs(x)) <= TOLERANCE


def test_other_models_of_timms_class_are_not_taken_for_it() -> None:
    others: list[dict[str, Any]] = [
        {"num_reg_tokens": 0},
        {"class_token": False, "global_pool": "avg"},
        {"use_abs_pos_emb": True},
        {"attn_type": "rope"},
        {"rope_type": "mixed", "rope_rotate_half": False},
    ]
    for more in others:
        shapes = {n: tuple(t.shape) for n, t in Eva(**{**EVA, **more}).state_dict().items()}
        found = recognise(shapes)
        assert found is None or found.name != "timm DINOv3", more
        assert stranger(shapes) == ("BEiT or EVA" if "pos_embed" in shapes else "")


def _published(state: dict[str, Tensor], *, gated: bool, heads: int) -> dict[str, Tensor]:
    """timm's names as facebookresearch/dinov3 has them, with noise where a mask hides it."""
    out = {"mask_token": torch.zeros(1, 128), "local_cls_norm.weight": torch.ones(128)}
    out["rope_embed.periods"] = (100 ** (torch.arange(32 // heads) / (32 / heads))).bfloat16()
    parts = {"fc1_g": "w1", "fc1_x": "w2", "fc2": "w3"} if gated else {}
    for name, tensor in state.items():
        for timms, other in {"gamma_1": "ls1.gamma", "gamma_2": "ls2.gamma", **parts}.items():
            name = name.replace(timms, other)
        if name.endswith("q_bias"):
            block = name.removesuffix("q_bias")
            v = state[f"{block}v_bias"]
            out[f"{block}qkv.bias"] = torch.cat([tensor, torch.randn(128), v])
            ones, zeros = torch.ones(128), torch.zeros(128)
            out[f"{block}qkv.bias_mask"] = torch.cat([ones, zeros, ones])
        elif not name.endswith("v_bias"):
            out[name.replace("reg_token", "storage_tokens")] = tensor
    return out


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("kind", EVAS)
@torch.no_grad()
def test_as_its_authors_publish_it(kind: str, wrapped: bool) -> None:
    giver = timm_model(num_heads=4, **EVAS[kind])
    state = _published(giver.state_dict(), gated="gated" in kind, heads=4)
    theirs = Eva(**{**EVA, "num_heads": 4, **EVAS[kind]}).eval()
    theirs.load_state_dict(checkpoint_filter_fn(dict(state), theirs))
    source: Any = state
    if wrapped:
        teacher = {f"backbone.{name}": tensor for name, tensor in state.items()}
        source = {"teacher": {**teacher, "dino_head.last.weight": torch.zeros(3)}}
    loaded = vitkit.load_model(source)
    assert loaded.report.format == "DINOv3"
    assert loaded.section["num_heads"] == 4, "the wavelengths are as many as a head has room for"
    assert loaded.section["rope_base"] == 100.0
    assert loaded.section["img_size"] == [128, 128]
    assert "num_heads" not in " ".join(loaded.report.notes)
    assert {"mask_token", "rope_embed.periods", "local_cls_norm.weight"} <= set(
        loaded.report.unused
    )
    for size in SIZES:
        x = images(size)
        assert worst(loaded.model.forward_features(x), theirs.forward_features(x)) <= TOLERANCE


@torch.no_grad()
def test_a_mask_that_was_never_filled_hides_the_keys_biases_too() -> None:
    state = _published(timm_model().state_dict(), gated=False, heads=2)
    wanted = vitkit.load_model(state).model(images())
    masks = [name for name in state if name.endswith("bias_mask")]
    state |= {name: torch.full((384,), float("nan")) for name in masks}
    assert len(masks) == 2
    assert torch.equal(vitkit.load_model(state).model(images()), wanted)


def test_wavelengths_of_another_base_and_of_none() -> None:
    state = _published(timm_model().state_dict(), gated=False, heads=2)
    base = 30 ** (torch.arange(16) / 16)
    found = vitkit.load_model({**state, "rope_embed.periods": base}).section["rope_base"]
    assert found == pytest.approx(30.0, rel=1e-4)
    with pytest.raises(WeightsError, match=r"rope_embed\.periods runs from 1 to 50 and is not"):
        vitkit.load_model({**state, "rope_embed.periods": torch.linspace(1, 50, 16)})


def test_a_norm_for_the_class_token_alone_is_an_error() -> None:
    state = _published(timm_model().state_dict(), gated=False, heads=2)
    with pytest.raises(WeightsError, match=r"cls_norm\.weight: not in the model"):
        vitkit.load_model({**state, "cls_norm.weight": torch.ones(128)})


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_are_timms_and_are_found_again(name: str) -> None:
    with torch.device("meta"):
        theirs = timm.create_model(name, num_classes=0).state_dict()
        ours = create_model(name, num_classes=0).state_dict()
    found = recognise({key: tuple(tensor.shape) for key, tensor in theirs.items()})
    assert found is not None and found.name == "timm DINOv3"
    tensors = found.translate(theirs).tensors
    assert {k: v.shape for k, v in tensors.items()} == {k: v.shape for k, v in ours.items()}
    section = infer_section(tensors, found.arguments)
    assert section["name"] == name
    assert section["num_heads"] == PRESETS[name].kwargs["num_heads"]


def test_attention_maps_and_a_step_of_training() -> None:
    model: Any = vitkit.load_model(
        transformers_model(**KINDS["gated"]).state_dict(), num_classes=3, img_size=(24, 32)
    ).model
    with record_attention(model) as maps, torch.no_grad():
        model(images((24, 32)))
    assert [tuple(each.shape) for each in maps.values()] == [(2, 2, 17, 17)] * 2
    torch.testing.assert_close(maps[0].sum(-1), torch.ones(2, 2, 17))
    optimizer = torch.optim.SGD(model.train().parameters(), lr=1e-3)
    losses = []
    for _ in range(4):
        loss = nn.functional.cross_entropy(model(images((24, 32))), torch.tensor([0, 2]))
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
