"""Probing runs, weights and timm's models: what is measured, kept, found again and refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import vitkit
from tests.app.neighbours import accuracy_of_neighbours
from tests.conftest import TINY, finished_run
from vitkit.app import probe, prober
from vitkit.app.build import build_data
from vitkit.app.encoders import Encoder, open_encoder
from vitkit.app.features import cached_features
from vitkit.cli.probing import probe_table
from vitkit.config import RunConfig, load_config
from vitkit.data.config import ImageDataConfig
from vitkit.data.sources import load_data
from vitkit.data.splits import ImageData, StreamedSplit
from vitkit.errors import ConfigError, DataError, EvaluationError, RunError, WeightsError
from vitkit.evaluation.few_shot import by_ridge, few_shot
from vitkit.evaluation.logistic import LinearProbe, fit_linear_probe
from vitkit.models import VisionTransformer
from vitkit.records import Record

Tiny = Callable[..., RunConfig]
DATA = ["data.name=synthetic", "data.synthetic_size=120", "data.synthetic_classes=4"]
SMALL: dict[str, Any] = {"img_size": 8, "patch_size": 4, "embed_dim": 64, "depth": 1}
SMALL |= {"num_heads": 1, "num_classes": 7}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("probed") / "run"
    return finished_run(*TINY, f"run.dir={folder}", "trainer.max_epochs=1")


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bare file, in an empty folder that is the current one."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(3)
    path = tmp_path / "weights.pth"
    torch.save(VisionTransformer(**SMALL).state_dict(), path)
    return path


def _kept(folder: Path) -> dict[str, int]:
    """The cached files and when they were written."""
    return {p.name: p.stat().st_mtime_ns for p in (folder / "features").iterdir()}


def test_a_run_with_a_report_is_a_run(trained: Path, tmp_path: Path) -> None:
    """Its arrays are no weights."""
    shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "run" / "predictions.npz").touch()
    assert open_encoder(tmp_path / "run").folder == tmp_path / "run"


def test_a_run_is_probed_on_its_own_data(run: Path) -> None:
    result = probe(run, progress=False)
    assert result.path == run / "probe.json"
    record = Record.read(result.path)
    assert (record.metrics, record.tables) == (result.metrics, result.record.tables)
    accuracies = [f"probe/knn_{k}_acc" for k in (10, 20)]
    accuracies += ["probe/linear_acc", "probe/linear_val_acc", "probe/few_shot_1_acc"]
    assert all(0 <= result.metrics[name] <= 1 for name in accuracies)
    assert "probe/knn_100_acc" not in result.metrics  # there are not so many images
    assert record.facts["data"] == "synthetic" and record.facts["features"] == 16
    assert record.facts["train_images"] == 52 and record.facts["val_images"] == 12
    sweep = record.tables["l2"]
    assert 11 <= len(sweep["l2"]) == len(sweep["val_acc"]) <= 15
    at = sweep["l2"].index(result.metrics["probe/linear_l2"])
    assert sweep["val_acc"][at] == result.metrics["probe/linear_val_acc"] == max(sweep["val_acc"])
    assert {len(draws) for draws in record.tables["few_shot"].values()} == {10}


def test_another_checkpoint_leaves_the_runs_own_probe_alone(run: Path) -> None:
    own = probe(run, progress=False)
    before = own.path.read_bytes(), own.head.read_bytes()
    other = probe(run / "checkpoints" / "best.ckpt", progress=False)
    assert other.path == run / "probe-best.json"
    assert other.head == run / "probe-head-best.safetensors" and other.head.is_file()
    assert (own.path.read_bytes(), own.head.read_bytes()) == before
    assert Record.read(other.path).facts["checkpoint"] == str(run / "checkpoints" / "best.ckpt")
    assert probe(run, progress=False).path == own.path == run / "probe.json"


def test_features_are_what_the_classifier_reads(run: Path) -> None:
    encoder = open_encoder(run)
    test: Any = build_data(encoder.config).test
    model: Any = encoder.model
    found = cached_features(encoder, test, "test", progress=False)
    with torch.no_grad():
        logits = model(encoder.preprocessing(test.images))
        assert (model.head(found) - logits).abs().max() < 1e-5
    assert not model.training


def test_metrics_are_those_of_the_parts(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The refit takes training and validation images, the test images are asked once."""
    made: list[tuple[Tensor, Tensor, float, LinearProbe]] = []

    def fit(features: Tensor, targets: Tensor, classes: int, l2: float, **how: Any) -> LinearProbe:
        made.append(
            (features, targets, l2, fit_linear_probe(features, targets, classes, l2, **how))
        )
        return made[-1][-1]

    monkeypatch.setattr(prober, "fit_linear_probe", fit)
    result = probe(run, progress=False)
    encoder = open_encoder(run)
    data = build_data(encoder.config)
    parts: dict[str, tuple[Tensor, Tensor]] = {}
    for name in ("train", "val", "test"):
        split: Any = getattr(data, name)
        parts[name] = cached_features(encoder, split, name, progress=False), split.targets
    train, val = parts["train"], parts["val"]
    both = torch.cat([train[0], val[0]]), torch.cat([train[1], val[1]])
    features, targets, l2, refitted = made[-1]
    assert torch.equal(features, both[0]) and torch.equal(targets, both[1])
    assert l2 == result.metrics["probe/linear_l2"]
    assert refitted.accuracy(*parts["test"]) == result.metrics["probe/linear_acc"]
    linear = fit_linear_probe(*both, 4, result.metrics["probe/linear_l2"])
    accuracy = linear.accuracy(*parts["test"])
    assert abs(result.metrics["probe/linear_acc"] - accuracy) <= 1 / len(parts["test"][1])
    for count in (10, 20):
        # Rounding may turn a tie of votes: one image at most.
        wanted = accuracy_of_neighbours(count, both, parts["test"])
        found = result.metrics[f"probe/knn_{count}_acc"]
        assert found == pytest.approx(wanted, abs=1.01 / len(parts["test"][1]))
    few = few_shot(both, parts["test"], 4)
    assert result.metrics["probe/few_shot_5_acc"] == pytest.approx(few[5].mean)
    assert result.metrics["probe/few_shot_5_sd"] == pytest.approx(few[5].deviation)
    least = few_shot(both, parts["test"], 4, classifier=by_ridge)
    assert result.metrics["probe/few_shot_ridge_5_acc"] == pytest.approx(least[5].mean)
    assert result.metrics["probe/few_shot_ridge_5_sd"] == pytest.approx(least[5].deviation)
    assert result.metrics["probe/few_shot_ridge_5_acc"] != result.metrics["probe/few_shot_5_acc"]


def test_the_refitted_probe_alone_is_asked_about_the_test_images(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that knows a single class is right about its share of them."""
    before = probe(run, progress=False).metrics

    def fit(features: Tensor, *arguments: Any, **how: Any) -> LinearProbe:
        zeros, ones = torch.zeros(features.shape[1]), torch.ones(features.shape[1])
        always = torch.tensor([0.0, 0.0, 1.0, 0.0])
        return LinearProbe(torch.zeros(features.shape[1], 4), always, zeros, ones)

    monkeypatch.setattr(prober, "fit_linear_probe", fit)
    after = probe(run, progress=False).metrics
    test: Any = build_data(open_encoder(run).config).test
    assert after["probe/linear_acc"] == pytest.approx((test.targets == 2).double().mean().item())
    changed = {name for name, value in after.items() if value != before[name]}
    assert changed == {"probe/linear_acc"}


def test_a_second_time_reads_what_was_kept(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = probe(run, progress=False)
    kept = _kept(run)
    assert len(kept) == 3 and all(name.endswith(".safetensors") for name in kept)

    def never(*arguments: object) -> None:
        raise AssertionError("computed again")

    with monkeypatch.context() as patch:
        patch.setattr(Encoder, "features", never)
        assert probe(run, progress=False).metrics == first.metrics
    assert _kept(run) == kept
    shutil.rmtree(run / "features")
    assert probe(run, progress=False).metrics == first.metrics


@pytest.mark.parametrize("damage", ["cut", "flipped", "text", "empty"])
def test_what_is_damaged_is_made_anew(run: Path, damage: str) -> None:
    first = probe(run, progress=False)
    sizes = {}
    for path in (run / "features").iterdir():
        whole = path.read_bytes()
        sizes[path.name] = len(whole)
        last = bytes([whole[-1] ^ 1])
        path.write_bytes(
            {
                "cut": whole[: len(whole) // 2],
                "flipped": whole[:-1] + last,
                "text": b"no tensors at all",
                "empty": b"",
            }[damage]
        )
        assert path.read_bytes() != whole
    assert probe(run, progress=False).metrics == first.metrics
    assert {path.name: path.stat().st_size for path in (run / "features").iterdir()} == sizes


def test_other_weights_images_or_statistics_are_other_files(run: Path, weights: Path) -> None:
    probe(weights, DATA, progress=False)
    folder = Path("runs/probe/weights-synthetic")
    first = set(_kept(folder))
    probe(weights, [*DATA, "data.synthetic_size=160"], progress=False)
    second = set(_kept(folder)) - first
    assert len(second) == 3
    probe(weights, [*DATA, "data.split_seed=4"], progress=False)
    third = set(_kept(folder)) - first - second
    assert 1 <= len(third) <= 3  # the test images may be the same
    model = VisionTransformer(**SMALL)
    torch.save(model.state_dict(), weights)
    probe(weights, DATA, progress=False)
    assert len(set(_kept(folder)) - first - second - third) == 3


def test_streamed_images_are_known_by_their_files(run: Path, tmp_path: Path) -> None:
    from tests.small_data import write_pictures

    write_pictures(tmp_path / "pictures", a_class=24)
    words = ["data.name=image_folder", f"data.root={tmp_path / 'pictures'}", "data.num_workers=0"]
    held = probe(run, words, progress=False)
    before = set(_kept(run))
    streamed = probe(run, [*words, "data.resident=never"], progress=False)
    assert streamed.metrics == held.metrics
    after = set(_kept(run))
    assert len(after - before) == 3
    probe(run, [*words, "data.resident=never"], progress=False)
    assert set(_kept(run)) == after
    os.utime(tmp_path / "pictures" / "cat" / "0.png", (1, 1))
    probe(run, [*words, "data.resident=never"], progress=False)
    assert len(set(_kept(run)) - after) == 1
    encoder = open_encoder(run)
    nameless = StreamedSplit([0, 1], [0, 1], lambda item: torch.full((3, 8, 8), 9).byte())
    count = len(_kept(run))
    found = cached_features(encoder, nameless, "made up", progress=False)
    assert found.shape == (2, 16) and len(_kept(run)) == count


def test_a_folder_that_takes_no_files_is_no_hindrance(run: Path) -> None:
    (run / "features").write_text("a file where a folder should be")
    assert probe(run, progress=False).metrics["probe/linear_acc"] >= 0


def test_weights_of_other_classes_and_sizes(weights: Path) -> None:
    """A bare file of seven classes, on data of four and of three times its size."""
    result = probe(weights, [*DATA, "data.eval_batch_size=8"], progress=False)
    assert result.path == Path("runs/probe/weights-synthetic/probe.json")
    facts = result.record.facts
    assert facts["format"] == "timm ViT" and facts["features"] == 64
    encoder = open_encoder(weights, DATA)
    assert encoder.preprocessing.mean == (0.5,) * 3  # stated by the layout, not by the data
    enlarged = encoder.features(torch.zeros(2, 3, 24, 24, dtype=torch.uint8))
    assert torch.allclose(enlarged, encoder.features(torch.zeros(2, 3, 8, 8, dtype=torch.uint8)))


def test_cifar_is_resized_a_batch_at_a_time(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.small_data import write_cifar

    write_cifar("cifar10", tmp_path / "data", monkeypatch, a_class=20, test=3)
    words = ["data.name=cifar10", f"data.root={tmp_path / 'data'}"]
    result = probe(weights, [*words, "model.img_size=16"], progress=False)
    assert result.record.facts["test_images"] == 30
    encoder = open_encoder(weights, [*words, "model.img_size=16"])
    assert encoder.preprocessing.img_size == (16, 16)
    config = ImageDataConfig(name="cifar10", root=str(tmp_path / "data"))
    small, large = (load_data(config, img_size=size).test for size in (None, (16, 16)))
    assert small is not None and large is not None
    found = cached_features(encoder, small, "test", progress=False)
    assert (found - cached_features(encoder, large, "test", progress=False)).abs().max() < 1e-6


def test_models_of_timm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model: Any = timm.create_model("resnet10t", num_classes=7).eval()
    torch.save(model.state_dict(), tmp_path / "w.pth")
    words = [*DATA, "model.num_classes=7", "model.img_size=32"]
    source = ("timm:resnet10t", tmp_path / "w.pth")
    encoder = open_encoder(source, words)
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    mean, std = (torch.tensor(model.pretrained_cfg[key])[:, None, None] for key in ("mean", "std"))
    with torch.no_grad():
        wanted = model.forward_head(model.forward_features((images / 255 - mean) / std), True)
        got = encoder.features(images)
    assert (got - wanted).abs().max() < 1e-4 * wanted.abs().max()
    result = probe(source, words, progress=False)
    assert result.path == Path("runs/probe/timm-resnet10t-synthetic/probe.json")
    with pytest.raises(ConfigError, match="which weights"):
        probe("timm:resnet10t", DATA)
    with pytest.raises(ConfigError, match="brings its own weights"):
        probe(("w.pth", "w.pth"), DATA)


def test_what_was_pre_trained_without_labels(tiny: Tiny) -> None:
    config = tiny("task.name=mae", "task.decoder_embed_dim=8", "task.decoder_num_heads=2")
    result = vitkit.train(config, progress=False)
    found = probe(result.folder, progress=False)
    assert found.record.facts["features"] == 16
    assert found.path == result.folder / "probe.json"


def test_data_of_ones_own(weights: Path) -> None:
    data = load_data(load_config([], DATA).data, img_size=(8, 8))  # type: ignore[arg-type]
    given = probe(weights, data=data, progress=False)
    assert given.metrics == probe(weights, DATA, progress=False).metrics
    without = ImageData(data.info, data.train, None, data.test)
    with pytest.raises(DataError, match=r"no val images.*data\.val_fraction"):
        probe(weights, data=without, progress=False)


def test_what_cannot_be_probed(run: Path, weights: Path, tmp_path: Path) -> None:
    for source, words, error, said in (
        (weights, [], ConfigError, "on which data"),
        (weights, [*DATA, "data.val_fraction=0"], DataError, r"no val images.*val_fraction"),
        (run, ["model.depth=3"], ConfigError, "leave the setting out"),
        (tmp_path / "none.ckpt", DATA, RunError, "no such run folder"),
        ("hf-hub:not a name!", DATA, WeightsError, "owner/model"),
        (weights, [*DATA, "model.depth=x"], ConfigError, "depth"),
    ):
        with pytest.raises(error, match=said):
            probe(source, words, progress=False)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match="no checkpoint"):
        probe(tmp_path / "empty", DATA, progress=False)
    bad = VisionTransformer(**SMALL).state_dict()
    bad["norm.weight"] = torch.full_like(bad["norm.weight"], torch.nan)
    torch.save(bad, weights)
    with pytest.raises(EvaluationError, match="not finite"):
        probe(weights, DATA, progress=False)


def test_a_model_must_have_features_of_one_vector(run: Path) -> None:
    encoder = open_encoder(run)
    images = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    unpooled: Any = VisionTransformer(**SMALL, class_token=False, global_pool="")
    for model, said in ((nn.Flatten(), "no features before"), (unpooled, "pools nothing")):
        other = Encoder(
            model,
            encoder.section,
            encoder.preprocessing,
            encoder.config,
            encoder.device,
            encoder.folder,
            {},
        )
        with pytest.raises(EvaluationError, match=said):
            other.features(images)


def test_the_table_fits_a_terminal(run: Path) -> None:
    result = probe(run, progress=False)
    lines = probe_table(result.metrics, result.record.facts)
    assert [line.split("  ")[0].strip() for line in lines[:3]] == [
        "linear probe",
        "10 neighbours",
        "20 neighbours",
    ]
    metrics = {**dict.fromkeys(result.metrics, 1.0), "probe/linear_l2": 1.33352e-06}
    metrics |= {f"probe/knn_{k}_acc": 1.0 for k in (100, 200)}
    for line in probe_table(metrics, result.record.facts):
        assert len(line) <= 80
        assert "100.00%" in line
    assert json.loads(result.path.read_text())["probe/linear_acc"] == pytest.approx(
        result.metrics["probe/linear_acc"]
    )
