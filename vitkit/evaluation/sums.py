"""Metrics of a split kept as sums, so that the size of a batch makes no difference."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Self

import torch
from torch import Tensor

__all__ = ["NO_IMAGE", "Sums"]

NO_IMAGE = "no image was evaluated; the split is empty"


class Sums(ABC):
    """Sums over a split, from which each metric is one division at the end.

    Batches of any size may come in any order, and the sums of several processes add up.

    Args:
        length: how many sums there are.
        device: where the batches live.

    Attributes:
        sums: (length,), float64, or float32 where there is no float64; the first is the count.
    """

    def __init__(self, length: int, device: torch.device | str = "cpu") -> None:
        # Some accelerators have no float64; float32 counts exactly up to 16.7 million.
        dtype = torch.float32 if torch.device(device).type == "mps" else torch.float64
        self.sums = torch.zeros(length, dtype=dtype, device=device)

    @property
    def count(self) -> int:
        """Images, or tokens, seen."""
        return int(self.sums[0].item())

    @abstractmethod
    def metrics(self) -> dict[str, float]:
        """Each metric by its name, ``loss`` among them; an error where nothing was seen."""

    def with_sums(self, sums: Tensor) -> Self:
        """The same with other sums: those of all processes, or of a checkpoint.

        Args:
            sums: as :attr:`sums`, of any dtype and device.
        """
        other = copy.copy(self)
        other.sums = sums.to(self.sums)
        return other
