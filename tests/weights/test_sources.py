"""Where weights come from: files good and bad, folders, and other libraries without a network."""

from __future__ import annotations

import argparse
import json
import pickle
import shutil
import warnings
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import timm
import torch
import torchvision
from huggingface_hub.errors import (
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
)
from safetensors.torch import save_file
from torch import Tensor

import vitkit
from tests.weights.foreign import CASES, TIMM, images, randomised, torchvision_vit, worst
from vitkit.errors import UnknownNameError, WeightsError
from vitkit.models import VisionTransformer
from vitkit.weights import hub, load_weights, read_file


def _state() -> dict[str, Tensor]:
    state: dict[str, Tensor] = VisionTransformer(**TIMM).state_dict()
    return state


def _takes(source: Any) -> bool:
    """Whether a source fills a model with just the tensors of the first state."""
    model = VisionTransformer(**TIMM)
    load_weights(model, source)
    return all(torch.equal(a, b) for a, b in zip(model.parameters(), FIRST.values(), strict=True))


torch.manual_seed(0)
FIRST = _state()


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".ckpt"])
@pytest.mark.parametrize("wrapper", [None, "model", "state_dict", "teacher", "net"])
def test_files_of_torch_in_the_usual_wrappers(
    suffix: str, wrapper: str | None, tmp_path: Path
) -> None:
    content: Any = {f"module.{name}": tensor for name, tensor in FIRST.items()}
    content = content if wrapper is None else {wrapper: content, "epoch": 3}
    torch.save(content, tmp_path / f"w{suffix}")
    assert _takes(tmp_path / f"w{suffix}")


def test_a_training_file_with_its_arguments(tmp_path: Path) -> None:
    torch.save({"model": FIRST, "args": argparse.Namespace(lr=0.1, name="x")}, tmp_path / "w.pth")
    assert _takes(tmp_path / "w.pth")


def test_a_checkpoint_of_lightning_with_more_than_the_model(tmp_path: Path) -> None:
    state = {f"model.{name}": tensor for name, tensor in FIRST.items()}
    torch.save({"state_dict": {**state, "loss.weight": torch.ones(2)}}, tmp_path / "w.ckpt")
    model = VisionTransformer(**TIMM)
    report = load_weights(model, tmp_path / "w.ckpt")
    assert report.unused == ["loss.weight"]
    assert torch.equal(model.norm.weight, FIRST["norm.weight"])


def test_shards_and_their_index(tmp_path: Path) -> None:
    names = list(FIRST)
    parts = {"a.safetensors": names[:5], "b.safetensors": names[5:]}
    for file, part in parts.items():
        save_file({name: FIRST[name] for name in part}, tmp_path / file)
    weight_map = {name: file for file, part in parts.items() for name in part}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    assert _takes(tmp_path)
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"no such weights file: .*b\.safetensors"):
        _takes(index)
    index.write_text(json.dumps({"weight_map": {"x": "../elsewhere.safetensors"}}))
    with pytest.raises(WeightsError, match="outside its folder"):
        _takes(index)
    index.write_text("{")
    with pytest.raises(WeightsError, match="cannot be read as JSON"):
        _takes(index)


def test_half_a_safetensors_file(tmp_path: Path) -> None:
    whole, half = tmp_path / "whole.safetensors", tmp_path / "half.safetensors"
    save_file(FIRST, whole)
    half.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(WeightsError, match="damaged or half-downloaded"):
        load_weights(VisionTransformer(**TIMM), half)


def test_git_lfs_pointers_of_every_suffix(tmp_path: Path) -> None:
    for suffix in (".safetensors", ".npz", ".pth", ".ckpt"):
        pointer = tmp_path / f"w{suffix}"
        pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
        with pytest.raises(WeightsError, match=r"git-lfs pointer; run `git lfs pull`"):
            vitkit.load_model(pointer)


def test_an_npz_with_objects_inside_and_a_damaged_one(tmp_path: Path) -> None:
    np.savez(tmp_path / "objects.npz", cls=np.array([{"a": 1}], dtype=object))
    with pytest.raises(WeightsError, match=r"objects\.npz holds Python objects.*nothing in it was"):
        vitkit.load_model(tmp_path / "objects.npz")
    np.savez(tmp_path / "whole.npz", cls=np.zeros((64, 64)))
    whole = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.npz").write_text("no archive")
    for name in ("cut.npz", "text.npz"):
        with pytest.raises(WeightsError, match=f"{name} is damaged"):
            vitkit.load_model(tmp_path / name)


def test_bfloat16_arrays_of_an_npz(tmp_path: Path) -> None:
    values = torch.tensor([1.0, -2.5, 3e10]).bfloat16()
    raw = values.view(torch.int16).numpy().view("V2")
    np.savez(tmp_path / "w.npz", x=raw)
    assert torch.equal(read_file(tmp_path / "w.npz")["x"], values.float())


@pytest.mark.parametrize("protocol", [None, 2, 4])
def test_code_in_a_file_is_refused_and_not_run(tmp_path: Path, protocol: int | None) -> None:
    """Of torch's own files, and of a bare pickle; one of a newer protocol torch does not read."""

    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    if protocol is None:
        torch.save({"model": Evil()}, tmp_path / "evil.bin")
    else:
        (tmp_path / "evil.bin").write_bytes(pickle.dumps({"model": Evil()}, protocol))
    said = r"evil\.bin is damaged or no weights file"
    if protocol != 4:
        said = r"evil\.bin holds more than tensors .*; refused, and nothing in it was run"
    with pytest.raises(WeightsError, match=said):
        vitkit.load_model(tmp_path / "evil.bin")
    assert not (tmp_path / "ran").exists()


def test_a_torchscript_program_is_refused_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates what OpenAI publishes
        program = torch.jit.trace(torch.nn.Linear(2, 3), torch.zeros(1, 2))
        torch.jit.save(program, str(tmp_path / "ViT-B-32.pt"))
    with pytest.raises(WeightsError, match=r"ViT-B-32\.pt is a TorchScript program") as told:
        vitkit.load_model(tmp_path / "ViT-B-32.pt")
    assert "\n" not in str(told.value)
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(str(told.value).partition("in Python: ")[2])
    state = read_file("weights.pth")
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == {
        "weight": (3, 2),
        "bias": (3,),
    }


def test_folders_without_or_with_several_files(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="holds no file of weights"):
        vitkit.load_model(tmp_path)
    save_file(FIRST, tmp_path / "one.safetensors")
    assert _takes(tmp_path)
    save_file(FIRST, tmp_path / "two.safetensors")
    with pytest.raises(WeightsError, match=r"one\.safetensors, two\.safetensors; give the file"):
        vitkit.load_model(tmp_path)
    with pytest.raises(WeightsError, match=r"no such weights file: .*in that folder: one"):
        vitkit.load_model(tmp_path / "none.safetensors")


def test_an_activation_that_there_is_not(tmp_path: Path) -> None:
    model: Any = CASES["hf-vit"].make()
    model.config.hidden_act = "mish"
    model.save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match=r"hidden_act 'mish'; vitkit has gelu"):
        vitkit.load_model(tmp_path)


HUB_FILES = ("config.json", "model.safetensors", "preprocessor_config.json")


@torch.no_grad()
def test_the_hub_is_read_like_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs: Any = randomised(CASES["hf-vit"].make())
    there, cache = tmp_path / "there", tmp_path / "cache"
    theirs.save_pretrained(there)
    cache.mkdir()
    asked = []

    def download(repository: str, file: str, *, revision: str | None = None) -> str:
        asked.append((repository, file, revision))
        if not (there / file).exists():
            raise RemoteEntryNotFoundError("404", response=Mock(headers={}))
        return str(shutil.copy(there / file, cache / file))

    monkeypatch.setattr(hub, "hf_hub_download", download)
    loaded = vitkit.load_model("hf-hub:someone/model@v2")
    assert {name for name, _, _ in asked} == {"someone/model"}
    assert {revision for _, _, revision in asked} == {"v2"}
    assert worst(loaded.model(images()), theirs(images()).logits) <= 1e-5
    (there / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"holds none of model\.safetensors"):
        vitkit.load_model("hf-hub:someone/model")


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (LocalEntryNotFoundError("no connection"), "the hub cannot be reached.*check the network"),
        (ConnectionError("refused"), "the hub cannot be reached.*refused"),
        (RepositoryNotFoundError("404", response=Mock(headers={})), "the hub has no such model"),
    ],
)
def test_a_hub_that_does_not_answer(
    error: Exception, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "hf_hub_download", Mock(side_effect=error))
    with pytest.raises(WeightsError, match=says) as told:
        vitkit.load_weights(VisionTransformer(**TIMM), "hf-hub:someone/model")
    assert "\n" not in str(told.value)


def test_a_name_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsError, match="a name is owner/model"):
        vitkit.load_model("hf-hub:not a name!")
    with pytest.raises(UnknownNameError, match="did you mean"):
        vitkit.load_model("timm/vit_tinny_patch16_224")
    with pytest.raises(WeightsError, match=r"no model 'vit_b_17'; did you mean vit_b_16"):
        vitkit.load_model("torchvision/vit_b_17")
    with pytest.raises(WeightsError, match=r"no weights 'V9', but IMAGENET1K_V1"):
        vitkit.load_model("torchvision/vit_b_16.V9")


@torch.no_grad()
def test_models_of_timm_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    real = timm.create_model

    def create(name: str, pretrained: bool = False, **more: Any) -> Any:
        assert pretrained
        torch.manual_seed(0)
        return real(name, **more)

    monkeypatch.setattr(timm, "create_model", create)
    loaded = vitkit.load_model("timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k")
    assert loaded.preprocessing.mean == (0.5, 0.5, 0.5)
    assert loaded.preprocessing.crop_pct == 0.9
    wanted = create("vit_tiny_patch16_224", pretrained=True).eval()
    x = images((224, 224))
    assert worst(loaded.model(x), wanted(x)) <= 1e-5
    deit = vitkit.load_model("timm/deit_tiny_distilled_patch16_224")
    assert deit.preprocessing.mean == (0.485, 0.456, 0.406)

    def offline(name: str, **more: Any) -> Any:
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(WeightsError, match=r"no pretrained weights: no route to host; check"):
        vitkit.load_model("timm/vit_tiny_patch16_224")


def test_models_of_torchvision_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = randomised(torchvision_vit(64, num_classes=1000))
    monkeypatch.setattr(torchvision.models, "get_model", lambda name, weights: theirs)
    loaded = vitkit.load_model("torchvision/vit_l_16", img_size=64)
    # The published recipe of the large model: resize to 242, crop 224.
    assert loaded.preprocessing.crop_pct == pytest.approx(224 / 242)
    assert loaded.preprocessing.interpolation == "bilinear"
    assert loaded.class_names[0] == "tench"

    def offline(name: str, weights: Any) -> Any:
        raise OSError("name resolution failed")

    monkeypatch.setattr(torchvision.models, "get_model", offline)
    with pytest.raises(WeightsError, match=r"cannot be fetched \(name resolution failed\).*https:"):
        vitkit.load_model("torchvision/vit_b_16")


@pytest.mark.parametrize(
    "inner",
    [
        lambda name: f"_orig_mod.{name}",
        lambda name: f"model._orig_mod.{name}",
        lambda name: name.replace("blocks.0.", "blocks.0._orig_mod."),
    ],
)
def test_names_of_compiled_parts(inner: Any) -> None:
    compiled = {inner(name): tensor for name, tensor in FIRST.items()}
    assert compiled.keys() != FIRST.keys()
    assert _takes(compiled)
    model = vitkit.load_model(compiled).model
    assert {name for name, _ in model.named_parameters()} == set(FIRST)


def test_offline_a_cached_model_loads_though_its_repository_lacks_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    home = tmp_path / "models--someone--model"
    snapshot, absent = home / "snapshots" / ("0" * 40), home / ".no_exist" / ("0" * 40)
    for folder in (snapshot, absent, home / "refs"):
        folder.mkdir(parents=True)
    (home / "refs" / "main").write_text("0" * 40)
    (snapshot / "config.json").write_text("{}")
    save_file({"a": torch.ones(2)}, snapshot / "model.safetensors")
    with pytest.raises(WeightsError, match="cannot be reached"):
        hub.hub_folder("someone/model", ["model.safetensors"])
    (absent / "preprocessor_config.json").touch()
    found = hub.hub_folder("someone/model", ["model.safetensors"])
    assert (found / "model.safetensors").is_file()
