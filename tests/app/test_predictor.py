"""Pictures of every kind get the same answer; what is no picture gets one line."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from tests.conftest import Command
from vitkit.app import train
from vitkit.app.class_names import read_class_names
from vitkit.app.predictor import Predictor, load
from vitkit.app.pretrained import LoadedModel, load_model, published_names
from vitkit.config import RunConfig
from vitkit.data.preprocess import Preprocessing
from vitkit.errors import ConfigError, DataError, WeightsError
from vitkit.models import imagenet_names
from vitkit.weights import LoadReport


@pytest.fixture
def predictor() -> Predictor:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4)).eval()
    prepare = Preprocessing((8, 8), (0.5,) * 3, (0.5,) * 3)
    return Predictor(model, ("a", "b", "c", "d"), prepare, torch.device("cpu"))


def test_files_pictures_arrays_and_tensors_agree(predictor: Predictor, tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    picture = Image.fromarray(array)
    picture.save(tmp_path / "a.png")
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    for one in (tmp_path / "a.png", str(tmp_path / "a.png"), picture, array, tensor):
        assert [p.top for p in predictor.predict(one)] == [predictor.predict(picture)[0].top]
    both = torch.stack([tensor, 255 - tensor])
    want = [p.top for p in predictor.predict([picture, Image.fromarray(255 - array)])]
    for several in (both, list(both), both.permute(0, 2, 3, 1).numpy(), iter(both)):
        assert [p.top for p in predictor.predict(several)] == want
    assert [p.source for p in predictor.predict(both)] == ["image 0", "image 1"]
    grey = predictor.predict(array[..., 0])[0].top
    assert grey == predictor.predict(Image.fromarray(array[..., 0]))[0].top
    assert grey == predictor.predict(torch.from_numpy(array[..., 0]))[0].top


def test_one_bad_file_stops_the_others_only_where_nobody_listens(
    predictor: Predictor, tmp_path: Path
) -> None:
    for name in ("a.png", "c.png"):
        Image.new("RGB", (9, 9), "red").save(tmp_path / name)
    (tmp_path / "b.png").write_text("no picture")
    errors: list[DataError] = []
    sources = [tmp_path, tmp_path / "none.png", Image.new("L", (3, 3))]
    out = predictor.predict(sources, on_error=errors.append, batch_size=2)
    assert [Path(p.source).name for p in out] == ["a.png", "c.png", "image 4"]
    assert ["b.png" in str(e) for e in errors] == [True, False]
    assert "no such picture or folder" in str(errors[1])
    with pytest.raises(DataError, match=r"b\.png"):
        predictor.predict(sources)
    assert predictor.predict([]) == []


@pytest.mark.parametrize("key", ["top", "batch_size"])
@pytest.mark.parametrize("given", [0, -1])
def test_less_than_one_class_or_picture_at_a_time(
    predictor: Predictor, key: str, given: int
) -> None:
    wrong: dict[str, Any] = {key: given}
    with pytest.raises(ConfigError, match=f"^{key}: given {given}, allowed: >= 1$"):
        predictor.predict(Image.new("RGB", (9, 9)), **wrong)


@pytest.mark.parametrize(
    ("picture", "said"),
    [
        (torch.rand(3, 8, 8), "must be uint8 with values from 0 to 255, given torch.float32"),
        (torch.zeros(2, 8, 8).byte(), "2 channels given, 3 are needed"),
        (np.zeros((3, 8, 8), np.uint8), "transpose it"),
        ([7], "given a int; a picture is one of PIL"),
    ],
)
def test_what_is_no_picture(predictor: Predictor, picture: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        predictor.predict(picture)


def test_pictures_above_the_limit_are_refused_by_their_head(
    predictor: Predictor, tmp_path: Path
) -> None:
    Image.new("RGB", (30, 20), "red").save(tmp_path / "large.png")
    strict = dataclasses.replace(predictor, max_pixels=599)
    with pytest.raises(DataError, match=r"large\.png: 600 pixels, data\.max_pixels is 599"):
        strict.predict(tmp_path / "large.png")
    assert dataclasses.replace(predictor, max_pixels=600).predict(tmp_path / "large.png")


def test_the_limit_is_the_trainings(tiny: Callable[..., RunConfig], tmp_path: Path) -> None:
    result = train(tiny("data.max_pixels=599", "trainer.max_epochs=1"), progress=False)
    Image.new("RGB", (30, 20), "red").save(tmp_path / "large.png")
    with pytest.raises(DataError, match="599"):
        load(result.folder).predict(tmp_path / "large.png")


@pytest.fixture
def of_timm(tmp_path: Path) -> tuple[nn.Module, Path]:
    """A small ViT of timm, and its state dict in a file as other training scripts leave it."""
    torch.manual_seed(0)
    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=3, depth=1, img_size=32).eval()
    torch.save(theirs.state_dict(), tmp_path / "model-9.pth")
    return theirs, tmp_path / "model-9.pth"


def test_weights_of_others_predict(of_timm: tuple[nn.Module, Path]) -> None:
    theirs, file = of_timm
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8))
    predictor = load(file, device="cpu")
    given = predictor.preprocessing(predictor.preprocessing.prepare_image(picture)[None])
    with torch.inference_mode():
        want = theirs(given)[0].softmax(dim=0)
    found = dict(predictor.predict(picture)[0].top)
    assert found == pytest.approx({f"class {i}": p for i, p in enumerate(want.tolist())}, rel=1e-4)

    named = load(file, class_names=("daisy", "rose", "tulip"), device="cpu")
    top = dict(named.predict(picture)[0].top)
    assert top == {n: found[f"class {i}"] for i, n in enumerate(named.class_names)}


def test_published_classifiers_of_imagenet_name_their_classes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda name, pretrained, **more: real(name, depth=1, **more)
    )
    name = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    predictor = load(f"timm/{name}", device="cpu")
    assert predictor.class_names == imagenet_names(1000)
    assert predictor.class_names[281] == "tabby"
    (note,) = [note for note in predictor.notes if "ImageNet" in note]
    assert name in note
    own = load(f"timm/{name}", class_names=[f"my {i}" for i in range(1000)], device="cpu")
    assert own.class_names[281] == "my 281"
    assert not any("ImageNet" in note for note in own.notes)
    # Data are matched with none of these names: ImageNet's folders have others.
    assert load_model(f"timm/{name}").class_names == ()


@pytest.mark.parametrize(
    ("tag", "count", "named"),
    [
        ("augreg_in21k_ft_in1k", 1000, True),
        ("augreg_in21k_ft_in1k", 999, False),
        ("augreg_in21k", 1000, False),  # published with 21,843 classes
        ("mine", 1000, False),
        ("", 1000, False),
    ],
)
def test_a_model_of_ones_own_gets_no_names_of_imagenet(
    tag: str, count: int, named: bool, tmp_path: Path
) -> None:
    model = timm.create_model("vit_tiny_patch16_224", num_classes=count, depth=1, img_size=32)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    stated = {"tag": tag, "num_classes": count, "input_size": [3, 32, 32]}
    config = {"architecture": "vit_tiny_patch16_224", "pretrained_cfg": stated}
    (tmp_path / "config.json").write_text(json.dumps(config))
    predictor = load(tmp_path, device="cpu")
    assert (predictor.class_names[281] == "tabby") == named
    assert predictor.class_names[281] == ("tabby" if named else "class 281")
    assert any("ImageNet's, as usual" in note for note in predictor.notes) == named


def test_layouts_of_imagenets_publishers_have_its_names_with_their_own_head_alone() -> None:
    prepare = Preprocessing((8, 8), (0.5,) * 3, (0.5,) * 3)

    def names(count: int, **report: Any) -> tuple[str, ...]:
        told = LoadReport(format="Google's ViT (.npz)", **report)
        loaded = LoadedModel(nn.Identity(), prepare, (), {"num_classes": count}, told)
        return published_names(loaded)

    assert names(1000, of_imagenet=True) == imagenet_names(1000)
    assert names(21843, of_imagenet=True) == imagenet_names(21843)
    assert names(10, of_imagenet=True) == ()
    assert names(1000) == ()
    assert names(1000, of_imagenet=True, new=["head.weight", "head.bias"]) == ()
    assert names(1000, of_imagenet=True, class_names=("a", "b")) == ()


def test_the_command_tells_what_was_guessed_and_takes_a_limit(
    of_timm: tuple[nn.Module, Path], tmp_path: Path, vitkit_command: Command
) -> None:
    _, file = of_timm
    Image.new("RGB", (30, 20), "red").save(tmp_path / "large.png")
    code, out, err = vitkit_command("predict", file, tmp_path / "large.png", "--csv")
    assert code == 0
    assert out.startswith("file,rank,class,probability")
    notes = [line for line in err.splitlines() if line.startswith("note: ")]
    assert any("mean 0.5" in note for note in notes)
    code, _, err = vitkit_command("predict", file, tmp_path / "large.png", "--max-pixels", "599")
    assert code == 1
    assert "600 pixels" in err
    assert "--max-pixels" in err
    code, _, err = vitkit_command("predict", file, tmp_path / "large.png", "--max-pixels", "1e9")
    assert code == 2
    code, _, err = vitkit_command("predict", file, tmp_path / "large.png", "--max-pixels", 10**9)
    assert code != 0
    assert "allowed: 1 to 178,956,970" in err


def test_names_must_be_as_many_as_the_classes(of_timm: tuple[nn.Module, Path]) -> None:
    with pytest.raises(DataError, match=r"2 class names for .*, which tells 3 classes apart"):
        load(of_timm[1], class_names=("daisy", "rose"))


def test_weights_without_a_classifier_are_refused(tmp_path: Path) -> None:
    bare = timm.create_model("vit_tiny_patch16_224", num_classes=0, depth=1, img_size=32)
    torch.save(bare.state_dict(), tmp_path / "bare.pth")
    with pytest.raises(WeightsError, match=r"bare\.pth has no classifier; fine-tune it first"):
        load(tmp_path / "bare.pth")


@pytest.mark.parametrize(
    ("name", "text", "want"),
    [
        ("class_indices.json", '{"0": "daisy", "10": "c", "1": "rose"}', None),
        ("class_indices.json", '{"1": "rose", "0": "daisy"}', ("daisy", "rose")),
        ("names.json", '["daisy", "rose"]', ("daisy", "rose")),
        ("labels.txt", "\ufeffdaisy\n\nroter Mohn \n", ("daisy", "roter Mohn")),
        ("names.json", '["daisy", 1]', None),
        ("names.json", '"daisy"', None),
    ],
)
def test_class_names_from_a_file(
    tmp_path: Path, name: str, text: str, want: tuple[str, ...] | None
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    if want is not None:
        assert read_class_names(tmp_path / name) == want
    else:
        with pytest.raises(DataError, match=r'should hold \["daisy", \.\.\.\] or'):
            read_class_names(tmp_path / name)


def test_class_names_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "half.json").write_text('["daisy"')
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "empty.json").write_text("[]")
    (tmp_path / "photo.txt").write_bytes(b"\xff\xd8\xff\xe0")
    for name, said in (
        ("half.json", "half.json is no JSON"),
        ("empty.txt", "empty.txt names no classes"),
        ("empty.json", "empty.json names no classes"),
        ("photo.txt", "photo.txt cannot be read (no text in UTF-8)"),
        ("none.txt", "none.txt cannot be read (No such file or directory)"),
    ):
        with pytest.raises(DataError, match=re.escape(said)):
            read_class_names(tmp_path / name)
