"""Evaluating runs, checkpoints and timm's models: what is written, compared and refused."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image

from tests.conftest import TINY, finished_run
from tests.small_data import write_pictures
from vitkit.app import compare, evaluate, train
from vitkit.app.evaluator import SUITES
from vitkit.app.other_sets import CIFAR10, NAMED
from vitkit.app.subjects import Subject, open_subject
from vitkit.app.suites import predictions_of
from vitkit.cli.arguments import models_and_settings
from vitkit.cli.tables import comparison_table, paired_lines, split_table
from vitkit.config import load_config
from vitkit.data.imagenet import IMAGENET_A, IMAGENET_R
from vitkit.data.info import DataInfo
from vitkit.data.splits import ImageData, ResidentSplit
from vitkit.errors import ConfigError, DataError, EvaluationError, RunError, WeightsError
from vitkit.evaluation.adversarial import pgd_l2
from vitkit.evaluation.agreement import compare_paired
from vitkit.evaluation.calibration import fit_temperature
from vitkit.evaluation.config import EvalConfig
from vitkit.evaluation.corruptions.catalogue import TEST_CORRUPTIONS, corrupt
from vitkit.evaluation.perturbations import (
    lower_resolution,
    occlude_patches,
    shuffle_patches,
    white_noise,
)
from vitkit.evaluation.robustness import (
    ALEXNET_ERRORS,
    mean_corruption_error,
    relative_corruption_error,
)
from vitkit.evaluation.speed import Speed
from vitkit.records import PredictionRecord, Record

SMALL = ["model.img_size=32", "data.synthetic_size=160", "trainer.max_epochs=1"]
SPEED = ["eval.speed_seconds=0.01", "eval.speed_max_batch=2"]
QUICK = [*SPEED, "eval.pgd_steps=2"]
TIMM = ["data.name=synthetic", "data.synthetic_classes=4", "model.img_size=32"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two finished runs on images of 32 pixels."""
    folder = tmp_path_factory.mktemp("evaluated")
    for seed in (0, 1):
        finished_run(*TINY, *SMALL, f"run.dir={folder / str(seed)}", f"run.seed={seed}")
    return folder / "0", folder / "1"


@pytest.fixture
def run(runs: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy of the first."""
    shutil.copytree(runs[0], tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of weights of timm's smallest ViT for four classes and 32 pixels."""
    path = tmp_path_factory.mktemp("weights") / "timm.pth"
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=4, img_size=32)
    torch.save(model.state_dict(), path)
    return path


def _without_times(path: Path) -> list[str]:
    lines = path.read_text().splitlines()
    kept = [line for line in lines if '"wall_seconds"' not in line]
    assert len(lines) == len(kept) + 1
    return kept


def test_twice_gives_the_same_bytes_but_times(run: Path) -> None:
    first = evaluate(run, progress=False)
    before = _without_times(run / "eval.json")
    arrays = {name: array.tobytes() for name, array in vars(_predictions(run)).items()}
    evaluate(run, progress=False)
    assert _without_times(run / "eval.json") == before
    assert {n: array.tobytes() for n, array in vars(_predictions(run)).items()} == arrays
    record = Record.read(run / "eval.json")
    assert (record.metrics, record.tables) == (first.record.metrics, first.record.tables)
    results = Record.read(run / "results.json").metrics
    for name in ("test/acc", "test/loss"):
        assert first.metrics[name] == results[name]
    assert record.facts["tta"] == "none" and record.facts["split"] == "test"


def _predictions(folder: Path) -> PredictionRecord:
    return PredictionRecord.read(folder / "predictions.npz")


def test_predictions_say_what_the_metrics_say(run: Path) -> None:
    result = evaluate(run, progress=False)
    kept = _predictions(run)
    predicted = kept.logits.argmax(1)
    assert result.metrics["test/acc"] == pytest.approx((predicted == kept.targets).mean())
    assert kept.confusion.sum() == len(kept.targets) == result.count
    assert np.trace(kept.confusion) == (predicted == kept.targets).sum()
    assert kept.class_names.tolist() == [f"class {i}" for i in range(4)]
    assert kept.indices.tolist() == list(range(result.count))
    table = result.record.tables["classes"]
    assert table["class"] == kept.class_names.tolist()
    assert table["images"] == kept.confusion.sum(1).tolist()


def test_the_validation_split_and_views(run: Path) -> None:
    val = evaluate(run, split="val", progress=False)
    assert "val/acc" in val.metrics and "val/temperature" not in val.metrics
    flip = evaluate(run, ["eval.tta=flip"], progress=False)
    assert flip.record.facts["tta"] == "flip"
    plain = evaluate(run, progress=False)
    assert flip.metrics["test/loss"] != plain.metrics["test/loss"]
    subject = open_subject(run, progress=False)
    held_out = subject.data.val
    assert held_out is not None
    for found, views in ((plain, "none"), (flip, "flip")):
        said = predictions_of(subject, held_out, "val", views=views, progress=False)
        fitted = fit_temperature(said.logits, said.targets)
        assert found.metrics["test/temperature"] == pytest.approx(fitted)
        assert found.predictions is not None
        own = fit_temperature(found.predictions.logits, found.predictions.targets)
        assert own != pytest.approx(fitted, rel=1e-3)
    other = evaluate(run, ["eval.seed=3"], progress=False)
    assert other.metrics["test/acc"] == plain.metrics["test/acc"]
    assert other.metrics["test/loss_low"] != plain.metrics["test/loss_low"]


def test_how_wide_an_interval_is(run: Path) -> None:
    usual = evaluate(run, progress=False)
    narrow = evaluate(run, ["eval.confidence=0.5"], progress=False)
    fewer = evaluate(run, ["eval.resamples=100"], progress=False)
    assert narrow.record.facts["confidence"] == 0.5 and fewer.record.facts["resamples"] == 100
    for name in ("acc_wilson", "loss", "brier"):
        inner, outer = (
            [found.metrics[f"test/{name}_{end}"] for end in ("low", "high")]
            for found in (narrow, usual)
        )
        assert outer[0] <= inner[0] < inner[1] <= outer[1], name
        assert inner[1] - inner[0] < 0.8 * (outer[1] - outer[0]), name
    assert fewer.metrics["test/loss_low"] != usual.metrics["test/loss_low"]
    assert fewer.metrics["test/acc_wilson_low"] == usual.metrics["test/acc_wilson_low"]


def test_how_long_speed_is_measured_and_of_what(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiled model is measured beside the plain one, a shape at a time."""
    asked: list[dict[str, Any]] = []
    compiled, resets = list[int](), list[int]()

    def measured(run: Any, batch_of: Any, **how: Any) -> Speed:
        asked.append(how)
        for size in (1, 2):
            run(batch_of(size))
        return Speed(0.5 * len(asked), 8.0, 2, {1: 2.0, 2: 8.0})

    def compiling(model: Any, **how: Any) -> Any:
        assert how == {"dynamic": False}

        def run(images: torch.Tensor) -> torch.Tensor:
            compiled.append(len(images))
            return model(images)

        return run

    monkeypatch.setattr("vitkit.app.suites.measure_speed", measured)
    monkeypatch.setattr(torch, "compile", compiling)
    monkeypatch.setattr(torch.compiler, "reset", lambda: resets.append(len(compiled)))
    settings = ["eval.speed_seconds=0.25", "eval.speed_max_batch=3"]
    found = evaluate(run, settings, suite="speed", progress=False)
    assert asked == [{"seconds": 0.25, "max_batch": 3}] and compiled == []
    assert not any("compiled" in name for name in found.metrics)
    found = evaluate(run, [*settings, "eval.compile=true"], suite="speed", progress=False)
    assert asked == [{"seconds": 0.25, "max_batch": 3}] * 3
    assert compiled == [1, 2] and resets == [0, 1]
    assert found.metrics["speed/latency_ms"] == 1000 and found.metrics["speed/best_batch"] == 2
    assert found.metrics["speed/compiled/latency_ms"] == 1500
    assert found.metrics["speed/compiled/images_per_second"] == 8.0
    assert found.record.tables["rates_compiled"] == found.record.tables["rates"]


def test_all_suites_leave_their_files(run: Path) -> None:
    settings = [*QUICK, "eval.shift_images=12", "eval.attack_images=6", "eval.epsilons=[4]"]
    settings.append("eval.mce_baseline=alexnet")
    result = evaluate(run, settings, suite="all", progress=False)
    names = ["predictions.npz", "eval.json", "eval-shift.json", "eval-speed.json"]
    assert [path.name for path in result.written] == names
    assert list(result.records) == list(SUITES["all"])
    shift = Record.read(run / "eval-shift.json")
    table = shift.tables["corruptions"]
    assert len(table["corruption"]) == 19
    at = table["corruption"].index("fog")
    mean = sum(table[f"severity_{s}"][at] for s in range(1, 6)) / 5
    assert shift.metrics["test/corrupted/fog/acc"] == pytest.approx(mean)
    assert shift.facts["changed_images"] == 12 and shift.facts["attacked_images"] == 6
    for attack in ("pgd/4_255", "pgd_l2/0.5"):
        assert shift.metrics[f"test/{attack}/acc"] <= shift.metrics["test/attacked/clean/acc"]
    assert {f"test/occluded/0.{tenths}/acc" for tenths in range(1, 10)} <= set(shift.metrics)
    errors = {
        name: [1 - table[f"severity_{s}"][index] for s in range(1, 6)]
        for index, name in enumerate(table["corruption"])
    }
    own = 1 - shift.metrics["test/changed/clean/acc"]
    for name, want in {
        "err": mean_corruption_error(errors),
        "mce": mean_corruption_error(errors, ALEXNET_ERRORS),
        "mce_relative": relative_corruption_error(errors, own, ALEXNET_ERRORS, 0.4348),
    }.items():
        assert shift.metrics[f"test/corrupted/{name}"] == pytest.approx(want), name
    speed = Record.read(run / "eval-speed.json")
    assert speed.metrics["cost/parameters"] == Record.read(run / "results.json").facts["parameters"]
    assert speed.metrics["cost/gflops_executed"] <= speed.metrics["cost/gflops"]
    assert speed.metrics["speed/best_batch"] in (1, 2)
    for record in result.records.values():
        assert record.metrics.items() <= result.metrics.items()


def test_shift_is_the_same_for_any_batch_size_and_a_part_of_the_whole(run: Path) -> None:
    few = ["eval.shift_images=10", "eval.attack_images=1", "eval.pgd_steps=1"]
    found = [
        evaluate(run, [*few, f"data.eval_batch_size={n}"], suite="shift", progress=False).record
        for n in (3, 256)
    ]
    assert found[0].metrics == found[1].metrics and found[0].tables == found[1].tables


def test_the_shift_suite_asks_about_the_images_that_it_names(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten of the test images, spread evenly, each changed by its place among all of them."""
    subject = open_subject(run, progress=False)
    test = subject.data.test
    assert isinstance(test, ResidentSplit)
    places = torch.arange(10) * len(test) // 10
    assert places.tolist() != list(range(10))
    images, targets = test.images[places], test.targets[places]
    asked: list[torch.Tensor] = []
    predict = Subject.predict

    def spy(self: Subject, given: torch.Tensor) -> torch.Tensor:
        asked.append(given.detach().clone())
        return predict(self, given)

    with monkeypatch.context() as patch:
        patch.setattr(Subject, "predict", spy)
        settings = ["eval.shift_images=10", "eval.attack_images=5", "eval.epsilons=[4]"]
        settings += ["eval.epsilons_l2=[0.25]", "eval.pgd_steps=1", "eval.seed=2"]
        record = evaluate(run, settings, suite="shift", progress=False).record

    def accuracy(given: torch.Tensor, of: torch.Tensor = targets) -> float:
        assert any(given.shape == one.shape and torch.equal(given, one) for one in asked)
        with torch.no_grad():
            return float((subject.predict(given).argmax(1) == of).double().mean())

    table = record.tables["corruptions"]
    drawn: dict[str, Any] = {"indices": places, "seed": 2}
    for name in ("fog", "gaussian_noise", "glass_blur"):
        at = table["corruption"].index(name)
        for severity in range(1, 6):
            found = table[f"severity_{severity}"][at]
            assert found == pytest.approx(accuracy(corrupt(images, name, severity, **drawn)))
    wanted = {
        "occluded/0.3": occlude_patches(images, (8, 8), 0.3, **drawn),
        "occluded/0.5": occlude_patches(images, (8, 8), 0.5, **drawn),
        "shuffled/4x4": shuffle_patches(images, (4, 4), **drawn),
        "white_noise/0.2": white_noise(images, 0.2, **drawn),
        "resolution/16x16": lower_resolution(images, (16, 16)),
    }
    for name, changed in wanted.items():
        assert record.metrics[f"test/{name}/acc"] == pytest.approx(accuracy(changed)), name
    some, known = images[::2] / 255, targets[::2]
    clean = accuracy(some * 255, known)
    assert record.metrics["test/attacked/clean/acc"] == pytest.approx(clean)
    right = subject.predict(some * 255).argmax(1) == known
    given = some[right].requires_grad_()
    F.cross_entropy(subject.predict(given * 255), known[right], reduction="sum").backward()
    assert given.grad is not None
    changed = (given + given.grad.sign() * 4 / 255).clamp(0, 1).detach()
    hits = accuracy(changed * 255, known[right]) * int(right.sum())
    assert record.metrics["test/fgsm/4_255/acc"] == pytest.approx(hits / 5)
    assert right.any()
    walked = pgd_l2(
        lambda x: subject.predict(x * 255),
        some[right],
        known[right],
        0.25,
        steps=1,
        indices=places[::2][right],
        seed=2,
    )
    with torch.no_grad():
        hits = int((subject.predict(walked * 255).argmax(1) == known[right]).sum())
    assert record.metrics["test/pgd_l2/0.25/acc"] == pytest.approx(hits / 5)


def test_several_models_are_held_against_the_first(runs: tuple[Path, Path]) -> None:
    found = compare([*runs, runs[0]], progress=False)
    a, b, _ = (result.predictions for result in found.results)
    assert a is not None and b is not None and len(found.paired) == 2
    want = compare_paired(a.logits.argmax(1) == a.targets, b.logits.argmax(1) == b.targets)
    assert found.paired[0] == want
    assert found.paired[1] is not None and found.paired[1].mcnemar_p == 1.0
    assert (runs[0] / "eval.json").exists() and (runs[1] / "eval.json").exists()
    # The third shares the first one's folder.
    assert (runs[0] / "eval-last.json").exists() and (runs[0] / "predictions-last.npz").exists()
    table = comparison_table([result.metrics for result in found.results])
    assert max(map(len, table.splitlines())) <= 80
    assert table.splitlines()[0].split() == ["1", "2", "3"]
    row = next(line for line in table.splitlines() if line.startswith("test/acc "))
    shown = [f"{result.metrics['test/acc']:.2%}" for result in found.results]
    assert row.split()[1:] == shown
    lines = paired_lines([*found.paired, None], [""] * 4)
    assert max(map(len, lines)) <= 80 and "McNemar" in lines[1] and "no paired test" in lines[-1]


def test_another_checkpoint_of_a_run_leaves_the_runs_own_files_alone(
    run: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    evaluate(copy, progress=False)
    own = {name: (copy / name).read_bytes() for name in ("eval.json", "predictions.npz")}
    tested = json.loads((copy / "results.json").read_text())["checkpoint"]
    other = "best.ckpt" if tested == "last.ckpt" else "last.ckpt"
    evaluate(copy / "checkpoints" / other, progress=False)
    assert own == {name: (copy / name).read_bytes() for name in own}
    ending = Path(other).stem
    assert (copy / f"eval-{ending}.json").exists() and (copy / f"predictions-{ending}.npz").exists()


def test_many_models_wrap_to_eighty_columns() -> None:
    models = [{"test/corrupted/elastic_transform/acc": i / 20, f"own/{i}": 2.0} for i in range(9)]
    text = comparison_table(models)
    assert max(map(len, text.splitlines())) <= 80
    assert len(text.split("\n\n")) == 3 and "40.00%" in text


def test_a_model_of_timm_needs_its_name_and_a_file(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = ("timm:vit_tiny_patch16_224", weights)
    result = evaluate(source, TIMM, progress=False)
    folder = Path("runs/eval/timm-vit_tiny_patch16_224-synthetic")
    assert json.loads((folder / "eval.json").read_text())["model"] == "timm/vit_tiny_patch16_224"
    subject = open_subject(source, TIMM, progress=False)
    assert subject.preprocessing.mean == (0.5, 0.5, 0.5)  # as timm states it for this model
    assert subject.facts["normalize"] == "timm's"
    assert not subject.model.training
    images = subject.data.test
    assert isinstance(images, ResidentSplit) and result.predictions is not None
    model = timm.create_model("vit_tiny_patch16_224", num_classes=4, img_size=32).eval()
    model.load_state_dict(torch.load(weights, weights_only=True))
    with torch.no_grad():
        want = model((images.images.float() / 255 - 0.5) / 0.5)
    torch.testing.assert_close(result.predictions.logits, want, atol=1e-4, rtol=1e-4)
    # Images of one size were learned as they are; photographs are fitted as timm states it.
    assert (subject.preprocessing.crop_pct, subject.facts["crop_pct"]) == (1.0, 1.0)
    write_pictures(tmp_path / "photos", classes=("a", "b", "c", "d"))
    photos = [*TIMM, "data.name=image_folder", f"data.root={tmp_path / 'photos'}"]
    photos = [word for word in photos if "synthetic" not in word]
    shown = open_subject(source, photos, progress=False)
    stated = timm.get_pretrained_cfg("vit_tiny_patch16_224")
    assert shown.facts["crop_pct"] == shown.preprocessing.crop_pct == stated.crop_pct == 0.9
    chosen = open_subject(source, [*photos, "data.crop_pct=1.0"], progress=False)
    assert chosen.preprocessing.crop_pct == 1.0
    assert isinstance(shown.data.test, ResidentSplit) and isinstance(
        chosen.data.test, ResidentSplit
    )
    assert not torch.equal(shown.data.test.images, chosen.data.test.images)
    own = open_subject(source, [*TIMM, "data.normalize=none"], progress=False)
    assert own.preprocessing.mean == (0.0, 0.0, 0.0)
    speed = evaluate(source, [*TIMM, *SPEED], suite="speed", progress=False)
    assert speed.metrics["cost/parameters"] == sum(p.numel() for p in model.parameters())
    assert speed.record.facts["precision"] == "32-true"
    # 4 patches and the class token, width 192, 12 blocks.
    tokens, width = 5, 192
    block = 12 * tokens * width**2 + 2 * tokens**2 * width
    due = 2 * (4 * 768 * width + 12 * block + width * 4)
    assert speed.metrics["cost/gflops"] * 1e9 == pytest.approx(due, abs=0.5)


def test_weights_for_larger_images_are_not_shrunk_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(timm.create_model("vit_tiny_patch16_224", num_classes=4).state_dict(), "large.pth")
    source = ("timm:vit_tiny_patch16_224", "large.pth")
    data = [word for word in TIMM if "img_size" not in word]
    with pytest.raises(
        ConfigError, match=r"not for images of 32 x 32 .*img_size=224 .*img_size=32"
    ):
        open_subject(source, data, progress=False)
    for size in (224, 32):
        subject = open_subject(source, [*data, f"model.img_size={size}"], progress=False)
        assert tuple(subject.preprocessing.img_size) == (size, size)


def test_what_is_refused(
    run: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = "timm:vit_tiny_patch16_224"
    for source, settings, error, text in (
        (name, TIMM, ConfigError, "which weights"),
        ((name.replace(":", "/"), weights), TIMM, ConfigError, "only timm:<name> needs a file"),
        ("timm/vit_tiny_patch16_224", [], ConfigError, "on which data"),
        ((name, weights), [], ConfigError, "on which data"),
        ((name, weights), [*TIMM, "data.synthetic_classes=5"], WeightsError, "its own classes"),
        ((name, "none.pth"), TIMM, WeightsError, "none.pth"),
        ((str(run), weights), [], ConfigError, "brings its own weights"),
        ("nothing", [], RunError, "no such run folder"),
        (run, ["data.synthetic_classes=5"], DataError, "knows 4 classes"),
        (
            run,
            ["eval.cifar10_1=x"],
            ConfigError,
            "only the others and shift suites read it; add --suite others",
        ),
        (run, ["eval.speed_seconds=2"], ConfigError, "only the speed suite reads it"),
        (run, ["eval.pgd_steps=2"], ConfigError, "the shift suite reads it; add --suite shift"),
        (run, ["eval.tta=ten"], ConfigError, "eval.tta: given 'ten'"),
        (run, ["eval.resample=3"], ConfigError, "did you mean eval.resamples"),
    ):
        with pytest.raises(error, match=text):
            evaluate(source, settings, progress=False)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="numbers above 0"):
        evaluate(run, ["eval.epsilons=[0]"], suite="shift", progress=False)
    with pytest.raises(ConfigError, match="numbers above 0"):
        evaluate(run, ["eval.epsilons_l2=[-1]"], suite="shift", progress=False)
    with pytest.raises(ConfigError, match="only the shift suite reads it"):
        evaluate(run, ["eval.epsilons_l2=[1]"], progress=False)
    with pytest.raises(ConfigError, match="allowed: standard, shift, others, speed, all"):
        evaluate(run, suite="al", progress=False)
    with pytest.raises(ConfigError, match="allowed: auto, train, val, test, all"):
        evaluate(run, split="training", progress=False)
    with pytest.raises(ConfigError, match=r"several results; take vitkit.app.compare"):
        evaluate(run, split="all", progress=False)
    with pytest.raises(ConfigError, match="allowed with --split all: standard"):
        compare([run], split="all", suite="all", progress=False)
    with pytest.raises(ConfigError, match="nothing to evaluate"):
        compare([], progress=False)
    few = ["eval.shift_images=2", "eval.attack_images=1", "eval.pgd_steps=1"]
    for key, text in (("cifar10_1", "CIFAR-10's ten"), ("imagenet_a", "1,000 classes")):
        with pytest.raises(DataError, match=text):
            evaluate(run, [*few, f"eval.{key}={tmp_path}"], suite="shift", progress=False)


def test_weights_that_give_nan_are_refused(run: Path) -> None:
    path = run / "checkpoints" / "last.ckpt"
    content = torch.load(path, weights_only=True)
    for tensors in (content["state_dict"], content["vitkit"].get("averaged") or {}):
        for name, tensor in tensors.items():
            if name.endswith("head.bias"):
                tensor.fill_(torch.nan)
    torch.save(content, path)
    for suite, settings in (("standard", []), ("shift", ["eval.pgd_steps=2"])):
        with pytest.raises(EvaluationError, match="NaN or infinite logits"):
            evaluate(run, settings, suite=suite, progress=False)


def test_small_images_are_shifted_without_corruptions(
    tmp_path: Path,
) -> None:
    train(None, [*TINY, f"run.dir={tmp_path / 'r'}", "trainer.max_epochs=1"], progress=False)
    settings = ["eval.attack_images=2", "eval.pgd_steps=1", "eval.epsilons_l2=[]"]
    found = evaluate(tmp_path / "r", settings, suite="shift", progress=False)
    assert "test/pgd/8_255/acc" in found.metrics
    assert not any("pgd_l2" in name for name in found.metrics)
    assert not any("corrupted" in name for name in found.metrics)
    assert found.record.facts["corruptions"] == "left out: they need 32 pixels a side"
    assert "test/shuffled/4x4/acc" in found.metrics


def test_other_sets_alone_must_be_named(run: Path) -> None:
    """Those that can be are listed; each is a setting, and no folder of a setting is left out."""
    with pytest.raises(ConfigError, match=r"set eval\.cifar10_1=FOLDER, or one of eval\.") as told:
        evaluate(run, suite="others", progress=False)
    assert all(f"eval.{name}" in str(told.value) for name in NAMED)
    assert not (run / "eval-others.json").exists()
    fields = EvalConfig.model_fields.items()
    paths = {name for name, field in fields if get_args(field.annotation) == (str, type(None))}
    assert set(NAMED) == paths
    with pytest.raises(ConfigError, match="only the shift suite reads it"):
        evaluate(run, ["eval.attack_images=2"], suite="others", progress=False)


def test_other_test_sets_of_cifar10(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> ResidentSplit:
        images = torch.randint(0, 256, (count, 3, 8, 8), generator=generator, dtype=torch.uint8)
        return ResidentSplit(images, torch.arange(count) % 10)

    info = DataInfo("cifar10", CIFAR10, 3, (8, 8), (0.5,) * 3, (0.5,) * 3, class_counts=(6,) * 10)
    data = ImageData(info, split(60), split(20), split(10_000))
    settings = [o for o in TINY if "synthetic" not in o and "data.name" not in o]
    words = ["data.name=cifar10", f"run.dir={tmp_path / 'r'}", "trainer.max_epochs=1"]
    train(load_config([], [*settings, *words]), data=data, progress=False)
    counts = np.zeros((10_000, 10), dtype=np.int64)
    counts[np.arange(10_000), np.arange(10_000) % 10] = 50
    np.save(tmp_path / "cifar10h-counts.npy", counts)
    new = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    np.save(tmp_path / "cifar10.1_v6_data.npy", new)
    np.save(tmp_path / "cifar10.1_v6_labels.npy", np.arange(20, dtype=np.int32) % 10)
    (tmp_path / "c").mkdir()
    np.save(tmp_path / "c" / "labels.npy", np.arange(20) % 10)
    for name in TEST_CORRUPTIONS:
        np.save(tmp_path / "c" / f"{name}.npy", new)
    found = evaluate(
        tmp_path / "r",
        [
            *("eval.shift_images=4", "eval.attack_images=2", "eval.pgd_steps=1"),
            *(f"eval.cifar10h={tmp_path}", f"eval.cifar10_1={tmp_path}", "eval.resamples=100"),
            *(f"eval.cifar_c={tmp_path / 'c'}", "run.report=true"),
        ],
        data=data,
        suite="all",
        progress=False,
    ).metrics
    # Where all people agree with the labels, theirs are the usual numbers.
    assert found["cifar10h/acc"] == pytest.approx(found["test/acc"])
    assert found["cifar10h/loss"] == pytest.approx(found["test/loss"], rel=1e-6)
    assert found["cifar10h/loss_of_people"] == 0.0
    subject, known = open_subject(tmp_path / "r", data=data, progress=False), torch.arange(20) % 10
    with torch.no_grad():
        said = subject.predict(subject.preprocessing.fit(torch.from_numpy(new).permute(0, 3, 1, 2)))
    right = (said.argmax(1) == known).double().mean().item()
    assert found["cifar10_1/acc"] == pytest.approx(right)
    assert found["cifar10_1/loss"] == pytest.approx(F.cross_entropy(said, known).item(), rel=1e-5)
    # The same images as under every corruption of these files, four of each severity.
    assert found["cifar_c/err"] == pytest.approx(1 - found["cifar10_1/acc"])
    assert found["cifar_c/fog/acc"] == pytest.approx(found["cifar10_1/acc"])
    table = Record.read(tmp_path / "r" / "eval-shift.json").tables["cifar_c"]
    assert table["corruption"] == list(TEST_CORRUPTIONS) and len(table["severity_5"]) == 15
    report = (tmp_path / "r" / "report" / "index.html").read_text(encoding="utf-8")
    assert "CIFAR-C as published" in report
    # The sets alone: the same numbers, nothing else, and a file of their own.
    (tmp_path / "r" / "eval-shift.json").unlink()
    alone = evaluate(
        tmp_path / "r",
        [f"eval.cifar10_1={tmp_path}", f"eval.cifar_c={tmp_path / 'c'}", "run.report=true"],
        data=data,
        suite="others",
        progress=False,
    )
    assert [path.name for path in alone.written] == ["eval-others.json"]
    assert {name.split("/")[0] for name in alone.metrics} == {"cifar10_1", "cifar_c"}
    assert alone.metrics.items() <= found.items()
    assert "mce" not in " ".join(alone.metrics)
    kept = Record.read(tmp_path / "r" / "eval-others.json")
    assert kept.metrics == alone.metrics and kept.tables["cifar_c"] == table
    report = (tmp_path / "r" / "report" / "index.html").read_text(encoding="utf-8")
    assert "CIFAR-C as published" in report and "cifar10 1" in report


def test_other_test_sets_of_imagenet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Grey k is taken for class k, but less than for class 0, of which A and R have none."""

    def answer(self: Subject, images: torch.Tensor) -> torch.Tensor:
        grey = images.float().mean((1, 2, 3))
        grey_is = F.one_hot(grey.detach().round().long(), 1000)
        return 5.0 * grey_is + 9.0 * F.one_hot(torch.tensor(0), 1000) + 0.0 * grey[:, None]

    names = tuple(f"class {i}" for i in range(1000))
    info = DataInfo("synthetic", names, 3, (8, 8), (0.5,) * 3, (0.5,) * 3, class_counts=(1,) * 1000)
    some = ResidentSplit(torch.zeros(20, 3, 8, 8, dtype=torch.uint8), torch.arange(20))
    data = ImageData(info, some, some, some)
    settings = [o for o in TINY if not o.startswith("data.synthetic_classes")]
    words = [f"run.dir={tmp_path / 'run'}", "trainer.max_epochs=1"]
    train(load_config([], [*settings, *words]), data=data, progress=False)

    def picture(path: Path, grey: int) -> None:
        Image.new("RGB", (20, 30), (grey,) * 3).save(path, "PNG")

    seen = {"a": (6, 11, 13, 17), "r": (1, 2, 11, 8)}  # the last picture is of another class
    for letter, classes in (("a", IMAGENET_A), ("r", IMAGENET_R)):
        for index in classes:
            (tmp_path / letter / f"n{index:08}").mkdir(parents=True)
        for index, grey in zip(seen[letter], (*seen[letter][:3], classes[0]), strict=True):
            picture(tmp_path / letter / f"n{index:08}" / "0.png", grey)
    for name, indices in {"v2": (0, 7, 9), "sketch": (0, 4)}.items():
        for index in indices:
            (tmp_path / name / str(index)).mkdir(parents=True)
            picture(tmp_path / name / str(index) / "0.png", index)
    labels = [[0], [5, 0], [5, 6], [], [7]]
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "real.json").write_text(json.dumps(labels))
    for number in range(1, 6):
        picture(tmp_path / "real" / f"ILSVRC2012_val_{number:08}.JPEG", 5)
    for name in TEST_CORRUPTIONS:  # right at three severities of five
        for severity, index in enumerate((0, 0, 0, 3, 3), 1):
            (tmp_path / "c" / name / str(severity) / str(index)).mkdir(parents=True)
            picture(tmp_path / "c" / name / str(severity) / str(index) / "0.png", index)
    monkeypatch.setattr(Subject, "predict", answer)
    folders = {"imagenet_a": "a", "imagenet_r": "r", "imagenet_v2": "v2", "imagenet_real": "real"}
    folders |= {"imagenet_sketch": "sketch", "imagenet_c": "c"}
    found = evaluate(
        tmp_path / "run",
        [
            *("eval.shift_images=2", "eval.attack_images=1", "eval.pgd_steps=1"),
            *("data.num_workers=0", *(f"eval.{k}={tmp_path / v}" for k, v in folders.items())),
        ],
        data=data,
        suite="shift",
        progress=False,
    ).metrics
    for name in ("imagenet_a", "imagenet_r"):
        assert found[f"{name}/acc"] == pytest.approx(3 / 4), name
        whole = math.log(math.exp(5) + 199)
        assert found[f"{name}/loss"] == pytest.approx(whole - 5 * 3 / 4), name
    assert found["imagenet_v2/acc"] == pytest.approx(1 / 3)
    assert found["imagenet_sketch/acc"] == pytest.approx(1 / 2)
    assert found["imagenet_real/acc"] == pytest.approx(2 / 4)  # one has no labels
    # The data's own images are black, one of each of the classes 0 to 19: five of them are of A,
    # eight of R. Told apart from each other alone, black is taken for the first class of each.
    assert found["imagenet_a/clean/acc"] == pytest.approx(1 / 5)
    assert found["imagenet_r/clean/acc"] == pytest.approx(1 / 8)
    without = ("imagenet_v2/clean", "imagenet_sketch/clean", "imagenet_real/clean")
    assert not any(name.startswith(without) for name in found)
    clean, alexnet = 1 - 1 / 20, ALEXNET_ERRORS.values()
    assert found["imagenet_c/clean/acc"] == pytest.approx(1 - clean)
    assert found["imagenet_c/mce"] == pytest.approx(np.mean([0.4 / error for error in alexnet]))
    added = [(0.4 - clean) / (error - 0.4348) for error in alexnet]
    assert found["imagenet_c/mce_relative"] == pytest.approx(np.mean(added))


def test_a_line_ismodels_and_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=1").mkdir()
    words = ["timm:a", "weights=a.pth", "lr=1", "timm:b", "eval.seed=1", "weights=b.pth"]
    assert models_and_settings(words) == (
        [("timm:a", "a.pth"), "lr=1", ("timm:b", "b.pth")],
        ["eval.seed=1"],
    )
    for wrong in (["weights=a"], ["timm:a", "weights=a", "weights=b"]):
        with pytest.raises(ConfigError, match="behind the model"):
            models_and_settings(wrong)


def _counts(run: Path) -> dict[str, int]:
    data = open_subject(run, progress=False).data
    assert data.val is not None and data.test is not None
    return {"train": len(data.train), "val": len(data.val), "test": len(data.test)}


def test_all_splits_side_by_side(run: Path) -> None:
    counts = _counts(run)
    found = compare([run], split="all", progress=False)
    assert [result.split for result in found.results] == ["train", "val", "test"]
    assert found.paired == (None, None)  # other images each
    for result in found.results:
        ending = "" if result.split == "test" else f"-{result.split}"
        assert [path.name for path in result.written] == [
            f"predictions{ending}.npz",
            f"eval{ending}.json",
        ]
        record = Record.read(run / f"eval{ending}.json")
        assert record.facts["split"] == result.split and record.facts["images"] == result.count
        assert result.count == counts[result.split]
        kept = PredictionRecord.read(run / f"predictions{ending}.npz")
        right = (kept.logits.argmax(1) == kept.targets).mean()
        assert result.metrics[f"{result.split}/acc"] == pytest.approx(right)
    for result in found.results:  # these write eval.json, whatever they are of
        alone = evaluate(run, split=result.split, progress=False)
        assert alone.metrics == result.metrics and alone.written[-1].name == "eval.json"
    train, val, test = (result.metrics for result in found.results)
    assert "train/temperature" in train and "val/temperature" not in val
    assert train["train/loss"] != test["test/loss"]


def test_all_splits_of_two_models(run: Path, runs: tuple[Path, Path]) -> None:
    found = compare([run, runs[1]], split="all", progress=False)
    assert [result.split for result in found.results] == ["train", "val", "test"] * 2
    assert [paired is not None for paired in found.paired] == [False, False, True, True, True]
    lines = paired_lines(found.paired, [result.split for result in found.results])
    assert [line.split(":")[0] for line in lines[::2]] == ["1 less 4", "2 less 5", "3 less 6"]


def test_without_test_images_validation_ones_are_the_usual(run: Path) -> None:
    subject = open_subject(run, progress=False)
    whole = subject.data
    none = ImageData(whole.info, whole.train, whole.val, None)
    assert evaluate(run, data=none, progress=False).split == "val"
    assert evaluate(run, data=whole, progress=False).split == "test"
    found = compare([run], data=none, split="all", progress=False)
    assert [result.split for result in found.results] == ["train", "val"]
    assert [result.written[-1].name for result in found.results] == ["eval-train.json", "eval.json"]
    with pytest.raises(DataError, match="has no test images; with --split: train, val, all"):
        evaluate(run, data=none, split="test", progress=False)
    bare = ImageData(whole.info, whole.train, None, None)
    with pytest.raises(DataError, match="has no test and no val images; with --split: train, all"):
        evaluate(run, data=bare, progress=False)
    assert evaluate(run, data=bare, split="train", progress=False).split == "train"


def test_a_table_of_splits() -> None:
    rows = [("train", {"train/acc": 0.5, "train/loss": 1.5}), ("val", {"val/acc": 0.25})]
    lines = split_table(rows).splitlines()
    assert lines[0].split() == ["train", "val"]
    assert lines[1].split() == ["acc", "50.00%", "25.00%"]
    assert lines[2].split() == ["loss", "1.5000", "-"]
    two = split_table([*rows, *rows]).splitlines()
    assert two[0].split() == ["1", "train", "2", "val", "3", "train", "4", "val"]
