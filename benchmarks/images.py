"""CIFAR-10 for the benchmarks, or random images of its shape on a machine without it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from vitkit.data.cifar import read_cifar
from vitkit.errors import DataError

__all__ = ["MEAN", "STD", "cifar10_or_random"]

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
"""Of CIFAR-10's training images, per channel, of pixels in [0, 1]."""

Labelled = tuple[Tensor, Tensor]


def cifar10_or_random(root: Path, train: int, test: int = 0) -> tuple[Labelled, Labelled, str]:
    """The first images of both splits, and what they are: ``CIFAR-10`` or ``random``.

    Args:
        root: folder of CIFAR-10, whose files are checked before they are opened.
        train, test: how many of each split.

    Returns:
        (images, targets) of train and of test: uint8 (N, 3, 32, 32) and int64 (N,); and the word.
    """
    try:
        _, (images, targets), (tests, answers) = read_cifar("cifar10", root)
        return (images[:train], targets[:train]), (tests[:test], answers[:test]), "CIFAR-10"
    except DataError:
        generator = torch.Generator().manual_seed(0)
        shape = (train + test, 3, 32, 32)
        pixels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        labels = torch.arange(len(pixels)) % 10
        return (pixels[:train], labels[:train]), (pixels[train:], labels[train:]), "random"
