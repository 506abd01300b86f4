"""Mixup and cutmix on a batch: who is mixed with whom, how much, and the targets that follow.

Sources: Zhang et al., "mixup", arXiv 1710.09412; Yun et al., "CutMix", arXiv 1905.04899. The modes
``batch``, ``pair`` and ``elem`` are timm's.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Mix", "Mode", "apply_mix", "draw_mix", "mix_batch"]

Mode = Literal["image", "batch", "pair", "elem"]


class Mix(NamedTuple):
    """What was drawn for a batch.

    Attributes:
        partner: int64 (B,), with which image each one is mixed.
        share: float32 (B,), what each image keeps of itself where it is blended.
        boxed: bool (B,), whether it takes a box from its partner (cutmix) or is blended (mixup).
        box: (B, 4), top, bottom, left, right of that box in pixels.
    """

    partner: Tensor
    share: Tensor
    boxed: Tensor
    box: Tensor


def mix_batch(
    images: Tensor,
    targets: Tensor,
    *,
    num_classes: int,
    mixup: float,
    cutmix: float,
    prob: float = 1.0,
    switch_prob: float = 0.5,
    mode: Mode = "image",
) -> tuple[Tensor, Tensor]:
    """Mix every image with another one of the batch, drawing from torch's global generator.

    Args:
        images: float (B, channels, height, width); any B, also 1.
        targets: int64 (B,).
        num_classes: width of the returned targets.
        mixup: alpha of mixup's Beta(alpha, alpha); 0 turns it off.
        cutmix: alpha of cutmix's; 0 turns it off.
        prob: chance that an image is mixed at all.
        switch_prob: chance of cutmix, where both are on.
        mode: who draws, see :func:`draw_mix`.

    Returns:
        mixed images, and float32 target probabilities (B, num_classes).
    """
    mix = draw_mix(
        (len(images), images.shape[2], images.shape[3]),
        mixup=mixup,
        cutmix=cutmix,
        prob=prob,
        switch_prob=switch_prob,
        mode=mode,
    )
    return apply_mix(images, targets, mix, num_classes)


def draw_mix(
    shape: tuple[int, int, int],
    *,
    mixup: float,
    cutmix: float,
    prob: float = 1.0,
    switch_prob: float = 0.5,
    mode: Mode = "image",
) -> Mix:
    """Draw for a batch of (B, height, width); the other arguments as in :func:`mix_batch`.

    In mode ``image`` each image has a partner at random, and its own ratio and box. In the others
    the partner is the image at the same place from the end (in the middle of an odd batch, itself):
    ``elem`` draws for each image, ``pair`` once for an image and its partner, ``batch`` once.
    """
    batch, height, width = shape
    places = torch.arange(batch)
    partner = torch.randperm(batch) if mode == "image" else places.flip(0)
    draws = {"batch": 1, "pair": (batch + 1) // 2}.get(mode, batch)
    # Drawn on the CPU, so that the same seed mixes alike on every device.
    chance = switch_prob if mixup > 0 and cutmix > 0 else float(cutmix > 0)
    boxed = torch.rand(draws) < chance
    share = torch.where(boxed, _beta(cutmix, draws), _beta(mixup, draws))
    share = torch.where(torch.rand(draws) < prob, share, 1.0)
    box = _boxes(share, height, width)
    # Which draw an image goes by.
    by = {"batch": places * 0, "pair": torch.minimum(places, places.flip(0))}.get(mode, places)
    return Mix(partner, share[by], boxed[by], box[by])


def apply_mix(images: Tensor, targets: Tensor, mix: Mix, num_classes: int) -> tuple[Tensor, Tensor]:
    """Mix images and targets as drawn; arguments and result as in :func:`mix_batch`."""
    # A few numbers an image are sent, and the masks made of them where the images are.
    mix = Mix(*(drawn.to(images.device, non_blocking=True) for drawn in mix))
    keep, share = _shares(mix, images.shape[2], images.shape[3])
    keep, partner = keep.to(images.dtype), mix.partner
    mixed = images * keep + images[partner] * (1.0 - keep)
    goal = F.one_hot(targets, num_classes).float()
    return mixed, goal * share[:, None] + goal[partner] * (1.0 - share[:, None])


def _beta(alpha: float, count: int) -> Tensor:
    if alpha <= 0.0:
        return torch.ones(count)
    return torch.distributions.Beta(alpha, alpha).sample((count,))


def _boxes(share: Tensor, height: int, width: int) -> Tensor:
    """A box of 1 - share of the area about a random centre, clipped at the border: (draws, 4)."""
    count = len(share)
    side = (1.0 - share).sqrt()
    centre_y, centre_x = torch.rand(count) * height, torch.rand(count) * width
    top = (centre_y - side * height / 2).round().clamp(0, height)
    bottom = (centre_y + side * height / 2).round().clamp(0, height)
    left = (centre_x - side * width / 2).round().clamp(0, width)
    right = (centre_x + side * width / 2).round().clamp(0, width)
    return torch.stack((top, bottom, left, right), 1)


def _shares(mix: Mix, height: int, width: int) -> tuple[Tensor, Tensor]:
    """How much of itself each pixel of each image keeps, (B, 1, height, width), and its mean."""
    top, bottom, left, right = mix.box[:, :, None].unbind(1)
    where = mix.box.device
    rows = torch.arange(height, device=where)[None, :]
    columns = torch.arange(width, device=where)[None, :]
    in_rows, in_columns = (rows >= top) & (rows < bottom), (columns >= left) & (columns < right)
    box = (in_rows[:, :, None] & in_columns[:, None, :])[:, None]
    boxed, share = mix.boxed, mix.share
    # The box is clipped at the border, so the share is that of the pixels really kept.
    kept = torch.where(boxed, 1.0 - box.float().mean(dim=(1, 2, 3)), share)
    keep = torch.where(boxed[:, None, None, None], (~box).float(), share[:, None, None, None])
    return keep, kept
