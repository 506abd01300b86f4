"""Weights: timm's layout in, positions resampled, everything that does not fit named."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

import vitkit
from vitkit.errors import WeightsError
from vitkit.models import PixelTextClassifier, create_model
from vitkit.models.vit import VisionTransformer
from vitkit.weights import LoadReport, load_weights, read_file

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


class _Own(nn.Module):
    """A person's own net, which says what classifies."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.body = nn.Linear(4, 6)
        self.fc = nn.Linear(6, num_classes) if num_classes else nn.Identity()

    def get_classifier(self) -> nn.Module:
        return self.fc


PIXELS = {"img_size": 4, "in_chans": 1, "embed_dim": 8, "depth": 1, "num_heads": 2}
OTHER_HEADS: dict[str, tuple[str, Callable[[int], nn.Module]]] = {
    "resnet": ("linear", lambda n: create_model("resnet20_32", num_classes=n)),
    "pixels": ("text.head", lambda n: PixelTextClassifier(num_classes=n, **PIXELS)),
    "own": ("fc", _Own),
}


@pytest.mark.parametrize("kind", OTHER_HEADS)
def test_a_classifier_of_another_name_stays_or_is_left_out(kind: str) -> None:
    head, make = OTHER_HEADS[kind]
    names, state = {f"{head}.weight", f"{head}.bias"}, make(10).state_dict()
    wide = make(100)
    report = load_weights(wide, state)
    assert set(report.new) == names and set(report.loaded) == set(state) - names
    assert wide.state_dict()[f"{head}.weight"].shape[0] == 100
    assert set(load_weights(make(0), state).unused) == names
    begun = make(10)
    headless = {name: tensor for name, tensor in state.items() if name not in names}
    assert set(load_weights(begun, headless).new) == names


def test_names_that_were_written_over_may_come_from_anywhere() -> None:
    report = LoadReport(loaded=["a", "b", "c"])
    report.begin_anew((name for name in ("a", "c")), "zeroed")
    assert report.loaded == ["b"] and report.new == ["a", "c"]


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
        read_file(tmp_path / "none.pth")
    pointer = tmp_path / "pointer.safetensors"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(WeightsError, match="git-lfs pointer"):
        read_file(pointer)
    save_file({"a": torch.zeros(100)}, tmp_path / "a.safetensors")
    half = tmp_path / "half.safetensors"
    half.write_bytes((tmp_path / "a.safetensors").read_bytes()[:-100])
    with pytest.raises(WeightsError, match="half-downloaded"):
        read_file(half)
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0 a picture")
    (tmp_path / "empty.ckpt").touch()
    with zipfile.ZipFile(tmp_path / "letter.docx", "w") as archive:
        archive.writestr("word/document.xml", "<w/>")
    for name in ("photo.jpg", "empty.ckpt", "letter.docx"):
        with pytest.raises(WeightsError, match=f"{name} is not a checkpoint: neither"):
            read_file(tmp_path / name)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="expected a state dict"):
        read_file(tmp_path / "list.pth")
