"""Weights: timm's layout in, positions resampled, everything that does not fit named."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

import vitkit
from vitkit.errors import WeightsError
from vitkit.models.vit import VisionTransformer
from vitkit.weights import load_weights, read_tensors

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}


def _timm(num_classes: int = 5) -> timm.models.VisionTransformer:
    torch.manual_seed(0)
    model = timm.models.VisionTransformer(**SMALL, num_classes=num_classes).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", "dict"])
def test_timm_weights_give_timm_logits(suffix: str, tmp_path: Path) -> None:
    theirs, ours = _timm(), VisionTransformer(**SMALL, num_classes=5).eval()
    source: object = theirs.state_dict()
    if suffix != "dict":
        path = tmp_path / f"weights{suffix}"
        if suffix == ".pth":
            torch.save({"state_dict": theirs.state_dict()}, path)
        else:
            save_file(theirs.state_dict(), path)
        source = path
    report = vitkit.load_weights(ours, source)
    assert len(report.loaded) == len(theirs.state_dict())
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-5, atol=1e-5)


def test_positions_are_resampled_as_timm_does_and_another_head_is_new() -> None:
    theirs = _timm()
    sizes = {**SMALL, "img_size": (48, 24)}
    ours = VisionTransformer(**sizes, num_classes=3)
    report = load_weights(ours, theirs.state_dict())
    assert report.resized == ["pos_embed"]
    assert set(report.new) == {"head.weight", "head.bias"}
    theirs.set_input_size((48, 24))
    torch.testing.assert_close(ours.pos_embed, theirs.pos_embed, rtol=1e-5, atol=1e-6)
    assert any(line.startswith("resized") for line in report.lines())


def test_the_classifier_of_another_model_of_timm_is_new_too() -> None:
    theirs = timm.create_model("resnet10t", num_classes=7)
    ours = vitkit.create_model("timm/resnet10t", num_classes=3)
    report = load_weights(ours, theirs.state_dict())
    assert set(report.new) == {"fc.weight", "fc.bias"}
    assert torch.equal(ours.state_dict()["conv1.0.weight"], theirs.state_dict()["conv1.0.weight"])


def test_what_does_not_fit_is_named() -> None:
    state = _timm().state_dict()
    state["extra.weight"] = state.pop("norm.weight")
    ours = VisionTransformer(**SMALL, num_classes=5)
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    with pytest.raises(WeightsError, match=r"norm.weight: missing.*extra.weight: not in the model"):
        load_weights(ours, state)
    assert all(torch.equal(before[name], tensor) for name, tensor in ours.state_dict().items())
    report = load_weights(ours, state, strict=False)
    assert report.unused == ["extra.weight"]
    assert report.new == ["norm.weight"]
    wide = VisionTransformer(**{**SMALL, "embed_dim": 48}, num_classes=5)
    with pytest.raises(WeightsError, match="given"):
        load_weights(wide, _timm().state_dict())


def test_files_that_are_no_weights(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such weights file"):
        read_tensors(tmp_path / "none.pth")
    pointer = tmp_path / "pointer.safetensors"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(WeightsError, match="git-lfs pointer"):
        read_tensors(pointer)
    save_file({"a": torch.zeros(100)}, tmp_path / "a.safetensors")
    half = tmp_path / "half.safetensors"
    half.write_bytes((tmp_path / "a.safetensors").read_bytes()[:-100])
    with pytest.raises(WeightsError, match="half-downloaded"):
        read_tensors(half)
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0 a picture")
    (tmp_path / "empty.ckpt").touch()
    with zipfile.ZipFile(tmp_path / "letter.docx", "w") as archive:
        archive.writestr("word/document.xml", "<w/>")
    for name in ("photo.jpg", "empty.ckpt", "letter.docx"):
        with pytest.raises(WeightsError, match=f"{name} is not a checkpoint: neither"):
            read_tensors(tmp_path / name)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="expected a state dict"):
        read_tensors(tmp_path / "list.pth")
