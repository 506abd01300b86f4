"""One long text: read, cut in order, and handed out in windows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from vitkit.data.epochs import EpochLoader, Shares
from vitkit.data.random import position_index
from vitkit.errors import DataError

__all__ = [
    "IGNORED",
    "TextSplits",
    "WindowBatch",
    "WindowEvalLoader",
    "WindowTrainLoader",
    "cut_parts",
    "decode_text",
    "read_text",
    "read_texts",
]

IGNORED = -100
"""Target where there is none: what torch's cross entropy leaves out."""

BYTE_ORDER_MARK = "\ufeff"

TEXT_SUFFIXES = (".txt", ".abc")
"""Files of a folder that are read."""

START = 0
"""Number of the draw of a window's start."""


class WindowBatch(NamedTuple):
    """What a loader of windows yields, on the training device.

    Attributes:
        inputs: tokens, int64 (B, N).
        targets: the token that follows each, int64 (B, N), or :data:`IGNORED`.
        positions: int64 (B,): places in the epoch, or in evaluation in the text.
    """

    inputs: Tensor
    targets: Tensor
    positions: Tensor


@dataclass(frozen=True)
class TextSplits:
    """A text as ids, cut.

    Attributes:
        train: what is learned from, the beginning: uint8, or int32 for more than 256 tokens.
        val: the rest; None if nothing was cut.
    """

    train: Tensor
    val: Tensor | None


def read_text(path: str | Path) -> str:
    """The text of a file in UTF-8, line ends as they are.

    Raises:
        DataError: missing, empty, or not UTF-8.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}; check the path") from None
    if not content:
        raise DataError(f"{path} is empty; give a file with text")
    return decode_text(content, str(path))


def decode_text(content: bytes, where: str, *, first_line: int = 1) -> str:
    """Bytes in UTF-8 as text, without the mark that some editors put in front.

    Args:
        content: the bytes.
        where: they come from, for the message.
        first_line: number of the line that they begin with.

    Raises:
        DataError: not UTF-8.
    """
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + first_line
        raise DataError(
            f"{where}: byte 0x{content[error.start]:02x} in line {line} is not UTF-8; convert it "
            "to UTF-8"
        ) from None
    return text.removeprefix(BYTE_ORDER_MARK) if first_line == 1 else text


def read_texts(root: str | Path) -> str:
    """The text of a file, or of a folder's files one behind the other, by name.

    In a folder each file begins a line, and empty ones are passed over.

    Raises:
        DataError: nothing there, no file of text in the folder, or see :func:`read_text`.
    """
    path = Path(root)
    if not path.is_dir():
        return read_text(path)
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in TEXT_SUFFIXES)
    if not files:
        raise DataError(
            f"data.root={root}: no file {' or '.join(TEXT_SUFFIXES)} in this folder; name a text "
            "file"
        )
    filled = [file for file in files if file.stat().st_size] or files[:1]  # told, if all are empty
    texts = [text for text in map(read_text, filled) if text]
    ended = [text if text.endswith("\n") else f"{text}\n" for text in texts[:-1]]
    return "".join([*ended, *texts[-1:]])


def cut_parts(text: str, val_fraction: float) -> tuple[str, str]:
    """The first characters of a text, to learn from, and the last, to validate on.

    The cut is at int((1 - val_fraction) x characters), as the usual split of Shakespeare.

    Args:
        text: the whole.
        val_fraction: share of the characters that is cut off; 0: none, the second text is empty.

    Raises:
        DataError: a part without a character.
    """
    cut = len(text) if val_fraction == 0.0 else int(len(text) * (1.0 - val_fraction))
    parts = text[:cut], text[cut:]
    if not parts[0] or (val_fraction and not parts[1]):
        raise DataError(
            f"a text of {len(text)} characters cannot be cut at {val_fraction}; "
            "give a longer text or another share"
        )
    return parts


class WindowTrainLoader(EpochLoader[WindowBatch]):
    """Micro-batches of windows that start anywhere, one epoch after the other.

    An epoch is a number of steps, not a pass: the start of each window is a function of (seed,
    epoch, place in the epoch).

    Args:
        ids: the text, int (T,); it lies on the device.
        length: N, tokens of a window.
        batch_size: windows of one optimiser step, over all processes.
        steps: optimiser steps of an epoch.
        micro_batches: parts in which a process takes its share of a step.
        seed: of the starts.
        rank, world_size: which process this is, of how many.
        device: where batches are yielded.

    Raises:
        DataError: the batch size does not divide, or the text is shorter than a window.
    """

    def __init__(
        self,
        ids: Tensor,
        *,
        length: int,
        batch_size: int,
        steps: int,
        micro_batches: int = 1,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        self.shares = Shares(batch_size, micro_batches, rank, world_size)
        _require_window(ids, length)
        self.ids, self.device = ids.to(device), device
        self.length, self.steps, self.seed = length, steps, seed
        self._window = torch.arange(length + 1, device=device)

    def __len__(self) -> int:
        """Micro-batches of a full epoch, also where only its rest will be yielded."""
        return self.steps * self.shares.micro_batches

    def batches(self, epoch: int, first: int) -> Iterator[WindowBatch]:
        """See :meth:`EpochLoader.batches`."""
        for index in range(first, len(self)):
            places = self.shares.places(index, self.device)
            starts = position_index(self.seed, epoch, places, START, len(self.ids) - self.length)
            words = self.ids[starts[:, None] + self._window].long()
            yield WindowBatch(words[:, :-1], words[:, 1:], places)


class WindowEvalLoader:
    """Every token but the first is a target exactly once, over all processes.

    Windows stand side by side; what the last ones lack is :data:`IGNORED`. Every process gets the
    same number of batches of one shape, as collective operations need.

    Args:
        ids: the text, int (T,), T at least 2.
        length: N, tokens of a window.
        batch_size: windows of one process's batch.
        rank, world_size, device: as in :class:`WindowTrainLoader`.

    Raises:
        DataError: a text without a token to predict.
    """

    def __init__(
        self,
        ids: Tensor,
        *,
        length: int,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        _require_window(ids, 1)
        self.ids, self.device, self.length = ids.to(device), device, length
        targets = len(ids) - 1
        windows = -(-targets // length)
        self.batch_size = min(batch_size, -(-windows // world_size))
        self.rank, self.world_size = rank, world_size
        self.batches = -(-windows // (self.batch_size * world_size))

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[WindowBatch]:
        last = len(self.ids) - 1
        inside = torch.arange(self.length, device=self.device)
        for index in range(self.batches):
            first = (index * self.world_size + self.rank) * self.batch_size
            windows = torch.arange(first, first + self.batch_size, device=self.device)
            places = windows[:, None] * self.length + inside
            inputs = self.ids[places.clamp(max=last)].long()
            targets = self.ids[(places + 1).clamp(max=last)].long()
            targets = targets.masked_fill(places >= last, IGNORED)
            yield WindowBatch(inputs, targets, windows * self.length)


def _require_window(ids: Tensor, length: int) -> None:
    if len(ids) <= length:
        raise DataError(
            f"a text of {len(ids)} tokens holds no window of {length} and the token behind it; "
            "shorten the window or give a longer text"
        )
