"""Pictures without classes, in any folders: for pre-training alone."""

from __future__ import annotations

from pathlib import Path

from vitkit.data.folder import SUFFIXES, pictures_in, read_splits
from vitkit.data.raw import RawData, Request
from vitkit.errors import DataError

__all__ = ["find_pictures", "read"]


def find_pictures(root: Path) -> tuple[list[str], dict[str, list[tuple[Path, int]]]]:
    """All pictures under a folder, at any depth, as one class that means nothing; in the form of
    :func:`vitkit.data.folder.find_images`.

    Raises:
        DataError: none there.
    """
    if not root.is_dir():
        raise DataError(f"no folder {root}; data.root must hold pictures, in any folders")
    files = pictures_in(root)
    if not files:
        raise DataError(f"no pictures in {root}; looked for {', '.join(sorted(SUFFIXES))}")
    return ["picture"], {"train": [(path, 0) for path in files]}


def read(request: Request) -> RawData:
    """All pictures under ``data.root``.

    Raises:
        DataError: none there; damaged files, all of them named.
    """
    classes, found = find_pictures(Path(request.config.root))
    train = read_splits(found, request)["train"]
    skipped = len(found["train"]) - len(train)
    return RawData("unlabelled", classes, train, num_skipped=skipped, fitted=True)
