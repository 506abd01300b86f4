"""Every image of a split past a finished model."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vitkit.app.progress import counted
from vitkit.data.config import ImageDataConfig
from vitkit.data.loaders import EvalLoader
from vitkit.data.splits import Split
from vitkit.evaluation.classification import predict_all

__all__ = ["eval_loader", "features_of"]


def eval_loader(images: Split, settings: ImageDataConfig, device: torch.device) -> EvalLoader:
    """Each image once, in the order of the split.

    Args:
        images: the split.
        settings: of the data: how many at a time, and who decodes them.
        device: where the batches are wanted.
    """
    return EvalLoader(
        images,
        batch_size=settings.eval_batch_size,
        device=device,
        num_workers=settings.num_workers,
    )


def features_of(
    features: Callable[[Tensor], Tensor],
    images: Split,
    settings: ImageDataConfig,
    device: torch.device,
    what: str,
    *,
    progress: bool = True,
) -> tuple[Tensor, Tensor]:
    """What a model makes of every image of a split.

    Args:
        features: uint8 images (B, channels, height, width) on the device -> (B, C).
        images, settings, device: see :func:`eval_loader`.
        what: they are, for the progress bar.
        progress: show a bar on a terminal.

    Returns:
        float32 (N, C) and the targets, int64 (N,): on the CPU, in the order of the split.
    """
    with counted(f"features of {what}", "images", show=progress) as tell:
        found = predict_all(
            features,
            eval_loader(images, settings, device),
            on_batch=lambda done: tell(done, len(images)),
        )
    return found.logits, found.targets
