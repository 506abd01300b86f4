"""Batches: in training a permutation an epoch, resumable in its middle; in evaluation each once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vitkit.data.crops import CroppedPictures, RandomCrop
from vitkit.data.epochs import EpochLoader, Shares
from vitkit.data.random import epoch_order
from vitkit.data.splits import ResidentSplit, Split, StreamedSplit
from vitkit.errors import DataError

__all__ = ["Batch", "EvalLoader", "TrainLoader"]


class Batch(NamedTuple):
    """What a loader yields, on the training device but for the positions.

    Attributes:
        images: uint8 (B, channels, height, width).
        targets: int64 (B,).
        positions: int64 (B,) on the CPU: places in the epoch's order, or in evaluation in the
            split.
    """

    images: Tensor
    targets: Tensor
    positions: Tensor


class TrainLoader(EpochLoader[Batch]):
    """Micro-batches of one epoch after the other.

    An epoch's order is a permutation of the images (or, ``balanced``, a draw that evens out their
    classes), each ``repeats`` times in a row;
    :class:`Shares` says who takes which places. Those left over at an epoch's end are dropped, so
    that every batch has one shape.

    Args:
        split: the images.
        batch_size: images of one optimiser step, over all processes.
        micro_batches: parts in which a process takes its share of a step.
        seed: of the permutations.
        repeats: places of each image in an epoch, side by side: repeated augmentation.
        balanced: an epoch has as many images of each class, of :func:`balanced_epoch`, not each
            image once.
        rank, world_size: which process this is, of how many.
        device: where batches are yielded; resident images move there once.
        num_workers: processes that decode streamed images.
        prefetch_factor: batches that each of them prepares ahead.
        persistent_workers: keep them from one epoch to the next.
        crop: what is cut out of streamed pictures as they are decoded, as
            :func:`~vitkit.data.crops.crop_of` finds it; batches are not to be cropped again then.

    Raises:
        DataError: the batch size does not divide, an epoch would have no step, or a crop of images
            that are held.
    """

    def __init__(
        self,
        split: Split,
        *,
        batch_size: int,
        micro_batches: int = 1,
        seed: int = 0,
        repeats: int = 1,
        balanced: bool = False,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str = "cpu",
        num_workers: int = 0,
        prefetch_factor: int = 2,
        persistent_workers: bool = False,
        crop: RandomCrop | None = None,
    ) -> None:
        self.shares = Shares(batch_size, micro_batches, rank, world_size)
        self.size, self.repeats = len(split), repeats
        if self.size * repeats < batch_size:
            times = f" x data.repeats {repeats}" if repeats > 1 else ""
            raise DataError(
                f"an epoch would have no step: {self.size} training images{times}, "
                f"data.batch_size {batch_size}; lower data.batch_size"
            )
        self.seed = seed
        self.classes = torch.as_tensor(split.targets).cpu() if balanced else None
        workers = _workers(num_workers, prefetch_factor, persistent_workers)
        self._source = _source(split, device, workers, crop)

    def __len__(self) -> int:
        """Micro-batches of a full epoch, also where only its rest will be yielded."""
        steps = self.size * self.repeats // self.shares.batch_size
        return steps * self.shares.micro_batches

    def batches(self, epoch: int, first: int) -> Iterator[Batch]:
        """See :meth:`EpochLoader.batches`."""
        order = epoch_order(self.size, self.seed, epoch, self.repeats, balanced=self.classes)
        places = [self.shares.places(index) for index in range(first, len(self))]
        yield from self._source.batches([order[p] for p in places], places, epoch)

    def close(self) -> None:
        """End the worker processes, if any; another epoch would start them anew."""
        self._source.close()


class EvalLoader:
    """Every image exactly once over all processes, in the order of the split.

    Every process gets the same number of batches, as collective operations need.

    Args:
        split: the images.
        batch_size: largest batch of one process.
        rank, world_size, device, num_workers, prefetch_factor, persistent_workers: as in
            :class:`TrainLoader`.

    Raises:
        DataError: fewer images than processes.
    """

    def __init__(
        self,
        split: Split,
        *,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str = "cpu",
        num_workers: int = 0,
        prefetch_factor: int = 2,
        persistent_workers: bool = False,
    ) -> None:
        if len(split) < world_size:
            raise DataError(f"{len(split)} images cannot be shared by {world_size} processes")
        workers = _workers(num_workers, prefetch_factor, persistent_workers)
        self._source = _source(split, device, workers)
        shares = torch.arange(len(split)).tensor_split(world_size)
        if world_size == 1:
            # Full batches and one short one: the fewest shapes.
            self._indices = list(shares[0].split(batch_size))
        else:
            longest = max(len(share) for share in shares)
            count = min(-(-longest // batch_size), min(len(share) for share in shares))
            self._indices = list(shares[rank].tensor_split(count))

    def __len__(self) -> int:
        return len(self._indices)

    def __iter__(self) -> Iterator[Batch]:
        yield from self._source.batches(self._indices, self._indices)

    def close(self) -> None:
        """See :meth:`TrainLoader.close`."""
        self._source.close()


class _ResidentSource:
    """Batches cut out of tensors on the device."""

    def __init__(self, split: ResidentSplit, device: torch.device | str) -> None:
        self.split = replace(split, images=split.images.to(device))
        self.targets, self.device = split.targets.to(device), device

    def batches(
        self, indices: list[Tensor], places: list[Tensor], epoch: int = 0
    ) -> Iterator[Batch]:
        if not indices:
            return
        # Sent once: a copy a batch would wait for all that is queued on the device.
        sent = torch.cat(indices).to(self.device).split([len(chosen) for chosen in indices])
        for at, place in zip(sent, places, strict=True):
            yield Batch(self.split.take(at), self.targets[at], place)

    def close(self) -> None:
        """Nothing."""


class _Asked:
    """What a split is asked for, batch by batch: indices, or, of pictures that are cropped by where
    they stand, (index, epoch, position). Made when its turn comes: those of a whole epoch are many.
    """

    def __init__(self, *, placed: bool) -> None:
        self.placed, self.epoch = placed, 0
        self.batches: list[tuple[Tensor, Tensor]] = []

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[Any]]:
        epoch = self.epoch
        for chosen, places in self.batches:
            indices = chosen.tolist()
            if not self.placed:
                yield indices
                continue
            where = zip(indices, places.tolist(), strict=True)
            yield [(index, epoch, position) for index, position in where]


class _StreamedSource:
    """Batches decoded by worker processes; what is decoded depends on the index alone, or on that
    and its place in the epoch.

    The loader is made once: its workers may outlive an epoch, and then get the next one's indices.
    """

    def __init__(
        self,
        split: StreamedSplit,
        device: torch.device | str,
        workers: dict[str, Any],
        crop: RandomCrop | None,
    ) -> None:
        self.device = torch.device(device)
        pictures: Dataset[Any] = split if crop is None else CroppedPictures(split, crop)
        self._asked = _Asked(placed=crop is not None)
        self._loader: DataLoader[Any] = DataLoader(
            pictures,
            batch_sampler=self._asked,
            pin_memory=self.device.type == "cuda",
            **workers,
        )

    def batches(
        self, indices: list[Tensor], places: list[Tensor], epoch: int = 0
    ) -> Iterator[Batch]:
        on_gpu = self.device.type == "cuda"
        self._asked.epoch = epoch
        self._asked.batches = list(zip(indices, places, strict=True))
        try:
            for (images, targets), place in zip(self._loader, places, strict=True):
                yield Batch(
                    images.to(self.device, non_blocking=on_gpu),
                    targets.to(self.device, non_blocking=on_gpu),
                    place,
                )
        except DataError as error:
            # From a worker it comes with that process's traceback in front of what it says.
            last = str(error).strip().splitlines()[-1]
            raise DataError(last.removeprefix(f"{DataError.__module__}.DataError: ")) from error

    def close(self) -> None:
        """End the workers that live from epoch to epoch."""
        iterator: Any = self._loader._iterator
        if iterator is not None:
            iterator._shutdown_workers()
        self._loader._iterator = None


def _workers(count: int, prefetch_factor: int, persistent: bool) -> dict[str, Any]:
    """Arguments of torch's ``DataLoader``, which refuses the others where there are no workers."""
    if not count:
        return {"num_workers": 0}
    return {
        "num_workers": count,
        "prefetch_factor": prefetch_factor,
        "persistent_workers": persistent,
    }


def _source(
    split: Split,
    device: torch.device | str,
    workers: dict[str, Any],
    crop: RandomCrop | None = None,
) -> _ResidentSource | _StreamedSource:
    if isinstance(split, StreamedSplit):
        return _StreamedSource(split, device, workers, crop)
    if crop is not None:
        raise DataError("images that are held are cropped in batches, by Augment; leave crop out")
    return _ResidentSource(split, device)
