"""Words out of a run: streamed, sampled, searched, and the same with and without caches."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest
import sacrebleu
import torch

import vitkit
from tests.conftest import TINY, finished_run
from tests.small_words import SKILLED, pair_run, text_run
from vitkit.app import compare, load_translator, load_writer, train, utf8_lines
from vitkit.app.writer import Writer
from vitkit.data.text.tokenizers import BpeTokenizer, ByteTokenizer, CharacterTokenizer
from vitkit.errors import ConfigError, DataError, WeightsError
from vitkit.models import create_model
from vitkit.models import generate as generate_ids
from vitkit.models import translate as search
from vitkit.models.decoding import continuations
from vitkit.models.recurrent import RecurrentLanguageModel
from vitkit.weights import read_checkpoint


def _trained(folder: Path, kind: str) -> Path:
    if kind == "pictures":
        return finished_run(*TINY, f"run.dir={folder}", "trainer.max_epochs=1")
    make = text_run if kind == "text" else pair_run
    return finished_run(config=make(folder, "trainer.max_epochs=6"))


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _trained(tmp_path_factory.mktemp("text") / "run", "text")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _trained(tmp_path_factory.mktemp("pairs") / "run", "pairs")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _trained(tmp_path_factory.mktemp("pictures") / "run", "pictures")


def test_the_first_words_are_those_of_the_model(text: Path) -> None:
    writer = load_writer(text)
    ids = torch.tensor([writer.tokenizer.encode("ROMEO")])
    for options in ({"temperature": 0.0}, {"seed": 5, "top_k": 4}, {"seed": 5, "top_p": 0.6}):
        given: dict[str, Any] = options
        want = generate_ids(writer.model, ids, 11, **given)
        got = vitkit.generate(text, "ROMEO", tokens=11, **given)
        assert got == writer.tokenizer.decode(want[0].tolist())


def test_pieces_come_as_they_are_made(text: Path) -> None:
    writer = load_writer(text)
    pieces = writer.stream("ROMEO", tokens=1_000_000)  # would take minutes, if it waited
    assert all(len(piece) == 1 for piece in itertools.islice(pieces, 5))
    assert list(writer.stream("ROMEO", tokens=0)) == []


def test_seeds_and_no_seed(text: Path) -> None:
    first = vitkit.generate(text, "N", tokens=60)
    assert vitkit.generate(text, "N", tokens=60) == first
    assert vitkit.generate(text, "N", tokens=60, seed=1) != first
    assert vitkit.generate(text, "N", tokens=60, seed=None) != first


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_beyond_its_positions_it_goes_on_from_half_of_what_it_sees(
    text: Path, temperature: float
) -> None:
    """16 positions: 11 tokens fill them behind 5, and a twelfth is not read any more; then 8 are
    kept and 9 added, and so on.
    """
    writer = load_writer(text)
    got = vitkit.generate(text, "ROMEO", tokens=30, temperature=temperature, seed=3)
    assert len(got) == 35
    assert got == vitkit.generate(
        text, "ROMEO", tokens=30, temperature=temperature, seed=3, use_cache=False
    )
    generator, told = torch.Generator().manual_seed(3), "ROMEO"
    for kept, added in ((5, 12), (8, 9), (8, 9)):
        ids = torch.tensor([writer.tokenizer.encode(told[-kept:])])
        grown = generate_ids(writer.model, ids, added, temperature=temperature, generator=generator)
        told += writer.tokenizer.decode(grown[0, kept:].tolist())
    assert got == told


def test_it_reads_no_more_at_a_time_than_its_windows_taught_it(tmp_path: Path) -> None:
    """Windows of 6 of 16 positions: 3 tokens fill them behind 3, and a fourth is not read any more;
    then 3 are kept and 4 added.
    """
    train(text_run(tmp_path / "run", "trainer.max_epochs=1", "data.window=6"), progress=False)
    writer = load_writer(tmp_path / "run")
    assert writer.window == 6 and writer.model.max_len == 16
    got = vitkit.generate(tmp_path / "run", "ROM", tokens=8, temperature=0.0)
    told = "ROM"
    for kept, added in ((3, 4), (3, 4)):
        ids = torch.tensor([writer.tokenizer.encode(told[-kept:])])
        grown = generate_ids(writer.model, ids, added, temperature=0.0)
        told += writer.tokenizer.decode(grown[0, kept:].tolist())
    assert got == told
    assert len(vitkit.generate(tmp_path / "run", "ROMEO ROMEO", tokens=4)) == 15


def test_a_beam_finds_the_likeliest_text(text: Path) -> None:
    writer = load_writer(text)
    ids = torch.tensor([writer.tokenizer.encode("ROM")])
    found = continuations(writer.model, ids, 9, num_beams=3).ids[0, 0]
    want = "ROM" + writer.tokenizer.decode(found.tolist())
    assert vitkit.generate(text, "ROM", tokens=9, num_beams=3) == want
    assert vitkit.generate(text, "ROM", tokens=9, num_beams=3, use_cache=False) == want
    assert vitkit.generate(text, "ROM", tokens=0, num_beams=3) == "ROM"
    assert len(vitkit.generate(text, "ROM", tokens=14, num_beams=3)) == 17  # the last is not read
    with pytest.raises(ConfigError, match="have 18 tokens, the model reads 16 at a time"):
        vitkit.generate(text, "ROM", tokens=15, num_beams=3)


@pytest.mark.parametrize("given", [12, 16, 20, 24])
def test_all_of_the_window_is_read(given: int) -> None:
    """Of 24 positions the model has learned to read 16; a prompt may fill them, or be longer."""
    torch.manual_seed(0)
    tool = CharacterTokenizer("abcdefgh")
    model = create_model(
        "lm_char_mini", vocab_size=8, max_len=24, embed_dim=16, depth=2, num_heads=2
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    writer = Writer(model.double().eval(), tool, torch.device("cpu"), 16)
    prompt = "".join("abcdefgh"[i] for i in torch.randint(0, 8, (given,)).tolist())
    told, seen = prompt, min(given, 16)
    for piece in writer.stream(prompt, tokens=30, temperature=0.0):
        ids = torch.tensor([tool.encode(told[-seen:])])
        with torch.no_grad():
            assert piece == tool.decode([int(model(ids)[0, -1].argmax())]), (len(told), seen)
        told, seen = told + piece, seen + 1 if seen < 16 else 8
    assert len(told) == given + 30
    cached = "".join(writer.stream(prompt, tokens=30, temperature=0.0))
    assert cached == "".join(writer.stream(prompt, tokens=30, temperature=0.0, use_cache=False))


def test_beside_a_beam_nothing_is_drawn(text: Path) -> None:
    for options, words in (
        ({"top_p": 3.0}, "top_p: a beam draws nothing; leave out top_p, or the beam"),
        ({"temperature": 0.5, "seed": 2}, "leave out temperature and seed, or the beam"),
        ({"top_k": 3}, "top_k: a beam draws nothing"),
        ({"seed": None}, "seed: a beam draws nothing"),
    ):
        given: dict[str, Any] = options
        with pytest.raises(ConfigError, match=words):
            vitkit.generate(text, "ROM", tokens=3, num_beams=2, **given)
    for beams in (0, -3):
        with pytest.raises(ConfigError, match=f"num_beams {beams}; allowed: 1 and up"):
            vitkit.generate(text, "ROM", tokens=3, num_beams=beams)


def test_without_a_prompt_a_text_without_lines_begins_somewhere(text: Path) -> None:
    tool = CharacterTokenizer("abc")
    writer = Writer(RecurrentLanguageModel(tool.vocab_size, 4, 4), tool, torch.device("cpu"))
    assert set("".join(writer.stream(tokens=5))) <= set("abc")
    assert vitkit.generate(text, tokens=3) == vitkit.generate(text, "\n", tokens=3)[1:]


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe"])
def test_a_character_cut_in_two_waits_for_its_rest(tokenizer: str) -> None:
    """A model that says what it is told: each piece is whole, and together they are the text."""
    sentence = "Zwölf weiße Füße €𝄞."
    bare = BpeTokenizer.train(["abc"], 256, special=False)  # knows bytes alone
    tool = ByteTokenizer() if tokenizer == "bytes" else bare
    ids = tool.encode(sentence)
    model = RecurrentLanguageModel(tool.vocab_size, 4, 4)
    writer = Writer(model, tool, torch.device("cpu"))
    pieces = list(writer._pieces(iter(ids)))
    assert "".join(pieces) == sentence
    assert all("\N{REPLACEMENT CHARACTER}" not in piece for piece in pieces)
    assert len(pieces) == len(sentence)
    cut = list(writer._pieces(iter(ids[:-2])))  # the last character but one lacks a byte
    assert "".join(cut).startswith(sentence[:-2])
    # What is no text stands in front of a character without hiding it.
    strange = [255] * 3 + list("é€𝄞".encode()) + [0xE2, 0x82, 255, 97]
    if tokenizer == "bytes":
        pieces = list(writer._pieces(iter(strange)))
        assert "".join(pieces) == tool.decode(strange)
        assert {"é", "€", "𝄞"} <= set(pieces)


def test_what_cannot_be_continued(text: Path) -> None:
    with pytest.raises(DataError, match=r"'@' \(U\+0040\), 2 places into the text"):
        vitkit.generate(text, "RO@")
    with pytest.raises(DataError, match="the prompt has 17 tokens, the model 16 positions"):
        vitkit.generate(text, "R" * 17)
    assert len(vitkit.generate(text, "R" * 16, tokens=3)) == 19
    for options, words in (
        ({"prompt": ""}, "the prompt is empty"),
        ({"temperature": -1.0}, "temperature -1"),
        ({"temperature": float("nan")}, "temperature nan"),
        ({"top_k": 0}, "top_k 0"),
        ({"top_p": 1.5}, "top_p 1.5"),
        ({"tokens": -1}, "tokens -1"),
    ):
        given: dict[str, Any] = options
        with pytest.raises(ConfigError, match=words):
            vitkit.generate(text, **given)
    greedy = vitkit.generate(text, "RO", tokens=20, temperature=0.0)
    assert vitkit.generate(text, "RO", tokens=20, temperature=1e-40) == greedy


@pytest.mark.parametrize("beams", [1, 3])
def test_translations_are_the_search_of_each_sentence(pairs: Path, beams: int) -> None:
    translator = load_translator(pairs)
    tool = translator.tokenizer
    sentences = ["one two", "three", "", "six six six six six", "five five one six"]
    want = []
    for sentence in sentences:
        ids = torch.tensor([[*tool.encode(sentence), tool.eos_id]])
        found = search(
            translator.model, ids, bos_id=1, eos_id=2, num_beams=beams, length_penalty=0.6
        )
        want.append(tool.decode(found.ids[0, 0].tolist()) if sentence else "")
    got = vitkit.translate(pairs, sentences, num_beams=beams)
    assert got == want
    assert got == vitkit.translate(pairs, sentences, num_beams=beams, use_cache=False)
    assert vitkit.translate(pairs, "three", num_beams=beams) == [want[1]]
    assert list(translator.lines(iter(sentences), chunk=2, num_beams=beams)) == want


def test_a_run_is_searched_as_it_was_tested(pairs: Path) -> None:
    translator = load_translator(pairs)
    assert (translator.num_beams, translator.length_penalty) == (4, 0.6)
    told: list[tuple[int, int]] = []
    translator.translate(["one", "", "two two"], on_batch=lambda *done: told.append(done))
    assert told[-1] == (2, 2)
    # Long sources are searched few at a time, and come back in their places.
    long = dataclasses.replace(translator, num_beams=300)
    sentences = ["one two", "six"]
    assert long.translate(sentences) == [long.translate([text])[0] for text in sentences]


LONGER = 4.0
"""A length penalty at which a translator that ends its sentences says more."""


@pytest.fixture(scope="module")
def skilled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("skilled") / "run"
    return finished_run(config=pair_run(folder, *SKILLED))


def test_a_length_penalty_reaches_the_search(skilled: Path) -> None:
    translator = load_translator(skilled)
    tool = translator.tokenizer
    sentences = ["one two", "three", "six six six", "five five one six"]
    found = {}
    for alpha in (0.0, LONGER):
        want = []
        for sentence in sentences:
            ids = torch.tensor([[*tool.encode(sentence), tool.eos_id]])
            best = search(translator.model, ids, bos_id=1, eos_id=2, length_penalty=alpha)
            want.append(tool.decode(best.ids[0, 0].tolist()))
        found[alpha] = vitkit.translate(skilled, sentences, length_penalty=alpha)
        assert found[alpha] == want
        set_so = dataclasses.replace(translator, length_penalty=alpha)
        assert set_so.translate(sentences) == want
    assert sum(map(len, found[LONGER])) > sum(map(len, found[0.0]))
    with pytest.raises(ConfigError, match="length_penalty -1"):
        vitkit.translate(skilled, "one", length_penalty=-1.0)


@pytest.mark.parametrize(("beams", "alpha"), [(1, 0.6), (2, LONGER), (4, LONGER)])
def test_an_evaluation_searches_as_it_is_told(skilled: Path, beams: int, alpha: float) -> None:
    told = [f"task.num_beams={beams}", f"task.length_penalty={alpha}"]
    result = vitkit.evaluate(skilled, told, progress=False)
    root = skilled.parent / "sentences"
    english, german = (
        (root / f"test.{language}").read_text("utf-8").splitlines() for language in ("en", "de")
    )
    want = vitkit.translate(skilled, english, num_beams=beams, length_penalty=alpha)
    written = (skilled / "translations-test.txt").read_text("utf-8").splitlines()
    assert written == want
    usual = vitkit.translate(skilled, english, num_beams=beams)
    assert (written == usual) == (alpha == 0.6)
    bleu = sacrebleu.corpus_bleu(want, [german])
    assert result.metrics["test/bleu"] == pytest.approx(bleu.score)
    assert ("test/bleu_greedy" in result.metrics) == (beams > 1)
    facts = result.record.facts
    assert (facts["num_beams"], facts["length_penalty"]) == (beams, alpha)


def test_a_run_is_tested_as_its_task_says(tmp_path: Path) -> None:
    settings = ("task.num_beams=2", f"task.length_penalty={LONGER}", "trainer.max_epochs=1")
    result = train(pair_run(tmp_path / "run", *settings), progress=False)
    translator = load_translator(tmp_path / "run")
    assert (translator.num_beams, translator.length_penalty) == (2, LONGER)
    facts = result.record.facts
    assert (facts["num_beams"], facts["length_penalty"]) == (2, LONGER)
    english = (tmp_path / "sentences" / "test.en").read_text("utf-8").splitlines()
    written = (tmp_path / "run" / "translations-test.txt").read_text("utf-8").splitlines()
    assert written == vitkit.translate(
        tmp_path / "run", english, num_beams=2, length_penalty=LONGER
    )


def test_what_cannot_be_translated(pairs: Path) -> None:
    with pytest.raises(DataError, match=r"sentence 2: character '@'"):
        vitkit.translate(pairs, ["one", "tw@"])
    with pytest.raises(DataError, match="sentence 1: 49 tokens with its end, the model has 48"):
        vitkit.translate(pairs, "o" * 48)
    with pytest.raises(ConfigError, match="num_beams 0"):
        vitkit.translate(pairs, "one", num_beams=0)
    translator = load_translator(pairs)
    with pytest.raises(DataError, match="sentence 3: character"):
        list(translator.lines(["one", "two", "@"], chunk=2))


def test_a_translation_is_one_line(pairs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    translator = load_translator(pairs)
    monkeypatch.setattr(type(translator.tokenizer), "decode", lambda self, ids: "a\nb\r\nc")
    assert list(translator.lines(["one", "two"])) == ["a b c", "a b c"]


def test_lines_of_bytes() -> None:
    assert list(utf8_lines([b"a\r\n", "ü\n".encode(), b"\n", b"b"], "x")) == ["a", "ü", "", "b"]
    marked = ["\ufeffa\n".encode(), "\ufeffb".encode()]  # of the first line it is no character
    assert list(utf8_lines(marked, "x")) == ["a", "\ufeffb"]
    with pytest.raises(DataError, match="x: byte 0xff in line 2 is not UTF-8"):
        list(utf8_lines([b"a\n", b"\xff\n"], "x"))


def test_each_kind_of_run_has_its_own_use(text: Path, pairs: Path, pictures: Path) -> None:
    with pytest.raises(WeightsError, match="reads images; vitkit generate needs a model of text"):
        vitkit.generate(pictures)
    with pytest.raises(WeightsError, match="reads sentence pairs; vitkit generate needs"):
        vitkit.generate(pairs)
    with pytest.raises(WeightsError, match=r"reads text; .* Use it with: vitkit generate"):
        vitkit.translate(text, "one")
    for run in (text, pairs):
        with pytest.raises(WeightsError, match="reads words, not pictures"):
            vitkit.load(run)
        with pytest.raises(WeightsError, match="reads words, not pictures"):
            vitkit.export(run)


def test_runs_of_all_kinds_are_evaluated_side_by_side(
    text: Path, pairs: Path, pictures: Path
) -> None:
    results = compare([text, pairs, pictures, pictures], progress=False)
    assert [result.unit for result in results.results] == ["tokens", "tokens", "images", "images"]
    assert results.paired == (None, None, None)
    assert {"val/loss", "val/ppl", "val/bits_per_char"} == set(results.results[0].metrics)
    names = ("loss", "ppl", "bits_per_char", "bleu", "bleu_greedy")
    assert {f"test/{name}" for name in names} == set(results.results[1].metrics)
    with pytest.raises(ConfigError, match="reads words; allowed: standard"):
        vitkit.evaluate(text, suite="speed")


def test_the_splits_of_a_text(text: Path) -> None:
    assert vitkit.evaluate(text, progress=False).split == "val"
    train = vitkit.evaluate(text, split="train", progress=False)
    assert {"train/loss", "train/ppl", "train/bits_per_char"} == set(train.metrics)
    checkpoint = read_checkpoint(text / "checkpoints" / "last.ckpt")
    assert train.count == checkpoint.data["num_train"] - 1  # each token but the first
    # The closed form of the loss: what the model says of the token behind each, window by window.
    writer = load_writer(text)
    verses = Path(checkpoint.config["data"]["root"]).read_text("utf-8")
    ids = writer.tokenizer.encode(verses)[: checkpoint.data["num_train"]]
    total = 0.0
    for start in range(0, len(ids) - 1, 16):
        window = torch.tensor(ids[start : start + 17])
        with torch.inference_mode():
            logits = writer.model(window[None, :-1])[0]
        total += float(torch.nn.functional.cross_entropy(logits, window[1:], reduction="sum"))
    assert train.metrics["train/loss"] == pytest.approx(total / train.count, rel=1e-4)
    both = compare([text], split="all", progress=False)
    assert [result.split for result in both.results] == ["train", "val"]
    assert [result.written[0].name for result in both.results] == ["eval-train.json", "eval.json"]
    assert both.results[0].metrics == train.metrics
    with pytest.raises(DataError, match="text has no test part; with --split: train, val, all"):
        vitkit.evaluate(text, split="test", progress=False)
    with pytest.raises(DataError, match="text has no test and no val part; with --split: train"):
        vitkit.evaluate(text, ["data.val_fraction=0"], progress=False)


def test_the_splits_of_pairs(pairs: Path) -> None:
    found = compare([pairs], split="all", progress=False)
    assert [result.split for result in found.results] == ["train", "val", "test"]
    written = [[path.name for path in result.written] for result in found.results]
    assert written == [
        ["eval-train.json", "translations-train.txt"],
        ["eval-val.json", "translations-val.txt"],
        ["eval.json", "translations-test.txt"],
    ]
    assert "train/bleu" in found.results[0].metrics
    val = vitkit.evaluate(pairs, ["data.test=null"], progress=False)
    assert val.split == "val" and val.metrics == found.results[1].metrics
    with pytest.raises(DataError, match="parallel has no test pairs; with --split: train, val"):
        vitkit.evaluate(pairs, ["data.test=null"], split="test", progress=False)
