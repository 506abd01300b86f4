"""Attention distance against hand formulas and loops."""

from __future__ import annotations

import math

import pytest
import torch

from tests.explain.subjects import GRID, MODELS, PREFIX, VIT, build, ours, pictures
from vitkit.explain import attention_distance, attention_maps, mean_attention_distance

ROWS, COLUMNS, HEIGHT, WIDTH = 3, 4, 2.0, 5.0


def far(
    one: int, other: int, columns: int = COLUMNS, cell: tuple[float, float] = (HEIGHT, WIDTH)
) -> float:
    rows = (one // columns - other // columns) * cell[0]
    return math.hypot(rows, (one % columns - other % columns) * cell[1])


def test_uniform_identity_and_one_far_place() -> None:
    count = ROWS * COLUMNS
    mean = sum(far(i, j) for i in range(count) for j in range(count)) / count**2
    uniform = torch.full((count, count), 1 / count)
    last = torch.zeros(count, count)
    last[:, -1] = 1.0
    maps = torch.stack([uniform, torch.eye(count), last])
    found = attention_distance(maps, (ROWS, COLUMNS), (HEIGHT, WIDTH))
    to_last = sum(far(i, count - 1) for i in range(count)) / count
    torch.testing.assert_close(found, torch.tensor([mean, 0.0, to_last]))


def test_prefix_tokens_have_no_place_and_take_no_share() -> None:
    count, prefix = ROWS * COLUMNS, 2
    bare = torch.rand(2, 3, count, count, generator=torch.Generator().manual_seed(0))
    expected = attention_distance(bare / bare.sum(-1, keepdim=True), (ROWS, COLUMNS))
    maps = torch.rand(2, 3, count + prefix, count + prefix)
    maps[..., prefix:, prefix:] = 0.1 * bare
    torch.testing.assert_close(attention_distance(maps, (ROWS, COLUMNS)), expected)
    maps[..., prefix:, prefix:] = 0.0  # all attention at the prefix: no distance, and no nan
    assert attention_distance(maps, (ROWS, COLUMNS)).eq(0).all()


def written_out(
    maps: torch.Tensor, grid: tuple[int, int], cell: tuple[float, float]
) -> torch.Tensor:
    """Mean distance of maps (..., N, N), of the share that goes to patches."""
    count = grid[0] * grid[1]
    way = torch.tensor([[far(i, j, grid[1], cell) for j in range(count)] for i in range(count)])
    patches = maps[..., -count:, -count:]
    return ((patches * way).sum(-1) / patches.sum(-1)).mean(-1)


@pytest.mark.parametrize("name", MODELS)
def test_of_every_family_in_pixels(name: str) -> None:
    model, images = build(name), pictures()
    found = mean_attention_distance(model, images)
    maps = attention_maps(model, images)
    assert found.shape == maps.shape[:3]
    expected = written_out(maps, GRID, (16 / GRID[0], 24 / GRID[1]))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert (found > 0).all() and (found < math.hypot(16, 24)).all()
    assert PREFIX.get(name, 0) == maps.shape[-1] - GRID[0] * GRID[1]


def test_of_patches_that_are_not_square() -> None:
    model, images = ours(VIT, patch_size=(2, 8))().eval(), pictures()
    expected = written_out(attention_maps(model, images), (8, 3), (2.0, 8.0))
    found = mean_attention_distance(model, images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
