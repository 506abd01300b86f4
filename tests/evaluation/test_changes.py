"""Missing and shuffled patches, noise, views and attacks."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitkit.evaluation.adversarial import fgsm, pgd, pgd_l2
from vitkit.evaluation.perturbations import (
    lower_resolution,
    occlude_patches,
    shuffle_patches,
    white_noise,
)
from vitkit.evaluation.views import VIEWS, averaged, views_of


def _images(count: int = 4, height: int = 8, width: int = 12) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (count, 3, height, width)
    return torch.randint(1, 256, shape, generator=generator, dtype=torch.uint8), torch.arange(count)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_occlusion_drops_whole_patches_and_no_others(share: float) -> None:
    images, indices = _images()
    out = occlude_patches(images, (4, 3), share, indices=indices, seed=1)
    patches = out.unflatten(2, (4, 2)).unflatten(4, (3, 4)).permute(0, 2, 4, 1, 3, 5).flatten(3)
    black = (patches == 0).all(3)
    assert black.flatten(1).sum(1).tolist() == [int(12 * share)] * 4
    assert torch.equal(out[out > 0], images[out > 0])
    assert torch.equal(
        out[2:3], occlude_patches(images[2:3], (4, 3), share, indices=indices[2:3], seed=1)
    )
    if 0 < share < 1:
        assert not torch.equal(black[0], black[1])
        more = occlude_patches(images, (4, 3), min(1.0, share + 0.25), indices=indices, seed=1)
        assert (more[out == 0] == 0).all()  # the same patches, and more


@pytest.mark.parametrize("grid", [(14, 14), (8, 8), (4, 4)])
def test_tenths_of_the_patches_are_counted_in_whole_numbers(grid: tuple[int, int]) -> None:
    white = torch.full((1, 1, *grid), 255, dtype=torch.uint8)
    count = grid[0] * grid[1]
    for tenths in range(10):
        out = occlude_patches(white, grid, tenths / 10, indices=torch.zeros(1, dtype=torch.int64))
        assert int((out == 0).sum()) == tenths * count // 10


def test_shuffling_keeps_every_patch() -> None:
    images, indices = _images()
    out = shuffle_patches(images, (4, 3), indices=indices)
    assert out.shape == images.shape and not torch.equal(out, images)

    def patches(x: Tensor) -> list[list[tuple[int, ...]]]:
        cut = x.unfold(2, 2, 2).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
        return [sorted(map(tuple, image)) for image in cut.tolist()]

    assert patches(out) == patches(images)
    assert torch.equal(out[1:2], shuffle_patches(images[1:2], (4, 3), indices=indices[1:2]))
    assert torch.equal(shuffle_patches(images, (1, 1), indices=indices), images)
    for wrong in ((3, 3), (4, 5)):
        with pytest.raises(ValueError, match="does not divide images of 8 x 12"):
            shuffle_patches(images, wrong, indices=indices)
        with pytest.raises(ValueError, match="does not divide"):
            occlude_patches(images, wrong, 0.5, indices=indices)


def test_white_noise_has_its_deviation() -> None:
    grey = torch.full((20, 3, 32, 32), 128, dtype=torch.uint8)
    out = white_noise(grey, 0.1, indices=torch.arange(20)).float()
    assert float(out.std()) == pytest.approx(25.5, rel=0.02)
    assert float(out.mean()) == pytest.approx(128, abs=0.5)


def test_fewer_pixels_keep_what_is_smooth() -> None:
    flat = torch.full((1, 3, 16, 16), 77, dtype=torch.uint8)
    assert torch.equal(lower_resolution(flat, (4, 4)), flat)
    board = (torch.arange(16)[:, None] + torch.arange(16)).remainder(2)[None, None] * 255
    out = lower_resolution(board.to(torch.uint8).expand(1, 3, -1, -1), (8, 8))
    assert out.shape == (1, 3, 16, 16) and float(out[..., 4:12, 4:12].float().std()) < 20


@pytest.mark.parametrize("views", VIEWS)
def test_views_average_probabilities(views: str) -> None:
    torch.manual_seed(0)
    images, _ = _images(height=32, width=64)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 64, 5))

    def predict(x: Tensor) -> Tensor:
        return model(x.float() / 255)  # type: ignore[no-any-return]

    found = averaged(predict, views)(images)
    if views == "none":
        assert torch.equal(found, predict(images))
        return
    parts = views_of(images, views)
    assert len(parts) == {"flip": 2, "multicrop": 6}[views]
    assert sum(weight for weight, _ in parts) == pytest.approx(1.0)
    want = sum(weight * predict(view).softmax(1) for weight, view in parts)
    torch.testing.assert_close(found.exp(), want)
    torch.testing.assert_close(found.exp().sum(1), torch.ones(4))
    if views == "flip":
        torch.testing.assert_close(averaged(predict, views)(images.flip(-1)), found)


def test_the_places_of_multicrop() -> None:
    images, _ = _images(height=32, width=64)
    up = views_of(images, "multicrop")[2][1]
    assert up.dtype == torch.uint8
    assert torch.equal(up[..., 1:, 2:], images[..., :-1, :-2])  # a pixel down, two to the right
    with pytest.raises(ValueError, match="allowed: none, flip, multicrop"):
        averaged(lambda x: x, "ten")


def _network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.Tanh(), nn.Linear(16, 3)).eval()


def _attacked() -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    model = _network()
    generator = torch.Generator().manual_seed(2)
    images = torch.rand(64, 3, 4, 4, generator=generator)
    return model, images, model(images).argmax(1).detach(), torch.arange(64)


def test_fgsm_of_a_linear_model_is_known() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(48, 2)
    images = torch.rand(8, 3, 4, 4) * 0.5 + 0.25
    targets = torch.tensor([0, 1] * 4)
    away = (linear.weight[1] - linear.weight[0]).sign() * torch.where(targets == 0, 1, -1)[:, None]
    found = fgsm(lambda x: linear(x.flatten(1)), images, targets, 0.1)
    torch.testing.assert_close(found, images + 0.1 * away.view_as(images))


def _linear() -> tuple[nn.Linear, Tensor, Tensor, Tensor]:
    """A model of two classes, grey images, their classes, and the way to err of each: its length
    is 1.
    """
    torch.manual_seed(0)
    linear = nn.Linear(48, 2)
    images = torch.rand(8, 3, 4, 4) * 0.2 + 0.4
    targets = torch.tensor([0, 1] * 4)
    way = F.normalize(linear.weight[1] - linear.weight[0], dim=0).detach()
    away = way * torch.where(targets == 0, 1, -1)[:, None]
    return linear, images, targets, away.view_as(images)


@pytest.mark.parametrize("epsilon", [0.05, 0.3])
def test_the_longest_step_of_a_linear_model_is_known(epsilon: float) -> None:
    """The best change of length epsilon is epsilon times gradient over its length."""
    linear, images, targets, away = _linear()

    def predict(x: Tensor) -> Tensor:
        return linear(x.flatten(1))  # type: ignore[no-any-return]

    best = images + epsilon * away
    assert float(best.min()) > 0 and float(best.max()) < 1  # nothing is cut off
    for steps in (1, 3, 20):
        found = pgd_l2(predict, images, targets, epsilon, steps=steps, indices=None)
        torch.testing.assert_close(found, best, rtol=0, atol=5e-6)
    # The slope's length does not count, even where its square is nothing.
    flat = pgd_l2(lambda x: 1e-24 * predict(x), images, targets, epsilon, steps=3, indices=None)
    torch.testing.assert_close(flat, best, rtol=0, atol=1e-5)
    started = pgd_l2(predict, images, targets, epsilon, indices=torch.arange(8))
    change = (started - images).flatten(1)
    lengths = change.norm(dim=1)
    assert float(lengths.max()) <= epsilon + 1e-6 and float(lengths.min()) > 0.9 * epsilon
    # From about a right angle, whose half has a tangent that shrinks by e^-2.5.
    towards = (change * away.flatten(1)).sum(1) / lengths
    assert float(towards.min()) > 0.95 and float(towards.max()) < 1 - 1e-5


def test_starts_lie_in_the_ball_and_each_image_has_its_own() -> None:
    images, targets = torch.full((500, 1, 2, 1), 0.5), torch.zeros(500, dtype=torch.int64)

    def flat(x: Tensor) -> Tensor:
        return 0.0 * x.flatten(1)  # no slope: what is found is the start

    found = pgd_l2(flat, images, targets, 0.3, steps=2, indices=torch.arange(500))
    change = (found - images).flatten(1)
    lengths = change.norm(dim=1)
    assert float(lengths.max()) <= 0.3 + 1e-6
    # Evenly over a disk: the share within r is its area's.
    for radius in (0.1, 0.2):
        assert float((lengths < radius).float().mean()) == pytest.approx(
            (radius / 0.3) ** 2, abs=0.07
        )
    assert change.mean(0).abs().max() < 0.03
    part = pgd_l2(flat, images[7:9], targets[7:9], 0.3, steps=2, indices=torch.arange(7, 9))
    torch.testing.assert_close(part, found[7:9])
    other = pgd_l2(flat, images, targets, 0.3, steps=2, indices=torch.arange(500), seed=1)
    assert not torch.allclose(other, found)
    assert torch.equal(pgd_l2(flat, images, targets, 0.3, steps=2, indices=None), images)


@pytest.mark.parametrize("epsilon", [0.1, 1.0])
def test_attacks_of_a_length_stay_in_their_ball_and_hurt(epsilon: float) -> None:
    model, images, targets, indices = _attacked()
    found = pgd_l2(model, images, targets, epsilon, steps=20, indices=indices)
    lengths = (found - images).flatten(1).norm(dim=1)
    assert float(lengths.max()) <= epsilon + 1e-5
    assert float(found.min()) >= 0 and float(found.max()) <= 1
    before, after = (F.cross_entropy(model(x), targets).detach() for x in (images, found))
    assert float(before) < float(after)
    # A change of length epsilon is one of no more than epsilon a value, which may do more.
    wider = F.cross_entropy(model(pgd(model, images, targets, epsilon, indices=indices)), targets)
    assert float(after) <= float(wider.detach()) * (1 + 1e-3)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("epsilon", [0.02, 0.3])
def test_attacks_stay_in_their_ball_and_hurt(epsilon: float) -> None:
    model, images, targets, indices = _attacked()
    one = fgsm(model, images, targets, epsilon)
    many = pgd(model, images, targets, epsilon, steps=20, indices=indices)
    clean = F.cross_entropy(model(images), targets).detach()
    losses = []
    for found in (one, many):
        assert float((found - images).abs().max()) <= epsilon + 1e-6
        assert float(found.min()) >= 0 and float(found.max()) <= 1
        losses.append(float(F.cross_entropy(model(found), targets).detach()))
    assert float(clean) < losses[0] <= losses[1] * (1 + 1e-3)
    part = pgd(model, images[5:9], targets[5:9], epsilon, steps=20, indices=indices[5:9])
    torch.testing.assert_close(part, many[5:9], atol=1e-5, rtol=0)


def test_a_boundless_attack_leaves_nothing() -> None:
    model, images, targets, indices = _attacked()
    found = pgd(model, images, targets, 1.0, steps=40, indices=indices)
    assert float((model(found).argmax(1) == targets).float().mean()) < 0.1
    assert math.isfinite(float(found.sum()))
    assert all(p.grad is None for p in model.parameters())
