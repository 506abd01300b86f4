"""The convolutional stem: its grid, its tokens, its errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from vitkit.config import load_config
from vitkit.errors import ConfigError
from vitkit.models.config import validate_model
from vitkit.models.registry import create_model
from vitkit.models.stem import ConvStem

LAYER = st.fixed_dictionaries(
    {
        "dim": st.integers(1, 4),
        "kernel_size": st.integers(1, 5),
        "stride": st.integers(1, 2),
        "pool": st.integers(1, 3),
        "norm": st.booleans(),
    }
)


@given(st.lists(LAYER, min_size=1, max_size=3), st.integers(1, 24), st.integers(1, 24))
def test_the_grid_is_what_torch_makes_of_the_picture(
    layers: list[dict[str, Any]], height: int, width: int
) -> None:
    try:
        stem = ConvStem((height, width), layers, embed_dim=3).eval()
    except ValueError as error:
        assert "too small" in str(error)
        return
    tokens, grid = stem(torch.zeros(2, 3, height, width))
    assert grid == stem.grid_size
    assert tokens.shape == (2, stem.num_patches, 3)


def test_tokens_are_the_plain_layers_row_by_row() -> None:
    torch.manual_seed(0)
    layers = [{"dim": 5, "kernel_size": 2, "norm": False}, {"dim": 6, "pool": 2}]
    stem = ConvStem((9, 13), layers, embed_dim=4)
    first, second = stem.layers
    plain = nn.Sequential(
        first.conv,
        nn.GELU(),
        nn.Conv2d(5, 6, 3, padding=1, bias=False),
        nn.MaxPool2d(2),
        nn.BatchNorm2d(6),
        nn.GELU(),
        stem.proj,
    )
    plain[2].load_state_dict(second.conv.state_dict())
    images = torch.randn(3, 3, 9, 13)
    tokens, (rows, columns) = stem(images)
    assert (rows, columns) == (4, 6)
    torch.testing.assert_close(tokens, plain(images).flatten(2).mT, rtol=1e-4, atol=1e-5)


def test_a_residual_layer_adds_its_input() -> None:
    torch.manual_seed(0)
    stem = ConvStem(8, [{"dim": 4}, {"dim": 4, "residual": True}], embed_dim=4).eval()
    first, second = stem.layers
    x = first(torch.randn(2, 3, 8, 8))
    torch.testing.assert_close(second(x) - x, second.act(second.norm(second.conv(x))))
    for wrong in ({"dim": 5}, {"dim": 4, "pool": 2}, {"dim": 4, "kernel_size": 2}):
        with pytest.raises(ValueError, match="keeps its shape"):
            ConvStem(8, [{"dim": 4}, {**wrong, "residual": True}])


def test_other_sizes_only_where_asked() -> None:
    model = create_model("vit_mini_patch4_32", conv_stem=[{"dim": 8, "pool": 4}])
    with pytest.raises(ValueError, match="image size 24 x 24"):
        model(torch.zeros(1, 3, 24, 24))
    flexible = create_model(
        "vit_mini_patch4_32", conv_stem=[{"dim": 8, "pool": 4}], dynamic_img_size=True
    ).eval()
    assert flexible(torch.zeros(1, 3, 24, 20)).shape == (1, 10)


def test_a_config_says_what_a_layer_may_be() -> None:
    section = {"name": "vit_mini_patch4_32", "conv_stem": [{"dim": 8}]}
    config = validate_model(section)
    assert validate_model(config.model_dump(exclude_none=True)) == config
    for bad, line in (("[{dim: 0}]", ">= 1"), ("[{width: 3}]", "unknown key"), ("[]", "a list of")):
        with pytest.raises(ConfigError, match=line):
            load_config([], [f"model.conv_stem={bad}"])


def test_a_whitened_first_layer_gives_uncorrelated_channels_of_variance_one() -> None:
    torch.manual_seed(0)
    white = torch.randn(400, 3, 9, 9)
    mixed = torch.einsum("oi,nihw->nohw", torch.randn(3, 3), white)
    images = mixed + mixed.roll(1, dims=3)  # neighbours alike, as in pictures
    stem = ConvStem(9, [{"dim": 30, "kernel_size": 2, "norm": False}], embed_dim=4, whiten=True)
    conv = stem.layers[0].conv
    stem.whiten_first(images, eps=0.0)
    out = conv(images)
    values = out.permute(1, 0, 2, 3)[:12].flatten(1).double()
    covariance = values @ values.T / values.shape[1]
    torch.testing.assert_close(covariance, torch.eye(12).double(), rtol=0, atol=2e-3)
    torch.testing.assert_close(out[:, 12:24], -out[:, :12])
    # The other six mix these twelve.
    torch.testing.assert_close(out[:, 24:].var((0, 2, 3)), torch.ones(6), rtol=0, atol=2e-2)
    assert torch.linalg.matrix_rank(conv.weight.flatten(1)) == 12
    assert not conv.weight.requires_grad and not conv.bias.requires_grad
