"""The toy: rooms whose truth is exact, a loss that equals its formula, a training that learns."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from examples.two_view import toy
from examples.two_view.heads import PointMap
from examples.two_view.losses import confidence_loss, point_error
from examples.two_view.scene import FIELD_OF_VIEW, Camera, Planes, make_pairs, render
from vitkit.errors import RunError


def wall(distance: float, turn: float = 0.0) -> Planes:
    """One endless plane across the view, turned about the vertical."""
    return Planes(
        centre=torch.tensor([[[0.0, 0.0, distance]]]),
        along=torch.tensor([[[math.cos(turn), 0.0, math.sin(turn)]]]),
        across=torch.tensor([[[0.0, 1.0, 0.0]]]),
        extent=torch.full((1, 1, 2), 50.0),
        colours=torch.tensor([[[[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]]]),
    )


def at_origin() -> Camera:
    return Camera(torch.eye(3)[None], torch.zeros(1, 3))


def test_points_of_a_wall_are_where_geometry_says() -> None:
    _, points = render(wall(3.0), at_origin(), 8)
    half = 3.0 * math.tan(FIELD_OF_VIEW / 2)
    places = torch.linspace(-half * 7 / 8, half * 7 / 8, 8)
    torch.testing.assert_close(points[0, ..., 0], places.expand(8, 8))
    torch.testing.assert_close(points[0, ..., 1], places[:, None].expand(8, 8))
    torch.testing.assert_close(points[0, ..., 2], torch.full((8, 8), 3.0))
    _, turned = render(wall(3.0, 0.5), at_origin(), 8)
    normal = torch.tensor([-math.sin(0.5), 0.0, math.cos(0.5)])
    torch.testing.assert_close(turned @ normal, torch.full((1, 8, 8), 3.0 * math.cos(0.5)))


def test_nothing_to_see_is_black() -> None:
    image, points = render(wall(-3.0), at_origin(), 4)
    assert (image == -1).all()
    torch.testing.assert_close(points[..., 2], torch.full((1, 4, 4), 10.0))


def test_a_point_seen_by_both_cameras_has_one_colour_and_one_place() -> None:
    pair = make_pairs(0, 4, 96)
    first, second = pair.cameras
    # The first view's points, carried to the second camera and projected into its picture.
    world = pair.points[0].flatten(1, 2) @ first.rotation.mT + first.position[:, None]
    seen = second.own(world)
    places = seen[..., :2] / seen[..., 2:] / math.tan(FIELD_OF_VIEW / 2)
    there = torch.nn.functional.grid_sample(
        pair.points[1].permute(0, 3, 1, 2), places[:, None], align_corners=False
    )[:, :, 0].mT
    here = pair.points[0].flatten(1, 2)
    inside = (places.abs() < 0.97).all(dim=-1) & (seen[..., 2] > 0)
    both = inside & ((there - here).norm(dim=-1) < 0.05)  # not hidden by the board
    assert inside.float().mean() > 0.2
    assert both.sum() > 0.7 * inside.sum()
    colours = torch.nn.functional.grid_sample(
        pair.images[1], places[:, None], mode="nearest", align_corners=False
    )[:, :, 0].mT
    difference = (colours - pair.images[0].flatten(2).mT).abs().amax(dim=-1)[both]
    assert (difference < 0.2).float().mean() > 0.85  # the rest lies at edges of tiles


def test_a_pair_is_a_function_of_its_number() -> None:
    three, two = make_pairs(5, 3, 16), make_pairs(6, 2, 16)
    for view in range(2):
        torch.testing.assert_close(three.images[view][1:], two.images[view])
        torch.testing.assert_close(three.points[view][1:], two.points[view])
    assert not torch.equal(three.images[0][0], three.images[0][1])
    assert torch.isfinite(torch.stack(three.points)).all()
    assert min(float(p[..., 2].min()) for p in make_pairs(0, 50, 16).points[:1]) > 0.2


def views(seed: int) -> list[Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 4, 5, 3, generator=draw) for _ in range(2)]


def test_the_loss_knows_no_unit_and_equals_its_formula() -> None:
    predicted, true = views(0), views(1)
    assert point_error([7 * t for t in true], true).tolist() == pytest.approx([0, 0], abs=1e-6)
    torch.testing.assert_close(
        point_error([0.1 * p for p in predicted], [3 * t for t in true]),
        point_error(predicted, true),
    )
    confidence = [1 + torch.rand(2, 4, 5) for _ in range(2)]
    maps = [PointMap(p, c) for p, c in zip(predicted, confidence, strict=True)]
    expected = 0.0
    for example in range(2):
        z, zt = (
            torch.cat([v[example].norm(dim=-1).flatten() for v in side]).mean()
            for side in (predicted, true)
        )
        for view in range(2):
            distance = (predicted[view][example] / z - true[view][example] / zt).norm(dim=-1)
            c = confidence[view][example]
            expected += float((c * distance - 0.2 * c.log()).mean()) / 4
    assert confidence_loss(maps, true).item() == pytest.approx(expected, rel=1e-5)


def test_the_toy_learns_draws_and_goes_on_where_it_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toy, "SAMPLE", 16)
    monkeypatch.setattr(toy, "SAVE_EVERY", 20)
    monkeypatch.setattr(toy, "BATCH", 4)
    state, picture = tmp_path / "a" / "state.pt", tmp_path / "b" / "picture.svg"
    arguments = ["--steps", "40", "--state", str(state), "--picture", str(picture)]
    whole = toy.main(arguments)
    assert whole.after < 0.8 * whole.before
    text = picture.read_text()
    assert text.startswith("<svg") and text.count("<image") == 11 and len(text) < 300_000
    assert "point-map error after 40 steps" in capsys.readouterr().out

    real = toy.confidence_loss
    calls = []

    def stops_in_the_middle(*given: object) -> Tensor:
        calls.append(given)
        if len(calls) == 30:
            raise KeyboardInterrupt
        return real(*given)  # type: ignore[arg-type]

    other = ["--steps", "40", "--state", str(tmp_path / "other.pt")]
    monkeypatch.setattr(toy, "confidence_loss", stops_in_the_middle)
    with pytest.raises(KeyboardInterrupt):
        toy.main(other)
    monkeypatch.setattr(toy, "confidence_loss", real)
    again = toy.main(other)
    assert "going on behind step 20" in capsys.readouterr().out
    assert again.after == whole.after
    with pytest.raises(RunError, match="belongs to a training of 40 steps, not 50"):
        toy.main(["--steps", "50", *other[2:]])
