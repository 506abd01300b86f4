"""Operations of a forward pass in closed form: what a model's size alone says it must multiply.

Only products count, at two operations (a multiplication and an addition) each; norms, softmax and
activations are left out, as everywhere. With N tokens of width C, inner width I = H D (equal to C
unless ``head_dim`` says otherwise), hidden width M of the MLP:

    linear layer of n rows, a -> b                     2 n a b
    convolution k x k, a -> b channels, r x c places   2 r c k^2 a b
    a block:  queries, keys and values                 2 N C 3 I
              scores q k^T, and their sum over v       2 N N I, twice
              output projection                        2 N I C
              MLP                                      2 N C M, twice

The patch projection is a linear layer of N rows, c P^2 -> C, of pictures of c channels. A training
step costs three forward passes: each product's backward pass is two products of the same size (its
input's gradient and its weight's). The first layer needs no input gradient; that is less than one
per cent and is counted.

The *executed* operations of a ViT that reads its class token alone are fewer: the last block
computes queries, projection and MLP for one token (keys and values for all of them).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from vitkit.models.config import validate_model
from vitkit.models.patches import as_pair, kept_patches
from vitkit.models.presets import family_of

__all__ = ["block_flops", "forward_flops", "training_flops"]

Kwargs = Mapping[str, Any]


def training_flops(section: Kwargs, *, executed: bool = False) -> int:
    """Operations of a training step, an image: three forward passes, without the patches that
    ``patch_drop_rate`` leaves out. Args and errors as of :func:`forward_flops`.
    """
    return 3 * _forward(section, executed=executed, training=True)


def forward_flops(section: Kwargs, *, executed: bool = False) -> int:
    """Operations of a forward pass, an image.

    Args:
        section: a model section: ``name`` and whatever differs from that preset.
        executed: what vitkit computes rather than what the model is.

    Raises:
        ValueError: neither a plain ViT nor a compact Transformer.
    """
    return _forward(section, executed=executed, training=False)


def _forward(section: Kwargs, *, executed: bool, training: bool) -> int:
    config = validate_model(section)
    kwargs = {"in_chans": 3, "img_size": 32, "num_classes": 10, **config.constructor_kwargs()}
    family = family_of(config.name)
    if family == "vit":
        dropped = kwargs.get("patch_drop_rate", 0.0) if training else 0.0
        return _vit(kwargs, executed, dropped)
    if family == "compact":
        return _compact(kwargs)
    raise ValueError(f"no closed form for {config.name}, of the family {family}")


def block_flops(
    tokens: int, width: int, hidden: int, *, inner: int | None = None, queries: int | None = None
) -> int:
    """Operations of a block, an image.

    Args:
        tokens: N.
        width: C.
        hidden: M.
        inner: I; C unless given.
        queries: tokens that the block computes; all of them unless given.
    """
    inner = width if inner is None else inner
    queries = tokens if queries is None else queries
    project = _linear(queries, width, inner) + _linear(tokens, width, 2 * inner)
    attend = 2 * (2 * queries * tokens * inner)
    merge = _linear(queries, inner, width)
    return project + attend + merge + 2 * _linear(queries, width, hidden)


def _vit(kwargs: Kwargs, executed: bool, dropped: float) -> int:
    pool = kwargs.get("global_pool", "token")
    usual = kwargs.get("mlp_layer", "mlp") == "mlp" and pool in ("token", "avg", "max")
    if not usual:
        raise ValueError("no closed form for a ViT with another MLP or pooling")
    width, channels = kwargs["embed_dim"], kwargs["in_chans"]
    size = as_pair(kwargs["img_size"])
    stem = kwargs.get("conv_stem")
    if stem is None:
        rows, columns = (n // p for n, p in zip(size, as_pair(kwargs["patch_size"]), strict=True))
        embed = _linear(rows * columns, channels * size[0] * size[1] // (rows * columns), width)
    else:
        embed, (rows, columns) = _stem(stem, channels, width, size)
    patches = kept_patches(rows * columns, dropped)
    tokens = patches + int(kwargs.get("class_token", True)) + kwargs.get("reg_tokens", 0)
    hidden = int(width * kwargs.get("mlp_ratio", 4.0))
    inner = kwargs["num_heads"] * kwargs["head_dim"] if kwargs.get("head_dim") else width
    blocks = kwargs["depth"] * block_flops(tokens, width, hidden, inner=inner)
    if executed and pool == "token":
        last = block_flops(tokens, width, hidden, inner=inner, queries=1)
        blocks += last - block_flops(tokens, width, hidden, inner=inner)
    return embed + blocks + _linear(1, width, kwargs["num_classes"])


def _stem(
    layers: Sequence[Kwargs], channels: int, width: int, size: tuple[int, int]
) -> tuple[int, tuple[int, int]]:
    """(operations, grid) of a convolutional stem; its pooling comes behind each convolution."""
    total = 0
    for layer in layers:
        kernel, stride, pool = (
            layer.get("kernel_size", 3),
            layer.get("stride", 1),
            layer.get("pool", 1),
        )
        rows, columns = ((n + 2 * ((kernel - 1) // 2) - kernel) // stride + 1 for n in size)
        total += _conv(rows, columns, kernel, channels, layer["dim"])
        channels, size = layer["dim"], (rows // pool, columns // pool)
    return total + _linear(size[0] * size[1], channels, width), size


def _compact(kwargs: Kwargs) -> int:
    width, depth = kwargs["embed_dim"], kwargs["depth"]
    size, channels = as_pair(kwargs["img_size"]), kwargs["in_chans"]
    pool = kwargs.get("global_pool", "seq")
    embed = 0
    if kwargs.get("tokenizer", "conv") == "conv":
        kernel, convs = kwargs.get("kernel_size", 3), kwargs.get("num_conv_layers", 1)
        stride, padding = max(1, kernel // 2 - 1), max(1, kernel // 2)
        widths = [channels, *[kwargs.get("conv_dim", 64)] * (convs - 1), width]
        for before, after in itertools.pairwise(widths):
            rows, columns = ((n + 2 * padding - kernel) // stride + 1 for n in size)
            embed += _conv(rows, columns, kernel, before, after)
            size = ((rows - 1) // 2 + 1, (columns - 1) // 2 + 1)  # 3 x 3 maximum of stride 2
        tokens = size[0] * size[1]
    else:
        patch = as_pair(kwargs["patch_size"])
        tokens = (size[0] // patch[0]) * (size[1] // patch[1])
        embed = _linear(tokens, channels * patch[0] * patch[1], width)
    tokens += int(pool == "token")
    blocks = depth * block_flops(tokens, width, int(width * kwargs["mlp_ratio"]))
    # Sequence pooling: a score of each token, then the weighted sum.
    pooling = 2 * _linear(tokens, width, 1) if pool == "seq" else 0
    return embed + blocks + pooling + _linear(1, width, kwargs["num_classes"])


def _linear(rows: int, before: int, after: int) -> int:
    return 2 * rows * before * after


def _conv(rows: int, columns: int, kernel: int, before: int, after: int) -> int:
    return _linear(rows * columns, kernel**2 * before, after)
