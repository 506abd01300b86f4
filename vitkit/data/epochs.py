"""What training loaders share: epochs that go on from any batch, and who takes which places."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from vitkit.errors import DataError

__all__ = ["EpochLoader", "Shares"]

B = TypeVar("B")


class EpochLoader(ABC, Generic[B]):
    """Micro-batches of one epoch after the other, resumable in the middle of one.

    Attributes:
        epoch: that comes next, or is under way.
        next_batch: of it.
    """

    epoch = 0
    next_batch = 0

    @abstractmethod
    def __len__(self) -> int:
        """Micro-batches of a full epoch, also where only its rest will be yielded."""

    @abstractmethod
    def batches(self, epoch: int, first: int) -> Iterator[B]:
        """Those of an epoch from number ``first`` on; nothing happens before the first."""

    def __iter__(self) -> Iterator[B]:
        """The rest of the current epoch. Nothing happens before the first ``next()``."""
        epoch, first = self.epoch, self.next_batch
        for index, batch in enumerate(self.batches(epoch, first), start=first + 1):
            # Before the yield: the consumer may stop at the last batch and never come back.
            last = index == len(self)
            self.epoch, self.next_batch = (epoch + 1, 0) if last else (epoch, index)
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Where the next batch stands."""
        return {"epoch": self.epoch, "next_batch": self.next_batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """See :meth:`state_dict`."""
        self.epoch, self.next_batch = int(state["epoch"]), int(state["next_batch"])


@dataclass(frozen=True)
class Shares:
    """How the places of an epoch are dealt out.

    Step b has the places b * batch_size up to (b + 1) * batch_size; micro-batch m of process r
    takes slice m * world_size + r of these.

    Attributes:
        batch_size: places of one optimiser step, over all processes.
        micro_batches: parts in which a process takes its share of a step.
        rank, world_size: which process this is, of how many.

    Raises:
        DataError: the batch size does not divide.
    """

    batch_size: int
    micro_batches: int = 1
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        parts = self.world_size * self.micro_batches
        if self.batch_size % parts:
            raise DataError(
                f"data.batch_size {self.batch_size} does not divide by {self.world_size} processes "
                f"x {self.micro_batches} micro-batches; choose a multiple of {parts}"
            )

    def places(self, index: int, device: torch.device | str = "cpu") -> Tensor:
        """Places of this process's micro-batch ``index`` of an epoch, int64 (share,)."""
        step, micro = divmod(index, self.micro_batches)
        size = self.batch_size // (self.world_size * self.micro_batches)
        start = step * self.batch_size + (micro * self.world_size + self.rank) * size
        return torch.arange(start, start + size, device=device)
