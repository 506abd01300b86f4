"""What a finished model makes of every image before its classifier, kept beside its records."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vitkit.app.batches import features_of
from vitkit.app.build import picture_section
from vitkit.app.encoders import Encoder, digest_of
from vitkit.data.splits import ResidentSplit, Split
from vitkit.records import write_beside

__all__ = ["cached_features"]

FOLDER = "features"
TENSOR = "features"


def cached_features(encoder: Encoder, split: Split, what: str, *, progress: bool = True) -> Tensor:
    """The features of every image of a split, float32 (N, C), in its order.

    They are computed once and kept in ``<folder>/features/``, which may be deleted at any time. The
    file's name is made of weights, settings and images: whatever changes, it is another file. One
    that is damaged is made anew.

    Args:
        encoder: the model.
        split: the images.
        what: they are, for the progress bar.
        progress: show a bar on a terminal.
    """
    images = _digest_of_images(split)
    if images is None:
        return _computed(encoder, split, what, progress=progress)
    name = hashlib.sha256(f"{encoder.digest} {images}".encode()).hexdigest()[:24]
    path = encoder.folder / FOLDER / f"{name}.safetensors"
    kept = _read(path, len(split))
    if kept is None:
        kept = _computed(encoder, split, what, progress=progress)
        _write(path, kept)
    return kept


def _computed(encoder: Encoder, split: Split, what: str, *, progress: bool) -> Tensor:
    settings = picture_section(encoder.config)
    features, _ = features_of(
        encoder.features, split, settings, encoder.device, what, progress=progress
    )
    return features


def _read(path: Path, count: int) -> Tensor | None:
    """What :func:`_write` wrote; None if it is not there, or not whole."""
    try:
        with safe_open(path, framework="pt") as opened:
            file: Any = opened
            features: Tensor = file.get_tensor(TENSOR)
            said = (file.metadata() or {}).get("sha256")
    except (OSError, SafetensorError):
        return None
    whole = len(features) == count and said == digest_of("", [(TENSOR, features)])
    return features if whole else None


def _write(path: Path, features: Tensor) -> None:
    """Beside its place and renamed. A disk that takes no more keeps nobody from going on."""
    digest = digest_of("", [(TENSOR, features)])
    with suppress(OSError, SafetensorError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_beside(
            path,
            lambda beside: save_file(
                {TENSOR: features.contiguous()}, beside, metadata={"sha256": digest}
            ),
        )


def _digest_of_images(split: Split) -> str | None:
    """Of the pixels; of streamed images of their files' names, sizes and times. None where neither
    is to be had.
    """
    if isinstance(split, ResidentSplit):
        return digest_of(f"{split.fit or ''}", [("images", split.images)])
    lines = [repr(split.decode)]
    for item in split.items:
        path = Path(item) if isinstance(item, str | Path) else None
        if path is None or not path.is_file():
            return None
        stat = path.stat()
        lines.append(f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
