"""Tensors made to fit: patches of another size, other channels, positions, tokens, heads."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.layers import resample_patch_embed
from timm.models._manipulate import adapt_input_conv
from torch import Tensor, nn

import vitkit
from tests.weights.foreign import CASES, TIMM, images, randomised, worst
from vitkit.errors import ConfigError, WeightsError
from vitkit.models import (
    CompactTransformer,
    DistilledVisionTransformer,
    VisionTransformer,
    create_model,
)
from vitkit.models.hybrid import HybridClassifier
from vitkit.nn import resize_position_grid
from vitkit.weights.fit import adapt_channels, resize_kernel
from vitkit.weights.formats import FORMATS

OURS: dict[str, Any] = {**TIMM}


@pytest.mark.parametrize("size", [(16, 16), (4, 4), (12, 6), (7, 7)])
def test_patch_kernels_as_timm_resizes_them(size: tuple[int, int]) -> None:
    kernel = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    wanted = resample_patch_embed(kernel, list(size))
    # timm inverts in float32, we in float64: 1.3e-6 seen.
    assert worst(resize_kernel(kernel, size), wanted) <= 1e-5


def test_a_grown_patch_gives_the_same_token() -> None:
    # The defining property: the token of a resized patch is that of the patch.
    generator = torch.Generator().manual_seed(0)
    kernel = torch.randn(4, 3, 8, 8, generator=generator)
    patch = torch.randn(2, 3, 8, 8, generator=generator)
    grown = F.interpolate(patch, size=(16, 12), mode="bicubic", antialias=True)
    wanted = F.conv2d(patch, kernel)
    assert worst(F.conv2d(grown, resize_kernel(kernel, (16, 12))), wanted) <= 1e-5


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_channels_as_timm_adapts_them(channels: int) -> None:
    kernel = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    wanted = adapt_input_conv(channels, kernel.clone())
    assert worst(adapt_channels(kernel, channels), wanted) <= 1e-6


@torch.no_grad()
def test_a_grey_picture_gives_what_its_three_equal_channels_gave() -> None:
    theirs = randomised(timm.models.VisionTransformer(**TIMM))
    loaded = vitkit.load_model(theirs.state_dict(), in_chans=1)
    assert loaded.report.resized == ["patch_embed.proj.weight"]
    assert loaded.preprocessing.mean == (0.5,)
    grey = images(channels=1)
    assert worst(loaded.model(grey), theirs(grey.expand(-1, 3, -1, -1))) <= 1e-5


def test_patch_size_and_positions_at_once_as_timm() -> None:
    theirs = randomised(timm.models.VisionTransformer(**TIMM))
    ours = VisionTransformer(**{**OURS, "patch_size": 16, "img_size": (64, 96)})
    report = vitkit.load_weights(ours, theirs.state_dict())
    assert sorted(report.resized) == ["patch_embed.proj.weight", "pos_embed"]
    theirs.set_input_size(img_size=(64, 96), patch_size=(16, 16))  # type: ignore[operator]
    assert worst(ours.pos_embed, theirs.pos_embed) <= 1e-5  # type: ignore[arg-type]
    kernel: Any = theirs.patch_embed.proj.weight  # type: ignore[union-attr]
    assert worst(ours.patch_embed.proj.weight, kernel) <= 1e-5


@pytest.mark.parametrize("wanted", [True, False])
@torch.no_grad()
def test_positions_of_tokens_move_into_tokens_and_back(wanted: bool) -> None:
    # A table with rows for class and registers into a model without, and the other way round.
    more: dict[str, Any] = {"reg_tokens": 3, "init_values": 0.1}
    giver = randomised(VisionTransformer(**OURS, **more, no_embed_class=not wanted))
    taker = VisionTransformer(**OURS, **more, no_embed_class=wanted).eval()
    report = vitkit.load_weights(taker, giver.state_dict())
    assert "pos_embed" in report.resized
    assert worst(taker(images()), giver(images())) <= 1e-5


def test_a_table_of_the_same_shape_keeps_a_grid_that_is_not_square() -> None:
    wide = {**OURS, "img_size": (16, 64)}  # 2 x 8 patches: as many as 4 x 4
    giver, taker = VisionTransformer(**wide), VisionTransformer(**wide)
    assert vitkit.load_weights(taker, giver.state_dict()).resized == []
    assert torch.equal(taker.pos_embed, giver.pos_embed)  # type: ignore[arg-type]


def test_positions_without_a_grid_are_named() -> None:
    state = VisionTransformer(**{**OURS, "img_size": (16, 40)}).state_dict()
    with pytest.raises(WeightsError, match=r"pos_embed has 11 positions.*give img_size"):
        vitkit.load_model(state)
    loaded = vitkit.load_model(state, img_size=(16, 40))
    assert torch.equal(loaded.model.pos_embed, state["pos_embed"])  # type: ignore[arg-type]


def test_a_head_of_other_classes_is_new_and_of_no_classes_is_left() -> None:
    state = VisionTransformer(**OURS).state_dict()
    report = vitkit.load_model(state, num_classes=3).report
    assert sorted(report.new) == ["head.bias", "head.weight"]
    features = vitkit.load_model(state, num_classes=0)
    assert sorted(features.report.unused) == ["head.bias", "head.weight"]
    assert features.model(images()).shape == (2, 128)


def test_the_report_is_a_table_with_every_decision() -> None:
    state = CASES["hf-vit"].make().state_dict() | {"vit.embeddings.mask_token": torch.zeros(1)}
    lines = vitkit.load_model(state, num_classes=3, img_size=64).report.lines()
    kinds = [line.split()[0] for line in lines]
    assert kinds == ["format", "loaded", "resized", "new", "unused", *["note"] * 4]
    assert "Hugging Face ViT" in lines[0]
    said = ("mean 0.5", "square grid", "mask token", "num_heads")
    assert all(any(word in line for line in lines[5:]) for word in said)


def test_heads_that_no_rule_finds() -> None:
    state = VisionTransformer(**{**OURS, "embed_dim": 40, "num_heads": 5}).state_dict()
    with pytest.raises(WeightsError, match=r"how many heads.*40.*give num_heads"):
        vitkit.load_model(state)
    assert vitkit.load_model(state, num_heads=5).section["num_heads"] == 5
    with pytest.raises(ConfigError, match="num_heads"):
        vitkit.load_model(state, num_heads=3)


def test_a_distilled_file_into_a_plain_model() -> None:
    state = CASES["deit-distilled"].make().state_dict()
    plain = VisionTransformer(**OURS)
    with pytest.raises(WeightsError, match=r"dist_token: not in the model.*looks like DeiT, dist"):
        vitkit.load_weights(plain, state)
    report = vitkit.load_weights(plain, state, strict=False)
    assert {"dist_token", "head_dist.weight"} <= set(report.unused)
    table: Any = state["pos_embed"]
    kept: Any = plain.pos_embed
    assert torch.equal(kept, torch.cat([table[:, :1], table[:, 2:]], dim=1))


def test_positions_of_our_own_distilled_models_are_resized_as_they_do_it() -> None:
    """Their names are DeiT's, which resizes without antialiasing."""
    first: Any = DistilledVisionTransformer(**OURS)
    other: Any = DistilledVisionTransformer(**{**OURS, "img_size": (16, 24)})
    own = checkpoint_of(first, name="deit_tiny_distilled_patch16_224", **OURS)
    vitkit.load_weights(other, own)
    wanted = resize_position_grid(first.pos_embed, (4, 4), (2, 3), num_prefix=2)
    torch.testing.assert_close(other.pos_embed.detach(), wanted.detach())


def test_a_file_of_another_architecture_says_which_it_looks_like() -> None:
    ours = VisionTransformer(**OURS)
    large = VisionTransformer(**{**OURS, "embed_dim": 192, "num_heads": 3, "depth": 1})
    says = "looks like timm ViT: width 192, depth 1, 3 heads, patch 8, 32 px"
    with pytest.raises(WeightsError, match=says):
        vitkit.load_weights(ours, large.state_dict())
    for name, signs in STRANGERS.items():
        state = {sign: torch.zeros(2) for sign in signs}
        with pytest.raises(WeightsError, match=rf"looks like .*{name}.*does not read"):
            vitkit.load_weights(ours, state)
        with pytest.raises(WeightsError, match=rf"looks like .*{name}"):
            vitkit.load_model(state)
    with pytest.raises(WeightsError, match=r"of no layout that vitkit knows \(it has foo, bar\)"):
        vitkit.load_model({"foo": torch.zeros(1), "bar": torch.zeros(1)})


STRANGERS = {
    "a convolutional": ["features.0.weight", "classifier.weight"],
    "convolutional network": ["features.0.0.weight", "classifier.weight"],
    "CLIP": ["visual.layer1.0.conv1.weight", "visual.conv1.weight"],
    "SigLIP": ["vision_model.head.probe", "vision_model.post_layernorm.weight"],
    "ResNet": ["layer1.0.conv1.weight", "fc.weight"],
    "lucidrains": ["transformer.layers.0.0.norm.weight", "to_patch_embedding.1.weight"],
    "BERT": ["bert.embeddings.word_embeddings.weight"],
}


def test_real_models_of_others_are_recognised_as_such() -> None:
    ours = VisionTransformer(**OURS)
    models = {"resnet18": "ResNet", "convnext_atto": "ConvNeXt", "beit_base_patch16_224": "BEiT"}
    for name, says in models.items():
        with torch.device("meta"):
            state = timm.create_model(name, num_classes=5).state_dict()
        with pytest.raises(WeightsError, match=rf"looks like .*{says}"):
            vitkit.load_weights(ours, state)


def test_blocks_that_are_missing() -> None:
    state = VisionTransformer(**{**OURS, "depth": 3}).state_dict()
    cut = {name: t for name, t in state.items() if not name.startswith("blocks.1.")}
    with pytest.raises(WeightsError, match=r"blocks are missing: the file has \[0, 2\]"):
        vitkit.load_model(cut)


def test_leftovers_are_errors_unless_told_otherwise() -> None:
    state: dict[str, Tensor] = CASES["hf-vit"].make().state_dict()
    state["vit.extra.weight"] = torch.zeros(1)
    with pytest.raises(WeightsError, match=r"extra.weight: not in the model"):
        vitkit.load_model(state)
    assert "extra.weight" in vitkit.load_model(state, strict=False).report.unused


def test_a_model_of_a_persons_own_takes_its_own_names() -> None:
    class Mine(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = torch.nn.Linear(2, 2)

    one, other = Mine(), Mine()
    assert vitkit.load_weights(one, other.state_dict()).loaded == ["model.weight", "model.bias"]


def test_each_format_has_a_name_of_its_own_and_documents_its_pictures() -> None:
    assert len({each.name for each in FORMATS}) == len(FORMATS)
    for each in FORMATS:
        wanted = set() if each.reads_words else {"mean", "std", "interpolation", "crop_pct"}
        assert set(each.preprocessing) >= wanted


def test_resnets_of_ours_still_load() -> None:
    model = create_model("resnet20_32")
    state = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    report = vitkit.load_weights(create_model("resnet20_32"), state)
    assert len(report.loaded) == len(state)
    with pytest.raises(WeightsError, match=r"\(the file looks like a ResNet\)"):
        vitkit.load_weights(create_model("resnet32_32"), model.state_dict())


def test_a_grid_that_was_guessed_is_told() -> None:
    """16 positions may be 4 x 4 or 2 x 8: what says neither is told to be a guess."""

    def notes(source: Any, **more: Any) -> str:
        return " ".join(vitkit.load_model(source, **more).report.notes)

    long = VisionTransformer(**{**TIMM, "img_size": (16, 64), "patch_size": 8})
    state = long.state_dict()
    assert "taken to be a square grid" in notes(state)
    assert "img_size=(height, width)" in notes(state)
    assert "square" not in notes(state, img_size=(16, 64))
    smaller = VisionTransformer(**{**TIMM, "img_size": 16, "patch_size": 8})
    assert "square" in " ".join(vitkit.load_weights(smaller, state).notes)
    same = VisionTransformer(**{**TIMM, "img_size": (16, 64), "patch_size": 8})
    assert "square" not in " ".join(vitkit.load_weights(same, state).notes)


def test_a_hybrids_positions_and_patches_are_fitted_too() -> None:
    def hybrid(img_size: int, patch_size: int) -> HybridClassifier:
        return HybridClassifier(img_size, patch_size, blocks=["attention"], pos_embed="learn")

    report = vitkit.load_weights(hybrid(48, 6), hybrid(32, 8).state_dict())
    assert sorted(report.resized) == ["pos_embed", "stem.proj.weight"]


def checkpoint_of(model: nn.Module, **section: Any) -> dict[str, Any]:
    """As a file of ours says it: with the model's own section."""
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    return {"vitkit": {"format_version": 1, "model": section}, "state_dict": state}


@pytest.mark.parametrize("size", [(32, 32), (32, 128), (16, 64)])
def test_a_hybrids_positions_keep_the_grid_that_they_were_learned_on(size: tuple[int, int]) -> None:
    """4 x 16 cells are as many as 8 x 8: the section says which."""
    fields: dict[str, Any] = {"patch_size": 4, "blocks": ["attention"], "pos_embed": "learn"}
    fields |= {"embed_dim": 16, "num_heads": 2}
    giver, taker = HybridClassifier((16, 64), **fields), HybridClassifier(size, **fields)
    report = vitkit.load_weights(taker, checkpoint_of(giver, name="hybrid", img_size=[16, 64]))
    assert report.resized == ([] if size == (16, 64) else ["pos_embed"])
    assert "square" not in " ".join(report.notes)
    wanted = resize_position_grid(giver.pos_embed, (4, 16), taker.stem.grid_size)  # type: ignore[arg-type]
    torch.testing.assert_close(taker.pos_embed, wanted, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("size", [(16, 24), (16, 16)])
@pytest.mark.parametrize("tokenizer", ["conv", "patch"])
def test_a_compact_models_positions_do_too(tokenizer: str, size: tuple[int, int]) -> None:
    fields: dict[str, Any] = {"tokenizer": tokenizer, "patch_size": 2, "embed_dim": 24}
    fields |= {"depth": 1, "num_heads": 2}
    giver, taker = CompactTransformer(size, **fields), CompactTransformer(24, **fields)
    report = vitkit.load_weights(taker, checkpoint_of(giver, name="cct", img_size=list(size)))
    assert report.resized == ["pos_embed"]
    assert "square" not in " ".join(report.notes)
    wanted = resize_position_grid(giver.pos_embed, (8, size[1] // 2), (12, 12))  # type: ignore[arg-type]
    torch.testing.assert_close(taker.pos_embed, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [(48, 24), (24, 64), (16, 16)])
@torch.no_grad()
def test_relative_positions_are_taken_to_another_grid_as_the_model_takes_them(
    size: tuple[int, int],
) -> None:
    fields: dict[str, Any] = {**OURS, "pos_embed": "relative"}
    giver = randomised(VisionTransformer(**fields, dynamic_img_size=True))
    taker = VisionTransformer(**{**fields, "img_size": size}).eval()
    report = vitkit.load_weights(taker, giver.state_dict())
    assert report.resized == ["rel_pos.table"]
    assert "rel_pos.table is of another grid" in " ".join(report.notes)
    assert worst(taker(images(size)), giver(images(size))) <= 1e-5
    again = VisionTransformer(**fields)
    assert vitkit.load_weights(again, giver.state_dict()).resized == []


STEM: dict[str, Any] = {"img_size": 16, "embed_dim": 32, "depth": 1, "num_heads": 2}


@torch.no_grad()
def test_a_stems_first_layer_reads_the_pixels() -> None:
    layers = [{"dim": 8, "pool": 2, "norm": False}, {"dim": 8, "pool": 2, "norm": False}]
    theirs = randomised(VisionTransformer(**STEM, conv_stem=layers))
    grey = VisionTransformer(**STEM, conv_stem=layers, in_chans=1).eval()
    report = vitkit.load_weights(grey, theirs.state_dict())
    assert report.resized == ["patch_embed.layers.0.conv.weight"]
    x = images((16, 16), channels=1)
    assert worst(grey(x), theirs(x.expand(-1, 3, -1, -1))) <= 1e-5
    # Its projection reads what the layers made: other channels are another thing there.
    narrow = VisionTransformer(**STEM, conv_stem=[layers[0], {**layers[1], "dim": 4}])
    with pytest.raises(WeightsError, match=r"patch_embed\.proj\.weight: given \(32, 8, 1, 1\)"):
        vitkit.load_weights(narrow, theirs.state_dict())


def test_a_model_of_words_is_no_model_of_pictures_whatever_is_overridden() -> None:
    content = checkpoint_of(torch.nn.Identity(), name="lm_char_mini")
    for overrides in ({}, {"max_len": 128}):
        with pytest.raises(WeightsError, match="holds lm_char_mini, which reads words, not pict"):
            vitkit.load_model(content, **overrides)
