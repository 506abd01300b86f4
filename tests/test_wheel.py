"""The wheel holds the package, all of it, and nothing else."""

from __future__ import annotations

import configparser
import importlib.util
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import vitkit

ROOT = Path(__file__).parents[1]
NEEDED = ("build", "setuptools")
"""Setuptools makes wheels by itself since 70.1."""
PARTS = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built from a copy of the sources, so that the repository stays as it is."""
    absent = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if absent:
        pytest.skip(f"not installed: {', '.join(absent)}")
    source = tmp_path_factory.mktemp("source")
    for name in PARTS:
        shutil.copy(ROOT / name, source)
    for name in ("vitkit", "tests", "examples", "benchmarks"):
        shutil.copytree(
            ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
        )
    out = tmp_path_factory.mktemp("wheel")
    options = ["--wheel", "--no-isolation", "--skip-dependency-check", "--outdir", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "build", *options],
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (path,) = out.iterdir()
    return zipfile.ZipFile(path)


def _metadata(wheel: zipfile.ZipFile, file: str) -> str:
    return wheel.read(f"vitkit-{vitkit.__version__}.dist-info/{file}").decode()


def test_it_holds_every_file_of_the_package(wheel: zipfile.ZipFile) -> None:
    ours = {name for name in wheel.namelist() if ".dist-info/" not in name}
    kinds = {".py", ".css", ".js"}
    package = (ROOT / "vitkit").rglob("*")
    files = {path.relative_to(ROOT) for path in package if path.suffix in kinds}
    assert ours == {path.as_posix() for path in files} | {"vitkit/py.typed"}
    for folder in (path for path in (ROOT / "vitkit").iterdir() if list(path.glob("*.py"))):
        assert f"vitkit/{folder.name}/__init__.py" in ours


def test_it_holds_neither_tests_nor_examples(wheel: zipfile.ZipFile) -> None:
    roots = {name.split("/")[0] for name in wheel.namelist()}
    assert roots == {"vitkit", f"vitkit-{vitkit.__version__}.dist-info"}
    assert _metadata(wheel, "top_level.txt").split() == ["vitkit"]


def test_its_metadata_is_that_of_the_package(wheel: zipfile.ZipFile) -> None:
    metadata = Parser().parsestr(_metadata(wheel, "METADATA"))
    assert metadata["Name"] == "vitkit"
    assert metadata["Version"] == vitkit.__version__
    assert "Apache-2.0" in (metadata["License-Expression"], metadata["License"])
    assert metadata["Requires-Python"] == ">=3.11"
    assert "one attention core" in metadata.get_payload()
    assert _metadata(wheel, "licenses/LICENSE").lstrip().startswith("Apache License")


def test_its_command_is_the_one_of_setup_cfg(wheel: zipfile.ZipFile) -> None:
    points = configparser.ConfigParser()
    points.read_string(_metadata(wheel, "entry_points.txt"))
    assert dict(points["console_scripts"]) == {"vitkit": "vitkit.cli:main"}
    from vitkit.cli import main

    assert callable(main)


def test_it_can_be_imported_from_the_wheel_alone(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path)
    code = "import vitkit, vitkit.config, sys; print(vitkit.__file__); vitkit.config.load_config()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(done.stdout.strip()).is_relative_to(tmp_path)
