"""VisionTransformer against timm's, forward and gradients, and what timm does not have."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from timm.layers import SwiGLUPacked
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer as TimmViT
from timm.models.vision_transformer_relpos import VisionTransformerRelPos
from torch import Tensor, nn

from vitkit.models import DistilledVisionTransformer, VisionTransformer
from vitkit.models.patches import kept_patches
from vitkit.models.pooling import AttentionPoolLatent
from vitkit.nn import record_attention

MINI: dict[str, Any] = {
    "img_size": 32,
    "patch_size": 8,
    "num_classes": 7,
    "embed_dim": 48,
    "depth": 3,
    "num_heads": 3,
}
WIDE: dict[str, Any] = {"img_size": 32, "patch_size": 16, "num_classes": 7, "depth": 2}
AVERAGE: dict[str, Any] = {"class_token": False, "global_pool": "avg"}
MAP: dict[str, Any] = {"class_token": False, "global_pool": "map"}
NORMED_MEAN: dict[str, Any] = {"global_pool": "avg", "fc_norm": False}

# name -> arguments that both constructors take.
VARIANTS: dict[str, dict[str, Any]] = {
    "tiny": {**WIDE, "embed_dim": 192, "num_heads": 3, "depth": 12},
    "small": {**WIDE, "embed_dim": 384, "num_heads": 6},
    "base": {**WIDE, "embed_dim": 768, "num_heads": 12},
    "large": {**WIDE, "embed_dim": 1024, "num_heads": 16},
    "giant_ratio": {**MINI, "mlp_ratio": 48 / 11},
    "registers": {**MINI, "reg_tokens": 4},
    "registers_average": {**MINI, **AVERAGE, "reg_tokens": 4},
    "average": {**MINI, **AVERAGE},
    "average_with_class": {**MINI, "global_pool": "avg"},
    "maximum": {**MINI, "global_pool": "max"},
    "map": {**MINI, **MAP},
    "map_gelu_tanh": {**MINI, **MAP, "act_layer": "gelu_tanh", "mlp_ratio": 3.7362},
    "clip": {**MINI, "pre_norm": True, "act_layer": "quick_gelu"},
    "no_pool": {**MINI, "global_pool": ""},
    "qk_norm": {**MINI, "qk_norm": True},
    "layer_scale": {**MINI, "init_values": 0.1, "no_embed_class": True, "reg_tokens": 1},
    "pre_norm": {**MINI, "pre_norm": True},
    "no_final_norm": {**MINI, "final_norm": False},
    "fc_norm_token": {**MINI, "fc_norm": True},
    "norm_before_average": {**MINI, **AVERAGE, "fc_norm": False},
    "no_biases": {**MINI, "qkv_bias": False, "proj_bias": False},
    "no_positions": {**MINI, "pos_embed": "none"},
    "rms_norm": {**MINI, "norm_layer": "rmsnorm", "qk_norm": True},
    "not_square": {**MINI, "img_size": (16, 40), "patch_size": (4, 8)},
    "grey": {**MINI, "in_chans": 1},
}


def set_random(model: nn.Module) -> nn.Module:
    """Weights far from their initial values: nothing is zero, one, or alike."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator, dtype=p.dtype)
            is_scale = p.ndim == 1 and ("norm" in name and name.endswith("weight"))
            p.copy_(1 + 0.3 * noise if is_scale else noise * (0.3 if p.ndim == 1 else 0.1))
    return model


def pictures(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(11)
    return torch.randn(2, *shape, generator=generator, dtype=torch.float64)


def outputs_and_gradients(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    images = images.clone().requires_grad_()
    logits = model(images)
    generator = torch.Generator().manual_seed(13)
    weight = torch.randn(logits.shape, generator=generator, dtype=logits.dtype)
    (logits * weight).sum().backward()
    found = {key: p.grad for key, p in model.named_parameters()}
    return {"logits": logits.detach(), "images": images.grad, **found}


def assert_same(ours: nn.Module, theirs: nn.Module, images: Tensor, limit: float = 1e-10) -> None:
    expected = outputs_and_gradients(theirs, images)
    found = outputs_and_gradients(ours, images)
    assert set(found) == set(expected)
    for key, value in expected.items():
        if key.endswith("k_norm.bias"):
            # The same shift of all keys shifts all scores of a row: no gradient, by mathematics.
            assert value.abs().max() < 1e-9 and found[key].abs().max() < 1e-9
            continue
        scale = value.abs().max()
        assert scale > 0, key
        error = ((found[key] - value).abs().max() / scale).item()
        assert error < limit, (key, error)


def size_of(kwargs: dict[str, Any]) -> tuple[int, int, int]:
    size = kwargs["img_size"]
    height, width = (size, size) if isinstance(size, int) else size
    return kwargs.get("in_chans", 3), height, width


@pytest.mark.parametrize("name", VARIANTS)
def test_equals_timm(name: str) -> None:
    kwargs = VARIANTS[name]
    theirs = set_random(TimmViT(**kwargs).double()).eval()
    ours = VisionTransformer(**kwargs).double().eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    assert_same(ours, theirs, pictures(*size_of(kwargs)))


def test_distilled_equals_timm_in_both_ways() -> None:
    theirs = set_random(VisionTransformerDistilled(**MINI).double()).eval()
    ours = DistilledVisionTransformer(**MINI).double().eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    images = pictures(3, 32, 32)
    assert_same(ours, theirs, images)
    for model in (ours, theirs):
        model.train().set_distilled_training()
    for found, expected in zip(ours(images), theirs(images), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_distilled_needs_its_two_tokens() -> None:
    with pytest.raises(ValueError, match="global_pool must be 'token'"):
        DistilledVisionTransformer(**MINI, global_pool="avg")
    with pytest.raises(ValueError, match="global_pool must be 'token'"):
        DistilledVisionTransformer(**MINI).reset_classifier(3, "avg")


@pytest.mark.parametrize("no_embed_class", [False, True])
@pytest.mark.parametrize("size", [(48, 48), (16, 40)])
def test_dynamic_size_equals_timm(size: tuple[int, int], no_embed_class: bool) -> None:
    kwargs = {**MINI, "dynamic_img_size": True, "no_embed_class": no_embed_class, "reg_tokens": 2}
    theirs = set_random(TimmViT(**kwargs).double()).eval()
    ours = VisionTransformer(**kwargs).double().eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    # Both resample positions in float32.
    assert_same(ours, theirs, pictures(3, *size), limit=1e-6)


def test_swiglu_equals_timm() -> None:
    theirs = TimmViT(**MINI, mlp_layer=SwiGLUPacked, mlp_ratio=4.0, act_layer=nn.SiLU)
    theirs = set_random(theirs.double()).eval()
    ours = VisionTransformer(**MINI, mlp_layer="swiglu", mlp_ratio=2.0).double().eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    assert_same(ours, theirs, pictures(3, 32, 32))


@pytest.mark.parametrize(
    ("theirs_more", "ours_more", "size"),
    [
        ({"rope_temperature": 100.0}, {"rope_base": 100.0}, (32, 32)),
        (
            {"rope_temperature": 10000.0, "ref_feat_shape": (16, 16), "num_reg_tokens": 2},
            {"rope_base": 10000.0, "rope_ref_grid": (16, 16), "reg_tokens": 2},
            (32, 32),
        ),
        (
            {"rope_temperature": 100.0, "dynamic_img_size": True, "init_values": 0.1},
            {"rope_base": 100.0, "dynamic_img_size": True, "init_values": 0.1},
            (16, 40),
        ),
    ],
    ids=["square", "reference_grid_registers", "dynamic_layer_scale"],
)
def test_rotary_equals_timms_eva(
    theirs_more: dict[str, Any], ours_more: dict[str, Any], size: tuple[int, int]
) -> None:
    kwargs = {**MINI, "qk_norm": True}
    theirs = Eva(
        **kwargs, attn_type="rope", use_abs_pos_emb=False, use_rot_pos_emb=True, **theirs_more
    )
    theirs = set_random(theirs.double()).eval()
    ours = VisionTransformer(**kwargs, pos_embed="rotary", global_pool="avg", **ours_more)

    def renamed(key: str) -> str:
        return key.replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma")

    ours = ours.double().eval()
    ours.load_state_dict({renamed(k): v for k, v in theirs.state_dict().items()}, strict=True)
    images = pictures(3, *size)
    expected = outputs_and_gradients(theirs, images)
    found = outputs_and_gradients(ours, images)
    assert {renamed(key) for key in expected} == set(found)
    for key, value in expected.items():
        # Both keep their angles in float32.
        error = (found[renamed(key)] - value).abs().max() / value.abs().max()
        assert error < 1e-5, (key, error.item())


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("pos_embed", ["learn", "rotary", "sincos2d"])
def test_the_short_last_block_is_exact(pos_embed: str, norm_first: bool) -> None:
    model = VisionTransformer(
        **MINI, pos_embed=pos_embed, norm_first=norm_first, reg_tokens=2, init_values=0.5
    )
    model = set_random(model.double()).eval()
    images = pictures(3, 32, 32)
    short = outputs_and_gradients(model, images)
    model.zero_grad()
    full = outputs_and_gradients(_FullPath(model), images)
    for key in short:
        other = full[key if key in full else f"model.{key}"]
        assert (short[key] - other).abs().max() <= 1e-12 * other.abs().max(), key


class _FullPath(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model.forward_head(self.model.forward_features(images))
        return logits


def tokens_of_last_mlp(model: VisionTransformer, images: Tensor) -> int:
    """How many tokens the last block's MLP computes, without a hook that would change it."""
    seen = []
    mlp = model.blocks[-1].mlp
    forward = mlp.forward
    mlp.forward = lambda x: seen.append(x.shape[1]) or forward(x)  # type: ignore[func-returns-value]
    model(images)
    del mlp.forward
    return seen[0]


def test_listeners_force_the_full_last_block() -> None:
    model, images = VisionTransformer(**MINI).eval(), torch.randn(2, 3, 32, 32)
    assert tokens_of_last_mlp(model, images) == 1
    logits = model(images)
    shapes = []
    with model.blocks[-1].attn.register_forward_hook(lambda m, i, out: shapes.append(out.shape)):
        torch.testing.assert_close(model(images), logits)
        assert tokens_of_last_mlp(model, images) == 17
    assert shapes[0] == (2, 17, 48)
    for listened in (model.norm, model.blocks):
        with listened.register_forward_hook(lambda m, i, out: shapes.append(out.shape)):
            torch.testing.assert_close(model(images), logits)
        assert shapes.pop() == (2, 17, 48)
    with record_attention(model, [-1]) as maps:
        assert torch.equal(model(images), logits)
    assert maps[-1].shape == (2, 3, 17, 17)
    assert tokens_of_last_mlp(model, images) == 1
    average = VisionTransformer(**MINI, **AVERAGE).eval()
    assert tokens_of_last_mlp(average, images) == 16


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("wanted", [1, 2, [0, 2]])
def test_intermediate_layers_equal_timm(wanted: int | list[int], norm: bool) -> None:
    theirs = set_random(TimmViT(**MINI, reg_tokens=2).double()).eval()
    ours = VisionTransformer(**MINI, reg_tokens=2).double().eval()
    ours.load_state_dict(theirs.state_dict())
    call = {"n": wanted, "reshape": True, "return_prefix_tokens": True, "norm": norm}
    pairs = zip(
        ours.get_intermediate_layers(pictures(3, 32, 32), **call),
        theirs.get_intermediate_layers(pictures(3, 32, 32), **call),
        strict=True,
    )
    for (patches, prefix), (other_patches, other_prefix) in pairs:
        torch.testing.assert_close(patches, other_patches, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(prefix, other_prefix, rtol=1e-10, atol=1e-10)


def test_reset_classifier_can_change_the_pooling() -> None:
    model = VisionTransformer(**MINI, act_layer="relu").double()
    model.reset_classifier(4, global_pool="map")
    assert isinstance(model.attn_pool, AttentionPoolLatent)
    assert isinstance(model.attn_pool.mlp.act, nn.ReLU)
    assert model(pictures(3, 32, 32)).shape == (2, 4)
    model.reset_classifier(4, global_pool="avg")
    assert model.attn_pool is None and model(pictures(3, 32, 32)).shape == (2, 4)
    with pytest.raises(ValueError, match="mean"):
        model.reset_classifier(4, global_pool="mean")
    with pytest.raises(ValueError, match="class_token"):
        VisionTransformer(**MINI, **AVERAGE).reset_classifier(4, global_pool="token")


def test_class_token_beside_the_mean_is_the_sum_of_timms_two_poolings() -> None:
    """The head reads both side by side, so it is a head on each, added up."""
    more: dict[str, Any] = {**MINI, "reg_tokens": 2}
    ours = set_random(VisionTransformer(**more, global_pool="token_avg").double()).eval()
    assert ours.num_features == 2 * MINI["embed_dim"]
    state, images = ours.state_dict(), pictures(3, 32, 32)
    wanted = torch.zeros(())
    of_token, of_mean = state["head.weight"].chunk(2, dim=1)
    for pool, half in (({"global_pool": "token"}, of_token), (NORMED_MEAN, of_mean)):
        theirs = TimmViT(**more, **pool).double().eval()
        theirs.load_state_dict({**state, "head.weight": half, "head.bias": state["head.bias"] / 2})
        wanted = wanted + theirs(images)
    torch.testing.assert_close(ours(images), wanted, rtol=1e-10, atol=1e-10)


def test_class_token_beside_the_mean_needs_the_token_and_normed_tokens() -> None:
    model = VisionTransformer(**MINI)
    for pool, width in (("token_avg", 96), ("avg", 48), ("token_avg", 96), ("token", 48)):
        model.reset_classifier(4, global_pool=pool)
        assert model.num_features == width
        assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 4)
    with pytest.raises(ValueError, match="class_token must be True"):
        VisionTransformer(**MINI, class_token=False, global_pool="token_avg")
    with pytest.raises(ValueError, match="fc_norm must be False"):
        VisionTransformer(**MINI, fc_norm=True, global_pool="token_avg")
    with pytest.raises(ValueError, match="fc_norm must be False"):
        VisionTransformer(**MINI, global_pool="avg").reset_classifier(4, global_pool="token_avg")


@pytest.mark.parametrize("size", [(32, 36), (8, 30), (33, 32)])
def test_sizes_that_the_patch_does_not_divide(size: tuple[int, int]) -> None:
    build = partial(VisionTransformer, **MINI)
    with pytest.raises(ValueError, match=f"{size[0]} x {size[1]}.*8 x 8"):
        VisionTransformer(**{**MINI, "img_size": size})
    with pytest.raises(ValueError, match="multiple of the patch"):
        build(dynamic_img_size=True)(torch.zeros(1, 3, *size))
    with pytest.raises(ValueError, match="built for 32 x 32"):
        build()(torch.zeros(1, 3, *size))


def test_left_out_patches_are_left_out_in_training_only() -> None:
    model = VisionTransformer(**MINI, patch_drop_rate=0.5, reg_tokens=1)
    images = torch.randn(2, 3, 32, 32)
    assert model.train().forward_features(images).shape == (2, 2 + 8, 48)
    assert model.eval().forward_features(images).shape == (2, 2 + 16, 48)


def test_left_out_patches_make_no_grid() -> None:
    model, images = VisionTransformer(**MINI, patch_drop_rate=0.5), torch.randn(2, 3, 32, 32)
    with pytest.raises(ValueError, match="leaves out patches in training, so they make no grid"):
        model.train().get_intermediate_layers(images, reshape=True)
    (flat,) = model.get_intermediate_layers(images)
    assert isinstance(flat, Tensor) and flat.shape == (2, 8, 48)
    (grid,) = model.eval().get_intermediate_layers(images, reshape=True)
    assert isinstance(grid, Tensor) and grid.shape == (2, 48, 4, 4)


def test_a_norm_behind_the_pooling_is_none_of_the_layers() -> None:
    model, images = VisionTransformer(**MINI, **AVERAGE).eval(), torch.randn(2, 3, 32, 32)
    (plain,), (normed,) = (
        model.get_intermediate_layers(images, norm=norm) for norm in (False, True)
    )
    assert isinstance(plain, Tensor) and isinstance(normed, Tensor) and torch.equal(plain, normed)


def test_left_out_patches_keep_their_rotary_angles() -> None:
    # Attention over the kept tokens alone, with the angles of their places in the picture.
    model = VisionTransformer(**{**MINI, "depth": 1}, pos_embed="rotary", patch_drop_rate=0.5)
    model = set_random(model.double()).train()
    images = pictures(3, 32, 32)
    torch.manual_seed(0)
    found = model(images)
    torch.manual_seed(0)
    kept = torch.rand(2, 16).argsort(dim=1)[:, :8] + 1
    tokens, ctx = VisionTransformer._embed(model.eval(), images)
    hidden = torch.ones(2, 17, dtype=torch.bool).scatter(1, kept, False)
    hidden[:, 0] = False
    block = model.blocks[0]
    mixed = block.attn(block.norm1(tokens), mask=~hidden[:, None, None], rotary=ctx.rotary)
    x = tokens + mixed
    expected = model.forward_head(model.norm(x + block.mlp(block.norm2(x))))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("global_pool", "mean"),
        ("pos_embed", "alibi"),
        ("global_pool", "token"),
        ("mlp_layer", "swigluu"),
        ("act_layer", "gellu"),
        ("norm_layer", "batchnorm"),
    ],
)
def test_constructor_errors(option: str, value: str) -> None:
    with pytest.raises(ValueError, match=value):
        VisionTransformer(**{**MINI, "class_token": False, "global_pool": "avg", option: value})


def test_the_last_blocks_are_as_many_as_there_are() -> None:
    model = VisionTransformer(**MINI).eval()
    for count in (0, len(model.blocks) + 1):
        with pytest.raises(ValueError, match=f"the last {count} blocks; allowed: 1 to 3"):
            model.get_intermediate_layers(torch.zeros(1, 3, 32, 32), n=count)


def test_a_share_of_patches_is_left_out_to_the_patch() -> None:
    assert [kept_patches(20, rate) for rate in (0.0, 0.1, 0.5, 0.9, 0.99)] == [20, 18, 10, 2, 1]


RELATIVE: dict[str, Any] = {**MINI, "pos_embed": "relative", "reg_tokens": 1}


def test_relative_positions_equal_timms_blocks_with_their_bias() -> None:
    kwargs = {**MINI, **AVERAGE, "num_heads": 4, "fc_norm": False, "init_values": None}
    theirs = set_random(VisionTransformerRelPos(**kwargs, rel_pos_type="bias").double()).eval()
    ours = VisionTransformer(**kwargs, pos_embed="relative").double().eval()
    state = dict(theirs.state_dict())
    tables = []
    for layer in range(kwargs["depth"]):
        rel_pos = f"blocks.{layer}.attn.rel_pos."
        table = state.pop(rel_pos + "relative_position_bias_table")
        rows, columns = (2 * n - 1 for n in ours.patch_embed.grid_size)
        tables.append(table.T.unflatten(1, (rows, columns)).flip(1, 2))
    ours.load_state_dict({**state, "rel_pos.table": torch.stack(tables)}, strict=True)
    images = pictures(*size_of(kwargs))
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-10, atol=1e-10)


def test_relative_positions_when_the_last_block_reads_the_class_token_alone() -> None:
    model = set_random(VisionTransformer(**RELATIVE).double()).eval()
    images = pictures(*size_of(RELATIVE))
    whole = model.forward_head(model.forward_features(images))
    torch.testing.assert_close(model(images), whole, rtol=1e-12, atol=1e-12)


def test_relative_positions_of_the_patches_that_are_left() -> None:
    model = set_random(VisionTransformer(**RELATIVE).double()).eval()
    images = pictures(*size_of(RELATIVE))
    tokens, ctx = model._embed(images)
    count = tokens.shape[1] - model.num_prefix_tokens
    kept = torch.arange(count).roll(3).expand(len(images), -1)
    moved, moved_ctx = model._select(tokens, ctx, kept)
    expected = model.forward_head(model.norm(model.blocks(tokens, ctx)))
    found = model.forward_head(model.norm(model.blocks(moved, moved_ctx)))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    some, some_ctx = model._select(tokens, ctx, kept[:, :3])
    assert some_ctx.biases is not None
    assert some_ctx.biases[0].shape == (len(images), RELATIVE["num_heads"], 5, 5)
    assert some.shape[1] == 5


def _spread(parameter: Tensor) -> tuple[float, float]:
    """Standard deviation, and how far that of equally many other draws may be from it."""
    std = float(parameter.detach().std(correction=0))
    return std, 6 * std / parameter.numel() ** 0.5


@pytest.mark.parametrize("name", ["small", "registers_average", "layer_scale", "qk_norm", "grey"])
def test_first_weights_are_drawn_as_timms(name: str) -> None:
    """Parameter by parameter: the same constants, else the same mean and spread."""
    torch.manual_seed(0)
    ours = dict(VisionTransformer(**VARIANTS[name]).named_parameters())
    theirs = dict(TimmViT(**VARIANTS[name]).named_parameters())
    assert ours.keys() == theirs.keys()
    for key, want in theirs.items():
        (std, slack), (given, _) = _spread(want), _spread(ours[key])
        if std == 0:
            assert torch.equal(ours[key], want), key
        else:
            assert abs(given - std) <= slack, key
            assert abs(float((ours[key].mean() - want.mean()).detach())) <= slack, key


@pytest.mark.parametrize("width", [16, 48, 96])
def test_whitened_patches_have_components_of_equal_variance(width: int) -> None:
    torch.manual_seed(0)
    white = torch.randn(600, 3, 16, 16)
    images = 2.0 + white + white.roll(1, dims=3)  # neighbours alike, as in pictures
    model = VisionTransformer(16, 4, embed_dim=width, depth=1, num_heads=1, whiten_patches=True)
    assert model.wants_images
    weight = model.patch_embed.proj.weight
    before = weight.detach().clone()
    model.init_from_images(images)
    assert not torch.equal(weight, before)
    model.patch_embed.whiten(images, eps=0.0)
    tokens, _ = model.patch_embed(images)
    rows = tokens.flatten(0, 1).detach().double()
    assert rows.mean(0).abs().max() < 1e-4
    covariance = rows.T @ rows / len(rows)
    count = min(width, 48)
    # As many directions as there are channels, or values in a patch, all of the same variance ...
    variances = torch.linalg.eigvalsh(covariance)[-count:]
    wanted = torch.full((count,), 0.25 * width / count, dtype=torch.float64)
    torch.testing.assert_close(variances, wanted, rtol=1e-4, atol=0)
    if width <= 48:  # ... and then the channels are uncorrelated.
        off = covariance - covariance.diag().diag()
        assert off.abs().max() < 1e-4
    assert weight.requires_grad and torch.equal(weight, model.patch_embed.proj.weight)
