"""The examples run, say what they promise, and stay short."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from examples import (
    abc_tunes,
    attention_maps,
    low_label_mae,
    own_data,
    own_model,
    sequence_mixers,
    transfer_flowers,
)
from tests.conftest import TINY
from tests.small_words import TEXT
from vitkit.app import train
from vitkit.config import load_config
from vitkit.explain import attention_distance
from vitkit.models.presets import CUSTOM

FOLDER = Path(__file__).parents[1] / "examples"
SCRIPTS = sorted(path for path in FOLDER.glob("*.py") if path.stem != "__init__")
STUDIES = {"sequence_mixers", "transfer_flowers"}
"""Which measure something, and may be as long as a file of the package."""


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def two_layers() -> Iterator[None]:
    """The example's model is known while it is tested, and to no other test afterwards."""
    from vitkit.models.registry import _BUILDERS

    tables: list[dict[str, object]] = [CUSTOM, _BUILDERS]  # type: ignore[list-item]
    for table, value in zip(tables, ("a perceptron", own_model.two_layers), strict=True):
        table["two_layers"] = value
    yield
    for table in tables:
        table.pop("two_layers")


def test_every_example_is_short_listed_and_says_how_to_run_it() -> None:
    listed = re.findall(r"python -m examples\.(\w+)", (FOLDER / "README.md").read_text())
    assert listed and sorted(listed) == [path.stem for path in SCRIPTS]
    for path in SCRIPTS:
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) < (400 if path.stem in STUDIES else 60), path.name
        about = ast.get_docstring(ast.parse(text)) or ""
        assert f"python -m examples.{path.stem}" in about
        assert "Prints" in about or "prints" in about


def test_own_data_learns_its_stripes(capsys: pytest.CaptureFixture[str]) -> None:
    assert torch.equal(own_data.Stripes(5, seed=1)[3][0], own_data.Stripes(9, seed=1)[3][0])
    assert not torch.equal(own_data.Stripes(5, seed=2)[3][0], own_data.Stripes(5, seed=1)[3][0])
    result = own_data.main(["model.depth=2", "trainer.accelerator=cpu"])
    assert result.metrics["test/acc"] > 0.9  # chance is 0.5
    out = capsys.readouterr().out
    assert "360 train, 40 val, 100 test images of 16 x 16, 2 classes" in out
    assert f"results in {result.folder}" in out


@pytest.mark.usefixtures("two_layers")
def test_own_model_is_trained_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    result = own_model.main(
        ["model.kwargs.width=16", "trainer.max_epochs=2", "trainer.accelerator=cpu"]
    )
    assert result.record.facts["model"] == "two_layers"
    assert result.record.facts["parameters"] == 64 * 16 + 16 + 16 * 10 + 10
    assert result.metrics["test/acc"] > 0.3  # chance is 0.1
    assert "two_layers: test accuracy" in capsys.readouterr().out


def test_attention_maps_of_a_fresh_vit(capsys: pytest.CaptureFixture[str]) -> None:
    distances = attention_maps.main()
    assert distances.shape == (12, 3)
    out = capsys.readouterr().out
    assert "12 layers, each (images, heads, tokens, tokens) = (2, 3, 197, 197)" in out
    found = re.search(r"within (\S+), outputs moved by (\S+)", out)
    assert found is not None
    # Seen: 2e-07. Recording changes no bit of the output.
    assert float(found[1]) < 1e-5
    assert float(found[2]) == 0
    # Hardly any preference before training: all heads look as far as chance does, 116.5 pixels.
    chance = attention_distance(torch.ones(196, 196), (14, 14), (16, 16))
    torch.testing.assert_close(distances, chance.expand(12, 3), rtol=0.02, atol=0)


def test_attention_maps_of_a_trained_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    train(None, [*TINY, f"run.dir={run}", "trainer.max_epochs=1"], progress=False)
    assert attention_maps.main([str(run)]).shape == (2, 2)
    assert "2 layers" in capsys.readouterr().out


TUNE = (
    "X:2\nT:An Buachaill Dreoite\nM:C|\nL:1/8\nK:G Major\n"
    'GF|DGGB d2GB|d2GF Gc (3AGF|[G2B2]d>B cA/2 z_b\'2|[1 ^F,/ G4-:|!\nK:D\n"Am"D2::A|]\n\n'
)


def test_tunes_can_be_read_or_not() -> None:
    assert abc_tunes.TUNE.fullmatch(TUNE)
    for right, wrong in (
        ("X:2", "X:two"),
        ("K:G Major\n", ""),
        ("d2GB", "d2GHB"),
        ("cA/2", "cA@2"),
        ("::A|]\n\n", "::A|]\n"),
        ("K:D\n", "\n"),
        (TUNE.partition("Major\n")[2], "\n"),
    ):
        assert right in TUNE and not abc_tunes.TUNE.fullmatch(TUNE.replace(right, wrong)), wrong
    # A tune of any length that is wrong at its end is refused at once.
    assert not abc_tunes.TUNE.fullmatch(TUNE[:-2] + "A2[B2]" * 20_000 + "@\n\n")
    assert abc_tunes.first_tune(iter("1\nT:A\n\nX:2\n")) == "X:1\nT:A\n\n"


LAB = Path(__file__).parents[1] / "data" / "irish.abc"
"""The tunes that ``configs/abc_lstm.yaml`` names; they come with no checkout."""


@pytest.mark.skipif(not LAB.exists(), reason="needs data/irish.abc: see configs/abc_lstm.yaml")
def test_the_labs_file_has_its_songs_and_characters() -> None:
    """Its songs lie between empty lines; one that ends a song may begin the next."""
    text = LAB.read_text(encoding="utf-8")
    song, songs, place = re.compile(r"(?:^|\n\n)(.*?)\n\n", re.S), [], 0
    while match := song.search(text, place):
        songs.append(match[1])
        place = match.start() + 1
    assert (len(songs), len("\n\n".join(songs)), len(set(text))) == (817, 200_679, 83)


def test_tunes_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tunes.abc").write_text(TUNE * 40, encoding="utf-8")
    settings = [*TEXT, f"data.root={tmp_path / 'tunes.abc'}", f"run.dir={tmp_path / 'run'}"]
    train(None, settings, progress=False)
    share = abc_tunes.main([str(tmp_path / "run"), "--tunes", "2"])
    assert 0 <= share <= 1
    out = capsys.readouterr().out
    assert out.startswith("X:") and "of 2 tunes can be read" in out


def test_sequence_mixers_keep_what_they_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--quick", "--json", "study.json"]
    rows = sequence_mixers.main(arguments)
    out = capsys.readouterr().out
    assert len(rows) == 2 * 3
    for row in rows.values():
        assert 0 <= row["accuracy"] <= 1 and row["seconds_per_step"] > 0
        assert len(row["recall_by_distance"]) == len(row["gradient_by_distance"]) == row["length"]
        assert 60_000 < row["parameters"] < 140_000
        assert f"{row['mixer']:>11}{row['length']:>11}" in out

    def measured_again(*args: Any) -> None:
        raise AssertionError("a row that is there was measured again")

    monkeypatch.setattr(sequence_mixers, "study", measured_again)
    assert sequence_mixers.main(arguments) == rows
    pytest.importorskip("matplotlib")
    sequence_mixers.main([*arguments, "--picture", "study.png"])
    assert (tmp_path / "study.png").read_bytes().startswith(b"\x89PNG")


def test_keys_lie_where_they_should_and_are_asked_for_at_the_end() -> None:
    places = torch.tensor([0, 3, 6])
    tokens, keys = sequence_mixers.sequences(places, 7, torch.Generator().manual_seed(1))
    is_key = tokens >= sequence_mixers.NOISE
    assert is_key.nonzero()[:, 1].tolist() == places.tolist()
    assert torch.equal(tokens[is_key] - sequence_mixers.NOISE, keys)

    class Oracle(torch.nn.Module):
        """Knows keys that lie up to two tokens before the end."""

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            logits = torch.zeros(*tokens.shape, sequence_mixers.NOISE + sequence_mixers.KEYS)
            near = tokens[:, -3:].max(dim=1).values
            logits[torch.arange(len(tokens)), -1, near] = 9.0
            return logits

    recall = sequence_mixers.recall_by_distance(Oracle(), 9)
    assert recall[:3].tolist() == [1.0] * 3
    assert recall[3:].max() < 0.5  # chance is 1/8


def test_gradients_by_distance_are_those_of_a_linear_recurrence() -> None:
    """y = sum of 0.5^distance x: the gradient halves with each token."""

    class Fading(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = torch.nn.Embedding(24, 24)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            fade = 0.5 ** torch.arange(tokens.shape[1]).flip(0)
            return (self.words(tokens) * fade[:, None]).cumsum(dim=1)

    norms = sequence_mixers.gradient_by_distance(Fading(), 6)
    torch.testing.assert_close(norms / norms[0], 0.5 ** torch.arange(6.0), rtol=1e-5, atol=0)


def test_mean_distance_equals_what_can_be_counted() -> None:
    """A row of three patches of 4 pixels: distances 0, 4, 8."""
    near = attention_distance(torch.eye(3), (1, 3), (7, 4))
    assert near.item() == 0.0
    even = attention_distance(torch.full((3, 3), 1 / 3), (1, 3), (7, 4))
    assert even.item() == pytest.approx((4 * 4 + 2 * 8) / 9)
    swapped = torch.tensor([[0.0, 0, 1], [0, 1, 0], [1, 0, 0]])
    with_class = torch.nn.functional.pad(swapped, (1, 0, 1, 0), value=0.5)
    far = attention_distance(with_class, (3, 1), (4, 7))
    assert far.item() == pytest.approx(16 / 3)


def test_an_example_runs_as_a_module(tmp_path: Path) -> None:
    settings = ["trainer.max_epochs=1", "trainer.accelerator=cpu", f"run.root={tmp_path}"]
    done = subprocess.run(
        [sys.executable, "-m", "examples.own_model", *settings],
        cwd=FOLDER.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "two_layers: test accuracy" in done.stdout


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in the place of Python: notes its words, and leaves what a run would."""
    program, log = tmp_path / "python", tmp_path / "calls"
    program.write_text(
        f"""#!/bin/sh
echo "$@" >> {log}
for word; do
    case $word in run.dir=*) run=${{word#run.dir=}};; esac
    test "$before" = --resume && run=$word
    before=$word
done
mkdir -p $run/checkpoints
touch $run/checkpoints/last.ckpt
test -e {tmp_path}/broken && exit 3
echo '{{"test/acc": 0.5, "trainable_parameters": 7, "wall_seconds": 1.5}}' > $run/results.json
"""
    )
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    return log


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script stands for Python")
def test_the_table_of_transfers_goes_on_where_it_stopped(
    stand_in: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken").touch()
    with pytest.raises(SystemExit, match="full: exit code 3; the same command goes on"):
        transfer_flowers.main(["w.ckpt", "data.root=x"])
    (tmp_path / "broken").unlink()
    lines = transfer_flowers.main(["w.ckpt", "data.root=x"])
    assert [line["run"] for line in lines] == [*transfer_flowers.MODES, "scratch"]
    assert all(line["trainable_parameters"] == 7 for line in lines)
    calls = stand_in.read_text().splitlines()
    assert len(calls) == 1 + 7
    assert calls[1].endswith("train --resume runs/transfer_flowers/full --quiet")
    lora, scratch = calls[3], calls[7]
    recipe = "configs/flowers_finetune.yaml data.root=x"
    wanted = "task.finetune.mode=lora task.finetune.rank=16"
    assert f"train {recipe} model.weights=w.ckpt {wanted}" in lora
    assert f"train {recipe} model.whiten_patches=true run.dir=" in scratch
    assert transfer_flowers.main(["w.ckpt", "data.root=x"]) == lines
    assert len(stand_in.read_text().splitlines()) == 8
    assert "scratch" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"full was trained with other settings .*data\.root=x"):
        transfer_flowers.main(["w.ckpt", "data.root=y"])
    # Tried quickly, it neither reads the real runs nor is taken for them.
    assert transfer_flowers.main(["w.ckpt", "data.root=x", "--quick"]) != lines
    quick = stand_in.read_text().splitlines()[8:]
    assert len(quick) == 7
    assert all(
        "trainer.max_epochs=1" in call and "transfer_flowers_quick/" in call for call in quick
    )


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script stands for Python")
@pytest.mark.parametrize("kind", ["sines", "relative"])
def test_few_labels_are_compared_over_three_seeds(
    stand_in: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    words = ["--relative"] * (kind == "relative")
    assert low_label_mae.main([*words, "data.root=x"]) == {
        "pre-trained": [0.5] * 3,
        "from scratch": [0.5] * 3,
    }
    calls = stand_in.read_text().splitlines()
    assert len(calls) == 9
    recipes = ["configs/mae_cifar10.yaml", *["configs/mae_cifar10_finetune10.yaml"] * 2]
    folder = {"sines": "runs/low_label_mae", "relative": "runs/low_label_mae_relative"}[kind]
    seconds = []
    names = ("mae", "pre-trained", "from-scratch")
    for call, recipe, name in zip(calls[3:6], recipes, names, strict=True):
        told = call.split(f"train {recipe} ")[1].removesuffix(" --quiet").split()
        assert told[-1] == f"run.dir={folder}/{name}-1"
        assert told[-5:-1] == [*low_label_mae.FEW, "data.root=x", "run.seed=1"]
        assert (f"model.weights={folder}/mae-1/checkpoints/last.ckpt" in told) == (
            name == "pre-trained"
        )
        config = load_config([FOLDER.parent / recipe], [w for w in told if "weights" not in w])
        assert config.model.pos_embed == {"sines": "sincos2d", "relative": "relative"}[kind]
        # What is loaded needs no start; those that begin do so alike.
        begins = kind == "relative" and name != "pre-trained"
        assert bool(config.model.whiten_patches) == begins
        seconds.append(config.trainer.max_time)
    assert seconds[0] + seconds[1] == seconds[2] == 900
    assert "from scratch: 50.00% +- 0.00%" in capsys.readouterr().out


@pytest.mark.slow
def test_few_labels_for_real(tmp_path: Path) -> None:
    (tmp_path / "configs").symlink_to(FOLDER.parent / "configs")
    found = low_label_mae.main(["--quick"])
    assert all(len(values) == 1 for values in found.values())
    lines = (tmp_path / "runs" / "low_label_mae_quick" / "table.jsonl").read_text().splitlines()
    assert len(lines) == 3
