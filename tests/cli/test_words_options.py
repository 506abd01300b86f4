"""Options of the commands on words: how texts are searched and drawn, and what is written where."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import vitkit
from tests.conftest import Command, finished_run
from tests.small_words import SKILLED, pair_run, text_run
from vitkit.app import load_translator, load_writer, train


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished tiny run of each kind."""
    folder = tmp_path_factory.mktemp("runs")
    return {
        "text": finished_run(config=text_run(folder / "text")),
        "pairs": finished_run(config=pair_run(folder / "pairs", *SKILLED)),
    }


def test_a_beam_writes_the_likeliest_text(run: Command, runs: dict[str, Path]) -> None:
    asked = ("generate", runs["text"], "ROM", "--tokens", 12)
    code, out, err = run(*asked, "--beam", 3)
    assert code == 0 and err == ""
    assert out == "ROM" + load_writer(runs["text"]).search("ROM", tokens=12, num_beams=3) + "\n"
    assert run(*asked, "--beam", 3, "--no-cache")[1] == out
    assert run(*asked, "--beam", 1)[1] == run(*asked)[1] != out
    for words, name in (
        (["--top-p", 0.5], "top_p"),
        (["--top-k", 5], "top_k"),
        (["--temperature", 0.5], "temperature"),
        (["--greedy"], "greedy"),
        (["--seed", 4], "seed"),
    ):
        code, out, err = run(*asked, "--beam", 3, *words)
        assert (code, out) == (2, "")
        assert err == f"error: {name}: a beam draws nothing; leave out {name}, or the beam\n"
    code, out, err = run(*asked, "--greedy", "--temperature", 0.5)
    assert (code, out) == (2, "")
    assert err == (
        "error: temperature: --greedy draws nothing; leave out temperature, or --greedy\n"
    )
    code, _, err = run(*asked[:-1], 15, "--beam", 3)
    assert code == 2 and "have 18 tokens, the model reads 16 at a time" in err


def test_top_p_draws_among_the_likeliest(run: Command, runs: dict[str, Path]) -> None:
    asked = ("generate", runs["text"], "ROM", "--tokens", 40, "--temperature", 2)
    code, narrow, err = run(*asked, "--top-p", 0.3)
    assert code == 0 and err == ""
    want = vitkit.generate(runs["text"], "ROM", tokens=40, temperature=2.0, top_p=0.3)
    assert narrow == f"{want}\n"
    assert narrow != run(*asked)[1] == run(*asked, "--top-p", 1)[1]


def test_a_length_penalty_changes_translations(run: Command, runs: dict[str, Path]) -> None:
    lines = "one two\nthree\nsix six six\nfive five one six\n"
    outs = []
    for alpha in (0.0, 4.0):
        code, out, err = run(
            *("translate", runs["pairs"], "--length-penalty", alpha), stdin=lines.encode()
        )
        assert code == 0 and err == ""
        translator = load_translator(runs["pairs"])
        assert out.splitlines() == translator.translate(lines.splitlines(), length_penalty=alpha)
        outs.append(out)
    assert outs[0] != outs[1]
    code, _, err = run("translate", runs["pairs"], "--length-penalty", -1, stdin=b"one")
    assert code == 2 and "length-penalty" in err


def test_text_is_written_in_utf_8_whatever_the_locale_says(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    """What is read must be UTF-8, so what is written can be read again."""
    (tmp_path / "one.en").write_text("five\ntwelve\n", encoding="utf-8")
    wanted = load_translator(runs["pairs"]).translate(["five", "twelve"])
    assert any(not text.isascii() for text in wanted)
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}
    call = [sys.executable, "-m", "vitkit", "translate", str(runs["pairs"]), "one.en"]
    done = subprocess.run(call, cwd=tmp_path, env=environment, capture_output=True, check=True)
    assert done.stdout.decode("utf-8").splitlines() == wanted


def test_so_is_a_text_that_goes_on(tmp_path: Path) -> None:
    config = text_run(tmp_path / "run", f"data.root={tmp_path / 'text'}", "trainer.max_epochs=1")
    (tmp_path / "text").write_text("Zażółć gęślą jaźń.\n" * 40, encoding="utf-8")
    train(config, progress=False)
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}
    call = [sys.executable, "-m", "vitkit", "generate", "run", "-", "--tokens", "9", "--greedy"]
    given = "Zażółć".encode()
    done = subprocess.run(
        call, cwd=tmp_path, env=environment, input=given, capture_output=True, check=True
    )
    want = vitkit.generate(tmp_path / "run", "Zażółć", tokens=9, temperature=0.0)
    assert done.stdout.decode("utf-8") == f"{want}\n"
