"""Rotary positions against closed forms, timm and transformers."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.layers import RotaryEmbeddingCat, apply_rot_embed_cat
from transformers import DINOv3ViTConfig
from transformers.models.dinov3_vit.modeling_dinov3_vit import DINOv3ViTRopePositionEmbedding
from transformers.models.dinov3_vit.modeling_dinov3_vit import apply_rotary_pos_emb as turn_patches
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from vitkit.nn import CentredRotary2d, Rotary1d, Rotary2d, grid_positions
from vitkit.nn.rotary import Pairing


def test_rotary_interleaved_is_complex_multiplication() -> None:
    x = torch.randn(2, 3, 7, 8)
    frequencies = 10000 ** (-torch.arange(4) / 4)
    phase = torch.polar(torch.ones(7, 4), torch.arange(7)[:, None] * frequencies)
    want = torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (4, 2))) * phase).flatten(-2)
    torch.testing.assert_close(Rotary1d(8)(torch.arange(7))(x), want, rtol=1e-5, atol=1e-5)


def test_rotary_half_is_transformers() -> None:
    q, k = torch.randn(2, 3, 7, 8), torch.randn(2, 3, 7, 8)
    turn = Rotary1d(8, base=500.0, pairing="half")(torch.arange(7))
    want = apply_rotary_pos_emb(q, k, turn.cos[None], turn.sin[None])
    angle = torch.arange(7)[:, None] * 500.0 ** (-torch.arange(4) / 4)
    torch.testing.assert_close(turn.cos[:, :4], angle.cos())
    torch.testing.assert_close(turn(q), want[0])
    torch.testing.assert_close(turn(k), want[1])


@pytest.mark.parametrize("ref", [None, (4, 4)])
def test_rotary_2d_interleaved_is_timms(ref: tuple[int, int] | None) -> None:
    grid = (3, 5)
    theirs = RotaryEmbeddingCat(16, in_pixels=False, feat_shape=list(grid), ref_feat_shape=ref)
    x = torch.randn(2, 3, 15, 16)
    want = apply_rot_embed_cat(x, theirs.get_embed())
    ours = Rotary2d(16, base=10000.0, ref_grid=ref)(grid)
    torch.testing.assert_close(ours(x), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("base", [100.0, 20.0])
@pytest.mark.parametrize("grid", [(4, 4), (3, 5), (1, 7)])
def test_rotary_of_patch_centres_is_transformers(grid: tuple[int, int], base: float) -> None:
    config = DINOv3ViTConfig(
        hidden_size=32, num_attention_heads=2, patch_size=2, rope_theta=base, image_size=8
    )
    theirs = DINOv3ViTRopePositionEmbedding(config).eval()
    cos, sin = theirs(torch.zeros(1, 3, 2 * grid[0], 2 * grid[1]))
    q, k = torch.randn(2, 2, 2, 3 + grid[0] * grid[1], 16)
    want = turn_patches(q, k, cos, sin)
    turn = CentredRotary2d(16, base=base)(grid).with_prefix(3)
    torch.testing.assert_close(turn(q), want[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(turn(k), want[1], rtol=1e-4, atol=1e-5)


def test_patch_centres_do_not_move_with_the_size_of_the_grid() -> None:
    """The middle one of 3 is the middle of 9, and of 1."""
    turns = [CentredRotary2d(8)(grid) for grid in ((3, 3), (9, 9), (1, 1))]
    middles = [turn[slice(n // 2, n // 2 + 1)] for turn, n in zip(turns, (9, 81, 1), strict=True)]
    for middle in middles:
        torch.testing.assert_close(middle.sin, torch.zeros(1, 8), rtol=0.0, atol=1e-7)
        torch.testing.assert_close(middle.cos, torch.ones(1, 8))
    with pytest.raises(ValueError, match="4s"):
        CentredRotary2d(6)


def test_rotary_2d_axial_is_crocos_formula() -> None:
    """Half of the channels by y, half by x, pairs (i, i + D/4) in each, base 100."""
    x = torch.randn(1, 2, 6, 16)
    turn = Rotary2d(16, base=100.0, pairing="axial")((2, 3))
    for token, (row, column) in enumerate(grid_positions((2, 3)).tolist()):
        for half, position in ((0, row), (8, column)):
            for i in range(4):
                angle = position * 100 ** (-2 * i / 8)
                a, b = x[0, 1, token, half + i], x[0, 1, token, half + 4 + i]
                got = turn(x)[0, 1, token]
                want = a * math.cos(angle) - b * math.sin(angle)
                torch.testing.assert_close(got[half + i], want, rtol=1e-4, atol=1e-5)
                want = b * math.cos(angle) + a * math.sin(angle)
                torch.testing.assert_close(got[half + 4 + i], want, rtol=1e-4, atol=1e-5)


@given(
    st.integers(0, 50),
    st.integers(0, 50),
    st.integers(0, 100),
    st.sampled_from(["interleaved", "half"]),
)
def test_scores_depend_on_the_distance_alone(
    one: int, two: int, shift: int, pairing: Pairing
) -> None:
    q, k = torch.randn(2, 1, 1, 1, 8)
    rotary = Rotary1d(8, pairing=pairing)

    def score(a: int, b: int) -> torch.Tensor:
        return (rotary(torch.tensor([a]))(q) * rotary(torch.tensor([b]))(k)).sum()

    torch.testing.assert_close(
        score(one, two), score(one + shift, two + shift), rtol=1e-3, atol=1e-4
    )


def test_a_prefix_and_the_channels_beyond_do_not_turn() -> None:
    x = torch.randn(1, 2, 8, 12)
    turn = Rotary2d(8)((2, 3)).with_prefix(2)
    out = turn(x)
    assert torch.equal(out[:, :, :2, :8], x[:, :, :2, :8])
    assert torch.equal(out[..., 8:], x[..., 8:])
    assert not torch.equal(out[:, :, 3:, :8], x[:, :, 3:, :8])
    assert torch.equal(turn[:4](x[:, :, :4]), out[:, :, :4])
    assert out.dtype == x.dtype
    assert turn(x.bfloat16()).dtype == torch.bfloat16
    with pytest.raises(ValueError, match="4s"):
        Rotary2d(6)
