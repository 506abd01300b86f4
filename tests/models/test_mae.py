"""The masked autoencoder against transformers' own; what the encoder sees; what a mask leaves."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
import transformers as hf
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from tests.models.test_vit import set_random
from tests.weights.foreign import images, worst
from vitkit.models import MaskedAutoencoder, VisionTransformer
from vitkit.models.mae import DECODER_NAMES, count_visible
from vitkit.weights import load_weights
from vitkit.weights.formats.layout import join_parts

TINY: dict[str, Any] = {"img_size": (8, 12), "patch_size": 2, "embed_dim": 16, "depth": 2}
TINY |= {"num_heads": 2, "decoder_embed_dim": 8, "decoder_depth": 1, "decoder_num_heads": 2}
AVERAGE: dict[str, Any] = {"class_token": False, "global_pool": "avg"}
VARIANTS: dict[str, dict[str, Any]] = {
    "as published": {"pos_embed": "sincos2d"},
    "learned": {},
    "average": AVERAGE,
    "average with class": {"global_pool": "avg"},
    "registers": {**AVERAGE, "reg_tokens": 3},
    "class and registers": {"reg_tokens": 2, "no_embed_class": True},
    "rotary": {"pos_embed": "rotary", "reg_tokens": 1, "qk_norm": True},
    "swiglu": {"mlp_layer": "swiglu", "norm_layer": "rmsnorm", "init_values": 0.1},
    "patches of 4": {"patch_size": 4, "mask_ratio": 0.5},
    "patches that are not square": {"patch_size": (4, 2)},
    "grey": {"in_chans": 1, "norm_pix": False},
}
THEIRS: dict[str, Any] = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
THEIRS |= {"intermediate_size": 256, "image_size": 32, "patch_size": 8}
THEIRS |= {"decoder_hidden_size": 32, "decoder_num_hidden_layers": 2}
THEIRS |= {"decoder_num_attention_heads": 4, "decoder_intermediate_size": 128}
RENAMED = (
    (r"^vit\.", ""),
    (r"^embeddings\.patch_embeddings\.projection", "patch_embed.proj"),
    (r"^embeddings\.position_embeddings", "pos_embed"),
    (r"^embeddings\.", ""),
    (r"^decoder\.decoder_layers\.", "decoder_blocks."),
    (r"^decoder\.", ""),
    (r"^layers\.", "blocks."),
    (r"^layernorm\.", "norm."),
    (r"layernorm_before", "norm1"),
    (r"layernorm_after", "norm2"),
    (r"attention\.o_proj", "attn.proj"),
    (r"attention\.([qkv])_proj", r"attn.\1"),
)


def model(**more: Any) -> MaskedAutoencoder:
    torch.manual_seed(0)
    return MaskedAutoencoder(**{**TINY, **more})


def pictures(made: MaskedAutoencoder, count: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, made.in_chans, *made.patches.img_size, generator=generator)


def noise(made: MaskedAutoencoder, count: int = 3, seed: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, made.patches.num_patches, generator=generator)


def under_our_names(theirs: torch.nn.Module) -> dict[str, Tensor]:
    state = {}
    for name, tensor in theirs.state_dict().items():
        for pattern, ours in RENAMED:
            name = re.sub(pattern, ours, name)
        state[name] = tensor
    return join_parts(state, ("attn.q", "attn.k", "attn.v"), "attn.qkv")


@torch.no_grad()
@pytest.mark.parametrize("norm_pix", [True, False])
@pytest.mark.parametrize("mask_ratio", [0.75, 0.5])
def test_loss_and_reconstruction_are_those_of_transformers(
    norm_pix: bool, mask_ratio: float
) -> None:
    config = hf.ViTMAEConfig(**THEIRS, norm_pix_loss=norm_pix, mask_ratio=mask_ratio)
    theirs = set_random(hf.ViTMAEForPreTraining(config)).eval()
    ours = MaskedAutoencoder(
        img_size=32,
        patch_size=8,
        embed_dim=64,
        depth=2,
        num_heads=2,
        norm_eps=config.layer_norm_eps,
        mask_ratio=mask_ratio,
        norm_pix=norm_pix,
        decoder_embed_dim=32,
        decoder_depth=2,
        decoder_num_heads=4,
    ).eval()
    ours.load_state_dict(under_our_names(theirs))
    x = images()
    drawn = torch.rand(2, 16, generator=torch.Generator().manual_seed(3))
    wanted = theirs(x, noise=drawn)
    found = ours.reconstruct(x, drawn)
    assert torch.equal(found.mask, wanted.mask)
    # Seen: 0 for the predictions, 1e-7 for the loss.
    assert worst(found.prediction, wanted.logits) <= 1e-5
    assert ours(x, drawn).mean().item() == pytest.approx(wanted.loss.item(), rel=1e-5)
    ours.blocks[0].attn.qkv.weight.mul_(1.1)  # which is felt in what the decoder paints
    assert worst(ours.reconstruct(x, drawn).prediction, wanted.logits) > 1e-3


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_is_trained(variant: str) -> None:
    made = model(**VARIANTS[variant])
    loss = made(pictures(made), noise(made))
    assert loss.shape == (3,)
    assert loss.dtype == torch.float32
    loss.mean().backward()
    idle = [n for n, p in made.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_encoder_sees_the_visible_patches_alone(variant: str) -> None:
    """Noise in hidden patches changes nothing that leaves the encoder; in seen ones it does."""
    made = model(**VARIANTS[variant]).eval()
    x, drawn = pictures(made), noise(made)
    rows, columns = made.patches.patch_size
    hidden = made.reconstruct(x, drawn).mask.unflatten(1, made.patches.grid_size)
    pixels = hidden.repeat_interleave(rows, 1).repeat_interleave(columns, 2)[:, None].bool()
    order = drawn.argsort(dim=1)
    seen = order[:, : count_visible(order.shape[1], made.mask_ratio)]
    latent = made.encode(x, seen)
    assert latent.shape == (3, made.num_prefix_tokens + seen.shape[1], made.embed_dim)
    other = torch.where(pixels, torch.randn_like(x), x)
    assert not torch.equal(other, x)
    assert torch.equal(made.encode(other, seen), latent)
    predictions = [made.reconstruct(given, drawn).prediction for given in (other, x)]
    assert torch.equal(*predictions)
    changed = torch.where(pixels, x, torch.randn_like(x))
    assert not torch.allclose(made.encode(changed, seen), latent, atol=1e-3)


@pytest.mark.parametrize("variant", VARIANTS)
def test_seeing_everything_is_the_plain_forward_pass(variant: str) -> None:
    """In the order of the grid; with the norm behind the pooling, that norm on every token."""
    made = model(**VARIANTS[variant]).eval()
    everything = torch.arange(made.patches.num_patches).expand(3, -1)
    x = pictures(made)
    plain = made.fc_norm(made.forward_features(x))
    assert worst(made.encode(x, everything), plain) <= 1e-5


@given(st.integers(2, 300), st.floats(0.01, 0.99))
def test_the_share_of_hidden_patches_is_rounded_up(count: int, ratio: float) -> None:
    visible = count_visible(count, ratio)
    assert visible <= count * (1 - ratio) + 1e-5
    assert visible >= count * (1 - ratio) - 1
    assert count_visible(10, 0.9) == 1  # 10 x (1 - 0.9) is 0.9999999999999998
    assert count_visible(196, 0.75) == 49


def test_each_image_hides_as_many_patches_those_with_the_most_noise() -> None:
    made = model(mask_ratio=0.7).eval()
    drawn = noise(made, 5)
    mask = made.reconstruct(pictures(made, 5), drawn).mask
    assert mask.sum(dim=1).tolist() == [24 - 7] * 5  # 7.2 are seen
    for image, hidden in zip(drawn, mask.bool(), strict=True):
        assert image[hidden].min() > image[~hidden].max()
    torch.manual_seed(4)
    one = made.reconstruct(pictures(made)).mask  # drawn anew
    assert not torch.equal(one, made.reconstruct(pictures(made)).mask)


def test_the_loss_counts_hidden_patches_alone() -> None:
    made = model(norm_pix=False).eval()
    x, drawn = pictures(made), noise(made)
    found = made.reconstruct(x, drawn)
    error = (found.prediction - made.targets(x)) ** 2
    for image in range(3):
        wanted = error[image][found.mask[image].bool()].mean()
        assert made(x, drawn)[image].item() == pytest.approx(wanted.item(), rel=1e-5)


def test_targets_are_the_pixels_of_each_patch_in_order() -> None:
    made = model(patch_size=(4, 2), norm_pix=False)
    x = pictures(made)
    targets = made.targets(x)
    for row in range(2):
        for column in range(6):
            patch = x[:, :, 4 * row : 4 * row + 4, 2 * column : 2 * column + 2]
            assert torch.equal(targets[:, 6 * row + column], patch.permute(0, 2, 3, 1).flatten(1))
    made.norm_pix = True
    flat = targets - targets.mean(-1, keepdim=True)
    wanted = flat / (flat.square().sum(-1, keepdim=True) / (flat.shape[-1] - 1) + 1e-6).sqrt()
    torch.testing.assert_close(made.targets(x), wanted, rtol=1e-5, atol=1e-6)


def test_an_image_does_not_depend_on_its_neighbours() -> None:
    made = model(pos_embed="sincos2d").eval()
    x, drawn = pictures(made), noise(made)
    alone = torch.cat([made(x[i : i + 1], drawn[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(made(x, drawn), alone, rtol=1e-5, atol=1e-6)


def test_other_sizes_where_the_vit_takes_them() -> None:
    made = model(dynamic_img_size=True, pos_embed="sincos2d").eval()
    x = torch.randn(2, 3, 16, 8)
    found = made.reconstruct(x)
    assert found.prediction.shape == (2, 32, 12)
    assert found.mask.sum(dim=1).tolist() == [24, 24]


@pytest.mark.parametrize("variant", VARIANTS)
def test_checkpointing_recomputes_both_trunks(variant: str) -> None:
    made = model(**VARIANTS[variant])
    x, drawn, ran = pictures(made), noise(made), list[str]()
    for name in ("blocks", "decoder_blocks"):
        made.get_submodule(f"{name}.0").register_forward_pre_hook(
            lambda *_, name=name: ran.append(name)
        )
    results = []
    for enabled in (False, True):
        made.set_grad_checkpointing(enabled)
        made.zero_grad()
        made(x, drawn).mean().backward()
        results.append({n: p.grad.clone() for n, p in made.named_parameters()})
    assert [ran.count(name) for name in ("blocks", "decoder_blocks")] == [3, 3]
    for name, gradient in results[0].items():
        torch.testing.assert_close(results[1][name], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
def test_its_encoder_is_a_plain_vit(variant: str) -> None:
    """All names but the decoder's, and all values, of the ViT of the same arguments."""
    made = model(**VARIANTS[variant])
    own = {"mask_ratio", "norm_pix", "decoder_embed_dim", "decoder_depth", "decoder_num_heads"}
    kwargs = {k: v for k, v in {**TINY, **VARIANTS[variant]}.items() if k not in own}
    plain = VisionTransformer(**kwargs, num_classes=0)
    encoder = {n: t for n, t in made.state_dict().items() if not n.startswith(DECODER_NAMES)}
    assert encoder.keys() == plain.state_dict().keys()
    plain.load_state_dict(encoder)
    x = pictures(made)
    made.eval()
    assert worst(plain.eval()(x), made.forward_head(made.forward_features(x))) <= 1e-5


def test_a_bare_state_dict_loads_into_a_classifier() -> None:
    made = model(pos_embed="sincos2d")
    kwargs = {k: v for k, v in TINY.items() if not k.startswith("decoder_")}
    plain = VisionTransformer(**kwargs, pos_embed="sincos2d", num_classes=5)
    report = load_weights(plain, made.state_dict())
    assert report.format == "MAE, pre-trained"
    assert report.new == ["head.weight", "head.bias"]
    assert sorted(report.unused) == sorted(
        n for n in made.state_dict() if n.startswith(DECODER_NAMES)
    )
    assert torch.equal(plain.blocks[1].mlp.fc2.weight, made.blocks[1].mlp.fc2.weight)
    assert "the decoder of pre-training" in " ".join(report.notes)


def test_the_decoder_begins_as_a_vit_does() -> None:
    made = model(decoder_embed_dim=64, decoder_depth=3)
    for name, parameter in made.named_parameters():
        if name.startswith("decoder_") and parameter.ndim == 2:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.15), name
        elif name.startswith("decoder_") and name.endswith("bias"):
            assert not parameter.any()
    assert "mask_token" in made.no_weight_decay()
    assert made.get_classifier() is made.decoder_pred


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"mask_ratio": 0.99}, r"0 of 24 patches; allowed: 0\.0417 to 0\.958"),
        ({"mask_ratio": 0.0}, "shows 24 of 24 patches"),
        ({"conv_stem": [{"dim": 8, "pool": 2}]}, "conv_stem reads across patches"),
        ({"patch_drop_rate": 0.5}, "patch_drop_rate leaves out patches"),
        ({"global_pool": "map", "class_token": False}, "nothing here trains"),
        ({"decoder_embed_dim": 6}, "2-D sin-cos positions need a width divisible by 4, given 6"),
        ({"decoder_embed_dim": 12, "decoder_num_heads": 5}, "12 is not a multiple of num_heads 5"),
        ({"patch_size": 5}, "not a multiple of the patch size"),
    ],
)
def test_what_does_not_go_together_is_one_line(more: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        model(**more)


def test_noise_for_other_patches_is_refused() -> None:
    made = model()
    with pytest.raises(ValueError, match=r"noise \(3, 7\); allowed: \(3, 24\)"):
        made(pictures(made), torch.rand(3, 7))


def test_it_costs_what_it_shows() -> None:
    """Products of the encoder's blocks: about a quarter of those of all patches."""
    made = model(img_size=32, embed_dim=64, pos_embed="sincos2d", mask_ratio=0.75)
    x = pictures(made)

    def cost(run: Any) -> int:
        with FlopCounterMode(display=False) as counter:
            run()
        return int(counter.get_total_flops())

    seen = torch.rand(3, 256).argsort(1)
    part = cost(lambda: made.encode(x, seen[:, :64]))
    whole = cost(lambda: made.encode(x, seen))
    embedding = 2 * 3 * 256 * 12 * 64
    assert (part - embedding) / (whole - embedding) < 0.26
    assert math.isclose(part, cost(lambda: made.encode(x, seen[:, 64:128])))
