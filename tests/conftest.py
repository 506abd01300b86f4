"""What every test starts from: one thread, seeds, no network, quick hypothesis, a tiny run.

``HYPOTHESIS_PROFILE=thorough`` tries ten times as many examples, and others each time.
"""

from __future__ import annotations

import io
import ipaddress
import os
import random
import socket
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

import vitkit
from vitkit.cli import main
from vitkit.config import RunConfig, load_config

Command = Callable[..., tuple[int, str, str]]

settings.register_profile(
    "quick",
    deadline=None,
    max_examples=30,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.register_profile(
    "thorough", settings.get_profile("quick"), derandomize=False, max_examples=300
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))
torch.set_num_threads(1)

TINY = [
    "model.name=vit_mini_patch4_32",
    "model.img_size=8",
    "model.embed_dim=16",
    "model.depth=2",
    "model.num_heads=2",
    "data.name=synthetic",
    "data.synthetic_size=80",
    "data.synthetic_classes=4",
    "data.batch_size=16",
    "data.val_fraction=0.2",
    "optimizer.lr=3e-3",
    "trainer.max_epochs=3",
    "trainer.accelerator=cpu",
    "trainer.log_every_n_steps=1",
    "run.report=false",
]
"""A ViT on synthetic images: 52 for training, so 3 steps an epoch, in well under a second."""


def finished_run(*overrides: str, config: RunConfig | None = None) -> Path:
    """Train what several tests look at; the run's folder.

    A run tells its child processes its folder by environment. A fixture of a module is made outside
    of what :func:`_own_run_folder` sees to, so that is taken back here.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VITKIT_RUN_DIR", "")  # to have what was there, or was not, restored
        return vitkit.train(config, list(overrides), progress=False).folder


@pytest.fixture(scope="session", autouse=True)
def _no_network() -> Iterator[None]:
    """Python's connections reach this machine only, and by no proxy: who asks for more fails, and
    no ``except Exception`` hides it.
    """
    resolve = socket.getaddrinfo

    def only_here(name: str) -> Callable[..., Any]:
        connect = getattr(socket.socket, name)

        def guarded(self: socket.socket, address: Any) -> Any:
            if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_here(address[0]):
                pytest.fail(f"the network was asked: {address}")
            return connect(self, address)

        return guarded

    def known(host: Any, *arguments: Any, **options: Any) -> Any:
        if not _is_here(host):
            pytest.fail(f"the network was asked: where is {host}?")
        return resolve(host, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, only_here(name))
        patch.setattr(socket, "getaddrinfo", known)
        for variable in ("no_proxy", "NO_PROXY"):
            patch.setenv(variable, "*")
        for variable in ("HF_HUB_OFFLINE", "PIP_NO_INDEX"):
            patch.setenv(variable, "1")  # for child processes, which this guard does not reach
        yield


def _is_here(host: str | bytes | None) -> bool:
    """Whether a name or an address is this machine's own."""
    name = host.decode() if isinstance(host, bytes) else host or "localhost"
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return name in ("localhost", socket.gethostname())
    return address.is_loopback or address.is_unspecified


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """What a test draws without a seed of its own does not hang on the tests before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _own_run_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run tells its child processes its folder by environment: keep that within one test."""
    monkeypatch.delenv("VITKIT_RUN_DIR", raising=False)


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., RunConfig]:
    """A config of a tiny run under the test's own folder; takes more overrides."""

    def make(*overrides: str, folder: str = "run") -> RunConfig:
        return load_config([], [*TINY, f"run.dir={tmp_path / folder}", *overrides])

    return make


@pytest.fixture
def vitkit_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The ``vitkit`` command in this process: its exit code, output and errors."""

    def call(*words: object, stdin: bytes = b"") -> tuple[int, str, str]:
        monkeypatch.delenv("VITKIT_RUN_DIR", raising=False)  # a command before may have set it
        monkeypatch.setattr(sys, "argv", ["vitkit", *map(str, words)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out, err

    return call
