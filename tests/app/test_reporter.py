"""What a training and an evaluation leave for their page, and when there is none."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import TINY, finished_run
from tests.report.made_up import Page, write_run
from vitkit.app import evaluate, report_comparison, report_run, reporter, resume, train
from vitkit.app.evaluator import compare
from vitkit.app.seeds import _summary
from vitkit.app.subjects import open_subject
from vitkit.cli import main
from vitkit.data.splits import ResidentSplit
from vitkit.errors import ConfigError, RunError
from vitkit.evaluation.agreement import compare_means, compare_paired
from vitkit.evaluation.uncertainty import mean_interval
from vitkit.explain import attention_maps, relevance
from vitkit.records import ExampleRecord, PredictionRecord, Record

REPORTED = [*TINY, "run.report=true", "trainer.max_epochs=1"]


def _trained(folder: Path, *settings: str) -> Path:
    return finished_run(*REPORTED, f"run.dir={folder}", *settings)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with its page."""
    return _trained(tmp_path_factory.mktemp("reported") / "run")


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def _page(folder: Path, name: str = "index") -> Page:
    page = Page((folder / "report" / f"{name}.html").read_text(encoding="utf-8"))
    assert page.faults == []
    return page


def test_a_training_leaves_its_page(trained: Path) -> None:
    page = _page(trained)
    assert {"curve-loss", "curve-lr", "confusion", "explorer", "config"} <= set(page.ids)
    assert "Not measured yet; for the reliability diagram" in page.text
    record = PredictionRecord.read(trained / "predictions.npz")
    right = float((record.logits.argmax(1) == record.targets).mean())
    assert right == pytest.approx(Record.read(trained / "results.json").metrics["test/acc"])
    # What is drawn comes from the files: the page can be made again from them.
    before = (trained / "report" / "index.html").read_bytes()
    assert report_run(trained).read_bytes() == before


def test_an_evaluation_adds_to_it(run: Path) -> None:
    result = evaluate(run, progress=False)
    assert result.page == run / "report" / "index.html"
    assert {"reliability", "reliability-scaled"} <= set(_page(run).ids)
    settings = ["eval.speed_seconds=0.01", "eval.speed_max_batch=2"]
    evaluate(run, settings, suite="speed", progress=False)
    page = _page(run)
    assert {"reliability", "rates", "explorer"} <= set(page.ids)


def test_a_page_where_only_another_checkpoint_was_evaluated(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bare"
    (folder / "checkpoints").mkdir(parents=True)
    shutil.copy(run / "checkpoints" / "last.ckpt", folder / "checkpoints" / "best.ckpt")
    result = evaluate(folder / "checkpoints" / "best.ckpt", progress=False)
    assert [path.name for path in result.written] == ["predictions-best.npz", "eval-best.json"]
    assert result.page == folder / "report" / "index-best.html"
    assert report_run(folder) == result.page
    text = result.page.read_text(encoding="utf-8")
    assert "best.ckpt --suite shift" in text


def test_a_page_of_another_split_tells_how_it_is_made(run: Path) -> None:
    compare([run], split="all", progress=False)
    text = (run / "report" / "index-train.html").read_text(encoding="utf-8")
    assert f"vitkit eval {run} --split train --suite shift" in text


def test_no_page_where_none_is_wanted(tmp_path: Path) -> None:
    folder = _trained(tmp_path / "run", "run.report=false")
    assert not (folder / "report").exists()
    assert not list(folder.glob("*.npz"))
    assert evaluate(folder, progress=False).page is None
    assert not (folder / "report").exists()
    assert evaluate(folder, ["run.report=true"], progress=False).page is not None


def test_pictures_and_maps_are_those_of_the_model(trained: Path) -> None:
    kept = ExampleRecord.read(trained / "examples.npz")
    subject = open_subject(trained, progress=False)
    images = subject.data.test
    assert isinstance(images, ResidentSplit)
    for index, picture, target in zip(kept.indices, kept.pictures, kept.targets, strict=True):
        np.testing.assert_array_equal(picture, images.images[index].permute(1, 2, 0).numpy())
        assert target == images.targets[index]
    inputs = subject.preprocessing(images.images[kept.studied])
    weights = attention_maps(subject.model, inputs).numpy()
    assert (kept.layers.tolist(), kept.heads.tolist(), kept.grid.tolist()) == (
        [0, 1],
        [0, 1],
        [2, 2],
    )
    seen = kept.maps / 255 * kept.peaks[..., None]
    assert np.abs(seen - weights).max() <= kept.peaks.max() / 510 * 1.01  # half a step of rounding
    said = subject.model(inputs).argmax(1)
    speaks = relevance(subject.model, inputs, said).numpy()
    most = speaks.max((1, 2), keepdims=True)
    np.testing.assert_allclose(kept.relevance, speaks / np.maximum(most, 1e-30), atol=1e-3)


def test_a_report_that_fails_leaves_the_training_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for error in (RuntimeError("no room\nat all"), KeyboardInterrupt()):

        def fail(*arguments: Any, error: BaseException = error) -> None:
            raise error

        monkeypatch.setattr(reporter, "examples_of", fail)
        folder = _trained(tmp_path / type(error).__name__)
        assert (folder / "results.json").exists() and not (folder / "report").exists()
        (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("note: ")]
        assert f"vitkit report {folder}" in line and "at all" not in line
    assert resume(folder, progress=False).metrics["test/acc"] >= 0


def test_a_model_without_attention_has_pictures_and_no_maps(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    settings = [s for s in REPORTED if not s.startswith("model.")]
    settings += ["model.name=resnet20_32", "model.img_size=16", f"run.dir={folder}"]
    train(None, settings, progress=False)
    kept = ExampleRecord.read(folder / "examples.npz")
    assert len(kept.pictures) and kept.maps.size == kept.relevance.size == 0
    assert "no attention that can be read out" in _page(folder).text


def test_two_checkpoints_of_one_folder(run: Path) -> None:
    compare([run, run / "checkpoints" / "best.ckpt"], ["run.report=true"], progress=False)
    assert (run / "examples-best.npz").exists()
    assert "best" in _page(run, "index-best").text
    (run / "report" / "index-best.html").unlink()
    report_run(run)
    assert (run / "report" / "index-best.html").exists()


def test_runs_are_compared_by_their_predictions(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, seed=seed) for seed, name in enumerate("ab")]
    page = Page(report_comparison(runs, tmp_path / "x" / "both.html").read_text())
    records = [PredictionRecord.read(run / "predictions.npz") for run in runs]
    right = [torch.from_numpy(r.logits.argmax(1) == r.targets) for r in records]
    want = compare_paired(right[0], right[1])
    (block,) = [d["columns"] for d in page.data["data"] if "p, McNemar" in d.get("columns", {})]
    assert block["p, McNemar"] == [want.mcnemar_p]
    assert block["points of accuracy"] == [want.difference]
    assert block["only the first right"] == [want.only_first]
    other = PredictionRecord(**{**vars(records[1]), "targets": records[1].targets[::-1].copy()})
    other.write(runs[1] / "predictions.npz")
    text = report_comparison(runs, tmp_path / "x" / "both.html").read_text()
    assert "No paired test" in text
    # The same classes in the same order, but other pictures.
    PredictionRecord(**{**vars(records[1]), "pictures": np.array("of another cut")}).write(
        runs[1] / "predictions.npz"
    )
    text = report_comparison(runs, tmp_path / "x" / "both.html").read_text()
    assert "No paired test" in text


def _write_seeds(folder: Path, accuracies: list[float], rate: str, data: str = "cifar10") -> Path:
    """What ``train --seeds`` would leave."""
    records = {
        seed: Record({"test/acc": acc, "test/loss": 1 - acc}, {"model": "vit", "data": data})
        for seed, acc in enumerate(accuracies)
    }
    folder.mkdir(parents=True)
    _summary(records).write(folder / "seeds.json")
    (folder / "recipe.yaml").write_text(f"optimizer: {{lr: {rate}}}\n")
    return folder


def test_recipes_are_compared_over_their_seeds(tmp_path: Path) -> None:
    first, second = [0.90, 0.91, 0.905], [0.92, 0.93, 0.926, 0.924]
    folders = [
        _write_seeds(tmp_path / "x" / "a" / "seeds", first, "0.01"),
        _write_seeds(tmp_path / "x" / "b" / "seeds", second, "0.02"),
        _write_seeds(tmp_path / "x" / "c" / "seeds", [0.5], "0.02"),
        _write_seeds(tmp_path / "x" / "d" / "seeds", second, "0.02", "digits"),
    ]
    page = Page(report_comparison(folders, tmp_path / "all.html").read_text())
    assert page.faults == []
    blocks = [block["columns"] for block in page.data["data"] if "columns" in block]
    (tests,) = [block for block in blocks if "p" in block]
    want = compare_means(first, second)
    # The third has one seed, the fourth other images.
    assert tests["what"] == ["accuracy, x/a less x/b", "loss, x/a less x/b"]
    assert tests["p"][0] == want.p and tests["low"][0] == want.low
    text = page.text.replace("\u00a0", " ")
    assert "\u22122.00 points" in text and "+0.0200" in text
    (means,) = [b for b in blocks if "deviation" in b and 0.905 in [round(v, 9) for v in b["mean"]]]
    assert means["seeds"] == [3, 4, 1, 4]
    assert means["from"][0] == mean_interval(first)[0] and means["from"][2] is None
    assert means["deviation"][2] is None
    assert means["measured on"] == ["test, cifar10"] * 3 + ["test, digits"]
    assert not [given for _, given in page.attributes if "best" in given.get("class", "").split()]
    assert "optimizer.lr" in text and "0.02" in text
    assert "90.50 %" in text and "92.40 %" in text
    assert text.count("x/c") > 2


def test_recipes_and_single_runs_are_not_mixed(tmp_path: Path) -> None:
    seeds = _write_seeds(tmp_path / "x" / "a" / "seeds", [0.9, 0.91], "0.01")
    run = write_run(tmp_path / "run")
    with pytest.raises(RunError, match=r"run has no seeds.json: name folders that train --seeds"):
        report_comparison([seeds, run], tmp_path / "x.html")
    (seeds / "seeds.json").write_text("{")
    with pytest.raises(RunError, match=r"seeds.json is damaged"):
        report_comparison([seeds, seeds], tmp_path / "x.html")


def test_what_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    with pytest.raises(ConfigError, match="name two runs or more"):
        report_comparison([run], tmp_path / "a.html")
    own = tmp_path / "thesis.html"
    own.write_text("<h1>mine</h1>")
    with pytest.raises(RunError, match=r"thesis.html is no page of vitkit"):
        report_comparison([run, run], own)
    assert own.read_text() == "<h1>mine</h1>"
    with pytest.raises(RunError, match="is a folder"):
        report_comparison([run, run], tmp_path)
    with pytest.raises(RunError, match="no such run folder"):
        report_run(tmp_path / "none")
    (run / "report").write_text("in the way")
    with pytest.raises(RunError, match="cannot write"):
        report_run(run)


def _call(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["vitkit", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0)


def test_the_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [write_run(tmp_path / name, seed=seed) for seed, name in enumerate("ab")]
    monkeypatch.chdir(tmp_path)
    assert _call(monkeypatch, "report", "a") == 0
    assert capsys.readouterr().out == f"report: {Path('a/report/index.html')}\n"
    assert (runs[0] / "report" / "index.html").exists()
    for _ in range(2):  # its own page may be written again
        assert _call(monkeypatch, "compare", "a", "b") == 0
        assert capsys.readouterr().out == "report: compare.html\n"
    assert _call(monkeypatch, "compare", "a", "b", "--out", "c/d.html") == 0
    assert (tmp_path / "c" / "d.html").exists()
    assert _call(monkeypatch, "report", "none") == 1
    assert capsys.readouterr().err == "error: no such run folder: none\n"
    assert _call(monkeypatch, "compare", "a") == 2
    assert "name two runs or more" in capsys.readouterr().err
