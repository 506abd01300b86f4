"""Preprocessing comes with the weights, is what training then uses, and is kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import timm
import torch
import transformers as hf
from PIL import Image
from torchvision.transforms import v2

import vitkit
from vitkit.app import train
from vitkit.app.build import build, build_data, build_from_checkpoint
from vitkit.app.expectations import run_preprocessing, stated_preprocessing
from vitkit.config import RunConfig, load_config, to_plain
from vitkit.data.preprocess import Preprocessing
from vitkit.data.splits import ImageData
from vitkit.errors import WeightsError
from vitkit.models import VisionTransformer
from vitkit.models.presets import CUSTOM
from vitkit.models.registry import _BUILDERS
from vitkit.weights import LoadReport, processor_config, read_checkpoint
from vitkit.weights.stated import Stated, from_config, with_processor

Tiny = Callable[..., RunConfig]
SMALL: dict[str, Any] = {"img_size": 8, "patch_size": 4, "embed_dim": 16, "depth": 2}
SMALL |= {"num_heads": 2, "num_classes": 4, "class_token": False, "global_pool": "avg"}


def _weights(folder: Path) -> Path:
    """A bare file, of what the tiny run trains."""
    torch.manual_seed(5)
    path = folder / "weights.pth"
    torch.save(VisionTransformer(**SMALL).state_dict(), path)
    return path


def test_training_takes_mean_and_std_of_the_weights_and_keeps_them(
    tiny: Tiny, tmp_path: Path
) -> None:
    config = tiny(f"model.weights={_weights(tmp_path)}", "trainer.max_epochs=1")
    result = vitkit.train(config, progress=False)
    kept = read_checkpoint(result.checkpoint).preprocessing
    assert kept["mean"] == [0.5, 0.5, 0.5]  # timm's default, for its names are those of the file
    assert vitkit.load(result.folder).preprocessing.std == (0.5, 0.5, 0.5)
    again = build(tiny(f"model.weights={result.checkpoint}", folder="next"))
    assert again.preprocessing.mean == (0.5, 0.5, 0.5)
    assert again.preprocessing.mean != again.info.mean


def test_a_resumed_run_keeps_them_too(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny(f"model.weights={_weights(tmp_path)}", "trainer.max_epochs=1")
    result = vitkit.train(config, progress=False)
    (result.folder / "results.json").unlink()
    (tmp_path / "weights.pth").unlink()
    vitkit.resume(result.folder, progress=False)
    assert read_checkpoint(result.checkpoint).preprocessing["mean"] == [0.5, 0.5, 0.5]


def test_a_config_that_overrides_them_says_so(tiny: Tiny, tmp_path: Path) -> None:
    built = build(tiny(f"model.weights={_weights(tmp_path)}", "data.normalize=imagenet"))
    assert built.preprocessing.mean == (0.485, 0.456, 0.406)
    assert built.report is not None
    (line,) = [line for line in built.report.lines() if "data.normalize" in line]
    assert "data.normalize=imagenet overrides the weights' own mean 0.5, 0.5, 0.5" in line
    without = build(tiny())
    assert without.report is None
    assert without.preprocessing.mean == without.info.mean


def test_another_size_is_noted(tiny: Tiny, tmp_path: Path) -> None:
    first = vitkit.train(tiny("trainer.max_epochs=1"), progress=False)
    built = build(tiny(f"model.weights={first.checkpoint}", "model.img_size=16", folder="next"))
    assert built.report is not None
    assert "trained on 8 x 8 px, used at 16 x 16 px" in " ".join(built.report.notes)


def test_the_head_follows_the_names_of_the_classes(tiny: Tiny) -> None:
    """In another order they keep their rows; of other names it begins anew."""
    first = vitkit.train(tiny("trainer.max_epochs=1"), progress=False)
    trained = read_checkpoint(first.checkpoint)
    data, config = build_data(tiny()), tiny(f"model.weights={first.checkpoint}", folder="next")
    names = trained.data["class_names"]
    for other, kept in ((names[::-1], True), ([f"{name}?" for name in names], False)):
        info = replace(data.info, class_names=tuple(other))
        built = build(config, ImageData(info, data.train, data.val, data.test))
        same = torch.equal(built.model.head.weight, trained.weights["head.weight"].flip(0))
        assert same == kept
        assert built.report is not None
        assert ("head.weight" in built.report.new) != kept
        assert "head" in " ".join(built.report.notes)


def test_a_head_that_is_zeroed_does_not_count_as_loaded(tiny: Tiny) -> None:
    """configs/finetune_folder.yaml does so, whatever the weights."""
    first = vitkit.train(tiny("trainer.max_epochs=1"), progress=False)
    weights = f"model.weights={first.checkpoint}"
    report = build(tiny(weights, "task.finetune.zero_head=true", folder="next")).report
    assert report is not None
    assert set(report.new) == {"head.weight", "head.bias"}
    assert not {"head.weight", "head.bias"} & set(report.loaded)
    assert "task.finetune.zero_head: head.weight, head.bias" in " ".join(report.notes)


def test_how_pictures_are_fitted_is_noted_where_the_weights_say_otherwise(tiny: Tiny) -> None:
    config = tiny(folder="next")
    report = LoadReport(
        preprocessing={"crop_pct": 0.875, "interpolation": "bilinear", "crop_mode": "center"}
    )
    built = build(config)
    run_preprocessing(built.model, built.info, config, report)
    (note,) = report.notes
    assert "theirs: data.interpolation=bilinear, data.crop_pct=0.875" in note
    assert "crop_mode" not in note
    as_they_want = tiny("data.interpolation=bilinear", "data.crop_pct=0.875", folder="next")
    again = LoadReport(preprocessing=report.preprocessing)
    info = build_data(as_they_want).info
    preprocessing = run_preprocessing(built.model, info, as_they_want, again)
    assert again.notes == []
    assert (preprocessing.interpolation, preprocessing.crop_pct) == ("bilinear", 0.875)


def test_timms_own_weights_bring_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    real = timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda name, pretrained=False, **more: real(name, **more)
    )
    settings = ["model.name=timm/vit_tiny_patch16_224", "model.img_size=32"]
    settings += ["data.name=synthetic", "data.synthetic_size=80"]
    built = build(load_config([], [*settings, "model.pretrained=true"]))
    assert built.preprocessing.mean == (0.5, 0.5, 0.5)
    assert built.report is not None
    assert built.report.format == "timm"
    fresh = build(load_config([], settings))
    assert fresh.preprocessing.mean == fresh.info.mean


def test_a_run_is_weights(tiny: Tiny) -> None:
    """Its folder stands for the checkpoint that it tested."""
    run = train(tiny("trainer.max_epochs=1", "run.report=true"), progress=False)
    again = train(
        tiny(f"model.weights={run.folder}", "optimizer.lr=1e-9", folder="again"), progress=False
    )
    assert again.metrics["test/loss"] == pytest.approx(run.metrics["test/loss"], rel=1e-4)
    model = vitkit.load_model(run.folder).model
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    report = vitkit.load_weights(model, run.folder)
    assert not report.new and not report.unused
    assert any(bool(parameter.abs().sum()) for parameter in model.parameters())


def test_a_model_whose_names_begin_like_a_wrapper_comes_back(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrapped(torch.nn.Module):
        def __init__(self, num_classes: int = 4, img_size: object = 8, **more: object) -> None:
            super().__init__()
            self.net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(num_classes))
            self.net(torch.zeros(1, 3, 8, 8))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.net(images)
            return logits

    monkeypatch.setitem(_BUILDERS, "wrapped", Wrapped)
    monkeypatch.setitem(CUSTOM, "wrapped", "a layer in another")
    words = [f"data.{name}" for name in ("name=synthetic", "synthetic_size=40", "img_size=8")]
    words.append("data.batch_size=8")
    config = load_config([], [*words, "model.name=wrapped", "trainer.max_epochs=1"])
    run = train(config, [f"run.dir={tiny().run.dir}", "run.report=false"], progress=False)
    out = vitkit.export(run.folder).folder
    loaded = vitkit.load_model(out)
    assert not loaded.report.new
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(loaded.model(images), vitkit.load_model(run.folder).model(images))


def test_a_run_and_its_checkpoint_load_as_they_were(tiny: Tiny) -> None:
    result = vitkit.train(tiny("trainer.max_epochs=1"), progress=False)
    kept = read_checkpoint(result.checkpoint)
    for source in (result.folder, result.checkpoint):
        model, preprocessing = vitkit.load_model(source)
        assert preprocessing.to_dict() == kept.preprocessing
        assert all(torch.equal(t, kept.weights[n]) for n, t in model.state_dict().items())
    loaded = vitkit.load_model(result.checkpoint, num_classes=7)
    assert loaded.model(torch.zeros(1, 3, 8, 8)).shape == (1, 7)
    assert loaded.class_names == ()
    cut = replace(kept, trained=dict(list(kept.trained.items())[1:]), averaged=None)
    with pytest.raises(WeightsError, match=r"last.ckpt does not fit its own config: Error"):
        build_from_checkpoint(cut)


def test_a_checkpoint_is_read_once_whatever_it_is_called(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = vitkit.train(tiny("trainer.max_epochs=1"), progress=False)
    kept, renamed = read_checkpoint(result.checkpoint), tmp_path / "x.pt"
    renamed.write_bytes(result.checkpoint.read_bytes())
    reads = Mock(wraps=torch.load)
    monkeypatch.setattr(torch, "load", reads)
    for source in (result.checkpoint, renamed):
        loaded = vitkit.load_model(source)
        assert loaded.section == kept.model
        assert loaded.preprocessing.to_dict() == kept.preprocessing
        assert loaded.class_names == tuple(kept.data["class_names"])
        assert all(torch.equal(t, kept.weights[n]) for n, t in loaded.model.state_dict().items())
    assert reads.call_count == 2


PROCESSORS: dict[str, dict[str, Any]] = {
    "squash": {"size": {"height": 40, "width": 40}, "do_center_crop": False},
    "squash then crop": {
        "size": {"height": 48, "width": 48},
        "do_center_crop": True,
        "crop_size": {"height": 40, "width": 40},
    },
    "edge then crop": {
        "size": {"shortest_edge": 48},
        "do_center_crop": True,
        "crop_size": {"height": 40, "width": 40},
    },
    "old numbers": {"size": 48, "do_center_crop": True, "crop_size": 40},
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_processors_of_hugging_face_are_read_as_its_own_code_does(name: str) -> None:
    values = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4], "resample": 2}
    given = {**values, **PROCESSORS[name]}
    stated = with_processor(Stated(), given).preprocessing
    picture = Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    )
    ours = stated_preprocessing(stated, img_size=tuple(stated["img_size"]), in_chans=3)
    got = ours(ours.prepare_image(picture)[None])[0]
    # Their code in torchvision's words: resize, crop, scale.
    size = given["size"]
    edge = size.get("shortest_edge") if isinstance(size, dict) else None
    both = [size, size] if isinstance(size, int) else [size.get("height"), size.get("width")]
    steps: list[Any] = [v2.Resize(edge if edge else both, antialias=True)]
    if given["do_center_crop"]:
        steps.append(v2.CenterCrop([40, 40]))
    steps += [v2.ToDtype(torch.float32, scale=True)]
    steps.append(v2.Normalize(values["image_mean"], values["image_std"]))
    wanted = v2.Compose(steps)(v2.functional.pil_to_tensor(picture))
    assert got.shape == wanted.shape == (3, 40, 40)
    assert float((got - wanted).abs().max()) <= 1e-5


@pytest.mark.parametrize("mode", ["center", "squash"])
@pytest.mark.parametrize("share", [1.0, 0.875])
def test_what_we_write_for_hugging_face_reads_back(mode: str, share: float) -> None:
    plain: dict[str, Any] = {"img_size": [224, 224], "mean": [0.1, 0.2, 0.3], "std": [0.4] * 3}
    plain |= {"interpolation": "bilinear", "crop_pct": share, "crop_mode": mode}
    back = with_processor(Stated(), json.loads(json.dumps(processor_config(plain))))
    for key in ("img_size", "interpolation", "crop_pct", "crop_mode"):
        assert back.preprocessing[key] == plain[key]
    for key in ("mean", "std"):
        assert back.preprocessing[key] == pytest.approx(plain[key])


def test_configs_of_timm_and_hugging_face_say_what_names_do_not() -> None:
    cfg = {"mean": [0.1] * 3, "std": [0.2] * 3, "interpolation": "bilinear", "crop_pct": 0.95}
    cfg |= {"input_size": [3, 96, 64], "crop_mode": "squash"}
    config = {"architecture": "vit_so400m_patch16_siglip_256", "pretrained_cfg": cfg}
    stated = from_config({**config, "label_names": ["cat", "dog"]})
    assert stated.arguments["num_heads"] == 16
    assert stated.arguments["act_layer"] == "gelu_tanh"
    assert stated.preprocessing["img_size"] == [96, 64]
    assert stated.preprocessing["crop_mode"] == "squash"
    assert stated.class_names == ("cat", "dog")
    theirs = hf.ViTConfig(num_attention_heads=3, hidden_act="gelu_new", num_labels=2).to_dict()
    stated = from_config(theirs)
    assert stated.arguments["num_heads"] == 3
    assert stated.arguments["act_layer"] == "gelu_tanh"
    assert stated.class_names == ()  # LABEL_0, ... are no names
    stated = from_config({**theirs, "id2label": {"10": "k", "0": "a", "2": "c"}})
    assert stated.class_names == ("a", "c", "k")


def test_a_run_with_adapters_is_weights_like_any_other(tiny: Tiny) -> None:
    lora = "task.finetune.mode=lora", "task.finetune.targets=[q,v,fc1]", "trainer.max_epochs=1"
    first = vitkit.train(tiny(*lora), progress=False)
    kept, _, _ = build_from_checkpoint(read_checkpoint(first.checkpoint))
    built = build(tiny(f"model.weights={first.checkpoint}", folder="next"))
    assert built.report is not None and not built.report.new and not built.report.unused
    x = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(built.model.eval()(x), kept(x))
    assert vitkit.load_model(first.checkpoint, num_classes=7).model(x).shape == (2, 7)


def test_a_run_that_began_with_timms_weights_needs_them_no_more(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, fetched = timm.create_model, []

    def create(name: str, pretrained: bool = False, **more: Any) -> Any:
        fetched.append(pretrained)
        return real(name, **more)

    monkeypatch.setattr(timm, "create_model", create)
    names = "model.name=timm/test_vit", "model.pretrained=true", "data.img_size=160"
    plain = tiny("trainer.max_epochs=1", "trainer.max_time=0.0")
    values = to_plain(plain)
    values["model"] = {}
    result = vitkit.train(load_config([], names, base=values), progress=False)
    assert any(fetched)
    fetched.clear()
    (result.folder / "results.json").unlink()
    vitkit.resume(result.folder, progress=False)
    vitkit.load(result.folder)
    older = read_checkpoint(result.checkpoint)
    older.model["pretrained"] = True  # as they were written once
    build_from_checkpoint(older)
    assert fetched and not any(fetched)


def test_weights_of_ones_own_fetch_none_of_timms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, fetched = timm.create_model, []

    def create(name: str, pretrained: bool = False, **more: Any) -> Any:
        fetched.append(pretrained)
        return real(name, **more)

    path = tmp_path / "own.pth"
    torch.save(real("test_vit", num_classes=4).state_dict(), path)
    monkeypatch.setattr(timm, "create_model", create)
    words = ["model.name=timm/test_vit", "model.pretrained=true", f"model.weights={path}"]
    words += ["data.name=synthetic", "data.synthetic_size=40", "data.synthetic_classes=4"]
    built = build(load_config([], [*words, "data.img_size=160"]))
    assert fetched and not any(fetched)
    assert built.report is not None and not built.report.new


def test_a_processor_that_does_not_normalise() -> None:
    plain = with_processor(Stated(), {"do_normalize": False})
    assert (plain.preprocessing["mean"], plain.preprocessing["std"]) == ([0.0] * 3, [1.0] * 3)
    twice = {"do_normalize": False, "rescale_factor": 2 / 255}
    assert with_processor(Stated(), twice).preprocessing["std"] == pytest.approx([0.5] * 3)
    raw = {"do_rescale": False, "image_mean": [127.5] * 3, "image_std": [51.0] * 3}
    unscaled = with_processor(Stated(), raw).preprocessing
    assert unscaled["mean"] == pytest.approx([0.5] * 3)
    assert unscaled["std"] == pytest.approx([0.2] * 3)


@pytest.mark.parametrize(("share", "resized"), [(0.9, 248), (0.95, 235), (0.875, 256)])
def test_a_processor_drops_fractions_as_timm_does(share: float, resized: int) -> None:
    want = Preprocessing((224, 224), (0.5,) * 3, (0.5,) * 3, crop_pct=share)
    written = processor_config(want.to_dict())
    assert written["size"] == {"shortest_edge": resized}
    assert want.fit.resized(300, 450) == (resized, resized * 450 // 300)
    back = stated_preprocessing(
        with_processor(Stated(), written).preprocessing, img_size=(224, 224), in_chans=3
    )
    assert back.fit.resized(300, 450) == want.fit.resized(300, 450)


def test_a_processor_of_a_model_that_is_not_square() -> None:
    want = Preprocessing((96, 64), (0.5,) * 3, (0.5,) * 3, interpolation="bilinear", crop_pct=0.8)
    written = processor_config(want.to_dict())
    picture = np.random.default_rng(0).integers(0, 256, (150, 150, 3), np.uint8)
    theirs = hf.BitImageProcessor(**written)(Image.fromarray(picture), return_tensors="np")
    ours = want(want.prepare_image(Image.fromarray(picture))[None])
    assert theirs["pixel_values"].shape == (1, 3, 96, 64)
    assert float(np.abs(theirs["pixel_values"] - ours.numpy()).mean()) < 0.02
    assert with_processor(Stated(), written).preprocessing["crop_pct"] == pytest.approx(0.8)
