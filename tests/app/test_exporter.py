"""Out of vitkit: other libraries load the folder and give the same logits.

Relative errors seen are below 5e-7 in timm, transformers, onnxruntime and torch.export.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers as hf
from safetensors import SafetensorError
from torch import nn

import vitkit
from tests.conftest import Command
from tests.weights.foreign import images, randomised, worst
from vitkit.app import exporter
from vitkit.config import RunConfig
from vitkit.data.info import DataInfo
from vitkit.data.preprocess import Preprocessing
from vitkit.errors import ConfigError, RunError, WeightsError
from vitkit.models import create_model
from vitkit.weights import FORMAT_VERSION, programs

TOLERANCE = 1e-5
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
NAMES = ("ant", "bee", "cat", "dog", "eel")
BASE: dict[str, Any] = {"img_size": [32, 32], "patch_size": 8, "embed_dim": 64, "depth": 2}
BASE |= {"num_heads": 4, "num_classes": 5, "in_chans": 3}
VIT: dict[str, Any] = {"name": "vit_base_patch16_224", **BASE}
DEIT: dict[str, Any] = {"name": "deit_base_distilled_patch16_224", **BASE}
OURS: dict[str, Any] = {"img_size": [32, 32], "num_classes": 5, "in_chans": 3}
DINOV3: dict[str, Any] = {"name": "vit_small_plus_patch16_dinov3", **BASE}
REGISTERS: dict[str, Any] = {"reg_tokens": 3, "init_values": 0.1}
MEAN_OF_NORMED: dict[str, Any] = {"global_pool": "avg", "fc_norm": False}


def _checkpoint(folder: Path, section: dict[str, Any]) -> tuple[nn.Module, Path]:
    """A model with random weights, and a checkpoint of ours that holds it."""
    rest = {key: value for key, value in section.items() if key != "name"}
    model = randomised(create_model(section["name"], **rest))
    (height, width), chans = section["img_size"], section["in_chans"]
    mean, std = MEAN[:chans], STD[:chans]
    info = DataInfo("pictures", NAMES, chans, (height, width), mean, std)
    preprocessing = Preprocessing((height, width), mean, std, chans, "bilinear", crop_pct=0.9)
    own = {
        "format_version": FORMAT_VERSION,
        "config": {"task": {}},
        "model": section,
        "data": info.to_dict(),
        "preprocessing": preprocessing.to_dict(),
        "averaged": None,
        "epoch": 1,
        "step": 10,
    }
    path = folder / "checkpoints" / "last.ckpt"
    path.parent.mkdir(parents=True)
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"state_dict": state, "vitkit": own}, path)
    return model, path


TO_TIMM: dict[str, dict[str, Any]] = {
    "plain": VIT,
    "not square": {**VIT, "img_size": [16, 40]},
    "registers": {**VIT, **REGISTERS},
    "registers without positions": {**VIT, **REGISTERS, "no_embed_class": True},
    "mean": {**VIT, "class_token": False, "global_pool": "avg"},
    "mean of normed": {**VIT, **MEAN_OF_NORMED},
    "map": {**VIT, "class_token": False, "global_pool": "map"},
    "sincos": {**VIT, "pos_embed": "sincos2d"},
    "no positions": {**VIT, "pos_embed": "none"},
    "swiglu": {**VIT, "mlp_layer": "swiglu", "mlp_ratio": 2.5},
    "epsilon": {**VIT, "norm_eps": 1e-5},
    "clip": {**VIT, "norm_eps": 1e-5, "pre_norm": True, "act_layer": "quick_gelu"},
    "odd": {
        **VIT,
        "qk_norm": True,
        "qkv_bias": False,
        "proj_bias": False,
        "act_layer": "relu",
        "pre_norm": True,
        "norm_layer": "rmsnorm",
        "in_chans": 1,
        "mlp_ratio": 3.3,
    },
    "distilled": DEIT,
    "distilled sincos": {**DEIT, "pos_embed": "sincos2d"},
    "timm": {"name": "timm/resnet18", "img_size": [32, 32], "num_classes": 5, "in_chans": 3},
}


@pytest.mark.parametrize("name", TO_TIMM)
@torch.no_grad()
def test_timm_gives_the_same_logits(name: str, tmp_path: Path) -> None:
    section = TO_TIMM[name]
    model, path = _checkpoint(tmp_path / "run", section)
    folder = vitkit.export(path, "timm", tmp_path / "out").folder
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    x = images(tuple(section["img_size"]), section["in_chans"])
    assert worst(theirs(x), model(x)) <= TOLERANCE
    data = timm.data.resolve_model_data_config(theirs)
    assert tuple(data["input_size"]) == (section["in_chans"], *section["img_size"])
    assert tuple(data["mean"]) == MEAN[: section["in_chans"]]
    assert data["interpolation"] == "bilinear"
    assert data["crop_pct"] == 0.9
    # And the way back.
    if section["name"] != "timm/resnet18":
        again = vitkit.load_model(folder)
        assert worst(again.model(x), model(x)) <= TOLERANCE
        assert again.class_names == NAMES


TO_HF: dict[str, dict[str, Any]] = {
    "plain": VIT,
    "not square": {**VIT, "img_size": [16, 40]},
    "grey without bias": {**VIT, "in_chans": 1, "qkv_bias": False, "act_layer": "gelu_tanh"},
    "positions on patches": {**VIT, "no_embed_class": True},
    "sincos": {**VIT, "pos_embed": "sincos2d"},
    "no positions": {**VIT, "pos_embed": "none"},
    "quick gelu": {**VIT, "act_layer": "quick_gelu"},
    "layerscale": {**VIT, "init_values": 0.1, "act_layer": "quick_gelu"},
    "token beside mean": {**VIT, "global_pool": "token_avg"},
    "registers, token beside mean": {**VIT, "global_pool": "token_avg", "reg_tokens": 2},
    "mean of normed": {**VIT, **MEAN_OF_NORMED},
    "registers": {**VIT, **REGISTERS},
    "registers without positions": {**VIT, **REGISTERS, "no_embed_class": True},
    "registers, mean": {**VIT, **MEAN_OF_NORMED, "reg_tokens": 2},
    "swiglu": {**VIT, "mlp_layer": "swiglu", "mlp_ratio": 2.75, "init_values": 0.1},
    "distilled": DEIT,
}


@pytest.mark.parametrize("name", TO_HF)
@torch.no_grad()
def test_hugging_face_gives_the_same_logits(name: str, tmp_path: Path) -> None:
    section = TO_HF[name]
    model, path = _checkpoint(tmp_path / "run", section)
    folder = vitkit.export(path, "hf", tmp_path / "out").folder
    auto: Any = hf.AutoModelForImageClassification
    theirs, told = auto.from_pretrained(folder, output_loading_info=True)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    x = images(tuple(section["img_size"]), section["in_chans"])
    assert worst(theirs.eval()(x).logits, model(x)) <= TOLERANCE
    assert [theirs.config.id2label[i] for i in range(5)] == list(NAMES)
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    assert processor["image_mean"] == list(MEAN[: section["in_chans"]])
    assert processor["resample"] == 2
    # And the way back.
    again = vitkit.load_model(folder)
    assert worst(again.model(x), model(x)) <= TOLERANCE
    assert again.class_names == NAMES


def test_the_folder_holds_what_it_should(tmp_path: Path) -> None:
    model, path = _checkpoint(tmp_path / "run", VIT)
    results = {"test/acc": 0.8125, "checkpoint": "last.ckpt", "data": "pictures", "seed": 3}
    (tmp_path / "run" / "results.json").write_text(json.dumps(results))
    result = vitkit.export(tmp_path / "run")
    assert result.folder == tmp_path / "run" / "export-safetensors"
    assert [file.name for file in result.files] == [
        *("README.md", "config.json", "model.safetensors", "preprocessor_config.json")
    ]
    card = (result.folder / "README.md").read_text()
    assert "| test/acc | 81.25% |" in card
    assert "seed: 3" in card
    assert "ant, bee, cat, dog, eel" in card
    loaded = vitkit.load_model(result.folder)
    assert loaded.class_names == NAMES
    assert loaded.preprocessing.crop_pct == 0.9
    assert torch.equal(loaded.model(images()), model(images()))
    with pytest.raises(RunError, match="not empty"):
        vitkit.export(path)
    (tmp_path / "mounted").mkdir()
    before = (tmp_path / "mounted").stat().st_ino
    there = vitkit.export(path, out=tmp_path / "mounted")
    assert before == (tmp_path / "mounted").stat().st_ino, "an empty folder stays the one it is"
    assert [file.name for file in there.files] == [file.name for file in result.files]
    results["checkpoint"] = "best.ckpt"
    (tmp_path / "run" / "results.json").write_text(json.dumps(results))
    again = vitkit.export(path, out=tmp_path / "other")
    assert "Not measured" in (again.folder / "README.md").read_text()


@pytest.mark.parametrize(
    ("format", "section", "says"),
    [
        ("hf", {"class_token": False, "global_pool": "avg"}, "no ViT without class token"),
        ("hf", {"pos_embed": "rotary"}, "no rotary positions"),
        ("hf", {"pos_embed": "rotary_centred"}, "no rotary positions"),
        ("hf", {"pos_embed": "relative"}, "no relative positions"),
        ("hf", {"norm_first": False}, "no post-norm blocks"),
        ("hf", {"qk_norm": True}, "no norm of q and k"),
        ("hf", {"init_values": 0.1, "mlp_ratio": 3.3}, "no MLP of 3.3 times the width"),
        ("hf", {"reg_tokens": 2, "img_size": [16, 32]}, "no pictures that are not square"),
        ("timm", {"pos_embed": "rotary"}, "no rotary positions"),
        ("timm", {"pos_embed": "rotary_centred"}, "no rotary positions"),
        ("timm", {"pos_embed": "relative"}, "no relative positions"),
        ("hf", {"pre_norm": True, "act_layer": "quick_gelu"}, "no norm before the blocks"),
        ("timm", {"global_pool": "token_avg"}, "no class token beside the mean as pooling"),
        ("timm", {"norm_eps": 1e-3}, "no norm epsilon of 0.001"),
        ("timm", {"head_dim": 8}, "no heads of another width"),
        ("timm", {"norm_first": False}, "no post-norm blocks"),
    ],
)
def test_what_cannot_be_exported_is_one_clear_error(
    format: str, section: dict[str, Any], says: str, tmp_path: Path
) -> None:
    _, path = _checkpoint(tmp_path / "run", {**VIT, **section})
    with pytest.raises(WeightsError, match=f"cannot be exported to .*{says}") as told:
        vitkit.export(path, format, tmp_path / "out")
    assert "\n" not in str(told.value)
    assert list(tmp_path.iterdir()) == [tmp_path / "run"]  # nothing is left behind


def test_into_the_folder_that_one_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, path = _checkpoint(tmp_path / "run", VIT)
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    vitkit.export(path, out=".")
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_a_full_disk_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, path = _checkpoint(tmp_path / "run", VIT)

    def full(*args: Any, **options: Any) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device")

    monkeypatch.setattr(exporter, "save_file", full)
    with pytest.raises(RunError, match=r"cannot write .*out: .*No space left"):
        vitkit.export(path, out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == [tmp_path / "run"]


@pytest.mark.parametrize("name", ["cct_2_3x2_32", "vit_stem_nano_32", "resnet20_32"])
def test_our_other_models_go_out_as_ours_only(name: str, tmp_path: Path) -> None:
    section = {"name": name, **OURS}
    model, path = _checkpoint(tmp_path / "run", section)
    for format in ("timm", "hf"):
        with pytest.raises(WeightsError, match="cannot be exported to"):
            vitkit.export(path, format, tmp_path / "out")
    folder = vitkit.export(path, "safetensors", tmp_path / "out").folder
    with torch.no_grad():
        assert torch.equal(vitkit.load_model(folder).model(images()), model(images()))


def test_a_dinov3_goes_out_as_ours(tmp_path: Path) -> None:
    model, path = _checkpoint(tmp_path / "run", DINOV3)
    for format in ("timm", "hf"):
        with pytest.raises(WeightsError, match=r"cannot be exported to .*no rotary positions"):
            vitkit.export(path, format, tmp_path / "out")
    folder = vitkit.export(path, "safetensors", tmp_path / "out").folder
    with torch.no_grad():
        assert torch.equal(vitkit.load_model(folder).model(images()), model(images()))


@pytest.mark.parametrize("section", [VIT, {**VIT, **REGISTERS, **MEAN_OF_NORMED}, DINOV3])
def test_torch_export_is_checked_and_runs_alone(section: dict[str, Any], tmp_path: Path) -> None:
    model, path = _checkpoint(tmp_path / "run", section)
    result = vitkit.export(path, "torch-export", tmp_path / "out")
    assert result.error is not None
    assert result.error <= TOLERANCE
    program = torch.export.load(tmp_path / "out" / "model.pt2").module()
    x = images().repeat(4, 1, 1, 1)[:7]
    assert worst(program(x), model(x)) <= TOLERANCE


ONNX: dict[str, dict[str, Any]] = {
    "plain": VIT,
    "distilled": DEIT,
    "compact": {"name": "cct_2_3x2_32", **OURS},
    "hybrid": {"name": "nb03_2mixer_vit", **OURS, "patch_size": 8, "embed_dim": 16},
}


@pytest.mark.parametrize("family", ONNX)
def test_onnx_is_checked_and_runs_alone(family: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model, path = _checkpoint(tmp_path / "run", ONNX[family])
    result = vitkit.export(path, "onnx", tmp_path / "out")
    assert result.error is not None
    assert result.error <= TOLERANCE
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "model.onnx"))
    x = images().repeat(4, 1, 1, 1)[:7]
    (logits,) = session.run(None, {"images": x.numpy()})
    assert worst(torch.from_numpy(logits), model(x)) <= TOLERANCE


def test_a_program_that_disagrees_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, path = _checkpoint(tmp_path / "run", VIT)
    monkeypatch.setattr(programs, "TOLERANCE", -1.0)
    with pytest.raises(WeightsError, match=r"gives other logits than the model.*was removed"):
        vitkit.export(path, "torch-export", tmp_path / "out")
    assert list(tmp_path.iterdir()) == [tmp_path / "run"]


def test_onnx_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, path = _checkpoint(tmp_path / "run", VIT)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"pip install 'vitkit\[onnx\]'"):
        vitkit.export(path, "onnx", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command(tiny: Callable[..., RunConfig], vitkit_command: Command) -> None:
    result = vitkit.train(tiny("trainer.max_epochs=1", "model.class_token=true"), progress=False)
    call = partial(vitkit_command, "export")
    code, out, _ = call(str(result.folder), "--format", "timm")
    assert code == 0
    assert "model.safetensors" in out
    card = (result.folder / "export-timm" / "README.md").read_text()
    assert "test/acc" in card
    code, _, err = call(str(result.folder), "--format", "keras")
    assert code == 2
    assert "given 'keras', allowed: safetensors, timm, hf, onnx, torch-export" in err
    code, _, err = call("nothing")
    assert code == 1
    assert "no such run folder or checkpoint" in err
    code, out, _ = call("--help")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), 1.0])
def test_a_program_that_gives_other_numbers_is_removed(wrong: float, tmp_path: Path) -> None:
    model = nn.Flatten()
    path = tmp_path / "program.onnx"
    path.touch()
    with pytest.raises(WeightsError, match="gives other logits"):
        programs._checked("it", model, lambda x: model(x) + wrong, (3, 2, 2), path)
    assert not path.exists()
    path.touch()
    assert programs._checked("it", model, lambda x: model(x), (3, 2, 2), path) == 0.0
    assert programs._checked("it", lambda x: 0 * x, lambda x: 0 * x, (3, 2, 2), path) == 0.0
    assert path.exists()
