"""What becomes of the tokens from block to block: their lengths, what is like the class token."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitkit.explain.anatomy import anatomy_of, chosen_layers, hooked
from vitkit.nn import evaluating

__all__ = ["block_tokens", "class_token_similarity", "token_norms"]


@torch.no_grad()
def block_tokens(model: nn.Module, images: Tensor, layers: Sequence[int] | None = None) -> Tensor:
    """The tokens behind some of the blocks.

    Args:
        model: vitkit's or timm's, of patches and blocks; attention is not needed.
        images: its input, float (B, channels, height, width).
        layers: blocks, counted from 0; negative ones from the end; None: all.

    Returns:
        (B, L, N, C), as the model computes them in evaluation.

    Raises:
        EvaluationError: another kind of model.
        ConfigError: a block that does not exist.
    """
    blocks = anatomy_of(model).blocks
    wanted = chosen_layers(len(blocks), layers, "block")
    seen: dict[int, Tensor] = {}
    with (
        evaluating(model),
        hooked([blocks[i] for i in wanted], lambda i, out: seen.update({i: out})),
    ):
        model(images)
    return torch.stack([seen[i] for i in range(len(wanted))], dim=1)


def class_token_similarity(
    model: nn.Module, images: Tensor, layers: Sequence[int] | None = None
) -> Tensor:
    """Cosine of the class token with each patch token, behind each block.

    Where the head reads the patches, their mean stands for the class token.

    Args:
        model, images, layers: as of :func:`block_tokens`.

    Returns:
        float32 (B, L, rows, columns) in [-1, 1].
    """
    anatomy = anatomy_of(model)
    tokens = block_tokens(model, images, layers).float()
    patches = tokens[:, :, anatomy.num_prefix :]
    read = tokens[:, :, :1] if anatomy.num_read else patches.mean(dim=2, keepdim=True)
    return F.cosine_similarity(patches, read, dim=-1).unflatten(-1, anatomy.grid(images))


def token_norms(model: nn.Module, images: Tensor, layers: Sequence[int] | None = None) -> Tensor:
    """Euclidean length of each token behind each block.

    A few patch tokens far longer than the rest are artefacts: the model keeps global facts there,
    which register tokens take over where there are any.

    Args:
        model, images, layers: as of :func:`block_tokens`.

    Returns:
        float32 (B, L, N), prefix tokens first.

    Source: Darcet et al., "Vision Transformers need registers", arXiv 2309.16588, section 2.
    """
    return block_tokens(model, images, layers).float().norm(dim=-1)
