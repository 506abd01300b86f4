"""Several random views of each image: two large ones, and smaller ones of its parts.

Source: Caron et al., arXiv 2104.14294, with the colour changes of Grill et al., arXiv 2006.07733.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitkit.data.augment import BOX_DRAWS, crop_boxes
from vitkit.data.colors import send
from vitkit.data.geometry import resized_crop
from vitkit.data.ops import CODES, operate
from vitkit.data.policies import ColorJitter
from vitkit.data.preprocess import resize_images
from vitkit.data.random import uniform_table

__all__ = ["ViewRecipe", "Views"]

Numbers = NDArray[np.float64]
Flags = NDArray[np.bool_]

GLOBAL_VIEWS = 2
FIRST_DRAW, DRAWS_A_VIEW = 100_000, 1000
"""Where the draws of views begin, far from those of other augmentation, and how many one has."""
FLIP = BOX_DRAWS
JITTER, GRAY, BLUR, SIGMA, SOLARIZE, ORDER = range(BOX_DRAWS + 1, BOX_DRAWS + 7)
"""Which of a view's random numbers decides what; those from ORDER on are the colour jitter's."""
CROP_RATIO = 0.75
"""Smallest width over height of a view's box."""
SIGMAS = (0.1, 2.0)
THRESHOLD = 128.0
"""Solarised pixels from here on are inverted."""


@dataclass(frozen=True)
class ViewRecipe:
    """How views are made.

    Attributes:
        global_scale, local_scale: smallest and largest share of the image's area, of the two large
            views and of the small ones.
        local_count: small views of an image.
        local_size: (height, width) of the small views in pixels.
        flip_prob, jitter_prob, gray_prob, blur_prob: chances of each view.
        solarize_prob: chance of the second large view.
        color_jitter, color_jitter_hue: largest changes, see
            :class:`~vitkit.data.policies.ColorJitter`.
    """

    global_scale: tuple[float, float]
    local_scale: tuple[float, float]
    local_count: int
    local_size: tuple[int, int]
    flip_prob: float = 0.5
    jitter_prob: float = 0.8
    gray_prob: float = 0.2
    blur_prob: float = 0.0
    solarize_prob: float = 0.2
    color_jitter: float = 0.4
    color_jitter_hue: float = 0.1


class Views:
    """Random views in tensors, on any device, reproducible from (seed, epoch, position, view).

    Of each view: a box of the image enlarged to the image's size, perhaps mirrored; a small view is
    then reduced to its own size; colours, grey, blur, solarisation.

    Args:
        recipe: how.
        seed: of the run.
    """

    def __init__(self, recipe: ViewRecipe, seed: int = 0) -> None:
        self.recipe, self.seed = recipe, seed
        self.jitter = ColorJitter(recipe.color_jitter, recipe.color_jitter_hue)

    def __call__(
        self, images: Tensor, positions: Tensor, epoch: int
    ) -> tuple[Tensor, Tensor | None]:
        """Views of each image, all first ones before all second ones.

        Args:
            images: uint8 (B, channels, height, width).
            positions: int64 (B,) on the CPU.
            epoch: from 0.

        Returns:
            uint8 large views (2 B, channels, height, width); small ones (local_count B, channels, *
            local_size), or None without any.
        """
        recipe, size = self.recipe, (images.shape[2], images.shape[3])
        places = positions.cpu().numpy()  # several processes have theirs sent
        large = self._views(images, places, epoch, range(GLOBAL_VIEWS), recipe.global_scale, size)
        if not recipe.local_count:
            return large, None
        which = range(GLOBAL_VIEWS, GLOBAL_VIEWS + recipe.local_count)
        small = self._views(images, places, epoch, which, recipe.local_scale, recipe.local_size)
        return large, small

    def _views(
        self,
        images: Tensor,
        places: NDArray[np.int64],
        epoch: int,
        which: Sequence[int],
        scale: tuple[float, float],
        size: tuple[int, int],
    ) -> Tensor:
        """Some of the views, by one call of each operation for all of them."""
        draws = ORDER + self.jitter.draws
        starts = [FIRST_DRAW + DRAWS_A_VIEW * view for view in which]
        tables = [uniform_table(self.seed, epoch, places, range(s, s + draws)) for s in starts]
        numbers = np.concatenate(tables, axis=1)
        own = (images.shape[2], images.shape[3])
        boxes = crop_boxes(numbers[:BOX_DRAWS], own, scale, CROP_RATIO)
        views = resized_crop(images.repeat(len(which), 1, 1, 1), boxes)
        flipped = send(numbers[FLIP] < self.recipe.flip_prob, images.device)
        views = torch.where(flipped[:, None, None, None], views.flip(3), views)
        is_second = np.repeat([view == 1 for view in which], len(images))
        return self._colored(resize_images(views, size, "bilinear"), numbers, is_second)

    def _colored(self, views: Tensor, numbers: Numbers, is_second: Flags) -> Tensor:
        recipe, size = self.recipe, (views.shape[2], views.shape[3])
        none = np.full(len(views), CODES["none"])
        amounts = np.zeros(len(views))

        def some(op: str, drawn: Flags) -> NDArray[np.int64]:
            return np.where(drawn, CODES[op], none)

        if self.jitter.ops:
            jitters = numbers[JITTER] < recipe.jitter_prob
            for codes, strengths in zip(*self.jitter(numbers[ORDER:], size), strict=True):
                views = operate(views, np.where(jitters, codes, none), strengths)
        views = operate(views, some("saturation", numbers[GRAY] < recipe.gray_prob), amounts)
        sigmas = SIGMAS[0] + (SIGMAS[1] - SIGMAS[0]) * numbers[SIGMA]
        views = operate(views, some("blur", numbers[BLUR] < recipe.blur_prob), sigmas)
        solarized = is_second & (numbers[SOLARIZE] < recipe.solarize_prob)
        return operate(views, some("solarize", solarized), amounts + THRESHOLD)
