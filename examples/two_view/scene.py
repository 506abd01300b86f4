"""Rooms of textured planes, seen by two cameras: pictures with the exact point of every pixel.

A room has a floor, a ceiling, a back wall, two side walls and a board that stands in it. All are
patterned with tiles of one size, each in shades of its own colour: how far something is can be read
from its tiles and edges, and from how they shift between the views. A pair is a function of its
number alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Camera", "Pair", "Planes", "make_pairs", "render"]

TILE = 0.5
"""Side of a tile in metres."""

FIELD_OF_VIEW = math.radians(60)

PAINT = torch.tensor(
    [
        [[0.35, 0.25, 0.15], [0.60, 0.45, 0.30]],  # floor
        [[0.75, 0.75, 0.75], [0.95, 0.95, 0.95]],  # ceiling
        [[0.15, 0.25, 0.60], [0.35, 0.50, 0.85]],  # back wall
        [[0.15, 0.45, 0.20], [0.35, 0.70, 0.40]],  # left wall
        [[0.55, 0.15, 0.45], [0.80, 0.40, 0.70]],  # right wall
        [[0.75, 0.30, 0.05], [0.95, 0.60, 0.10]],  # board
    ]
)
"""Colours of the two kinds of tiles of each plane; each room mixes its own shades of them."""

SHADES = 0.3
"""How far apart a colour may lie in two rooms."""


@dataclass(frozen=True)
class Camera:
    """Where pictures are taken from.

    Attributes:
        rotation: (B, 3, 3), from the camera's axes (right, down, ahead) to the world's.
        position: (B, 3), metres.
    """

    rotation: Tensor
    position: Tensor

    def own(self, points: Tensor) -> Tensor:
        """World points (B, ..., 3) in the camera's frame."""
        flat = points.flatten(1, -2) - self.position[:, None]
        return (flat @ self.rotation).view(points.shape)


@dataclass(frozen=True)
class Planes:
    """Patterned rectangles, P to a room.

    Attributes:
        centre: (B, P, 3).
        along, across: unit vectors in the plane, (B, P, 3) each.
        extent: half sides, (B, P, 2).
        colours: of the two kinds of tiles, in 0 ... 1, (B, P, 2, 3).
    """

    centre: Tensor
    along: Tensor
    across: Tensor
    extent: Tensor
    colours: Tensor


@dataclass(frozen=True)
class Pair:
    """Two pictures of each room, and the truth about them.

    Attributes:
        images: of both views, (B, 3, side, side) each, from -1 to 1.
        points: of each pixel in the first camera's frame, (B, side, side, 3) each.
        cameras: of both views.
    """

    images: tuple[Tensor, Tensor]
    points: tuple[Tensor, Tensor]
    cameras: tuple[Camera, Camera]


def make_pairs(first: int, count: int, side: int) -> Pair:
    """Rooms number ``first`` to ``first + count - 1``, two views each, ``side`` pixels wide."""
    draws = [
        torch.rand(64, generator=torch.Generator().manual_seed(first + i)) for i in range(count)
    ]
    chance = torch.stack(draws)
    planes = _room(chance[:, :44])
    cameras = (_camera(chance[:, 44:54]), _camera(chance[:, 54:64]))
    images, points = [], []
    for camera in cameras:
        image, world = render(planes, camera, side)
        images.append(image)
        points.append(cameras[0].own(world))
    return Pair((images[0], images[1]), (points[0], points[1]), cameras)


def render(planes: Planes, camera: Camera, side: int) -> tuple[Tensor, Tensor]:
    """What a camera sees.

    Returns:
        Images (B, 3, side, side) from -1 to 1, and the world point behind each pixel's centre,
        (B, side, side, 3). Where a ray meets no plane the picture is black and the point lies 10 m
        ahead; rooms of :func:`make_pairs` have no such place.
    """
    rays = _rays(side) @ camera.rotation.mT  # (B, pixels, 3) in the world
    normal = torch.linalg.cross(planes.along, planes.across)
    to_plane = planes.centre - camera.position[:, None]
    towards = torch.einsum("bnc,bpc->bnp", rays, normal)
    away = (to_plane * normal).sum(-1)[:, None] / torch.where(
        towards.abs() < 1e-6, torch.full_like(towards, 1e-6), towards
    )
    hit = camera.position[:, None, None] + away[..., None] * rays[:, :, None]
    offset = hit - planes.centre[:, None]
    u = torch.einsum("bnpc,bpc->bnp", offset, planes.along)
    v = torch.einsum("bnpc,bpc->bnp", offset, planes.across)
    inside = (u.abs() <= planes.extent[:, None, :, 0]) & (v.abs() <= planes.extent[:, None, :, 1])
    away = away.masked_fill(~inside | (away < 0.05), math.inf)
    nearest, plane = away.min(dim=-1, keepdim=True)
    seen = nearest.isfinite()
    points = camera.position[:, None] + torch.where(seen, nearest, 10.0) * rays
    colour = _pattern(u.gather(2, plane), v.gather(2, plane), plane, planes.colours)
    image = torch.where(seen, 2 * colour - 1, -1.0)
    square = (len(points), side, side, 3)
    return image.view(square).permute(0, 3, 1, 2).contiguous(), points.view(square)


def _rays(side: int) -> Tensor:
    """Directions through the pixels' centres with 1 ahead, (side^2, 3), row by row."""
    places = ((torch.arange(side) + 0.5) / side * 2 - 1) * math.tan(FIELD_OF_VIEW / 2)
    down, right = torch.meshgrid(places, places, indexing="ij")
    return torch.stack([right, down, torch.ones_like(right)], dim=-1).view(-1, 3)


def _pattern(u: Tensor, v: Tensor, plane: Tensor, colours: Tensor) -> Tensor:
    """Colour of places on planes, (B, pixels, 3): tiles, each a little brighter at one corner."""
    tile_u, tile_v = (u / TILE).floor(), (v / TILE).floor()
    kind = ((tile_u + tile_v) % 2).long()
    batch = torch.arange(len(u))[:, None, None]
    flat = colours[batch, plane, kind].squeeze(2)
    shade = 0.75 + 0.125 * ((u / TILE - tile_u) + (v / TILE - tile_v))
    return flat * shade


def _room(chance: Tensor) -> Planes:
    """Planes from 44 random numbers a room, (B, 44) in 0 ... 1."""
    batch = len(chance)
    wall, left, right = (
        _between(chance[:, i], *r) for i, r in enumerate([(3.5, 6), (-3, -2), (2, 3)])
    )
    board_x, board_z = _between(chance[:, 3], -1, 1), _between(chance[:, 4], 2.2, 3.2)
    turn = _between(chance[:, 5], -0.8, 0.8)
    width, height = _between(chance[:, 6], 0.4, 0.8), _between(chance[:, 7], 0.4, 1.0)
    zero, one = torch.zeros(batch), torch.ones(batch)

    def vector(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        return torch.stack([x, y, z], dim=-1)

    x_axis, y_axis, z_axis = (
        vector(*axis) for axis in ((one, zero, zero), (zero, one, zero), (zero, zero, one))
    )
    floor, ceiling = one, -2 * one  # y points down; cameras are near y = 0
    centre = [
        vector(zero, floor, zero),
        vector(zero, ceiling, zero),
        vector(zero, zero, wall),
        vector(left, zero, zero),
        vector(right, zero, zero),
        vector(board_x, floor - height, board_z),
    ]
    along = [x_axis, x_axis, x_axis, z_axis, z_axis, vector(turn.cos(), zero, turn.sin())]
    across = [z_axis, z_axis, y_axis, y_axis, y_axis, y_axis]
    large = torch.full((batch, 2), 20.0)
    extent = [large] * 5 + [torch.stack([width, height], dim=-1)]
    colours = (PAINT + SHADES * (chance[:, 8:44].view(batch, 6, 2, 3) - 0.5)).clamp(0, 1)
    stack = [torch.stack(parts, dim=1) for parts in (centre, along, across, extent)]
    return Planes(*stack, colours)


def _camera(chance: Tensor) -> Camera:
    """A camera near the middle that looks ahead, from 10 random numbers, (B, 10) in 0 ... 1."""
    position = torch.stack(
        [
            _between(chance[:, 0], -0.8, 0.8),
            _between(chance[:, 1], -0.3, 0.3),
            _between(chance[:, 2], -0.5, 0.5),
        ],
        dim=-1,
    )
    yaw, pitch = _between(chance[:, 3], -0.35, 0.35), _between(chance[:, 4], -0.05, 0.25)
    zero, one = torch.zeros_like(yaw), torch.ones_like(yaw)
    turn = torch.stack(
        [yaw.cos(), zero, yaw.sin(), zero, one, zero, -yaw.sin(), zero, yaw.cos()], dim=-1
    ).view(-1, 3, 3)
    nod = torch.stack(
        [one, zero, zero, zero, pitch.cos(), pitch.sin(), zero, -pitch.sin(), pitch.cos()], dim=-1
    ).view(-1, 3, 3)
    return Camera(turn @ nod, position)


def _between(chance: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * chance
