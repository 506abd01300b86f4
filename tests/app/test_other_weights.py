"""Weights that are no run's, evaluated and looked into: whose classes, pictures and files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import transformers as hf
from PIL import Image

import vitkit
from tests.conftest import TINY, Command, finished_run
from vitkit.app import evaluate, export, inspect
from vitkit.app.build import with_classes_of_weights
from vitkit.app.sources import Weights, opened_weights, short_name
from vitkit.app.subjects import open_subject
from vitkit.config import load_config
from vitkit.data.info import DataInfo
from vitkit.data.sources import load_data
from vitkit.data.splits import ImageData, ResidentSplit
from vitkit.errors import ConfigError, DataError, RunError, WeightsError
from vitkit.explain import attention_rollout
from vitkit.models import VisionTransformer
from vitkit.records import Record
from vitkit.weights import Checkpoint

CLASSES = ("cat", "dog", "emu")
HERE = ["trainer.accelerator=cpu", "run.report=false"]
DATA = ["data.name=synthetic", "data.synthetic_size=120", "data.synthetic_classes=4", *HERE]
SMALL: dict[str, Any] = {"img_size": 8, "patch_size": 4, "embed_dim": 64, "depth": 1}
SMALL |= {"num_heads": 1}


def _pictures(root: Path, *labels: str, count: int = 12, size: int = 8) -> Path:
    """Noise in a folder a class."""
    rng = np.random.default_rng(len(labels))
    for label in labels:
        (root / label).mkdir(parents=True)
        for index in range(count):
            pixels = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / label / f"{index}.png")
    return root


def _bare(path: Path, **changes: Any) -> VisionTransformer:
    """A small ViT, and its state dict alone in a file."""
    torch.manual_seed(3)
    model = VisionTransformer(**{**SMALL, "num_classes": 4, **changes}).eval()
    torch.save(model.state_dict(), path)
    return model


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that names no classes, in the current folder."""
    monkeypatch.chdir(tmp_path)
    _bare(tmp_path / "bare.pth")
    return tmp_path / "bare.pth"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on three classes."""
    folder = tmp_path_factory.mktemp("own")
    root = _pictures(folder / "pictures", *CLASSES, count=20)
    settings = [*TINY, "data.name=image_folder", f"data.root={root}", f"run.dir={folder / 'run'}"]
    pooled = ["model.class_token=true", "model.global_pool=token"]
    return finished_run(*settings, *pooled, "trainer.max_epochs=1")


@pytest.mark.parametrize("format", ["safetensors", "timm"])
def test_an_export_is_measured_as_its_run(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    """On new pictures of some of its classes, from the folder and from the file in it."""
    monkeypatch.chdir(tmp_path)
    new = _pictures(tmp_path / "new" / "test", "dog", "emu").parent
    settings = ["data.name=image_folder", f"data.root={new}", *HERE]
    want = evaluate(run, settings, progress=False)
    folder = export(run, format, tmp_path / "out").folder
    for source in (folder, folder / "model.safetensors"):
        found = evaluate(source, settings, progress=False)
        for name in ("test/acc", "test/loss"):
            assert found.metrics[name] == pytest.approx(want.metrics[name], rel=1e-4)
        assert found.predictions is not None and want.predictions is not None
        torch.testing.assert_close(
            found.predictions.logits, want.predictions.logits, rtol=1e-4, atol=1e-5
        )
        assert found.predictions.targets.tolist() == [1] * 12 + [2] * 12
        assert found.record.facts["classes_matched"] == "by name"
        assert not any("order" in note for note in found.notes)
    place = Path("runs/eval/out-image_folder")
    assert (place / "eval.json").is_file()
    other = _pictures(tmp_path / "other" / "test", "dog", "yak").parent
    with pytest.raises(DataError, match=r"knows 3 classes .*'yak' is none of the model's"):
        evaluate(folder, [settings[0], f"data.root={other}"], progress=False)


def test_a_folder_of_hugging_face(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own mean and deviation, and its classes by name, in another order than the data's."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names = ("emu", "cat", "dog")
    sizes = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 128, "image_size": 8, "patch_size": 4}
    config = hf.ViTConfig(**sizes, id2label=dict(enumerate(names)))
    theirs = hf.ViTForImageClassification(config).eval()
    theirs.save_pretrained(tmp_path / "hf")
    mean, std = [0.2, 0.3, 0.4], [0.5, 0.6, 0.7]
    processor = {"image_processor_type": "ViTImageProcessor", "size": {"height": 8, "width": 8}}
    processor |= {"do_resize": True, "do_normalize": True, "image_mean": mean, "image_std": std}
    (tmp_path / "hf" / "preprocessor_config.json").write_text(json.dumps(processor))
    root = _pictures(tmp_path / "pictures" / "test", *CLASSES).parent
    settings = ["data.name=image_folder", f"data.root={root}", *HERE]
    subject = open_subject(tmp_path / "hf", settings, progress=False)
    test = subject.data.test
    assert isinstance(test, ResidentSplit)
    assert subject.data.info.class_names == names
    assert sorted(set(test.targets.tolist())) == [0, 1, 2] and test.targets[0] == 1  # cat
    assert subject.preprocessing.crop_mode == "squash"
    low, scale = (torch.tensor(values)[:, None, None] for values in (mean, std))
    given = (test.images / 255 - low) / scale
    with torch.no_grad():
        want = theirs(pixel_values=given).logits
    found = evaluate(tmp_path / "hf", settings, progress=False)
    assert found.predictions is not None
    torch.testing.assert_close(found.predictions.logits, want, rtol=1e-4, atol=1e-5)
    right = (want.argmax(1) == test.targets).double().mean().item()
    assert found.metrics["test/acc"] == pytest.approx(right)
    # What is set by hand holds, and is said.
    other = ["data.normalize=imagenet", "data.crop_mode=center"]
    notes = evaluate(tmp_path / "hf", [*settings, *other], progress=False).notes
    assert "data.normalize=imagenet overrides the weights' own mean and std" in notes
    assert "pictures have crop_mode center here, squash by the weights" in notes
    chosen = open_subject(tmp_path / "hf", [*settings, *other], progress=False)
    assert chosen.preprocessing.mean == (0.485, 0.456, 0.406)
    assert chosen.facts["normalize"] == "imagenet" and chosen.facts["crop_mode"] == "center"


def test_classes_without_names_are_matched_by_their_order(bare: Path) -> None:
    model = VisionTransformer(**SMALL, num_classes=4).eval()
    model.load_state_dict(torch.load(bare, weights_only=True))
    subject = open_subject(bare, DATA, progress=False)
    test = subject.data.test
    assert isinstance(test, ResidentSplit) and test.images.shape[-2:] == (8, 8)
    with torch.no_grad():
        want = model((test.images / 255 - 0.5) / 0.5)  # as timm's, whose layout it is
    found = evaluate(bare, DATA, suite="standard", progress=False)
    assert found.predictions is not None and found.checkpoint == bare
    torch.testing.assert_close(found.predictions.logits, want, rtol=1e-4, atol=1e-5)
    assert any("4 classes are matched by their order, from 'class 0'" in n for n in found.notes)
    record = Record.read(Path("runs/eval/bare-synthetic/eval.json"))
    assert record.facts["checkpoint"] == str(bare) and record.facts["format"] == "timm ViT"
    assert record.facts["classes_matched"] == "by order"
    assert record.facts["normalize"] == "the weights'"
    speed = ["eval.speed_seconds=0.01", "eval.speed_max_batch=1"]
    cost = evaluate(bare, [*DATA, *speed], suite="speed", progress=False)
    assert cost.metrics["cost/parameters"] == sum(p.numel() for p in model.parameters())


def test_another_size_resamples_the_positions_as_loading_does(bare: Path) -> None:
    for key in ("model", "data"):
        subject = open_subject(bare, [*DATA, f"{key}.img_size=16"], progress=False)
        test = subject.data.test
        assert isinstance(test, ResidentSplit) and test.images.shape[-2:] == (16, 16)
        loaded = vitkit.load_model(bare, img_size=16)
        with torch.no_grad():
            want = loaded.model(loaded.preprocessing(test.images))
            assert torch.equal(subject.predict(test.images), want)


def test_data_of_ones_own(bare: Path) -> None:
    section: Any = load_config([], DATA).data
    data = load_data(section, img_size=(8, 8))
    given = evaluate(bare, HERE, data=data, progress=False)
    assert given.metrics == evaluate(bare, DATA, progress=False).metrics
    large = load_data(section, img_size=(16, 16))
    with pytest.raises(ConfigError, match=r"images of \(3, 8, 8\).*model\.img_size=\[16, 16\]"):
        evaluate(bare, data=large, progress=False)
    fitted = evaluate(bare, [*HERE, "model.img_size=[16, 16]"], data=large, progress=False)
    whole = [*DATA, "model.img_size=16", "data.crop_pct=1.0"]  # not the share that weights state
    assert fitted.metrics == evaluate(bare, whole, progress=False).metrics


def test_a_model_of_timm_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the weights that timm publishes, which here are made up: no network is asked."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=4, depth=1).eval()
    monkeypatch.setattr("vitkit.weights.sources.timm_model", lambda name: model)
    words = ["data.name=synthetic", "data.synthetic_classes=4", "data.synthetic_size=20", *HERE]
    subject = open_subject("timm/vit_tiny_patch16_224", words, progress=False)
    test = subject.data.test
    assert isinstance(test, ResidentSplit) and test.images.shape[-2:] == (224, 224)
    assert subject.preprocessing.crop_pct == 0.9  # as timm states it, and predict fits pictures
    with torch.no_grad():
        want = model((test.images / 255 - 0.5) / 0.5)
        torch.testing.assert_close(subject.predict(test.images), want, rtol=1e-3, atol=1e-4)
    assert subject.folder == Path("runs/eval/timm-vit_tiny_patch16_224-synthetic")


def test_what_is_refused(bare: Path, tmp_path: Path) -> None:
    _bare(tmp_path / "encoder.pth", num_classes=0)
    five = [word.replace("classes=4", "classes=5") for word in DATA]
    cases: list[tuple[str | Path, list[str], type[Exception], str]] = [
        (bare, [], ConfigError, r"bare\.pth: on which data\? Say so"),
        (bare, five, DataError, r"bare\.pth tells 4 classes apart .* synthetic has 5"),
        (bare, [*DATA, "model.num_classes=5"], WeightsError, r"no weights that fit head\.weight"),
        (bare, [*DATA, "optimizer.lr=1.0"], ConfigError, "optimizer.lr: changes nothing here"),
        (bare, [*DATA, "model.depth=x"], ConfigError, "depth"),
        (tmp_path / "encoder.pth", DATA, WeightsError, r"encoder\.pth has no classifier"),
        ("hf-hub:not a name!", DATA, WeightsError, "owner/model"),
    ]
    for source, settings, error, said in cases:
        with pytest.raises(error, match=said):
            evaluate(source, settings, progress=False)
    assert not (tmp_path / "runs").exists()


def test_what_is_a_checkpoint_of_ours(run: Path, tmp_path: Path) -> None:
    """By its content, not by its suffix; and a folder of checkpoints, whatever lies beside them."""
    last = run / "checkpoints" / "last.ckpt"
    shutil.copy(last, tmp_path / "mine.pt")
    (tmp_path / "alone").mkdir()
    shutil.copy(last, tmp_path / "alone")
    np.savez(tmp_path / "alone" / "predictions.npz", a=np.zeros(1))
    for source in (run, last, tmp_path / "mine.pt", tmp_path / "alone"):
        assert isinstance(opened_weights(source), Checkpoint)
    want = evaluate(run, progress=False).metrics
    assert evaluate(tmp_path / "mine.pt", progress=False).metrics == want
    shutil.rmtree(shutil.copytree(run, tmp_path / "emptied") / "checkpoints")
    np.savez(tmp_path / "emptied" / "predictions.npz", a=np.zeros(1))
    with pytest.raises(RunError, match="no checkpoint in"):  # arrays, but no weights
        opened_weights(tmp_path / "emptied")
    _bare(tmp_path / "bare.pth")
    (tmp_path / "one").mkdir()
    shutil.copy(tmp_path / "bare.pth", tmp_path / "one")
    for place in (tmp_path / "bare.pth", tmp_path / "one"):
        assert opened_weights(place) == Weights(place)
    for name in ("hf-hub:owner/model", "timm/vit", "torchvision/vit_b_16"):
        assert opened_weights(name) == Weights(name)


def _data(names: tuple[str, ...]) -> ImageData:
    """An image of each class."""
    count = len(names)
    images = ResidentSplit(torch.zeros(count, 3, 1, 1, dtype=torch.uint8), torch.arange(count))
    counts = (1,) * count
    info = DataInfo("given", names, 3, (1, 1), (0.5,) * 3, (0.5,) * 3, class_counts=counts)
    return ImageData(info, images, None, images)


def test_how_classes_are_matched() -> None:
    some = _data(("dog", "cat"))
    data, how = with_classes_of_weights("w", ("cat", "cow", "dog"), 3, some)
    assert how == "by name" and data.info.class_names == ("cat", "cow", "dog")
    assert data.test is not None and data.test.targets.tolist() == [2, 0]
    assert with_classes_of_weights("w", (), 2, some) == (some, "by order")
    with pytest.raises(DataError, match=r"w tells 3 classes apart .* given has 2"):
        with_classes_of_weights("w", (), 3, some)
    with pytest.raises(DataError, match=r"the model knows 2 classes \(w\).*'dog' is none"):
        with_classes_of_weights("w", ("cat", "hound"), 2, some)
    with pytest.raises(DataError, match="w has 2 classes called 'cat'"):
        with_classes_of_weights("w", ("cat", "cat", "dog"), 3, some)


def test_imagenets_identifiers_stand_in_the_order_of_its_models() -> None:
    names = tuple(f"n{number:08}" for number in range(1000))
    words = tuple(f"word {number}" for number in range(1000))
    data = _data(names)
    assert with_classes_of_weights("w", words, 1000, data) == (data, "by order")
    assert with_classes_of_weights("w", names, 1000, data) == (data, "by name")
    for other in (_data(names[::-1]), _data(names[:999]), _data(("x", *names[1:]))):
        with pytest.raises(DataError, match="is none of the model's"):
            with_classes_of_weights("w", words, 1000, other)


def test_what_weights_are_called_in_a_folders_name(tmp_path: Path) -> None:
    """Two versions of a model must not write over each other's records."""
    for name in ("vit-v1.0", "vit-v1.1"):
        (tmp_path / name).mkdir()
        assert short_name(tmp_path / name) == name
    for name in ("model.safetensors", "vit.v2.safetensors"):
        (tmp_path / "vit-v1.0" / name).touch()
    assert short_name(tmp_path / "vit-v1.0" / "model.safetensors") == "vit-v1.0-model"
    assert short_name(tmp_path / "vit-v1.0" / "vit.v2.safetensors") == "vit.v2"
    assert short_name("hf-hub:someone/vit-1.5") == "hf-hub:someone/vit-1.5"


def test_looking_into_weights_needs_no_data(bare: Path, tmp_path: Path) -> None:
    model = VisionTransformer(**SMALL, num_classes=4).eval()
    model.load_state_dict(torch.load(bare, weights_only=True))
    pixels = np.random.default_rng(3).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("noise.png")
    found = inspect(bare, "noise.png", progress=False)
    assert found.folder == Path("runs/eval/bare/inspect") and found.checkpoint == bare
    given = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        best = int(model(given).argmax())
    assert found.pictures[0].explained == f"class {best}"
    rollout = attention_rollout(model, given).detach().numpy()
    np.testing.assert_allclose(found.numbers["rollout"], rollout, rtol=1e-4, atol=1e-6)
    assert any("mean 0.5" in note for note in found.notes)
    # With data its classes are called as these are, and they can be laid out.
    names = ("ant", "bee", "cat", "dog")
    root = _pictures(tmp_path / "four" / "test", *names, count=5).parent
    data = ["data.name=image_folder", f"data.root={root}"]
    named = inspect(bare, "noise.png", data, out="seen", embedding="pca", progress=False)
    assert named.pictures[0].explained == names[best]
    assert named.numbers["embedding"].shape == (20, 2)
    assert inspect(bare, "noise.png", data, progress=False).pictures[0].explained == names[best]


def test_what_cannot_be_looked_into(bare: Path, tmp_path: Path) -> None:
    _bare(tmp_path / "encoder.pth", num_classes=0)
    cases: list[tuple[Any, list[str], dict[str, Any], type[Exception], str]] = [
        (bare, [], {"embedding": "pca"}, ConfigError, r"bare\.pth: on which data"),
        (bare, ["eval.seed=3"], {}, ConfigError, "eval.seed: changes nothing here"),
        (tmp_path / "encoder.pth", [], {}, WeightsError, "has no classifier"),
    ]
    for source, settings, options, error, said in cases:
        with pytest.raises(error, match=said):
            inspect(source, (), settings, progress=False, **options)


def test_the_commands_say_what_was_guessed(bare: Path, vitkit_command: Command) -> None:
    code, out, err = vitkit_command("eval", bare, *DATA, "run.report=true", "-q")
    assert code == 0, err
    assert "bare.pth (trained weights), 24 test images" in out and "test/acc" in out
    assert "note: the 4 classes are matched by their order" in err and "mean 0.5" in err
    page = Path("runs/eval/bare-synthetic/report/index.html").read_text(encoding="utf-8")
    assert f"vitkit eval {bare} data.name=synthetic --suite shift" in page
    code, out, err = vitkit_command("inspect", bare, "-q")
    assert code == 0, err
    assert "note:" in out and "mean 0.5" in out.replace("\n  ", " ")
