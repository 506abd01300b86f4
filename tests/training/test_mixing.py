"""Mixing against timm's, fed with the same draws; fair draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import timm.data.mixup as reference
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vitkit.training.losses import classification_loss
from vitkit.training.mixing import Mix, Mode, apply_mix, draw_mix, mix_batch

MODES: tuple[Mode, ...] = ("image", "batch", "pair", "elem")
CLASSES = 5


def batch_of(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 3, 12, 10, generator=generator)
    return images, torch.randint(0, CLASSES, (count,), generator=generator)


def smoothed(goal: Tensor, share: float) -> Tensor:
    """As the loss smooths it."""
    return goal * (1 - share) + share / CLASSES


class Recorder:
    """timm's Mixup, and what it drew: ratios, kinds and boxes, in order."""

    def __init__(self, mode: str, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
        self.boxes: list[tuple[int, ...]] = []
        self.mixup = reference.Mixup(mode=mode, num_classes=CLASSES, **options)
        name = "_params_per_batch" if mode == "batch" else "_params_per_elem"
        draw, box = getattr(self.mixup, name), reference.rand_bbox

        def drawn(*count: int) -> Any:
            lam, use_cutmix = draw(*count)
            self.lam, self.use_cutmix = np.atleast_1d(np.copy(lam)), np.atleast_1d(use_cutmix)
            return lam, use_cutmix

        def boxed(*args: Any, **kwargs: Any) -> Any:
            self.boxes.append(tuple(int(edge) for edge in box(*args, **kwargs)))
            return self.boxes[-1]

        monkeypatch.setattr(self.mixup, name, drawn)
        # The box that was recorded is the one handed on: one draw for one box.
        monkeypatch.setattr(reference, "rand_bbox", lambda *a, **k: boxed(*a, **k))

    def mix(self, count: int, mode: str) -> Mix:
        """The same draws in our form, laid out for the whole batch."""
        boxes, left = [], iter(self.boxes)
        for lam, use in zip(self.lam, self.use_cutmix, strict=True):
            boxes.append(next(left) if use and lam != 1.0 else (0, 0, 0, 0))
        places = torch.arange(count)
        by = {"batch": places * 0, "pair": torch.minimum(places, places.flip(0))}.get(mode, places)
        return Mix(
            places.flip(0),
            torch.tensor(self.lam, dtype=torch.float32)[by],
            torch.tensor(self.use_cutmix)[by],
            torch.tensor(boxes)[by],
        )


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
@pytest.mark.parametrize("alphas", [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)], ids=str)
def test_mixed_as_timm_mixes(
    mode: str, alphas: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(8):
        np.random.seed(seed)  # timm's own generator
        images, targets = batch_of(8, seed)
        with monkeypatch.context() as patch:
            timm = Recorder(
                mode,
                patch,
                mixup_alpha=alphas[0],
                cutmix_alpha=alphas[1],
                prob=0.8,
                label_smoothing=0.1,
            )
            wanted, goal = timm.mixup(images.clone(), targets)
        mixed, ours = apply_mix(images, targets, timm.mix(8, mode), CLASSES)
        torch.testing.assert_close(mixed, wanted, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(smoothed(ours, 0.1), goal, rtol=1e-6, atol=1e-6)


@given(st.integers(1, 9), st.sampled_from(MODES), st.integers(0, 99), st.sampled_from([0.0, 0.2]))
def test_any_batch_size_and_targets_tell_the_share_of_pixels(
    count: int, mode: Mode, seed: int, smoothing: float
) -> None:
    """Constant images of value = class: the mean pixel must equal the mean of the target."""
    torch.manual_seed(seed)
    targets = torch.randint(0, CLASSES, (count,))
    images = targets.float()[:, None, None, None].expand(count, 2, 7, 9)
    mixed, goal = mix_batch(images, targets, num_classes=CLASSES, mixup=0.8, cutmix=1.0, mode=mode)
    goal = smoothed(goal, smoothing)
    torch.testing.assert_close(goal.sum(1), torch.ones(count))
    mean = (goal * torch.arange(CLASSES)).sum(1)
    level = mixed.mean((1, 2, 3)) * (1 - smoothing) + smoothing * (CLASSES - 1) / 2
    torch.testing.assert_close(mean, level, rtol=1e-4, atol=1e-5)
    assert goal.min() >= smoothing / CLASSES - 1e-7


@pytest.mark.parametrize("mode", MODES)
def test_who_shares_a_draw(mode: Mode) -> None:
    torch.manual_seed(0)
    mix = draw_mix((9, 16, 16), mixup=0.8, cutmix=1.0, mode=mode)
    draws = {tuple(row) for row in torch.cat((mix.share[:, None], mix.box), 1).tolist()}
    assert len(draws) == {"batch": 1, "pair": 5}.get(mode, 9)
    if mode == "image":
        assert sorted(mix.partner.tolist()) == list(range(9))
    else:
        assert mix.partner.tolist() == list(range(8, -1, -1))
    if mode == "pair":
        assert torch.equal(mix.box, mix.box.flip(0))
        assert torch.equal(mix.share, mix.share.flip(0))


@pytest.mark.parametrize("mode", MODES)
def test_chances_are_as_asked(mode: Mode) -> None:
    """Cutmix rather than mixup, and mixed at all; 5 standard deviations of leeway."""
    torch.manual_seed(1)
    rounds, size = (2000, 2) if mode == "batch" else (40, 100)
    mixes = [
        draw_mix((size, 8, 8), mixup=0.5, cutmix=1.0, prob=0.7, switch_prob=0.2, mode=mode)
        for _ in range(rounds)
    ]
    if mode == "batch":
        mixes = [Mix(*(part[:1] for part in mix)) for mix in mixes]
    boxed = torch.cat([mix.boxed for mix in mixes]).double()
    mixed = torch.cat([mix.share < 1.0 for mix in mixes]).double()
    assert abs(boxed.mean() - 0.2) < 5 * (0.16 / (len(boxed) / 2)) ** 0.5
    assert abs(mixed.mean() - 0.7) < 5 * (0.21 / (len(mixed) / 2)) ** 0.5


def test_smoothing_inside_the_targets_is_smoothing_in_the_loss() -> None:
    images, targets = batch_of(6)
    logits = torch.randn(6, CLASSES)
    losses = []
    for inside in (0.0, 0.1):
        torch.manual_seed(3)
        _, goal = mix_batch(images, targets, num_classes=CLASSES, mixup=1.0, cutmix=0.0)
        goal = smoothed(goal, inside)
        losses.append(classification_loss(logits, goal, label_smoothing=0.1 - inside))
    torch.testing.assert_close(*losses)
    unsmoothed = classification_loss(logits, F.one_hot(targets, CLASSES).float())
    assert abs(losses[0] - unsmoothed) > 1e-3
