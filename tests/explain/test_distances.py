"""Attention distance against hand formulas and loops."""

from __future__ import annotations

import math

import pytest
import torch

from tests.explain.subjects import GRID, MODELS, PREFIX, build, pictures
from vitkit.explain import attention_distance, attention_maps, mean_attention_distance

ROWS, COLUMNS, HEIGHT, WIDTH = 3, 4, 2.0, 5.0


def far(one: int, other: int) -> float:
    rows = (one // COLUMNS - other // COLUMNS) * HEIGHT
    return math.hypot(rows, (one % COLUMNS - other % COLUMNS) * WIDTH)


def mean_distance(
    maps: torch.Tensor, grid: tuple[int, int], patch: tuple[int, int]
) -> torch.Tensor:
    """The same written once more: maps (B, H, N, M) -> (H,) pixels."""
    rows, columns = torch.meshgrid(*map(torch.arange, grid), indexing="ij")
    places = torch.stack([rows.flatten() * patch[0], columns.flatten() * patch[1]], dim=1).float()
    patches = maps[:, :, -len(places) :, -len(places) :]
    shares = patches / patches.sum(dim=-1, keepdim=True)
    return (shares * torch.cdist(places, places)).sum(dim=-1).mean(dim=(0, 2))


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


@pytest.mark.parametrize("name", MODELS)
def test_of_every_family_in_pixels(name: str) -> None:
    model, images = build(name), pictures()
    found = mean_attention_distance(model, images)
    maps = attention_maps(model, images)
    assert found.shape == maps.shape[:3]
    patch = (16 // GRID[0], 24 // GRID[1])
    for layer in range(found.shape[1]):
        expected = mean_distance(maps[:, layer], GRID, patch)
        torch.testing.assert_close(found[:, layer].mean(0), expected, rtol=1e-4, atol=1e-4)
    assert (found > 0).all() and (found < math.hypot(16, 24)).all()
    assert PREFIX.get(name, 0) == maps.shape[-1] - GRID[0] * GRID[1]
