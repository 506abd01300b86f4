"""Fetch a file over the network: checked by its sum, taken up where it stopped, never half."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from vitkit.errors import DataError, first_line

__all__ = ["fetch", "md5_of"]

TRIES = 5
"""Connections for one file: one that is lost is taken up again."""

TIMEOUT = 30.0
"""Seconds in which nothing comes before a connection counts as lost."""

CHUNK = 1 << 20

COMPLETE = 416
"""HTTP: what was asked for lies behind the end of the file."""


def fetch(url: str, path: str | Path, md5: str) -> None:
    """Fetch a file to ``path``.

    What has come lies in ``<path>.part`` until it is whole and its sum is right; only then is it
    renamed. A call that finds such a part asks for the rest alone, where the server can do that.

    Args:
        url: where it is.
        path: where it goes; its folder is made.
        md5: sum of the whole, as its owner states it.

    Raises:
        DataError: not to be had, not what was wanted, or the disk is full. A part is kept, for the
            next call to go on from, unless its sum is wrong.
    """
    path = Path(path)
    part = path.with_name(path.name + ".part")
    reason, fresh = "", not _size(part)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(TRIES):
            try:
                _append_rest(url, part)
            except (ConnectionError, TimeoutError, http.client.HTTPException) as error:
                reason = first_line(error)
                continue
            if md5_of(part) == md5:
                os.replace(part, path)
                return
            part.unlink()
            reason = f"what came is another file (its MD5 sum is not {md5})"
            if fresh:
                break
            fresh = True  # the part of an earlier call may have been wrong
    except (OSError, ValueError) as error:
        reason = first_line(error)
    kept = f"; the same command goes on from {part}" if _size(part) else ""
    raise DataError(f"could not download {url}: {reason}{kept}")


def md5_of(path: Path) -> str:
    """MD5 sum of a file, in hexadecimal."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
    return digest.hexdigest()


def _append_rest(url: str, part: Path) -> None:
    """Ask for what is missing behind ``part``, and put it there.

    Raises:
        ConnectionError: it ended too early; what has come is kept.
    """
    have = _size(part)
    request = Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urlopen(request, timeout=TIMEOUT)
    except HTTPError as error:
        error.close()
        if have and error.code == COMPLETE:
            return  # all there, or too much: its sum tells
        raise
    with response:
        if not _goes_on_from(response, have):
            have = 0
        wanted = response.headers.get("Content-Length")
        with part.open("ab" if have else "wb") as file:
            while chunk := response.read(CHUNK):
                file.write(chunk)
    missing = int(wanted) + have - _size(part) if wanted is not None else 0
    if missing > 0:
        raise ConnectionError(f"the connection was lost {missing:,} bytes before the end")


def _goes_on_from(response: http.client.HTTPResponse, have: int) -> bool:
    """Whether an answer is the rest behind ``have`` bytes, and not the whole file."""
    stated = re.match(r"bytes (\d+)-", response.headers.get("Content-Range") or "")
    return response.status == http.HTTPStatus.PARTIAL_CONTENT and bool(
        stated and int(stated[1]) == have
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
