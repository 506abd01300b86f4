"""The README does what it says: every command and every piece of Python in it is run, made short.

A line that no test here knows how to run is a failure, so that nothing stays untried.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from PIL import Image
from safetensors.torch import save_file

import vitkit
from tests.small_data import write_cifar, write_pictures
from vitkit.cli import main, run_eval, run_train
from vitkit.config import describe_keys, load_config, split_arguments
from vitkit.records import Record

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCUMENTS = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

SHORT = ["trainer.max_epochs=1", "trainer.accelerator=cpu", "data.batch_size=8", "model.depth=1"]
"""Added to every training: settings given later win."""
ASKING = {"--help", "--list-keys", "--print-config", "--dry-run"}
"""Options with which ``train.py`` trains nothing."""
DEFAULT_RUN = "vit_digits-digits"
"""The run that ``make train`` leaves."""


def blocks(text: str) -> list[tuple[str, str]]:
    """(language, content) of every fenced block."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)


def commands(text: str) -> list[str]:
    """Every command of every bash block, without its comment."""
    found = []
    for language, content in blocks(text):
        if language == "bash":
            lines = content.replace("\\\n", " ").splitlines()
            found += [re.sub(r"(^|\s+)#.*", "", line).strip() for line in lines]
    return [line for line in found if line]


def targets(makefile: str) -> set[str]:
    """Names that ``make`` can be given."""
    return set(re.findall(r"^([a-z][\w-]*):(?!=)", makefile, re.M))


class Workshop:
    """A folder with all that the README's commands name, and a way to run them there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(ROOT / "configs", folder / "configs")
        write_pictures(folder / "my_pictures")
        Image.new("RGB", (60, 40), "red").save(folder / "photo.jpg")
        Image.new("L", (20, 20), 90).save(folder / "picture.png")
        shallow = vitkit.create_model("vit_tiny_patch16_224", depth=1)  # as deep as SHORT's models
        save_file(shallow.state_dict(), folder / "vit_tiny.safetensors")
        (folder / "book.txt").write_text("To be, or not to be, that is the question.\n" * 40)

    def run(self, line: str) -> list[str]:
        """Run one line of the README, shortened; returns the words that were run."""
        words = shlex.split(line)
        if words[0] == "make":
            for target in words[1:]:
                assert target in targets((ROOT / "Makefile").read_text()), f"no target {target}"
            return words
        known: dict[tuple[str, ...], Callable[[], NoReturn]] = {
            ("python", "train.py"): run_train,
            ("python", "eval.py"): run_eval,
            ("vitkit",): main,
        }
        for start, entry in known.items():
            if tuple(words[: len(start)]) == start:
                words = [self.filled(word) for word in words[len(start) :]]
                train = start[-1] == "train.py" or (start == ("vitkit",) and words[0] == "train")
                if train and not {"--resume", *ASKING} & {*words}:
                    words += SHORT
                self.call(entry, [start[-1], *words])
                return words
        pytest.fail(f"README.md: no test knows how to run {line!r}")

    def call(self, entry: Callable[[], NoReturn], words: list[str]) -> None:
        """A command in this process; it must end well."""
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder)
            patch.setenv("VITKIT_RUN_DIR", "")
            patch.setattr(sys, "argv", words)
            with pytest.raises(SystemExit) as left:
                entry()
        assert not left.value.code, f"{shlex.join(words)}: exit code {left.value.code}"

    def filled(self, text: str) -> str:
        """``runs/<name>/<time>`` with the newest run of that name, which is made if there is none.

        Any other placeholder is a failure.
        """
        text = re.sub(r"runs/([\w-]+)/<time>", lambda found: self.newest(found[1]).as_posix(), text)
        assert not re.search(r"<\w+>", text), f"README.md: what stands for the <...> in {text!r}?"
        return text

    def newest(self, name: str) -> Path:
        """The newest run of a name, relative to the folder."""
        place = self.folder / "runs" / name
        if not place.exists():
            self.make_run(name)
        folders = [path for path in place.iterdir() if (path / "results.json").exists()]
        return max(folders, key=lambda path: path.name).relative_to(self.folder)

    def make_run(self, name: str) -> None:
        """By the README's own command that leaves a run of this name."""
        if name == DEFAULT_RUN:
            self.make_default_run()
            return
        for line in commands(README.read_text(encoding="utf-8")):
            words = shlex.split(line)
            trains = words[:2] in (["python", "train.py"], ["vitkit", "train"])
            if trains and not words[2].startswith("-"):
                files, overrides = split_arguments(words[2:])
                config = load_config([ROOT / file for file in files], overrides)
                if f"{config.model.name}-{config.data.name}" == name:
                    self.run(line)
                    return
        pytest.fail(f"README.md: no command leaves a run runs/{name}")

    def make_default_run(self) -> None:
        """What ``make train`` runs, as a process of its own."""
        makefile = (ROOT / "Makefile").read_text()
        assert re.search(r"^train:.*\n\t\$\(BIN\)/python train\.py \$\(ARGS\)$", makefile, re.M)
        environment = {k: v for k, v in os.environ.items() if k != "VITKIT_RUN_DIR"}
        done = subprocess.run(
            [sys.executable, ROOT / "train.py", "trainer.max_epochs=1"],
            cwd=self.folder,
            env=environment | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "test/acc" in done.stdout
        results, *following = done.stdout.splitlines()[-3:]
        assert results.startswith("results: runs/") and results.endswith("results.json")
        for line, name in zip(following, ("eval.py", "predict"), strict=True):
            words = shlex.split(line.removeprefix("next:"))
            assert Path(shutil.which(words[0]) or words[0]).exists()
            assert name in line and "runs/vit_digits-digits/" in line
        assert "Warning" not in done.stderr

    def listing(self) -> set[Path]:
        """All that is in the folder."""
        return set(self.folder.rglob("*"))


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    folder = tmp_path_factory.mktemp("readme")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("cifar10", "cifar100"):
            write_cifar(name, folder / "data", patch)
        yield Workshop(folder)


TEXT = README.read_text(encoding="utf-8")
PYTHON = [content for language, content in blocks(TEXT) if language == "python"]


def test_every_block_is_of_a_language_that_is_tried() -> None:
    assert {language for language, _ in blocks(TEXT)} == {"bash", "python"}
    assert TEXT.count("```") == 2 * len(blocks(TEXT))
    assert len(commands(TEXT)) >= 10


@pytest.mark.parametrize("line", commands(TEXT))
def test_a_command_of_the_readme(
    workshop: Workshop, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if "<time>" in line:
        workshop.filled(line)  # makes the run that the command is about
        capsys.readouterr()
    before = workshop.listing()
    words = workshop.run(line)
    out = capsys.readouterr().out
    if ASKING & {*words}:
        assert workshop.listing() == before, "a question left files"
    if "--help" in words:
        assert len(out.splitlines()) <= 50
        assert max(map(len, out.splitlines())) <= 80
    if "--list-keys" in words:
        assert all(f"{key} = " in out for key, _, _ in describe_keys())
    if "--print-config" in words:
        (workshop.folder / "printed.yaml").write_text(out, encoding="utf-8")
        assert load_config([workshop.folder / "printed.yaml"]) == load_config()
    if "eval.py" in line or "train.py configs" in line:
        assert ("val/ppl" if "shakespeare" in line else "test/acc") in out
    if "check-data" in line:
        assert "cat" in out and "dog" in out
    if "predict" in line:
        assert "photo.jpg" in out and "%" in out


@pytest.mark.parametrize("code", PYTHON, ids=lambda code: code.splitlines()[2])
def test_a_piece_of_python_of_the_readme(
    workshop: Workshop,
    code: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = re.sub(r"trainer\.max_epochs=\d+", "trainer.max_epochs=1", workshop.filled(code))
    monkeypatch.chdir(workshop.folder)
    capsys.readouterr()
    exec(compile(code, str(README), "exec"), {})
    assert capsys.readouterr().out.strip()


def test_a_run_leaves_what_the_readme_lists(workshop: Workshop) -> None:
    run = workshop.folder / workshop.newest(DEFAULT_RUN)
    for name in ("config.yaml", "metrics.csv", "checkpoints/last.ckpt", "checkpoints/best.ckpt"):
        assert (run / name).is_file()
    assert list(run.rglob("events.out.tfevents*"))
    record = Record.read(run / "results.json")
    assert 0 < record.metrics["test/acc"] <= 1
    facts = {"wall_seconds", "torch_version", "hardware", "git_commit", "seed"}
    assert facts <= set(record.facts)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("rm -rf /nothing", "no test knows how to run"),
        ("python other.py", "no test knows how to run"),
        ("make coffee", "no target coffee"),
        ("python eval.py runs/nothing-nowhere/<time>", "no command leaves a run"),
        ("python eval.py <folder>", "what stands for"),
        ("vitkit models 'no_such_*'", "exit code 2"),
    ],
)
def test_what_cannot_be_run_is_a_failure(workshop: Workshop, line: str, reason: str) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception), match=reason):
        workshop.run(line)


def test_commands_and_names_inside_sentences(workshop: Workshop) -> None:
    prose = re.sub(r"^```.*?^```$", "", TEXT, flags=re.M | re.S)
    spans = re.findall(r"`([^`\n]+)`", prose)
    models = [span for span in spans if span.startswith("vitkit models")]
    assert models
    for line in models:
        workshop.run(line)
    calls = [found[1] for span in spans if (found := re.match(r"vitkit\.(\w+)\(", span))]
    assert calls
    assert set(calls) <= set(vitkit.__all__)
    for target in re.findall(r"`make (\w+)`", prose):
        assert target in targets((ROOT / "Makefile").read_text())


def test_the_table_of_results_agrees_with_the_lab_notebook() -> None:
    notebook = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+\.yaml)` \|.*\| [\d.]+(?: of (\d+))? \| ([^|]+) \|$", TEXT, re.M)
    assert rows and len(rows) == TEXT.count(".yaml` |")
    for name, epochs, accuracy in rows:
        config = load_config([ROOT / "configs" / name], [])
        assert not epochs or config.trainer.max_epochs == int(epochs), name
        assert re.fullmatch(r"\d+\.\d+ %|not measured( yet)?", accuracy), f"{name}: {accuracy}"
        if accuracy.startswith("not measured"):
            continue
        measured = [section for section in notebook.split("\n## ") if name in section]
        known = rf"(?<![\d.]){re.escape(accuracy)}"
        assert any(re.search(known, section) for section in measured), (
            f"no section of docs/results.md gives {accuracy} for {name}"
        )


def test_targets_of_make_in_every_document_exist() -> None:
    known = targets((ROOT / "Makefile").read_text())
    assert {"train", "test", "check"} <= known
    for document in DOCUMENTS:
        for line in commands(document.read_text(encoding="utf-8")):
            if line.startswith("make "):
                assert set(shlex.split(line)[1:]) <= known, f"{document.name}: {line}"


@pytest.mark.skipif(
    shutil.which("make") is None or sys.platform == "win32", reason="needs make, and a shell"
)
def test_make_names_what_to_do_about_an_older_python(tmp_path: Path) -> None:
    old, venv = tmp_path / "python3.9", tmp_path / "venv"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    words = ["make", f"{venv}/.installed", f"VENV={venv}", f"PYTHON={old}"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode and not venv.exists()
    assert f"{old} is no Python 3.11 or newer; name one that is: make train" in done.stdout


def broken_links(document: Path) -> list[str]:
    """Links of a document that lead to no file, or to no heading of it."""
    prose = re.sub(r"^```.*?^```$", "", document.read_text(encoding="utf-8"), flags=re.M | re.S)
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        place = document.parent / name if name else document
        if not place.exists() or (anchor and anchor not in _anchors(place)):
            broken.append(link)
    return broken


def _anchors(document: Path) -> set[str]:
    """Headings as GitHub names them."""
    titles = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files(document: Path) -> None:
    assert broken_links(document) == []


def test_a_broken_link_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "a.md"
    page.write_text(
        "# One, two\n[x](#one-two) [x](a.md) [x](https://example.org) [x](b.md) [x](a.md#three)\n"
        "```python\nf[0](c)\n```\n"
    )
    assert broken_links(page) == ["b.md", "a.md#three"]
