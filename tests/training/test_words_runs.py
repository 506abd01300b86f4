"""Whole trainings on words: what they may begin from, go on with, and report."""

from __future__ import annotations

import csv
import math
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor

from tests.interrupted import stopped_run
from tests.small_words import pair_run, text_run
from vitkit.app import evaluate, resume, train
from vitkit.app.trainer import try_one_batch
from vitkit.app.writer import load_writer
from vitkit.data.text.corpus import cut_parts
from vitkit.errors import ConfigError, DataError, WeightsError
from vitkit.evaluation.text import TokenSums
from vitkit.records import Record
from vitkit.weights import read_checkpoint

UMLAUTS = "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich.\n" * 30


def _validations(folder: Path) -> list[float]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [float(row["val/loss"]) for row in csv.DictReader(file) if row["val/loss"]]


def _last(folder: Path) -> Path:
    return folder / "checkpoints" / "last.ckpt"


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose tokens are learned pieces."""
    folder = tmp_path_factory.mktemp("pieces") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("VITKIT_RUN_DIR", raising=False)
        more = ("data.tokenizer=bpe", "data.vocab_size=270", "trainer.max_epochs=1")
        train(text_run(folder, *more), progress=False)
    return folder


@pytest.mark.parametrize("kind", ["folder", "file", "copy"])
def test_weights_bring_their_tokeniser_wherever_they_lie(
    pieces: Path, tmp_path: Path, kind: str
) -> None:
    """Another text has as many pieces, and others: all shapes fit, whatever the tokens mean."""
    other = tmp_path / "other.txt"
    other.write_text(UMLAUTS, encoding="utf-8")
    source = {"folder": pieces, "file": _last(pieces), "copy": tmp_path / "weights.pt"}[kind]
    if kind == "copy":
        shutil.copy(_last(pieces), source)
    more = ("data.tokenizer=bpe", "data.vocab_size=270", "trainer.max_epochs=1")
    config = text_run(tmp_path / "run", f"model.weights={source}", f"data.root={other}", *more)
    result = train(config, progress=False)
    before, after = (read_checkpoint(_last(run)) for run in (pieces, result.folder))
    assert before.tokenizer is not None and len(before.tokenizer["pieces"]) == 270
    assert after.tokenizer == before.tokenizer


def test_weights_of_ours_without_a_tokeniser_are_refused(pieces: Path, tmp_path: Path) -> None:
    content = torch.load(_last(pieces), weights_only=True)
    del content["vitkit"]["tokenizer"]
    torch.save(content, tmp_path / "bare.ckpt")
    with pytest.raises(WeightsError, match=r"bare\.ckpt holds lm_char_mini and no tokeniser"):
        train(text_run(tmp_path / "run", f"model.weights={tmp_path / 'bare.ckpt'}"), progress=False)


def test_a_language_model_does_not_go_on_with_another_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = stopped_run(monkeypatch, text_run(tmp_path / "run"), 5)
    text = tmp_path / "verses.txt"
    whole = text.read_text("utf-8")
    text.write_text(whole + "ROMEO draws.\n", "utf-8")
    with pytest.raises(DataError, match=r"train part .* \([\d,]+ tokens then, [\d,]+ now\)"):
        resume(folder, progress=False)
    text.write_text(whole.replace("ROMEO", "OREMO", 1), "utf-8")
    with pytest.raises(DataError, match=r"train part is not what the run began with \(other tok"):
        resume(folder, progress=False)
    text.write_text(whole[::-1].replace("OEMOR", "OREMO", 1)[::-1], "utf-8")
    with pytest.raises(DataError, match=r"val part is not what the run began with \(other tok"):
        resume(folder, progress=False)
    text.write_text(whole, "utf-8")
    assert resume(folder, progress=False).record.facts["steps"] == 12


def test_a_translator_does_not_go_on_with_other_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = stopped_run(monkeypatch, pair_run(tmp_path / "run"), 2)
    german = tmp_path / "sentences" / "train.de"
    lines = german.read_text("utf-8").splitlines(keepends=True)
    german.write_text("".join([*lines[1:], lines[0]]), "utf-8")
    with pytest.raises(DataError, match=r"train part is not what the run began with \(other pairs"):
        resume(folder, progress=False)
    for language in ("en", "de"):
        path = tmp_path / "sentences" / f"val.{language}"
        path.write_text(path.read_text("utf-8") + "six\n", "utf-8")
    german.write_text("".join(lines), "utf-8")
    with pytest.raises(DataError, match=r"val part .* \(8 pairs then, 9 now\)"):
        resume(folder, progress=False)


def test_a_run_of_an_older_version_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its checkpoint counts tokens, and knows no digests."""
    folder = stopped_run(monkeypatch, text_run(tmp_path / "run"), 5)
    content = torch.load(_last(folder), weights_only=True)
    known = content["vitkit"]["data"]
    for split in ("train", "val"):
        assert len(known.pop(f"digest_{split}")) == 32
    torch.save(content, _last(folder))
    assert resume(folder, progress=False).record.facts["steps"] == 12


@pytest.mark.parametrize("kind", ["text", "pairs"])
def test_a_run_that_stopped_early_reports_the_checkpoint_that_it_names(
    tmp_path: Path, kind: str
) -> None:
    """A rate so high that the loss soon goes up."""
    make = text_run if kind == "text" else pair_run
    stop = ("trainer.early_stopping_patience=2", "trainer.max_epochs=30", "optimizer.lr=0.2")
    result = train(make(tmp_path / "run", *stop, "schedule.name=constant"), progress=False)
    seen = _validations(result.folder)
    assert seen[-1] > 1.01 * min(seen)
    assert result.record.facts["checkpoint"] == "best.ckpt"
    assert result.record.facts["weights"] == "best, trained"
    assert result.metrics["val/loss"] == pytest.approx(min(seen), rel=1e-5)
    again = evaluate(result.folder, split="val", progress=False)
    assert result.metrics["val/loss"] == pytest.approx(again.metrics["val/loss"], rel=1e-6)


@pytest.mark.parametrize("kind", ["text", "pairs"])
def test_results_are_measured_in_float32_as_evaluations_are(tmp_path: Path, kind: str) -> None:
    make = text_run if kind == "text" else pair_run
    config = make(tmp_path / "run", "trainer.precision=bf16-mixed", "trainer.max_epochs=2")
    result = train(config, progress=False)
    again = evaluate(result.folder, split="val", progress=False)
    for name in ("loss", "ppl", "bits_per_char"):
        key = f"val/{name}"
        assert result.metrics[key] == pytest.approx(again.metrics[key], rel=1e-7), name
    assert result.metrics["val/loss"] != pytest.approx(_validations(result.folder)[-1], rel=1e-6)
    facts = result.record.facts
    assert facts["weights"] == "last, trained"
    assert facts["split"] == ("val" if kind == "text" else "test")
    assert int(str(facts["tokens"])) > 0


def test_what_follows_the_last_step_is_counted(tmp_path: Path) -> None:
    """A validation, the measurement in float32, and the searches for translations."""
    job: Any = try_one_batch(text_run(tmp_path / "run"))
    windows = -(-(len(job.data.splits.val) - 1) // 16)
    assert (job.num_validated, job.num_tested) == (windows, windows)
    pairs: Any = try_one_batch(pair_run(tmp_path / "run", "data.test=null"))
    tokens = len(pairs.data.splits["val"].source)
    assert (pairs.num_validated, pairs.num_tested) == (tokens, tokens)
    pairs = try_one_batch(pair_run(tmp_path / "run"))
    searched = 7 * len(pairs.data.splits["test"].source)
    assert (pairs.num_validated, pairs.num_tested) == (tokens, tokens + searched)


def test_data_handed_in_are_not_left_unread(pieces: Path) -> None:
    data: Any = Mock()
    with pytest.raises(ConfigError, match=r"data=: .*last\.ckpt reads words"):
        evaluate(pieces, data=data, progress=False)


@pytest.mark.parametrize(("given", "most"), [(None, 4), (7, 7)])
def test_an_evaluation_takes_no_more_windows_than_a_training_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: int | None, most: int
) -> None:
    seen: list[int] = []
    update = TokenSums.update

    def noted(self: TokenSums, logits: Tensor, targets: Tensor) -> None:
        seen.append(len(logits))
        update(self, logits, targets)

    monkeypatch.setattr(TokenSums, "update", noted)
    more = ("trainer.max_epochs=1", "trainer.accumulate_grad_batches=2")
    size = f"data.eval_batch_size={'null' if given is None else given}"
    train(text_run(tmp_path / "run", *more, size), progress=False)
    assert set(seen) == {most}  # in the validation, and in the measurement
    seen.clear()
    evaluate(tmp_path / "run", progress=False)
    assert set(seen) == {most}


def test_a_pair_that_no_evaluation_can_hold_is_told_before_the_training(tmp_path: Path) -> None:
    config = pair_run(
        tmp_path / "run",
        *("model.name=lstm_seq2seq", "model.hidden_dim=12", "data.eval_batch_size=64"),
        recurrent=True,
    )
    for language in ("en", "de"):
        path = tmp_path / "sentences" / f"test.{language}"
        path.write_text("six\n" * 7 + "s" * 70 + "\n", "utf-8")
    with pytest.raises(DataError) as caught:
        train(config, progress=False)
    assert str(caught.value) == (
        "test: a sentence of 71 tokens with its end does not fit into a batch of 64; raise "
        "data.eval_batch_size to 71 or more, or leave its pair out"
    )
    assert not (tmp_path / "run").exists()


def test_translations_of_an_unfinished_run_do_not_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = stopped_run(monkeypatch, pair_run(tmp_path / "run"), 2)
    for split in ("train", "val", "test"):
        evaluate(folder, split=split, progress=False)
        (folder / f"translations-{split}.txt").rename(folder / f"early-{split}")
        shutil.copy(folder / f"early-{split}", folder / f"translations-{split}.txt")
    resume(folder, progress=False)
    assert sorted(path.name for path in folder.glob("translations-*")) == ["translations-test.txt"]
    tested = folder / "translations-test.txt"
    assert tested.read_bytes() != (folder / "early-test").read_bytes()


@pytest.mark.parametrize("language", ["ja", "ko_KR"])
def test_a_language_without_its_words_is_told_before_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, language: str
) -> None:
    monkeypatch.setattr("sacrebleu.metrics.BLEU", Mock(side_effect=RuntimeError("no MeCab")))
    code = language[:2]
    with pytest.raises(ConfigError) as caught:
        train(pair_run(tmp_path / "run", f"data.target={language}"), progress=False)
    assert str(caught.value).startswith(f"data.target: given {language}, whose words")
    assert f"'sacrebleu[{code}]'" in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("tokenizer", ["byte", "bpe"])
def test_bits_are_those_of_a_character_whatever_a_token_is(tmp_path: Path, tokenizer: str) -> None:
    text = tmp_path / "text.txt"
    text.write_text(UMLAUTS, encoding="utf-8")
    settings = (f"data.root={text}", f"data.tokenizer={tokenizer}", "data.vocab_size=280")
    result = train(text_run(tmp_path / "run", *settings, "trainer.max_epochs=1"), progress=False)
    record = Record.read(result.folder / "results.json")
    _, val = cut_parts(UMLAUTS, 0.1)
    tool = load_writer(result.folder).tokenizer
    ids = tool.encode(val)
    characters = len(val) - len(tool.decode(ids[:1]))
    assert record.facts["tokens"] == len(ids) - 1 != characters
    bits = record.metrics["val/loss"] * (len(ids) - 1) / math.log(2) / characters
    assert record.metrics["val/bits_per_char"] == pytest.approx(bits, rel=1e-9)
    again = evaluate(result.folder, progress=False).metrics
    assert again["val/bits_per_char"] == pytest.approx(bits, rel=1e-6)


def test_a_translator_of_bytes_counts_characters(tmp_path: Path) -> None:
    config = pair_run(tmp_path / "run", "data.tokenizer=byte", "trainer.max_epochs=1")
    metrics = train(config, progress=False).metrics
    for split in ("val", "test"):
        german = (tmp_path / "sentences" / f"{split}.de").read_text("utf-8")
        tokens = len(german.encode())  # a line feed stands for each sentence's end
        assert tokens > len(german)
        bits = metrics[f"{split}/loss"] * tokens / math.log(2) / len(german)
        assert metrics[f"{split}/bits_per_char"] == pytest.approx(bits, rel=1e-9)


def test_trainings_that_validate_on_nothing_write_their_results(tmp_path: Path) -> None:
    short = "trainer.max_epochs=1"
    train(text_run(tmp_path / "text", "data.val_fraction=0", short), progress=False)
    record = Record.read(tmp_path / "text" / "results.json")
    assert record.metrics == {} and record.facts["steps"] == 4
    train(pair_run(tmp_path / "pairs", "data.val=null", short), progress=False)
    record = Record.read(tmp_path / "pairs" / "results.json")
    names = ("loss", "ppl", "bits_per_char", "bleu", "bleu_greedy")
    assert set(record.metrics) == {f"test/{name}" for name in names}
    train(pair_run(tmp_path / "alone", "data.val=null", "data.test=null", short), progress=False)
    assert Record.read(tmp_path / "alone" / "results.json").metrics == {}


def test_bad_training_pairs_are_left_out_where_that_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = pair_run(tmp_path / "run", "data.on_bad_pair=skip", "trainer.max_epochs=1")
    for language, more in (("en", "\ntwo\n"), ("de", "eins\n" + "z" * 60 + "\n")):
        path = tmp_path / "sentences" / f"train.{language}"
        path.write_text(path.read_text("utf-8") + more, "utf-8")
    with pytest.raises(DataError, match=r"train\.en: line 61 is empty.*data\.on_bad_pair=skip"):
        train(pair_run(tmp_path / "strict"), progress=False)
    train(config)
    assert "note   2 training pairs left out, empty or longer" in capsys.readouterr().out
    assert read_checkpoint(_last(tmp_path / "run")).data["num_train"] == 60
    assert evaluate(tmp_path / "run", split="train", progress=False).record.facts["pairs"] == 60
