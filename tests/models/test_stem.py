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
