"""Pictures without classes, in any folders: for pre-training alone."""

from __future__ import annotations

from pathlib import Path

from vitkit.data.folder import SUFFIXES, pictures_in, read_splits
from vitkit.data.raw import RawData, Request
from vitkit.errors import DataError

__all__ = ["read"]


def read(request: Request) -> RawData:
    """All pictures under ``data.root``, at any depth, as one class that means nothing.

    Raises:
        DataError: none there; damaged files, all of them named.
    """
    root = Path(request.config.root)
    if not root.is_dir():
        raise DataError(f"no folder {root}; data.root must hold pictures, in any folders")
    files = pictures_in(root)
    if not files:
        raise DataError(f"no pictures in {root}; looked for {', '.join(sorted(SUFFIXES))}")
    splits = read_splits({"train": [(path, 0) for path in files]}, request)
    train = splits["train"]
    return RawData("unlabelled", ["picture"], train, num_skipped=len(files) - len(train))
