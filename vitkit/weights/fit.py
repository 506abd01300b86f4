"""Tensors made to fit a model: positions of another grid, patches of another size, other channels.

A patch kernel of another size is the pseudo-inverse resize of FlexiViT (Beyer et al., arXiv
2212.08013): the kernel whose tokens on resized patches are nearest to the old ones on the patches
as they were, and exactly these where patches grow. Resampling the kernel as if it were a picture
changes the scale of the tokens, which the trunk was not trained for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitkit.nn import resize_offsets
from vitkit.weights.formats import Resampling
from vitkit.weights.shapes import grid_of_positions, prefix_counts

__all__ = [
    "OFFSETS",
    "TEXT_POSITIONS",
    "adapt_channels",
    "first_rows",
    "fit_kernel",
    "fit_offsets",
    "fit_positions",
    "pixel_kernel",
    "resample_positions",
    "resize_kernel",
]

TEXT_POSITIONS = "words.pos_embed"
"""Learned positions of a model of words."""

OFFSETS = "rel_pos.table"
"""Learned biases of a ViT for the offset between two patches."""

Grid = tuple[int, int]


def pixel_kernel(model: nn.Module) -> str:
    """The name of the weight that reads pixels: the first convolution's of what makes tokens of
    pictures; empty where the model does not say what that is.
    """
    embed = _embedding(model)
    own = embed.parameters() if isinstance(embed, nn.Module) else iter(())
    first = next((kernel for kernel in own if kernel.ndim == 4), None)
    return next((name for name, kernel in model.named_parameters() if kernel is first), "")


def fit_kernel(model: nn.Module, name: str, kernel: Tensor) -> Tensor | None:
    """A first layer's weight at the patch size and with the channels of a model.

    Args:
        model: the one that will take it.
        name: of the weight.
        kernel: (C, channels, height, width).

    Returns:
        The fitted weight, or None if it is no such weight.
    """
    own = model.state_dict()[name]
    if name != pixel_kernel(model) or kernel.ndim != 4 or kernel.shape[0] != own.shape[0]:
        return None
    embed = _embedding(model)
    size = (int(own.shape[2]), int(own.shape[3]))
    resizes = tuple(kernel.shape[2:]) != size
    if resizes and tuple(getattr(embed, "patch_size", ())) != size:
        return None  # a stem of convolutions, whose kernels see another thing
    kernel = adapt_channels(kernel, int(own.shape[1]))
    return resize_kernel(kernel, size) if resizes else kernel


def first_rows(table: Tensor, own: Tensor) -> Tensor | None:
    """Positions of a text (1, N, C) for a model of fewer: the first; None for any other model."""
    fits = table.ndim == own.ndim and table.shape[2:] == own.shape[2:]
    return table[:, : own.shape[1]] if fits and table.shape[1] > own.shape[1] else None


def adapt_channels(kernel: Tensor, in_chans: int) -> Tensor:
    """A convolution's weight for pictures of other channels.

    Grey pictures get the sum over the channels: the same output as of three equal channels. Others
    get the channels repeated in turn and scaled, so that the output keeps its size (timm's rule).

    Args:
        kernel: (C, channels, height, width).
        in_chans: channels wanted.
    """
    given = kernel.shape[1]
    if given == in_chans:
        return kernel
    wide = kernel.float()
    if in_chans == 1:
        return wide.sum(dim=1, keepdim=True).to(kernel.dtype)
    repeated = wide.repeat(1, -(-in_chans // given), 1, 1)[:, :in_chans]
    return (repeated * (given / in_chans)).to(kernel.dtype)


def resize_kernel(kernel: Tensor, size: Grid) -> Tensor:
    """A patch kernel for patches of another size, by the pseudo-inverse of their resizing.

    Args:
        kernel: (C, channels, height, width).
        size: (height, width) wanted.

    Source: Beyer et al., "FlexiViT", arXiv 2212.08013, section 3.4.
    """
    old = (int(kernel.shape[2]), int(kernel.shape[3]))
    pixels = torch.eye(old[0] * old[1], dtype=torch.float64).unflatten(1, (1, *old))
    resized = F.interpolate(pixels, size=size, mode="bicubic", antialias=True).flatten(1)
    # Where one side grows and the other shrinks, some singular values are zero but for rounding.
    inverse = torch.linalg.pinv(resized, rtol=1e-6)  # (new pixels, old pixels)
    flat = kernel.double().flatten(2) @ inverse.T
    return flat.unflatten(2, size).to(kernel.dtype)


def fit_positions(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    resampling: Resampling,
    stated: Grid | None = None,
) -> dict[str, Tensor]:
    """Learned positions on a model's grid, with rows for those of its tokens that want one.

    Rows of tokens before the patches that the model's table lacks are added to the tokens
    themselves; rows that only the model has are zero. Neither changes what comes out.

    Args:
        model: with ``pos_embed`` and a grid.
        tensors: by our names.
        resampling: how to come from grid to grid.
        stated: the grid of the given positions, where it is known.

    Returns:
        ``pos_embed`` and the tokens that took rows in; nothing where it fits as it is.

    Raises:
        WeightsError: the given positions have no grid.
    """
    own, table = model.state_dict().get("pos_embed"), tensors.get("pos_embed")
    new = getattr(_embedding(model), "grid_size", None)
    if own is None or table is None or table.ndim != 3 or new is None:
        return {}
    if own.shape[-1] != table.shape[-1]:
        return {}
    new = (int(new[0]), int(new[1]))
    same = own.shape == table.shape  # then the grid is taken to be the model's, also if not square
    rows, old = grid_of_positions(tensors, stated or (new if same else None), new)
    given, wanted = prefix_counts(tensors), prefix_counts(model.state_dict())
    keeps = int(own.shape[1]) > new[0] * new[1]
    if old == new and same and given == wanted:
        return {}
    parts = _parts(table, given) if rows else {}
    out: dict[str, Tensor] = {}
    cells = resample_positions(table[:, rows:], old, new, resampling)
    if keeps:
        width = int(table.shape[2])
        empty = {name: table.new_zeros(1, count, width) for name, count in wanted.items()}
        prefix = {**empty, **_same_size(parts, empty)}
        out["pos_embed"] = torch.cat([*prefix.values(), cells], dim=1)
    else:
        out["pos_embed"] = cells
        out |= {name: tensors[name] + part for name, part in parts.items() if name in wanted}
    return out


def fit_offsets(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Biases of offsets on a model's grid, by the rule of :func:`vitkit.nn.resize_offsets`, as the
    model itself takes them to pictures of another size.

    Args:
        model: the one that will take them.
        tensors: by our names.

    Returns:
        The table by its name; nothing where it fits as it is, or is of another model.
    """
    own, table = model.state_dict().get(OFFSETS), tensors.get(OFFSETS)
    if own is None or table is None or table.ndim != own.ndim or table.shape[:2] != own.shape[:2]:
        return {}
    if table.shape == own.shape:
        return {}
    rows, columns = ((int(side) + 1) // 2 for side in own.shape[2:])
    return {OFFSETS: resize_offsets(table.double(), (rows, columns)).to(table.dtype)}


def resample_positions(cells: Tensor, old: Grid, new: Grid, resampling: Resampling) -> Tensor:
    """Positions (1, rows * columns, C) of one grid on another, in float32."""
    if old == new:
        return cells
    image = cells.float().unflatten(1, old).permute(0, 3, 1, 2)
    where: dict[str, Any] = {"size": new}
    if resampling.offset:
        sides = zip(new, old, strict=True)
        where = {"scale_factor": tuple((n + resampling.offset) / o for n, o in sides)}
    image = F.interpolate(
        image,
        **where,
        mode=resampling.mode,
        antialias=resampling.antialias,
        align_corners=resampling.align_corners,
    )
    return image.flatten(2).transpose(1, 2).to(cells.dtype)


def _embedding(model: nn.Module) -> Any:
    """What makes tokens of pictures, and knows their grid."""
    return getattr(model, "patch_embed", None)


def _parts(table: Tensor, counts: Mapping[str, int]) -> dict[str, Tensor]:
    """The rows of each token before the patches."""
    rows = table[:, : sum(counts.values())].split(list(counts.values()), dim=1)
    return dict(zip(counts, rows, strict=True))


def _same_size(parts: Mapping[str, Tensor], empty: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of the rows that have a place of the same size."""
    return {n: p for n, p in parts.items() if n in empty and p.shape == empty[n].shape}
