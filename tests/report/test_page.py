"""One run's page: whole, well formed, the same each time, and true to the records."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import precision_recall_fscore_support

from tests.report.made_up import NAMES, Page, hostile, write_run
from vitkit.errors import RunError
from vitkit.records import ExampleRecord, PredictionRecord, Record
from vitkit.report import read_run, read_seeds, run_page, suffixes_of
from vitkit.report.charts import Axis, Series, line_chart, thinned
from vitkit.report.classes import alike_order, class_columns
from vitkit.report.files import Curve
from vitkit.report.learning import learning
from vitkit.report.pictures import heat_uri, picture_uri, sheet_of
from vitkit.report.shown import Answers, gallery_of

CHAPTERS = {
    "summary",
    "learning",
    "classes",
    "mistakes",
    "attention",
    "calibration",
    "shift",
    "speed",
    "recipe",
}
MB = 1e6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("report") / "flowers" / "20260101-120000")


@pytest.fixture
def own(folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(folder, tmp_path / "run"))


def _page(folder: Path) -> Page:
    page = Page(run_page(read_run(folder)))
    assert page.faults == []
    return page


def test_the_page_is_whole_and_well_formed(folder: Path) -> None:
    page = _page(folder)
    assert set(page.ids) >= CHAPTERS
    assert {"header", "main", "nav", "footer"} <= set(page.tags)
    assert page.tags["h1"] == page.tags["main"] == 1
    assert "flowers/20260101-120000" in page.text
    accuracy = Record.read(folder / "eval.json").metrics["test/acc"]
    assert f"{100 * accuracy:.2f}\u00a0%".replace("\u00a0", " ") in page.text.replace("\u00a0", " ")
    for expected in ("vitkit train", "config.yaml", "a machine", "0123456789ab", "1.23 M"):
        assert expected in page.text.replace("\u00a0", " "), expected


def test_nothing_is_asked_of_any_network(folder: Path) -> None:
    text = run_page(read_run(folder))
    page = Page(text)
    outside = [a for a in page.addresses if not a.startswith(("#", "data:"))]
    assert outside == []
    assert re.findall(r"url\((?!data:image/)", text) == []
    assert "@import" not in text and "fetch(" not in text and "XMLHttpRequest" not in text


def test_only_the_pages_own_script_may_run(folder: Path) -> None:
    page = _page(folder)
    (script,) = page.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [
        given["content"]
        for tag, given in page.attributes
        if given.get("http-equiv") == "Content-Security-Policy"
    ]
    assert f"script-src 'sha256-{digest}'" in policy and "default-src 'none'" in policy
    assert "unsafe" not in policy.replace("style-src 'unsafe-inline'", "")


def test_the_same_files_give_the_same_bytes(folder: Path) -> None:
    assert run_page(read_run(folder)) == run_page(read_run(folder))


def test_ten_thousand_images_stay_below_eight_megabytes(tmp_path: Path) -> None:
    run = write_run(
        tmp_path / "run", count=10_000, skill=1.5, maps=(7, 4, 8), pictures=1200, scenes=24
    )
    text = run_page(read_run(run))
    assert Page(text).faults == []
    # Of noise, which no format makes small. Seen: 7.1 MB; 4.1 MB of 1,000 images of CIFAR-10.
    assert len(text.encode()) < 8 * MB


def test_names_that_want_to_be_more(tmp_path: Path) -> None:
    clean = (*hostile[:3], hostile[3].encode("utf-8", "replace").decode().replace("\x00", ""))
    run = write_run(tmp_path / "run", names=clean)
    config = "model:\n  name: '</code><script>alert(3)</script>'\n"
    (run / "config.yaml").write_text(config, encoding="utf-8")
    results = Record.read(run / "results.json")
    facts = {**results.facts, "hardware": hostile[0], "model": hostile[1], "git_commit": hostile[2]}
    Record({**results.metrics, "test/<b>": 1.5}, facts).write(run / "results.json")
    page = _page(run)
    assert page.tags["script"] == 1 + sum(len(blocks) for blocks in page.data.values())
    assert len(page.scripts) == 1 and "alert" not in page.scripts[0]
    assert "img" not in page.tags or all(
        given["src"].startswith("data:image/") for tag, given in page.attributes if tag == "img"
    )
    (gallery,) = page.data["gallery"]
    assert gallery["names"] == list(clean)


@pytest.mark.parametrize(
    ("absent", "said"),
    [
        ("metrics.csv", "No curves here"),
        ("predictions.npz", "No predictions are kept"),
        ("examples.npz", "No pictures are kept"),
        ("eval.json", "Not measured yet; for the reliability diagram: vitkit eval"),
        ("eval-shift.json", "--suite shift"),
        ("eval-speed.json", "--suite speed"),
        ("config.yaml", "No config.yaml here"),
    ],
)
def test_what_is_absent_is_one_quiet_line(own: Path, absent: str, said: str) -> None:
    assert said not in _page(own).text
    (own / absent).unlink()
    assert said in _page(own).text


def test_any_one_file_is_enough(own: Path) -> None:
    kept = ("results.json", "metrics.csv", "eval.json", "eval-shift.json", "eval-speed.json")
    absent = {
        "metrics.csv": "No curves here",
        "eval-shift.json": "--suite shift",
        "eval-speed.json": "--suite speed",
    }
    for name in kept:
        alone = own.parent / f"only-{name}"
        alone.mkdir()
        shutil.copy(own / name, alone)
        text = _page(alone).text
        for other, said in absent.items():
            assert (said in text) == (other != name), (name, other)


def test_what_cannot_be_told_is_refused(own: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such run folder"):
        read_run(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match=r"has none of results\.json"):
        read_run(tmp_path / "empty")
    for name, content in (
        ("predictions.npz", b"PK no"),
        ("eval.json", b"{"),
        ("results.json", b"[1]"),
        ("metrics.csv", b"step,a\nx,1\n"),
        ("examples.npz", b""),
    ):
        before = (own / name).read_bytes()
        (own / name).write_bytes(content)
        with pytest.raises(RunError, match=f"{name} is damaged"):
            read_run(own)
        (own / name).write_bytes(before)
    (own / "config.yaml").write_text("a: [", encoding="utf-8")
    with pytest.raises(RunError, match=r"config.yaml is damaged"):
        run_page(read_run(own))


def test_a_recipe_of_seeds_that_is_no_text_is_named(tmp_path: Path) -> None:
    Record({"test/acc": 0.9}, {"seeds": 2}).write(tmp_path / "seeds.json")
    assert read_seeds(tmp_path).config == ""
    (tmp_path / "recipe.yaml").write_bytes(b"run:\n  name: \xff\n")
    with pytest.raises(RunError, match=r"recipe.yaml is damaged .*anew with train --seeds"):
        read_seeds(tmp_path)


def test_pictures_of_other_images_are_left_out(own: Path) -> None:
    made = ExampleRecord.read(own / "examples.npz")
    ExampleRecord(**{**vars(made), "targets": (made.targets + 1) % 10}).write(own / "examples.npz")
    assert read_run(own).examples is None
    ExampleRecord(**{**vars(made), "indices": made.indices + 1000}).write(own / "examples.npz")
    assert read_run(own).examples is None
    made.write(own / "examples.npz")
    assert read_run(own).examples is not None


def test_the_matrix_shows_the_counts(folder: Path) -> None:
    page = _page(folder)
    confusion = PredictionRecord.read(folder / "predictions.npz").confusion
    shown = {
        given["data-cell"]: int(given["data-count"])
        for _, given in page.attributes
        if "data-cell" in given
    }
    full = {f"{a},{b}": int(confusion[a, b]) for a, b in np.argwhere(confusion).tolist()}
    assert shown == full
    (orders,) = page.data["orders"]
    for order in orders.values():
        assert sorted(order) == list(range(10))
    assert orders["name"] == sorted(range(10), key=lambda i: NAMES[i])


def test_pictures_lie_in_the_cells_they_belong_to(folder: Path) -> None:
    record = PredictionRecord.read(folder / "predictions.npz")
    (gallery,) = _page(folder).data["gallery"]
    p = np.exp(record.logits.astype(np.float64))
    p /= p.sum(1, keepdims=True)
    assert len(gallery["pictures"]) == 60
    for place, right, said, confidence in gallery["pictures"]:
        assert right == record.targets[place]
        assert said == record.logits[place].argmax()
        assert confidence == pytest.approx(p[place, said], abs=1e-4)
    answers = Answers.of(record)
    np.testing.assert_allclose(answers.of_target, p[np.arange(300), record.targets], rtol=1e-6)


def test_scores_by_class_without_an_evaluation_are_scikit_learns(own: Path) -> None:
    (own / "eval.json").unlink()
    run = read_run(own)
    record = run.predictions
    assert record is not None
    want = precision_recall_fscore_support(
        record.targets, record.logits.argmax(1), labels=range(10), zero_division=0
    )
    found = class_columns(run, record)
    for name, values in zip(("precision", "recall", "f1", "images"), want, strict=True):
        np.testing.assert_allclose(found[name], values)


def test_classes_say_how_many_images_they_were_learned_from(own: Path) -> None:
    before = _page(own).text
    results = Record.read(own / "results.json")
    counts = list(range(1001, 1001 + len(NAMES)))
    tables = {"training_classes": {"class": list(NAMES), "images": counts}}
    Record(results.metrics, results.facts, tables).write(own / "results.json")
    text = _page(own).text
    assert "training images" in text and "1,010" in text
    assert "training images" not in before and "1,010" not in before
    other = {"training_classes": {"class": ["x", *NAMES[1:]], "images": counts}}
    Record(results.metrics, results.facts, other).write(own / "results.json")
    assert _page(own).text == before


def test_an_evaluation_of_another_split_is_not_mistaken_for_the_tests(own: Path) -> None:
    """Its images are not those of the headline, and its clean accuracy is its own."""
    (own / "eval.json").unlink()
    shift = Record.read(own / "eval-shift.json")
    metrics = {name.replace("test/", "val/"): value for name, value in shift.metrics.items()}
    facts = {**shift.facts, "split": "val", "images": 5000}
    Record(metrics, facts, shift.tables).write(own / "eval-shift.json")
    text = _page(own).text.replace("\u00a0", " ")
    assert "of 300 test images right" in text and "of 5,000" not in text
    assert "Clean:" not in text
    clean = {**metrics, "val/changed/clean/acc": 0.7654}
    Record(clean, facts, shift.tables).write(own / "eval-shift.json")
    assert "Clean: 76.54 %." in _page(own).text.replace("\u00a0", " ")


def test_published_corruptions_have_maps_of_their_own(own: Path) -> None:
    shift = Record.read(own / "eval-shift.json")
    table = shift.tables["corruptions"]
    metrics = {**shift.metrics, "cifar_c/fog/acc": 0.4321}
    tables = {**shift.tables, "cifar_c": table}
    Record(metrics, shift.facts, tables).write(own / "eval-shift.json")
    page = _page(own)
    assert {"corruptions", "cifar_c"} <= set(page.ids)
    assert "CIFAR-C as published" in page.text
    changes = [
        block["columns"] for block in page.data["data"] if "metric" in block.get("columns", {})
    ]
    assert not any(
        "cifar_c/fog/acc" in block["metric"] and "accuracy" in block for block in changes
    )


def test_other_sets_measured_alone_stand_beside_the_rest(own: Path) -> None:
    """Of a set that both suites have, the number of the suite of its own is shown."""
    shift = Record.read(own / "eval-shift.json")
    metrics = {**shift.metrics, "cifar10_1/acc": 0.1111}
    Record(metrics, shift.facts, shift.tables).write(own / "eval-shift.json")
    table = shift.tables["corruptions"]
    newer = {"cifar10_1/acc": 0.8765, "imagenet_a/clean/acc": 0.4321}
    Record(newer, {"split": "test"}, {"cifar_c": table}).write(own / "eval-others.json")
    page = _page(own)
    text = page.text.replace("\u00a0", " ")
    assert "CIFAR-C as published" in text and {"corruptions", "cifar_c"} <= set(page.ids)
    assert "pgd 8/255" in text and "imagenet a clean" in text
    blocks = [block.get("columns", {}) for block in page.data["data"]]
    (changes,) = (block for block in blocks if {"metric", "accuracy"} <= set(block))
    shown = dict(zip(changes["metric"], changes["accuracy"], strict=True))
    assert shown["cifar10_1/acc"] == 0.8765
    assert suffixes_of(own) == []
    (own / "eval-shift.json").unlink()
    alone = _page(own).text.replace("\u00a0", " ")
    assert "imagenet a clean" in alone and "pgd 8/255" not in alone


def test_classes_that_are_confused_lie_together() -> None:
    confusion = np.full((6, 6), 1)
    for a, b in ((0, 4), (4, 2), (1, 5)):
        confusion[a, b] = 50
    order = alike_order(confusion)
    assert sorted(order) == list(range(6))
    for a, b in ((0, 4), (4, 2), (1, 5)):
        assert abs(order.index(a) - order.index(b)) == 1
    assert alike_order(np.array([[3]])) == [0]


def test_many_classes_become_a_list_of_pairs(tmp_path: Path) -> None:
    names = [f"class {index}" for index in range(40)]
    run = write_run(tmp_path / "run", names=names, count=800, skill=1.0)
    page = _page(run)
    assert "too many for a matrix" in page.text
    confusion = PredictionRecord.read(run / "predictions.npz").confusion
    counts = [int(given["data-count"]) for _, given in page.attributes if "data-count" in given]
    np.fill_diagonal(confusion, 0)
    assert counts == sorted(confusion.flatten().tolist(), reverse=True)[: len(counts)]
    assert len(counts) == 100


def test_a_perfect_model_has_no_mistakes(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", skill=100.0)
    assert "every one of the 300 images is right" in _page(run).text


def test_a_model_without_attention_has_no_explorer(tmp_path: Path) -> None:
    page = _page(write_run(tmp_path / "run", maps=None))
    assert "no attention that can be read out" in page.text
    assert "explorer" not in page.ids and "cell" in page.ids


def test_the_explorer_has_every_weight(folder: Path) -> None:
    (data,) = _page(folder).data["attention-data"]
    record = ExampleRecord.read(folder / "examples.npz")
    assert (data["grid"], data["tokens"], data["prefix"]) == ([4, 4], 17, 1)
    raw = np.frombuffer(base64.b64decode(data["maps"][2]), dtype=np.uint8)
    np.testing.assert_array_equal(raw.reshape(3, 2, 17, 17), record.maps[2])
    peaks = np.frombuffer(base64.b64decode(data["peaks"][2]), dtype="<f4")
    np.testing.assert_array_equal(peaks.reshape(3, 2, 17), record.peaks[2])


def test_changes_are_called_as_people_call_them(own: Path) -> None:
    names = ["pgd/8_255", "attacked/clean", "shuffled/4x8", "white_noise/0.1", "cifar10h"]
    metrics = {f"test/{name}/acc": 0.5 for name in names}
    Record(metrics, {"split": "test"}).write(own / "eval-shift.json")
    text = _page(own).text
    for said in (
        "pgd 8/255",
        "before the attacks",
        "shuffled 4 x 8",
        "white noise 0.1",
        "cifar10h",
    ):
        assert said in text


def test_evaluations_of_other_checkpoints(own: Path) -> None:
    for name in ("eval", "eval-shift", "predictions", "examples"):
        for kind in (".json", ".npz"):
            if (own / f"{name}{kind}").exists():
                shutil.copy(own / f"{name}{kind}", own / f"{name}-best{kind}")
    assert suffixes_of(own) == ["-best"]
    run = read_run(own, "-best")
    assert run.results is not None and run.results.metrics == {} and run.fact("steps") == 400
    assert run.name.endswith(" best") and run.speed is None and run.examples is not None


def test_a_run_of_another_task_has_no_chapters_about_classes(own: Path) -> None:
    for path in own.iterdir():
        if path.name not in ("results.json", "metrics.csv", "config.yaml"):
            path.unlink()
    facts = {**Record.read(own / "results.json").facts, "task": "mae"}
    Record({"val/loss": 0.25, "val/knn_acc": 0.5}, facts).write(own / "results.json")
    page = _page(own)
    assert "classes" not in page.ids and "learning" in page.ids
    assert "val/loss" in page.text


def test_curves_are_where_their_values_are() -> None:
    line = Series("a", [0, 10, 20], [0.0, 1.0, 0.5])
    made = line_chart("k", "T", [line], Axis("steps"), Axis("share", percent=True))
    assert made is not None
    path = re.findall(r'<svg[^>]*class="line c0"><path d="([^"]*)"', made)[0]
    assert path == "M0 1000L500 0L1000 500"
    assert "a goes from 0.0% to 50.0%" in made.replace("\u00a0", "")
    data = json.loads(re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', made)[0])
    assert data["lines"][0]["y"] == [0.0, 1.0, 0.5] and data["x"] == [0, 20, False]


def test_values_that_are_not_finite_are_left_out_and_said_so() -> None:
    nan = float("nan")
    line = Series("loss", [0, 1, 2], [1.0, nan, float("inf")])
    made = line_chart("k", "T", [line], Axis("steps"), Axis("loss"))
    assert made is not None and "2 values of loss are not finite" in made
    assert line_chart("k", "T", [Series("l", [0], [nan])], Axis("s"), Axis("l")) is None


def test_thinning_keeps_the_mean() -> None:
    xs = list(range(1000))
    ys = [float(x % 7) for x in xs]
    kept_x, kept_y, size = thinned(xs, ys)
    assert size == 5 and len(kept_x) == 200
    assert sum(kept_y) / len(kept_y) == pytest.approx(sum(ys) / len(ys))
    assert thinned([1, 2], [3.0, 4.0]) == ([1, 2], [3.0, 4.0], 1)


def test_a_sheet_holds_every_picture_in_its_place() -> None:
    shades = np.arange(0, 250, 35, dtype=np.uint8)
    pictures = np.broadcast_to(shades[:, None, None, None], (len(shades), 16, 8, 3)).copy()
    sheet = sheet_of(pictures)
    assert sheet.columns * sheet.rows >= len(shades)
    whole = np.asarray(Image.open(io.BytesIO(base64.b64decode(sheet.uri.split(",")[1]))))
    assert whole.shape[:2] == (sheet.rows * 16, sheet.columns * 8)
    for index, shade in enumerate(shades):
        row, column = divmod(index, sheet.columns)
        part = whole[row * 16 : row * 16 + 16, column * 8 : column * 8 + 8].astype(int)
        assert np.abs(part - int(shade)).max() <= 2  # JPEG of an even shade; seen: 1


def test_small_pictures_are_kept_without_loss() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    read = Image.open(io.BytesIO(base64.b64decode(picture_uri(pixels).split(",")[1])))
    np.testing.assert_array_equal(np.asarray(read), pixels)
    grey = picture_uri(pixels[..., :1])
    assert Image.open(io.BytesIO(base64.b64decode(grey.split(",")[1]))).mode == "L"
    assert picture_uri(np.zeros((100, 100, 3), dtype=np.uint8)).startswith("data:image/jpeg")


def test_heat_gets_lighter_and_clearer() -> None:
    uri = heat_uri(np.linspace(0, 1, 11)[None])
    rgba = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))).astype(float)
    lightness = rgba[0, :, :3] @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(lightness) > 0).all() and (np.diff(rgba[0, :, 3]) > 0).all()


def test_a_gallery_holds_each_picture_once(folder: Path) -> None:
    gallery = gallery_of(read_run(folder))
    assert gallery is not None and gallery.sheet is not None
    text = run_page(read_run(folder))
    for scene in gallery.scenes:
        assert text.count(scene.uri) == 1
    assert text.count(gallery.sheet.uri) == 1


def test_the_headline_has_an_interval_where_all_are_right_too(own: Path) -> None:
    record = Record.read(own / "eval.json")
    whole = {"test/acc": 1.0, "test/acc_low": 1.0, "test/acc_high": 1.0}
    wilson = {"test/acc_wilson_low": 0.9124, "test/acc_wilson_high": 1.0}
    changed = Record({**record.metrics, **whole, **wilson}, record.facts, record.tables)
    changed.write(own / "eval.json")
    text = _page(own).text.replace("\u00a0", " ")
    assert "95 % interval 91.24 % to 100.00 %" in text and "95 %: 91.24 % to 100.00 %" in text


def test_a_class_that_nothing_was_asked_of_has_no_scores(own: Path) -> None:
    record = PredictionRecord.read(own / "predictions.npz")
    confusion = np.full_like(record.confusion, 2)
    confusion[1], confusion[:, 2] = 0, 0
    changed = dataclasses.replace(record, confusion=confusion)
    (own / "eval.json").unlink()
    columns = class_columns(read_run(own), changed)
    assert columns["recall"][1] is None and columns["precision"][1] is not None
    assert columns["precision"][2] is None and columns["recall"][2] == 0.0
    assert None not in (columns["recall"][0], columns["precision"][0], columns["f1"][0])


def test_a_run_that_tested_nothing_is_told_by_its_validation(own: Path) -> None:
    for path in own.glob("eval*.json"):
        path.unlink()
    (own / "predictions.npz").unlink()
    record = Record.read(own / "results.json")
    Record({"val/loss": 1.5, "val/ppl": 4.48}, record.facts).write(own / "results.json")
    run = read_run(own)
    assert run.split == "val" and run.measured("ppl") == 4.48
    assert "val loss 1.5000" in _page(own).text


def test_the_page_says_what_needs_the_script(folder: Path) -> None:
    text = run_page(read_run(folder))
    assert text.count("<noscript>") == 2 and "need JavaScript" in text


@pytest.mark.parametrize(("name", "told"), [("train/acc_mixed", True), ("train/acc", False)])
def test_what_counts_of_mixed_images_is_told(name: str, told: bool) -> None:
    page = learning({name: Curve((1, 2), (0.1, 0.2)), "val/acc": Curve((1, 2), (0.1, 0.3))}).body
    assert ("of mixed images, by the class of the first alone" in str(page)) == told
