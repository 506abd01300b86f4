"""A pattern a class, under noise: learnable, made on the spot, for trying things out."""

from __future__ import annotations

import torch

from vitkit.data.raw import RawData, Request
from vitkit.data.splits import ResidentSplit, train_and_test

__all__ = ["read"]


def read(request: Request) -> RawData:
    """``data.synthetic_size`` images of ``data.synthetic_classes`` classes, from ``split_seed``."""
    config = request.config
    height, width = request.img_size or (32, 32)
    shape = (request.in_chans or 3, height, width)
    generator = torch.Generator().manual_seed(config.split_seed)
    classes, count = config.synthetic_classes, config.synthetic_size
    patterns = torch.rand(classes, *shape, generator=generator)
    targets = torch.arange(count) % classes
    noise = torch.rand(count, *shape, generator=generator)
    images = ((0.5 * patterns[targets] + 0.5 * noise) * 255).to(torch.uint8)
    whole = ResidentSplit(images, targets)
    train, test = train_and_test(targets, config)
    names = [f"class {i}" for i in range(classes)]
    return RawData("synthetic", names, whole.subset(train), test=whole.subset(test))
