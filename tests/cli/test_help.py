"""What the commands say about themselves can be read, and copied."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from importlib import metadata

import pytest

from tests.conftest import Command
from vitkit.app import model_rows
from vitkit.cli import run_train
from vitkit.cli.tables import model_lines
from vitkit.config import describe_keys
from vitkit.config.files import parse_value


@pytest.fixture
def said(vitkit_command: Command) -> Callable[..., str]:
    """What the ``vitkit`` command prints; it must end well."""

    def call(*words: str) -> str:
        code, out, _ = vitkit_command(*words)
        assert not code
        return out

    return call


COMMANDS = [
    "train",
    "eval",
    "predict",
    "probe",
    "inspect",
    "report",
    "compare",
    "export",
    "models",
    "check-data",
    "generate",
    "translate",
    "average",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_a_terminal_and_its_examples_are_whole(said, command: str) -> None:  # type: ignore[no-untyped-def]
    text = said(command, "--help")
    assert max(map(len, text.splitlines())) <= 80
    docs = re.findall(r"^ +((?:python|vitkit) .+)$", text, re.M)
    assert command in ("predict", "models") or docs
    for example in docs:  # each is a command by itself: nothing was moved to the next line
        assert re.fullmatch(
            r"python (train|eval)\.py( [\w./=:-]+)+"
            r"|vitkit [a-z-]+( [\w./=:-]+)+",
            example,
        )
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if line.strip() in docs:
            after = lines[number + 1].strip()
            assert not after or after in docs


def test_vitkit_alone_helps_and_tells_its_version(said) -> None:  # type: ignore[no-untyped-def]
    alone = said()
    assert alone == said("--help")
    assert "check-data" in alone
    assert "..." not in alone.split("Commands:")[1]
    assert said("--version") == f"vitkit {metadata.version('vitkit')}\n"
    assert said("--version", "models") == said("--version")


def test_models_are_told_whole(said, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    rows = model_rows()
    piped = said("models").splitlines()
    assert len(piped) == len(rows)
    for line, (name, doc) in zip(piped, rows, strict=True):
        assert line.split() == [name, *doc.split()]
    narrow = model_lines(rows, 80)
    assert max(map(len, narrow)) <= 80
    assert " ".join(narrow).split() == " ".join(piped).split()


def test_the_list_of_keys_says_where_it_does_not_hold(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "--list-keys"])
    with pytest.raises(SystemExit):
        run_train()
    lines = capsys.readouterr().out.splitlines()
    assert "--print-config" in " ".join(lines[:2])
    assert max(map(len, lines[:3])) <= 80
    shown = [line.split(" = ", 1) for line in lines if re.match(r"\S+ = ", line)]
    for (name, value), (key, default, _) in zip(shown, describe_keys(), strict=True):
        assert name == key
        assert parse_value(value) == (list(default) if isinstance(default, tuple) else default, [])
