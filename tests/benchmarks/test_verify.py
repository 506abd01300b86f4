"""The sentence that a config's opening comment states its result in, and its verdict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import verify
from benchmarks.verify import Claim, main, opening, read_claim
from vitkit.app import SeedSummary
from vitkit.config import RunConfig
from vitkit.errors import ConfigError
from vitkit.records import Record

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
CONFIG = """\
# A tiny one.
#
#   python train.py configs/tiny.yaml
#
# Measured: {}.
# It is small.
model: {{name: vit_mini_patch4_32, img_size: 8, embed_dim: 16, depth: 1, num_heads: 2}}
data: {{name: synthetic, synthetic_size: 80, synthetic_classes: 4, batch_size: 16}}
trainer: {{max_epochs: 3, accelerator: cpu}}
"""


@pytest.mark.parametrize(
    ("sentence", "claim"),
    [
        ("65.60 % test accuracy", Claim(65.6)),
        ("65% test accuracy, seed 4", Claim(65.0, first=4)),
        ("38.54 test BLEU, seed 0 (M2)", Claim(38.54, what="test BLEU")),
        ("1.506 validation loss with a.b=3", Claim(1.506, ("a.b=3",), what="validation loss")),
        (
            "65.60 % test accuracy with trainer.max_epochs=3, seed 0 (docs/results.md)",
            Claim(65.6, ("trainer.max_epochs=3",)),
        ),
        (
            "83.51 % test accuracy (mean of 3 seeds, sd 0.30)",
            Claim(83.51, seeds=3, sd=0.3),
        ),
        (
            "83.51 % test accuracy with trainer.max_time=300, optimizer.lr=1e-3 (mean of 5 seeds "
            "from 10, sd 0.1, spread 1.5) (M1, 2 threads); 689 images/s",
            Claim(
                83.51,
                ("trainer.max_time=300", "optimizer.lr=1e-3"),
                5,
                first=10,
                sd=0.1,
                spread=1.5,
            ),
        ),
    ],
)
def test_what_a_sentence_states(sentence: str, claim: Claim) -> None:
    assert read_claim(f"A model. Measured: {sentence}. Then more. Measured: 1 %.") == claim


@pytest.mark.parametrize(
    "sentence",
    [
        "about 65 % test accuracy",
        "65.60 % top-5 accuracy",
        "65.60 test accuracy",
        "65.60 % test accuracy with three epochs",
        "65.60 % test accuracy (mean of 3 seeds)",
        "65.60 % test accuracy (mean of three seeds, sd 0.30)",
        "65.60 % test accuracy (M1) (mean of 3 seeds, sd 0.30)",
        "65.60 % test accuracy (M1), seed 3",
        "65.60 % test accuracy; with trainer.max_epochs=3",
        "65.60 % test accuracy after 3 epochs",
    ],
)
def test_what_cannot_be_read_is_said(sentence: str) -> None:
    with pytest.raises(ConfigError, match=r"a\.yaml: cannot read 'Measured: .*write it as"):
        read_claim(f"Measured: {sentence}.", "a.yaml")


def test_one_seed_and_several_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="leave one of them out"):
        read_claim("Measured: 65 % test accuracy, seed 1 (mean of 3 seeds, sd 0.3).")


@pytest.mark.parametrize("comment", ["", "Not measured yet.", "The 50 epochs: not measured yet."])
def test_nothing_measured_is_said(comment: str) -> None:
    with pytest.raises(ConfigError, match="no sentence 'Measured"):
        read_claim(comment)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_that_states_a_result_can_be_verified(path: Path) -> None:
    comment = opening(path)
    if "Measured:" in comment:
        assert 0 < read_claim(comment, path.name).value <= 100


def test_the_tolerance() -> None:
    assert Claim(90.0).tolerance == 0.5
    assert Claim(90.0, sd=0.3).tolerance == pytest.approx(0.9)
    assert Claim(90.0, sd=0.3, spread=2.0).tolerance == 2.0
    assert Claim(1.5, what="validation loss").tolerance == 0.03


@pytest.mark.parametrize(("loss", "code"), [(1.4, 0), (1.52, 0), (1.54, 1)])
def test_of_a_loss_less_is_better(
    config: Path, monkeypatch: pytest.MonkeyPatch, loss: float, code: int
) -> None:
    config.write_text(CONFIG.format("1.506 validation loss"))
    found = SeedSummary(Path(), {}, Record({"val/loss/mean": loss, "val/loss/sd": 0.0}))
    monkeypatch.setattr(verify, "train_seeds", lambda config, count, *, quiet: found)
    assert main([str(config), "run.name=mine", "--quiet"]) == code


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    sentence = "70.00 % test accuracy with\n# trainer.max_epochs=1 (mean of 2 seeds from 3, sd 0.4)"
    path.write_text(CONFIG.format(sentence))
    return path


@pytest.mark.parametrize(
    ("accuracy", "code", "verdict"),
    [
        (0.700, 0, "It holds.\n"),
        (0.6881, 0, "It holds.\n"),
        (0.6879, 1, "It does NOT hold."),
        (0.7121, 0, "It holds; state the better number."),
    ],
)
def test_the_verdict(
    config: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    accuracy: float,
    code: int,
    verdict: str,
) -> None:
    asked: list[Any] = []

    def fake(config: RunConfig, count: int, *, quiet: bool) -> SeedSummary:
        asked.extend((config, count, quiet))
        metrics = {"test/acc/mean": accuracy, "test/acc/sd": 0.002}
        return SeedSummary(Path(), {}, Record(metrics))

    monkeypatch.setattr(verify, "train_seeds", fake)
    report = config.with_suffix(".json")
    words = [str(config), "data.batch_size=8", "run.name=mine", "--json", str(report), "--quiet"]
    assert main(words) == code
    assert verdict in capsys.readouterr().out
    ran, count, quiet = asked
    assert (ran.trainer.max_epochs, ran.data.batch_size, ran.run.seed) == (1, 8, 3)
    assert (count, quiet, ran.run.name) == (2, True, "mine")
    assert json.loads(report.read_text())["now"]["holds"] is (code == 0)


def test_a_change_of_settings_or_commit_starts_anew(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = []

    def fake(config: RunConfig, count: int, *, quiet: bool) -> SeedSummary:
        names.append(config.run.name)
        return SeedSummary(Path(), {}, Record({"test/acc/mean": 0.7, "test/acc/sd": 0.0}))

    monkeypatch.setattr(verify, "train_seeds", fake)
    for commit, more in (("abc", []), ("abc", []), ("abc", ["optimizer.lr=0.1"]), ("def", [])):
        monkeypatch.setattr(verify, "environment_facts", lambda c=commit: {"git_commit": c})
        main([str(config), *more])
    assert names[0] == names[1]
    assert len(set(names)) == 3
    monkeypatch.setattr(verify, "environment_facts", lambda: {"git_commit": "abc+"})
    main([str(config)])
    assert names[-1] not in names[:-1]


@pytest.mark.slow
def test_it_really_trains(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(CONFIG.format("50.00 % test accuracy with trainer.max_epochs=1, seed 5"))
    code = main([str(config), f"run.root={tmp_path}", "run.name=v", "--quiet"])
    record = Record.read(tmp_path / "v" / "seeds" / "seed-5" / "results.json")
    assert code == int(record.metrics["test/acc"] < 0.495)
    assert f"now      {100 * record.metrics['test/acc']:.2f}, sd" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere.yaml"], "error: there is no config file nowhere.yaml"),
        (["data.root=data"], "error: verify takes one config file"),
        (["a.yaml", "b.yaml"], "error: verify takes one config file"),
    ],
)
def test_a_wrong_command_line_is_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    err = capsys.readouterr().err
    assert err.startswith(message)
    assert err.count("\n") == 1
