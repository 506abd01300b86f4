"""Which places look alike to a model: similarity of its position embeddings.

Source: Dosovitskiy et al., "An image is worth 16x16 words", arXiv 2010.11929, figure 7 (middle).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitkit.errors import EvaluationError
from vitkit.explain.anatomy import anatomy_of

__all__ = ["position_similarity"]


@torch.no_grad()
def position_similarity(model: nn.Module) -> Tensor:
    """Cosine of the position embedding of each patch with that of every other.

    Learned and sin-cos tables are compared as they are. Rotary positions have no table: two places
    compare by the mean cosine of the angles between them, which is what a query and a key with all
    pairs of channels alike would feel.

    Args:
        model: vitkit's or timm's, of patches.

    Returns:
        float32 (rows, columns, rows, columns); symmetric, ones where a place meets itself.

    Raises:
        EvaluationError: another kind of model, or one without position embeddings.
    """
    anatomy = anatomy_of(model)
    parts: Any = model
    embed: Any = anatomy.embed
    grid = (int(embed.grid_size[0]), int(embed.grid_size[1]))
    table: Tensor | None = getattr(parts, "pos_embed", None)
    rotary = getattr(parts, "rotary", None)
    if table is not None:
        cells = table[0, -grid[0] * grid[1] :].float()
    elif rotary is not None:
        turn = rotary(grid)
        cells = torch.cat([turn.cos, turn.sin], dim=-1).float()
    else:
        raise EvaluationError(f"{type(model).__name__} has no position embedding")
    cells = F.normalize(cells, dim=-1)
    return (cells @ cells.T).unflatten(0, grid).unflatten(-1, grid)
