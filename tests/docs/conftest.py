"""The documentation, built once as ``make docs`` builds it."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NO_TOOLS = "the documentation's tools are not installed: pip install -e '.[docs]'"


def build(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``zensical build`` in a folder that holds ``docs/`` and the two configurations."""
    return subprocess.run(
        [sys.executable, "-m", "zensical", "build", *arguments],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )


def copied_project(folder: Path) -> Path:
    """What the build reads, where it may write beside it."""
    for name in ("zensical.toml", "zensical.zh.toml"):
        shutil.copy(ROOT / name, folder / name)
    for name in ("docs", "vitkit", "examples"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the finished site."""
    pytest.importorskip("zensical", reason=NO_TOOLS)
    pytest.importorskip("mkdocstrings", reason=NO_TOOLS)
    project = copied_project(tmp_path_factory.mktemp("docs"))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    lines = re.findall(r"^\t\$\(BIN\)/zensical build (.*)$", makefile, re.M)
    assert len(lines) == 2, "make docs builds both languages"
    for line in lines:
        arguments = shlex.split(line)
        assert "--strict" in arguments
        done = build(project, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "arning" not in done.stdout + done.stderr
    return project / "site"
