"""Mixup and cutmix on a batch: each image has its own partner, ratio and box.

Sources: Zhang et al., "mixup", arXiv 1710.09412; Yun et al., "CutMix", arXiv 1905.04899.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["mix_batch"]


def mix_batch(
    images: Tensor,
    targets: Tensor,
    *,
    num_classes: int,
    mixup: float,
    cutmix: float,
    prob: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Mix every image with another one of the batch, drawing from torch's global generator.

    Where both are on, each image takes one of the two with equal chance.

    Args:
        images: float (B, channels, height, width); any B, also 1.
        targets: int64 (B,).
        num_classes: width of the returned targets.
        mixup: alpha of mixup's Beta(alpha, alpha); 0 turns it off.
        cutmix: alpha of cutmix's; 0 turns it off.
        prob: chance that an image is mixed at all.

    Returns:
        mixed images, and float32 target probabilities (B, num_classes).
    """
    batch, _, height, width = images.shape
    # Drawn on the CPU, so that the same seed mixes alike on every device.
    partner = torch.randperm(batch).to(images.device)
    use_cutmix = torch.rand(batch) < (0.5 if mixup > 0 and cutmix > 0 else float(cutmix > 0))
    share = torch.where(use_cutmix, _beta(cutmix, batch), _beta(mixup, batch))
    share = torch.where(torch.rand(batch) < prob, share, 1.0)
    keep, share = _shares(share, height, width, use_cutmix)
    keep, share = keep.to(images.device, images.dtype), share.to(images.device)
    mixed = images * keep + images[partner] * (1.0 - keep)
    one_hot = F.one_hot(targets, num_classes).float()
    return mixed, one_hot * share[:, None] + one_hot[partner] * (1.0 - share[:, None])


def _beta(alpha: float, count: int) -> Tensor:
    if alpha <= 0.0:
        return torch.ones(count)
    return torch.distributions.Beta(alpha, alpha).sample((count,))


def _shares(share: Tensor, height: int, width: int, use_cutmix: Tensor) -> tuple[Tensor, Tensor]:
    """How much of itself each pixel of each image keeps, (B, 1, height, width), and its mean."""
    count = len(share)
    side = (1.0 - share).sqrt()
    centre_y, centre_x = torch.rand(count) * height, torch.rand(count) * width
    top = (centre_y - side * height / 2).round().clamp(0, height)
    bottom = (centre_y + side * height / 2).round().clamp(0, height)
    left = (centre_x - side * width / 2).round().clamp(0, width)
    right = (centre_x + side * width / 2).round().clamp(0, width)
    rows, columns = torch.arange(height)[None, :], torch.arange(width)[None, :]
    in_rows = (rows >= top[:, None]) & (rows < bottom[:, None])
    in_columns = (columns >= left[:, None]) & (columns < right[:, None])
    box = (in_rows[:, :, None] & in_columns[:, None, :])[:, None]
    # The box is clipped at the border, so the share is that of the pixels really kept.
    kept = torch.where(use_cutmix, 1.0 - box.float().mean(dim=(1, 2, 3)), share)
    keep = torch.where(use_cutmix[:, None, None, None], (~box).float(), share[:, None, None, None])
    return keep, kept
