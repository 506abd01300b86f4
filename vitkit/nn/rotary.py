"""Rotary positions: a token's place as angles by which pairs of channels of q and k turn."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from vitkit.nn.positions import geometric_frequencies, grid_positions

__all__ = ["CentredRotary2d", "Rotary1d", "Rotary2d", "Rotation"]

Pairing = Literal["interleaved", "half", "axial"]


@dataclass(frozen=True)
class Rotation:
    """Turns pairs of channels of q or k by the angles of their tokens' positions.

    Attributes:
        cos, sin: (N, R) or broadcastable to (B, H, N, R); R may be less than the head width D,
            then the first R channels turn.
        pairing: which channels form a pair: ``interleaved`` (0, 1), (2, 3), ...; ``half``
            (i, i + R/2); ``axial`` half-split within each half of the channels.
    """

    cos: Tensor
    sin: Tensor
    pairing: Pairing = "interleaved"

    def __call__(self, x: Tensor) -> Tensor:
        """(B, H, N, D) -> the same, turned in float32 and cast back."""
        width = self.cos.shape[-1]
        turning = x if width == x.shape[-1] else x[..., :width]
        turned = (turning * self.cos + _rotate_half(turning, self.pairing) * self.sin).to(x.dtype)
        return turned if width == x.shape[-1] else torch.cat([turned, x[..., width:]], dim=-1)

    def __getitem__(self, tokens: slice) -> Rotation:
        """The rotation of some of the tokens."""
        return Rotation(self.cos[..., tokens, :], self.sin[..., tokens, :], self.pairing)

    def with_prefix(self, count: int) -> Rotation:
        """The same behind ``count`` tokens that do not turn (class token, registers)."""
        if count == 0:
            return self
        shape = (*self.cos.shape[:-2], count, self.cos.shape[-1])
        cos = torch.cat([self.cos.new_ones(shape), self.cos], dim=-2)
        return Rotation(cos, torch.cat([self.sin.new_zeros(shape), self.sin], -2), self.pairing)


class Rotary1d(nn.Module):
    """Rotary positions along a sequence.

    Args:
        head_dim: D, even.
        base: wavelengths run from 2 pi to 2 pi base.
        pairing: ``interleaved`` (RoFormer, timm) or ``half`` (Hugging Face's LLaMA).

    Raises:
        ValueError: an odd head width.

    Source: Su et al., "RoFormer", arXiv 2104.09864.
    """

    def __init__(
        self, head_dim: int, *, base: float = 10000.0, pairing: Pairing = "interleaved"
    ) -> None:
        super().__init__()
        if head_dim % 2:
            raise ValueError(f"rotary positions need an even head width, given {head_dim}")
        self.head_dim, self.base, self.pairing = head_dim, base, pairing

    def forward(self, positions: Tensor) -> Rotation:
        """Rotation of tokens at ``positions``, int or float (N,) or (B, 1, N)."""
        angles = _angles(positions, geometric_frequencies(self.head_dim // 2, self.base))
        return _rotation(angles, self.pairing)


class Rotary2d(nn.Module):
    """Rotary positions on a grid: half of the pairs turn by the row, half by the column.

    Args:
        head_dim: D, a multiple of 4.
        base: 10000 in EVA-02 and timm, 100 in CroCo and DUSt3R.
        pairing: ``interleaved`` (EVA-02, timm), ``half`` (see :class:`CentredRotary2d`) or
            ``axial`` (CroCo, DUSt3R).
        ref_grid: positions are rescaled to this grid, so that a model keeps its angles at another
            image size; None keeps plain indices.

    Raises:
        ValueError: a head width that is no multiple of 4.

    Source: the 2-D form of arXiv 2104.09864 as used in EVA-02 (arXiv 2303.11331) and CroCo v2
    (arXiv 2211.10408).
    """

    def __init__(
        self,
        head_dim: int,
        *,
        base: float = 10000.0,
        pairing: Pairing = "interleaved",
        ref_grid: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        if head_dim % 4:
            raise ValueError(f"2-D rotary positions need a head width in 4s, given {head_dim}")
        self.head_dim, self.base, self.pairing, self.ref_grid = head_dim, base, pairing, ref_grid

    def forward(
        self, grid: tuple[int, int], *, device: torch.device | str | None = None
    ) -> Rotation:
        """Rotation of a whole grid, row by row."""
        positions = grid_positions(grid)
        if self.ref_grid is not None:
            positions = positions * torch.tensor(
                [ref / now for ref, now in zip(self.ref_grid, grid, strict=True)]
            )
        return self.at(positions.to(device, _widest(device), non_blocking=True))

    def at(self, positions: Tensor) -> Rotation:
        """Rotation of tokens at (row, column) ``positions``, (..., N, 2)."""
        angles = _angles(positions, geometric_frequencies(self.head_dim // 4, self.base))
        if self.pairing == "axial":
            angles = torch.cat([angles, angles], dim=-1).flatten(-2)
            return Rotation(angles.cos().float(), angles.sin().float(), "axial")
        return _rotation(angles.flatten(-2), self.pairing)


class CentredRotary2d(Rotary2d):
    """Rotary positions of patch centres in a frame from -1 to 1 on each axis, whatever the grid.

    A picture of another size or shape has the same corners, so nothing has to be rescaled. A
    frequency of one turns once over half a picture; channel i pairs with i + D/2, the first half of
    the pairs turns by the row.

    Args:
        head_dim: D, a multiple of 4.
        base: frequencies run from 1 down to almost 1 / base.

    Raises:
        ValueError: a head width that is no multiple of 4.

    Source: Siméoni et al., "DINOv3", arXiv 2508.10104.
    """

    def __init__(self, head_dim: int, *, base: float = 100.0) -> None:
        super().__init__(head_dim, base=base, pairing="half")

    def forward(
        self, grid: tuple[int, int], *, device: torch.device | str | None = None
    ) -> Rotation:
        """Rotation of a whole grid, row by row."""
        cells = grid_positions(grid).unbind(dim=1)
        centres = [(cell + 0.5) * (2.0 / n) - 1.0 for cell, n in zip(cells, grid, strict=True)]
        turns = 2.0 * math.pi * torch.stack(centres, dim=1)
        return self.at(turns.to(device, _widest(device), non_blocking=True))


def _widest(device: torch.device | str | None) -> torch.dtype:
    """The longest float of a device: Apple's has no float64."""
    name = device.type if isinstance(device, torch.device) else str(device)
    return torch.float32 if name.startswith("mps") else torch.float64


def _angles(positions: Tensor, frequencies: Tensor) -> Tensor:
    """(...) and (F,) -> (..., F), where the positions are."""
    dtype = _widest(positions.device)
    frequencies = frequencies.to(positions.device, dtype, non_blocking=True)
    return positions.to(dtype)[..., None] * frequencies


def _rotation(angles: Tensor, pairing: Pairing) -> Rotation:
    """Angles (..., N, D / 2), one per pair, spread over both channels of each pair."""
    if pairing == "interleaved":
        angles = angles.repeat_interleave(2, dim=-1)
    else:
        angles = torch.cat([angles, angles], dim=-1)
    return Rotation(angles.cos().float(), angles.sin().float(), pairing)


def _rotate_half(x: Tensor, pairing: Pairing) -> Tensor:
    """(a, b) -> (-b, a) in every pair of channels."""
    if pairing == "interleaved":
        return torch.stack([-x[..., 1::2], x[..., 0::2]], dim=-1).flatten(-2)
    halves = 2 if pairing == "half" else 4
    parts = x.chunk(halves, dim=-1)
    turned = [p for a, b in zip(parts[0::2], parts[1::2], strict=True) for p in (-b, a)]
    return torch.cat(turned, dim=-1)
