"""Words through the command line: what comes out, and one clear line where nothing can."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from tests.cli.conftest import only_line
from tests.conftest import TINY, Command, finished_run
from tests.small_words import PAIRS, TEXT, pair_run, text_run
from vitkit.app import load_translator


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished tiny run of each kind."""
    folder = tmp_path_factory.mktemp("runs")
    return {
        "text": finished_run(config=text_run(folder / "text", "trainer.max_epochs=6")),
        "pairs": finished_run(config=pair_run(folder / "pairs", "trainer.max_epochs=6")),
        "images": finished_run(*TINY, f"run.dir={folder / 'images'}", "trainer.max_epochs=1"),
    }


def test_generate(run: Command, runs: dict[str, Path]) -> None:
    code, drawn, err = run("generate", runs["text"], "ROMEO", "--tokens", 40)
    assert code == 0 and err == ""
    assert drawn.startswith("ROMEO") and len(drawn) == 5 + 40 + 1
    assert run("generate", runs["text"], "-", "--tokens", 40, stdin=b"ROMEO")[1] == drawn
    assert run("generate", runs["text"], "ROMEO", "--tokens", 40, "--no-cache")[1] == drawn
    assert run("generate", runs["text"], "ROMEO", "--tokens", 40, "--seed", 1)[1] != drawn
    _, greedy, _ = run("generate", runs["text"], "ROMEO", "--tokens", 40, "--greedy")
    cold = ("--tokens", 40, "--temperature", 0)
    assert run("generate", runs["text"], "ROMEO", *cold, "--seed", 8)[1] == greedy
    assert run("generate", runs["text"], "ROMEO", "--tokens", 40, "--top-k", 1)[1] == greedy
    code, alone, _ = run("generate", runs["text"] / "checkpoints" / "last.ckpt", "--tokens", 5)
    assert code == 0 and len(alone) == 5 + 1


def test_translate(run: Command, runs: dict[str, Path], tmp_path: Path) -> None:
    lines = "one two\n\nsix six\n"
    (tmp_path / "text.en").write_text(lines, encoding="utf-8")
    code, out, err = run("translate", runs["pairs"], "text.en")
    assert code == 0 and err == ""
    want = load_translator(runs["pairs"]).translate(lines.splitlines())
    assert out.splitlines() == want and want[1] == ""
    assert run("translate", runs["pairs"], stdin=lines.encode())[1] == out
    assert run("translate", runs["pairs"], "-", "--no-cache", stdin=lines.encode())[1] == out
    greedy = load_translator(runs["pairs"]).translate(["one two"], num_beams=1)
    assert run("translate", runs["pairs"], "--beam", 1, stdin=b"one two")[1].splitlines() == greedy


def test_eval_of_words(run: Command, runs: dict[str, Path]) -> None:
    code, out, _ = run("eval", runs["text"], "--quiet")
    assert code == 0 and "tokens" in out and "images" not in out
    assert "val/bits_per_char" in out and "val/ppl" in out
    code, out, _ = run("eval", runs["pairs"], "--quiet", "--split", "val")
    assert code == 0 and "val/bleu" in out
    code, out, _ = run("eval", runs["text"], "--quiet", "--split", "all")
    assert code == 0 and out.splitlines()[2].split() == ["train", "val"]
    assert "no paired test" not in out
    code, _, err = run("eval", runs["text"], "--quiet", "--split", "test")
    assert code == 1
    only_line(err, "text has no test part", "train, val, all")
    code, out, _ = run("eval", runs["text"], runs["pairs"], "--quiet")
    assert code == 0 and "no paired test" in out


def test_a_training_ends_with_what_to_run_next(run: Command, runs: dict[str, Path]) -> None:
    for usual, command in ((TEXT, "generate runs/"), (PAIRS, "translate runs/")):
        kind = "text" if usual is TEXT else "pairs"
        root = runs["text"].parent / ("verses.txt" if usual is TEXT else "sentences")
        code, out, err = run("train", *usual, f"data.root={root}", "trainer.max_epochs=1")
        assert code == 0, err
        assert "tokens/s" in out and "images" not in out, kind
        assert command in out.splitlines()[-1]
        assert "eval runs/" in out.splitlines()[-2]
    verses = runs["text"].parent / "verses.txt"
    code, out, _ = run("train", *TEXT, f"data.root={verses}", "--dry-run")
    assert code == 0 and "one batch works" in out


def test_what_cannot_be_continued(run: Command, runs: dict[str, Path]) -> None:
    code, out, err = run("generate", runs["text"], "RO@")
    assert code == 1 and out == ""
    only_line(err, "character '@' (U+0040)", "leave it out")
    code, _, err = run("generate", runs["text"], "R" * 17)
    assert code == 1
    only_line(err, "17 tokens", "16 positions", "model.max_len")
    code, _, err = run("generate", runs["text"], "-", stdin=b"R\xff")
    assert code == 1
    only_line(err, "standard input: byte 0xff in line 1 is not UTF-8")
    code, _, err = run("generate", runs["text"], "-")
    assert code == 2
    only_line(err, "the prompt is empty")
    code, _, err = run("generate", runs["text"], "R", "--top-p", 3)
    assert code == 2
    only_line(err, "top_p 3.0; allowed: above 0, up to 1")


def test_what_cannot_be_translated(run: Command, runs: dict[str, Path], tmp_path: Path) -> None:
    files = {"empty": b"", "latin": b"one\nf\xfcnf\n", "long": b"one\n" + b"o" * 48}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    for name, parts in {
        "empty": ["empty is empty"],
        "latin": ["latin: byte 0xfc in line 2 is not UTF-8"],
        "long": ["sentence 2: 49 tokens", "48 positions", "its line is empty"],
        "nowhere": ["nowhere: No such file"],
    }.items():
        code, _, err = run("translate", runs["pairs"], name)
        assert code == 1
        only_line(err, *parts)
    (tmp_path / "several").write_bytes(b"o" * 48 + b"\none two\n@\n" + b"o" * 50 + b"\none\n")
    code, out, err = run("translate", runs["pairs"], "several")
    assert code == 1
    only_line(err, "sentence 1: 49 tokens", "its line is empty; so are those of 2 others")
    one, two = load_translator(runs["pairs"]).translate(["one two", "one"])
    assert out.splitlines() == ["", one, "", "", two]
    code, _, err = run("translate", runs["pairs"], stdin=b"one\n\xff\n")
    assert code == 1
    only_line(err, "standard input: byte 0xff in line 2")


def test_each_command_knows_its_own_runs(run: Command, runs: dict[str, Path]) -> None:
    for words, parts in {
        ("generate", "images"): ["reads images", "vitkit generate needs a model of text"],
        ("generate", "pairs"): ["reads sentence pairs", "Use it with: vitkit translate"],
        ("translate", "text"): ["reads text", "Use it with: vitkit generate"],
        ("translate", "images"): ["reads images", "Use it with: vitkit predict"],
    }.items():
        code, _, err = run(words[0], runs[words[1]])
        assert code == 1
        only_line(err, *parts)
    for kind in ("text", "pairs"):
        code, _, err = run("predict", runs[kind], "x.png")
        assert code == 1
        only_line(err, "reads words, not pictures", "vitkit generate")


def test_a_tokeniser_that_does_not_fit_its_model(
    run: Command, runs: dict[str, Path], tmp_path: Path
) -> None:
    content = torch.load(runs["text"] / "checkpoints" / "last.ckpt", weights_only=True)
    tokenizer = content["vitkit"]["tokenizer"]
    for values, parts in (
        ({**tokenizer, "characters": tokenizer["characters"][:-1]}, ["tokens, the model"]),
        ({**tokenizer, "kind": "morse"}, ["unknown kind of tokeniser 'morse'"]),
        ({"kind": "characters"}, ["'characters' should be a str"]),
    ):
        content["vitkit"]["tokenizer"] = values
        torch.save(content, tmp_path / "odd.ckpt")
        code, _, err = run("generate", "odd.ckpt", "R")
        assert code == 1
        only_line(err, "odd.ckpt", *parts)


@pytest.mark.parametrize(
    ("usual", "content", "parts"),
    [
        (TEXT, b"", ["text is empty"]),
        (TEXT, b"a\n\xff", ["byte 0xff in line 2 is not UTF-8"]),
        (TEXT, b"short", ["holds no window of 16"]),
        (TEXT, None, ["text: No such file"]),
    ],
)
def test_texts_that_cannot_be_learned(
    run: Command, tmp_path: Path, usual: list[str], content: bytes | None, parts: list[str]
) -> None:
    if content is not None:
        (tmp_path / "text").write_bytes(content)
    code, _, err = run("train", *usual, "data.root=text", "run.dir=fresh")
    assert code == 1
    only_line(err, *parts)
    assert not (tmp_path / "fresh").exists()


def test_pairs_that_cannot_be_learned(run: Command, runs: dict[str, Path], tmp_path: Path) -> None:
    for name, content, parts in (
        ("val.de", b"eins\n", ["val.en has 8 lines", "val.de has 1"]),
        ("train.en", b"", ["train.en is empty"]),
        ("test.de", b"\xfc\n" * 8, ["test.de: byte 0xfc in line 1"]),
        ("test.en", b"o" * 48 + b"\none" * 7, ["source of pair 1 has 49 tokens", "model.max_len"]),
        ("val.en", b"one\n" * 7 + b"\n", ["line 8 is empty"]),
    ):
        folder = tmp_path / f"odd-{name}"
        shutil.copytree(runs["pairs"].parent / "sentences", folder)
        (folder / name).write_bytes(content)
        code, _, err = run("train", *PAIRS, f"data.root={folder}")
        assert code == 1
        only_line(err, *parts)
