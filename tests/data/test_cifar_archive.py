"""CIFAR's archive as it is downloaded: checked, unpacked beside itself, never half."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import tarfile
from pathlib import Path

import pytest
import torch

from tests.small_data import write_cifar
from vitkit.data import cifar
from vitkit.data.cifar import read_cifar
from vitkit.errors import DataError


@pytest.fixture(params=["cifar10", "cifar100"])
def packed(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, Path]:
    """A data set's name and its archive, alone in ``data.root``."""
    name: str = request.param
    write_cifar(name, tmp_path / "files", monkeypatch)
    layout = cifar.LAYOUTS[name]
    archive = tmp_path / "data" / layout.archive[0]
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "files" / layout.folder, layout.folder)
    md5 = hashlib.md5(archive.read_bytes(), usedforsecurity=False).hexdigest()
    small = dataclasses.replace(layout, archive=(archive.name, md5))
    monkeypatch.setitem(cifar.LAYOUTS, name, small)
    return name, archive


def test_an_archive_is_unpacked_and_read(packed: tuple[str, Path], tmp_path: Path) -> None:
    name, archive = packed
    names, train, test = read_cifar(name, archive.parent)
    wanted = read_cifar(name, tmp_path / "files")
    assert names == wanted[0]
    for ours, theirs in ((train, wanted[1]), (test, wanted[2])):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    folder = cifar.LAYOUTS[name].folder
    assert sorted(p.name for p in archive.parent.iterdir()) == sorted([archive.name, folder])
    archive.unlink()
    read_cifar(name, archive.parent)  # from the folder, as if it had been there all along


def test_an_archive_that_is_not_whole_is_left_alone(packed: tuple[str, Path]) -> None:
    name, archive = packed
    archive.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"damaged or not whole.*delete it and fetch it anew") as e:
        read_cifar(name, archive.parent)
    assert cifar.LAYOUTS[name].url in str(e.value) and "\n" not in str(e.value)
    assert [p.name for p in archive.parent.iterdir()] == [archive.name]


def test_what_breaks_in_the_middle_leaves_nothing(
    packed: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tarfile.TarFile, "extractall", full)
    name, archive = packed
    with pytest.raises(DataError, match=r"cannot unpack .*No space left"):
        read_cifar(name, archive.parent)
    assert [p.name for p in archive.parent.iterdir()] == [archive.name]


def test_neither_folder_nor_archive_says_what_to_put_where(packed: tuple[str, Path]) -> None:
    name, archive = packed
    shutil.rmtree(archive.parent)
    layout = cifar.LAYOUTS[name]
    with pytest.raises(DataError) as error:
        read_cifar(name, archive.parent)
    for part in (layout.folder, archive.name, layout.url, "data.download=true"):
        assert part in str(error.value)
