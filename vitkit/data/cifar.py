"""CIFAR-10 and CIFAR-100 in torchvision's layout; each file is checked before it is opened."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import datasets

from vitkit.data.download import fetch, md5_of
from vitkit.data.raw import RawData, Request
from vitkit.data.splits import ResidentSplit
from vitkit.errors import DataError

__all__ = ["LAYOUTS", "CifarLayout", "read", "read_cifar"]

Arrays = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class CifarLayout:
    """Where the files lie and what their MD5 sums are.

    Attributes:
        folder: under ``data.root``.
        train, test: file name -> MD5 sum.
        meta: file that holds the class names, and its MD5 sum.
        names_key, labels_key: keys inside the files.
        archive: file name of the whole, and its MD5 sum.
        url: where the archive comes from.
    """

    folder: str
    train: Mapping[str, str]
    test: Mapping[str, str]
    meta: tuple[str, str]
    names_key: str
    labels_key: str
    archive: tuple[str, str] = ("", "")
    url: str = ""


def _layout(dataset: Any, labels_key: str) -> CifarLayout:
    return CifarLayout(
        folder=dataset.base_folder,
        train=dict(dataset.train_list),
        test=dict(dataset.test_list),
        meta=(dataset.meta["filename"], dataset.meta["md5"]),
        names_key=dataset.meta["key"],
        labels_key=labels_key,
        archive=(dataset.filename, dataset.tgz_md5),
        url=dataset.url,
    )


LAYOUTS = {
    "cifar10": _layout(datasets.CIFAR10, "labels"),
    "cifar100": _layout(datasets.CIFAR100, "fine_labels"),
}


def read(request: Request) -> RawData:
    """CIFAR-10 or CIFAR-100, by ``data.name``: 50,000 training and 10,000 test images.

    Source: A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
    """
    config = request.config
    names, train, test = read_cifar(config.name, config.root, config.download)
    return RawData(config.name, names, ResidentSplit(*train), test=ResidentSplit(*test))


def read_cifar(
    name: str, root: str | Path, download: bool | str = False, layout: CifarLayout | None = None
) -> tuple[list[str], Arrays, Arrays]:
    """Class names, then (images uint8 (N, 3, 32, 32), targets int64 (N,)) of train and of test.

    Args:
        name: ``cifar10`` or ``cifar100``.
        root: the folder that holds ``cifar-10-batches-py`` or ``cifar-100-python``, or the archive
            of one, which is then unpacked there.
        download: fetch the archive and unpack it, if there is neither folder nor archive; an
            address in place of its owner's.
        layout: another table of files and sums.

    Raises:
        DataError: absent (with the next step) or damaged (naming the file).
    """
    layout = layout or LAYOUTS[name]
    folder = Path(root) / layout.folder
    archive = Path(root) / layout.archive[0]
    if not folder.is_dir() and not archive.is_file() and download:
        _download(layout if download is True else replace(layout, url=str(download)), archive)
    if not folder.is_dir() and archive.is_file():
        _unpack(archive, layout, folder)
    if not folder.is_dir():
        raise DataError(
            f"{name} is not in {folder}; set data.root to the folder that holds {layout.folder} or "
            f"{layout.archive[0]} (from {layout.url} or any mirror), or fetch it with "
            "data.download=true, or from a mirror with data.download=https://..."
        )
    meta = _read(folder / layout.meta[0], layout.meta[1])
    train = _arrays(folder, layout.train, layout.labels_key)
    test = _arrays(folder, layout.test, layout.labels_key)
    return list(meta[layout.names_key]), train, test


def _arrays(folder: Path, files: Mapping[str, str], labels_key: str) -> Arrays:
    images, targets = [], []
    for name, md5 in files.items():
        content = _read(folder / name, md5)
        images.append(np.asarray(content["data"], dtype=np.uint8).reshape(-1, 3, 32, 32))
        targets.append(np.asarray(content[labels_key], dtype=np.int64))
    return torch.from_numpy(np.concatenate(images)), torch.from_numpy(np.concatenate(targets))


def _read(path: Path, md5: str) -> dict[str, Any]:
    if not path.is_file():
        raise DataError(
            f"{path} is missing; delete the folder {path.parent} and fetch it anew with "
            "data.download=true"
        )
    content = path.read_bytes()
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
        raise DataError(
            f"{path} is damaged (its MD5 sum is not {md5}); delete the folder {path.parent} and "
            "fetch it anew with data.download=true"
        )
    loaded: dict[str, Any] = _ArraysOnly(io.BytesIO(content), encoding="latin1").load()
    return loaded


class _ArraysOnly(pickle.Unpickler):
    """Reads arrays and plain containers; refuses whatever else a pickle may name."""

    ALLOWED = {"_reconstruct", "ndarray", "dtype"}

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "numpy" and name in self.ALLOWED:
            return super().find_class(module, name)
        if (module, name) == ("_codecs", "encode"):
            return super().find_class(module, name)
        raise DataError(f"a data file names {module}.{name}; refused, nothing was run")


def _unpack(archive: Path, layout: CifarLayout, folder: Path) -> None:
    """Unpack an archive beside itself, checked first and renamed last.

    Raises:
        DataError: it is not the archive, is not whole, or there is no room for its files.
    """
    try:
        if md5_of(archive) != layout.archive[1]:
            raise DataError(
                f"{archive} is damaged or not whole (its MD5 sum is not {layout.archive[1]}); "
                f"delete it and fetch it anew from {layout.url}"
            )
        with TemporaryDirectory(dir=archive.parent) as beside, tarfile.open(archive) as tar:
            tar.extractall(beside, filter="data")
            (Path(beside) / layout.folder).rename(folder)
    except (OSError, tarfile.TarError) as error:
        raise DataError(f"cannot unpack {archive}: {error}; unpack it by hand") from error


def _download(layout: CifarLayout, archive: Path) -> None:
    try:
        fetch(layout.url, archive, layout.archive[1])
    except DataError as error:
        raise DataError(f"{error}; or fetch it elsewhere and set data.root") from error
