"""The examples run, say what they promise, and stay short."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from examples import attention_maps, own_data, own_model
from tests.conftest import TINY
from vitkit.app import train
from vitkit.models.presets import CUSTOM

FOLDER = Path(__file__).parents[1] / "examples"
SCRIPTS = sorted(path for path in FOLDER.glob("*.py") if path.stem != "__init__")


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
        assert len(text.splitlines()) < 60, path.name
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
    # Seen: 2e-07, and 1e-07 for the full last block that recording brings back.
    assert float(found[1]) < 1e-5
    assert float(found[2]) < 1e-5
    # Hardly any preference before training: all heads look as far as chance does, 116.5 pixels.
    chance = attention_maps.mean_distance(torch.ones(1, 1, 196, 196), (14, 14), (16, 16))
    torch.testing.assert_close(distances, chance.expand(12, 3), rtol=0.02, atol=0)


def test_attention_maps_of_a_trained_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    train(None, [*TINY, f"run.dir={run}", "trainer.max_epochs=1"], progress=False)
    assert attention_maps.main([str(run)]).shape == (2, 2)
    assert "2 layers" in capsys.readouterr().out


def test_mean_distance_equals_what_can_be_counted() -> None:
    """A row of three patches of 4 pixels: distances 0, 4, 8."""
    near = attention_maps.mean_distance(torch.eye(3)[None, None], (1, 3), (7, 4))
    assert near.tolist() == [0.0]
    even = attention_maps.mean_distance(torch.full((1, 1, 3, 3), 1 / 3), (1, 3), (7, 4))
    assert even.item() == pytest.approx((4 * 4 + 2 * 8) / 9)
    swapped = torch.tensor([[0.0, 0, 1], [0, 1, 0], [1, 0, 0]])
    with_class = torch.nn.functional.pad(swapped, (1, 0, 1, 0), value=0.5)[None, None]
    far = attention_maps.mean_distance(with_class, (3, 1), (4, 7))
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
