"""What weights do not say is guessed aloud; what they say elsewhere is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from safetensors.torch import save_file
from torch import Tensor

import vitkit
from tests.weights.foreign import HF_VIT, TIMM, images, randomised, worst
from vitkit.errors import WeightsError
from vitkit.models import DistilledVisionTransformer, VisionTransformer, create_model
from vitkit.weights import load_weights


def _notes(source: Any, **more: Any) -> str:
    return " | ".join(vitkit.load_model(source, **more).report.notes)


def test_heads_that_were_guessed_are_told() -> None:
    state = VisionTransformer(**{**TIMM, "num_heads": 4}).state_dict()
    assert "num_heads taken to be 2" in _notes(state)
    assert "num_heads" not in _notes(state, num_heads=4)
    assert vitkit.load_model(state, num_heads=4).section["num_heads"] == 4


@pytest.mark.parametrize("name", ["vit_mini_patch4_32", "vit_digits", "vit_tiny_patch16_224"])
def test_of_a_presets_shape_are_its_heads(name: str) -> None:
    model = create_model(name)
    loaded = vitkit.load_model(model.state_dict())
    assert loaded.section["num_heads"] == model.get_submodule("blocks.0.attn").num_heads
    assert "num_heads" not in " ".join(loaded.report.notes)


def test_a_file_without_positions_says_so() -> None:
    computed = randomised(VisionTransformer(**TIMM, pos_embed="sincos2d"))
    state = computed.state_dict()
    assert "built without positions" in _notes(state, num_heads=2)
    right = vitkit.load_model(state, num_heads=2, pos_embed="sincos2d", img_size=32)
    assert "positions" not in " ".join(right.report.notes)
    x = images()
    assert worst(right.model(x), computed(x)) <= 1e-5


def test_mean_and_deviation_that_nothing_says_are_told() -> None:
    model = VisionTransformer(**TIMM)
    assert any("mean 0.5 and std 0.5" in n for n in load_weights(model, model.state_dict()).notes)


def test_a_single_file_in_a_folder_is_what_its_config_says(tmp_path: Path) -> None:
    config = hf.ViTConfig(**{**HF_VIT, "num_attention_heads": 4, "layer_norm_eps": 1e-3})
    theirs = randomised(hf.ViTForImageClassification(config))
    theirs.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "weights.safetensors")
    loaded = vitkit.load_model(tmp_path)
    assert loaded.section["num_heads"] == 4
    assert "num_heads" not in " ".join(loaded.report.notes)
    x = images()
    assert worst(loaded.model(x), theirs(x).logits) <= 1e-5
    # The file by itself may be any folder's.
    alone = _notes(tmp_path / "weights.safetensors")
    assert "num_heads taken to be 2" in alone


@torch.no_grad()
def test_a_deit_whose_head_reads_the_class_token_alone() -> None:
    theirs = randomised(hf.DeiTForImageClassification(hf.DeiTConfig(**HF_VIT)))
    for more in ({}, {"img_size": 32}):
        loaded = vitkit.load_model(theirs.state_dict(), **more)
        assert loaded.report.new == []
        x = images()
        assert worst(loaded.model(x), theirs(x).logits) <= 1e-5
    # Into a distilled model it still goes; the second head is new, and the report says so.
    distilled = DistilledVisionTransformer(**_fields(loaded.section))
    report = load_weights(distilled, theirs.state_dict())
    assert report.new == ["head_dist.weight", "head_dist.bias"]


def _fields(section: dict[str, Any]) -> dict[str, Any]:
    kept = ("img_size", "patch_size", "embed_dim", "depth", "num_heads", "num_classes", "norm_eps")
    return {key: section[key] for key in kept}


def test_averaged_weights_of_a_training_file_come_first() -> None:
    first, averaged = VisionTransformer(**TIMM).state_dict(), VisionTransformer(**TIMM).state_dict()
    for content in (
        {"model": first, "model_ema": averaged},
        {"state_dict": first, "state_dict_ema": averaged, "epoch": 3},
        {"model": averaged, "model_ema": None},
    ):
        model = VisionTransformer(**TIMM)
        load_weights(model, content)
        assert torch.equal(model.state_dict()["head.weight"], averaged["head.weight"])
    with pytest.raises(WeightsError, match="the state dict holds no tensors"):
        load_weights(VisionTransformer(**TIMM), {"epoch": 3})  # type: ignore[dict-item]


def test_a_checkpoint_of_a_newer_version_is_refused_wherever_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "new.ckpt"
    torch.save({"vitkit": {"format_version": 99, "model": {}}, "state_dict": {}}, path)
    with pytest.raises(WeightsError, match=r"checkpoint format 99.*Update vitkit"):
        load_weights(VisionTransformer(**TIMM), path)
    with pytest.raises(WeightsError, match=r"checkpoint format 99.*Update vitkit"):
        vitkit.load_model(path, num_classes=3)


@torch.no_grad()
def test_an_encoder_goes_into_a_model_whose_norm_lies_behind_the_pooling() -> None:
    encoder = randomised(VisionTransformer(**{**TIMM, "num_classes": 0}))
    pooled = VisionTransformer(**TIMM, global_pool="avg")
    report = load_weights(pooled, encoder.state_dict())
    assert set(report.new) == {"fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias"}
    assert {"norm.weight", "norm.bias"} <= set(report.unused)
    assert any("new one behind it" in note for note in report.notes)
    # A classifier's norm is not let go of so lightly.
    whole = randomised(VisionTransformer(**TIMM))
    own = {"format_version": 1, "data": {"class_names": list("abcde")}}
    state = {f"model.{name}": tensor for name, tensor in whole.state_dict().items()}
    for source, names in (
        (whole.state_dict(), ()),
        ({"vitkit": own, "state_dict": state}, "abcde"),
        ({"vitkit": own, "state_dict": state}, "vwxyz"),
    ):
        with pytest.raises(WeightsError, match=r"norm\.weight: not in the model"):
            load_weights(pooled, source, class_names=names)  # type: ignore[arg-type]


def test_positions_of_a_stem_keep_the_grid_that_they_were_learned_on(tmp_path: Path) -> None:
    """7 x 28 cells are as many as 14 x 14: the source says which."""
    stem = [{"dim": 8, "pool": 2}, {"dim": 8, "pool": 2}]
    fields: dict[str, Any] = {"conv_stem": stem, "embed_dim": 32, "depth": 1, "num_heads": 2}
    fields |= {"num_classes": 3}
    wide = VisionTransformer(img_size=(28, 112), **fields)
    content = {
        "vitkit": {"format_version": 1, "model": {"name": "vit", "img_size": [28, 112], **fields}},
        "state_dict": {f"model.{name}": tensor for name, tensor in wide.state_dict().items()},
    }
    torch.save(content, tmp_path / "stem.ckpt")
    same = VisionTransformer(img_size=(28, 112), **fields)
    assert load_weights(same, tmp_path / "stem.ckpt").resized == []
    assert torch.equal(same.state_dict()["pos_embed"], wide.state_dict()["pos_embed"])
    other = VisionTransformer(img_size=(56, 56), **fields)
    report = load_weights(other, tmp_path / "stem.ckpt")
    assert report.resized == ["pos_embed"]
    assert "square" not in " ".join(report.notes)


@torch.no_grad()
def test_positions_of_dinov2_are_stretched_by_a_tenth_of_a_cell_more() -> None:
    """facebookresearch/dinov2: the scale is (cells + 0.1) over the cells that were learned."""
    state = VisionTransformer(**{**TIMM, "num_classes": 0, "init_values": 1e-5}).state_dict()
    table: Tensor = torch.randn(1, 17, TIMM["embed_dim"])
    source = {**state, "pos_embed": table, "mask_token": torch.zeros(1, TIMM["embed_dim"])}
    loaded = vitkit.load_model(source, img_size=(56, 40))
    assert loaded.report.format == "DINOv2"
    rows, columns = _cubic(7, 4, 7.1 / 4), _cubic(5, 4, 5.1 / 4)
    cells = table[0, 1:].double().unflatten(0, (4, 4))
    wanted = torch.einsum("ra,cb,abd->rcd", rows, columns, cells).flatten(0, 1)
    got = loaded.model.state_dict()["pos_embed"][0, 1:]
    assert worst(got, wanted.float()) <= 1e-5


def _cubic(size: int, given: int, scale: float) -> Tensor:
    """Keys' interpolation with a = -0.75, the border repeated, as a matrix (size, given)."""
    out = torch.zeros(size, given, dtype=torch.float64)
    for row in range(size):
        at = (row + 0.5) / scale - 0.5
        first = int(at // 1)
        for cell in range(first - 1, first + 3):
            x = abs(at - cell)
            weight = (
                1.25 * x**3 - 2.25 * x**2 + 1 if x <= 1 else -0.75 * (x**3 - 5 * x**2 + 8 * x - 4)
            )
            out[row, min(max(cell, 0), given - 1)] += weight
    return out


def test_a_config_beside_several_files_is_not_taken_for_one_of_them(tmp_path: Path) -> None:
    for name in ("a.safetensors", "b.safetensors"):
        save_file(VisionTransformer(**TIMM).state_dict(), tmp_path / name)
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "vit_tiny_patch16_224"}))
    with pytest.raises(WeightsError, match=r"holds a\.safetensors, b\.safetensors"):
        vitkit.load_model(tmp_path)
    assert vitkit.load_model(tmp_path / "a.safetensors").section["embed_dim"] == 128
