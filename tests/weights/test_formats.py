"""Each format against the library that owns it: random weights in, the same numbers out.

Relative errors seen in float32 are below 9e-7; 1e-5 is what is asked for.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import transformers as hf
from timm.layers import SwiGLUPacked
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor, nn
from torchvision.models.vision_transformer import interpolate_embeddings

import vitkit
from tests.weights.foreign import (
    CASES,
    HF_VIT,
    OTHER_SIZE,
    TIMM,
    Case,
    images,
    randomised,
    torchvision_vit,
    worst,
)
from vitkit.errors import WeightsError
from vitkit.models import CompactTransformer, VisionTransformer, create_model
from vitkit.weights import hugging_face_folder

TOLERANCE = 1e-5


def _ours(model: Any, x: Tensor, case: Case) -> Tensor:
    out: Tensor = model.forward_features(x) if case.features else model(x)
    return out


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_same_numbers_as_the_owner_of_the_format(name: str) -> None:
    case = CASES[name]
    theirs = randomised(case.make())
    loaded = vitkit.load_model(theirs.state_dict(), img_size=32)
    assert loaded.report.format == case.format
    assert not loaded.report.new
    x = images()
    assert worst(_ours(loaded.model, x, case), case.run(theirs, x)) <= TOLERANCE


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_same_numbers_at_another_size_that_is_not_square(name: str) -> None:
    case = CASES[name]
    theirs = randomised(case.make())
    state = {key: value.clone() for key, value in theirs.state_dict().items()}
    loaded = vitkit.load_model(state, img_size=OTHER_SIZE)
    if name != "timm-no-positions":
        assert "pos_embed" in loaded.report.resized
    if case.resize is not None:
        case.resize(theirs, OTHER_SIZE)
    x = images(OTHER_SIZE)
    assert worst(_ours(loaded.model, x, case), case.run(theirs, x)) <= TOLERANCE


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("hf-")])
@torch.no_grad()
def test_folders_of_hugging_face(name: str, tmp_path: Path) -> None:
    # On disk the names are others than in memory.
    case = CASES[name]
    theirs: Any = randomised(case.make())
    theirs.config.layer_norm_eps = 1e-3  # so that the config is seen to be read
    theirs.save_pretrained(tmp_path)
    theirs = type(theirs).from_pretrained(tmp_path).eval()
    loaded = vitkit.load_model(tmp_path)
    assert loaded.report.format == case.format
    assert loaded.section["norm_eps"] == 1e-3
    x = images()
    assert worst(_ours(loaded.model, x, case), case.run(theirs, x)) <= TOLERANCE


@torch.no_grad()
def test_torchvision_at_its_size_and_at_another() -> None:
    theirs = randomised(torchvision_vit())
    loaded = vitkit.load_model(theirs.state_dict())
    assert loaded.report.format == "torchvision ViT"
    x = images()
    assert worst(loaded.model(x), theirs(x)) <= TOLERANCE
    larger = torchvision_vit(64).eval()
    larger.load_state_dict(interpolate_embeddings(64, 8, theirs.state_dict()))
    x = images((64, 64))
    resized = vitkit.load_model(theirs.state_dict(), img_size=64)
    assert worst(resized.model(x), larger(x)) <= TOLERANCE


@torch.no_grad()
def test_torchvision_with_a_representation_layer_keeps_the_trunk() -> None:
    theirs = randomised(torchvision_vit(representation_size=16))
    loaded = vitkit.load_model(theirs.state_dict())
    assert loaded.section["num_classes"] == 0
    assert {"heads.head.weight", "heads.pre_logits.weight"} <= set(loaded.report.unused)
    assert any("representation layer" in note for note in loaded.report.notes)
    plain = torchvision_vit().eval()
    trunk = {n: t for n, t in theirs.state_dict().items() if not n.startswith("heads.")}
    plain.load_state_dict(trunk, strict=False)
    plain.heads = nn.Identity()  # type: ignore[assignment]
    x = images()
    assert worst(loaded.model(x), plain(x)) <= TOLERANCE


@pytest.mark.parametrize(
    ("width", "heads", "patch", "size"),
    [(192, 3, 16, 112), (384, 6, 8, 56), (768, 12, 32, 128), (1024, 16, 14, 112)],
)
@torch.no_grad()
def test_widths_and_patches_of_the_published_sizes(
    width: int, heads: int, patch: int, size: int
) -> None:
    shape: dict[str, Any] = {"embed_dim": width, "num_heads": heads, "depth": 1, "num_classes": 7}
    theirs = randomised(timm.models.VisionTransformer(size, patch, **shape))
    loaded = vitkit.load_model(theirs.state_dict())
    assert loaded.section["num_heads"] == heads
    x = images((size, size))
    assert worst(loaded.model(x), theirs(x)) <= TOLERANCE


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_small_patch32_224"])
@torch.no_grad()
def test_whole_published_shapes(name: str) -> None:
    theirs = timm.create_model(name).eval()
    loaded = vitkit.load_model(theirs.state_dict())
    assert loaded.section["name"] == name
    x = images((224, 224))
    assert worst(loaded.model(x), theirs(x)) <= TOLERANCE


@torch.no_grad()
def test_the_width_of_dinov2_giant() -> None:
    shape: dict[str, Any] = {"hidden_size": 1536, "num_attention_heads": 24, "image_size": 28}
    config = hf.Dinov2Config(
        **shape, num_hidden_layers=1, patch_size=14, use_swiglu_ffn=True, layerscale_value=0.5
    )
    theirs = hf.Dinov2Model(config).eval()
    loaded = vitkit.load_model(theirs.state_dict())
    assert loaded.section["num_heads"] == 24
    assert int(1536 * loaded.section["mlp_ratio"]) == 4096
    x = images((28, 28))
    assert worst(loaded.model.forward_features(x), theirs(x).last_hidden_state) <= TOLERANCE


def _published_dinov2(state: dict[str, Tensor], *, chunks: int, prefix: str = "") -> Any:
    """timm's names as facebookresearch/dinov2 has them; blocks in chunks of one if asked for."""
    out = {"mask_token": torch.zeros(1, TIMM["embed_dim"])}
    for name, tensor in state.items():
        name = name.replace("reg_token", "register_tokens")
        name = name.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3")
        if chunks:
            name = re.sub(r"^blocks\.(\d+)\.", r"blocks.\1.\1.", name)
        out[name] = tensor
    return {f"{prefix}{name}": tensor for name, tensor in out.items()}


@pytest.mark.parametrize("registers", [0, 4])
@pytest.mark.parametrize("wrapped", [False, True])
@torch.no_grad()
def test_dinov2_as_its_authors_publish_it(registers: int, wrapped: bool, tmp_path: Path) -> None:
    more: dict[str, Any] = {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU, "mlp_ratio": 5.5}
    more |= {"num_classes": 0, "init_values": 1e-5, "reg_tokens": registers}
    theirs = timm.models.VisionTransformer(**{**TIMM, **more}, no_embed_class=registers > 0)
    randomised(theirs)
    state = {name: tensor.clone() for name, tensor in theirs.state_dict().items()}
    state["pos_embed"] = torch.randn(1, 17, 128)  # of the class token too, as published
    theirs.load_state_dict(checkpoint_filter_fn(_published_dinov2(state, chunks=0), theirs))
    source: Any = _published_dinov2(state, chunks=wrapped, prefix="backbone." if wrapped else "")
    if wrapped:
        path = tmp_path / "dump.pth"
        torch.save({"teacher": {**source, "dino_head.last.weight": torch.zeros(3)}}, path)
        source = path
    loaded = vitkit.load_model(source)
    wanted = "DINOv2 with registers" if registers else "DINOv2"
    assert loaded.report.format == wanted
    assert "mask_token" in loaded.report.unused
    assert ("dino_head.last.weight" in loaded.report.unused) == wrapped
    x = images()
    assert worst(loaded.model.forward_features(x), theirs.forward_features(x)) <= TOLERANCE


@torch.no_grad()
def test_deit3_as_its_authors_publish_it() -> None:
    more = {"no_embed_class": True, "init_values": 1e-5}
    theirs = randomised(timm.models.VisionTransformer(**{**TIMM, **more}))
    published = {
        re.sub(r"\.ls([12])\.gamma$", r".gamma_\1", name): tensor
        for name, tensor in theirs.state_dict().items()
    }
    again = timm.models.VisionTransformer(**{**TIMM, **more}).eval()
    again.load_state_dict(checkpoint_filter_fn(dict(published), again, adapt_layer_scale=True))
    loaded = vitkit.load_model(published)
    assert loaded.report.format == "DeiT III"
    x = images()
    assert worst(loaded.model(x), again(x)) <= TOLERANCE


@torch.no_grad()
def test_mae_with_its_decoder() -> None:
    theirs = randomised(timm.models.VisionTransformer(**{**TIMM, "num_classes": 0}))
    state = theirs.state_dict()
    state |= {"mask_token": torch.zeros(1, 1, 16), "decoder_blocks.0.norm1.weight": torch.ones(16)}
    loaded = vitkit.load_model(state)
    assert loaded.report.format == "MAE, pre-trained"
    assert loaded.preprocessing.mean == (0.485, 0.456, 0.406)
    x = images()
    assert worst(loaded.model(x), theirs(x)) <= TOLERANCE


def _google(
    *, representation: bool, rng: np.random.Generator, stacked: bool = False
) -> dict[str, np.ndarray]:
    """Arrays in the published layout, of noise."""
    width, heads, hidden, grid = 128, 2, 512, 4

    def noise(*shape: int) -> np.ndarray:
        return (0.1 * rng.standard_normal(shape)).astype(np.float32)

    attention = "MultiHeadDotProductAttention_" + ("0" if stacked else "1")
    mlp, second = ("MlpBlock_0", "LayerNorm_1") if stacked else ("MlpBlock_3", "LayerNorm_2")
    table = "pos_embedding" if stacked else "Transformer/posembed_input/pos_embedding"
    out = {
        "cls": noise(1, 1, width),
        table: noise(1, grid * grid + 1, width),
        "embedding/kernel": noise(8, 8, 3, width),
        "embedding/bias": noise(width),
        "Transformer/encoder_norm/scale": noise(width),
        "Transformer/encoder_norm/bias": noise(width),
        "head/kernel": noise(width, 5),
        "head/bias": noise(5),
    }
    if representation:
        out |= {"pre_logits/kernel": noise(width, width), "pre_logits/bias": noise(width)}
    blocks: list[dict[str, np.ndarray]] = []
    for _ in range(2):
        block = {}
        for norm in ("LayerNorm_0", second):
            block |= {f"{norm}/scale": noise(width), f"{norm}/bias": noise(width)}
        for part in ("query", "key", "value"):
            block[f"{attention}/{part}/kernel"] = noise(width, heads, width // heads)
            block[f"{attention}/{part}/bias"] = noise(heads, width // heads)
        block[f"{attention}/out/kernel"] = noise(heads, width // heads, width)
        block[f"{attention}/out/bias"] = noise(width)
        for layer, shape in (("Dense_0", (width, hidden)), ("Dense_1", (hidden, width))):
            block[f"{mlp}/{layer}/kernel"] = noise(*shape)
            block[f"{mlp}/{layer}/bias"] = noise(shape[1])
        blocks.append(block)
    if stacked:
        for name in blocks[0]:
            out[f"Transformer/encoderblock/{name}"] = np.stack([block[name] for block in blocks])
    else:
        for index, block in enumerate(blocks):
            out |= {f"Transformer/encoderblock_{index}/{n}": a for n, a in block.items()}
    return out


@pytest.mark.parametrize(
    ("representation", "prefix", "stacked"),
    [
        (False, "", False),
        (True, "", False),
        (False, "opt/target/", False),
        (False, "params/", True),
    ],
)
@pytest.mark.parametrize("size", [(32, 32), OTHER_SIZE])
@torch.no_grad()
def test_google_npz_against_timms_own_loader(
    representation: bool, prefix: str, stacked: bool, size: tuple[int, int], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    arrays = _google(representation=representation, rng=rng, stacked=stacked)
    path = tmp_path / "ViT.npz"
    np.savez(path, **{f"{prefix}{name}": array for name, array in arrays.items()})
    theirs = timm.models.VisionTransformer(**{**TIMM, "img_size": size}).eval()
    theirs.load_pretrained(str(path))
    loaded = vitkit.load_model(path, img_size=size)
    assert loaded.report.format == "Google's ViT (.npz)"
    assert loaded.report.of_imagenet
    assert loaded.section["num_heads"] == 2
    x = images(size)
    assert worst(loaded.model.forward_features(x), theirs.forward_features(x)) <= TOLERANCE
    if representation:
        # Its head reads a layer that no one has any more: the head is left out, and it is said.
        assert loaded.section["num_classes"] == 0
        assert {"head/kernel", "pre_logits/kernel"} <= set(loaded.report.unused)
    else:
        assert worst(loaded.model(x), theirs(x)) <= TOLERANCE


def _published_compact(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our names as SHI-Labs/Compact-Transformers has them."""
    whole = {
        "cls_token": "classifier.class_emb",
        "pos_embed": "classifier.positional_emb",
        "tokenizer.proj.weight": "tokenizer.conv_layers.0.0.weight",
        "tokenizer.proj.bias": "tokenizer.conv_layers.0.0.bias",
        "tokenizer.layers.0.weight": "tokenizer.conv_layers.0.0.weight",
        "tokenizer.layers.3.weight": "tokenizer.conv_layers.1.0.weight",
    }
    parts = (
        *((".norm2.", ".NORM1."), (".norm1.", ".pre_norm."), (".NORM1.", ".norm1.")),
        *((".attn.", ".self_attn."), (".mlp.fc1.", ".linear1."), (".mlp.fc2.", ".linear2.")),
    )
    out = {}
    for name, tensor in state.items():
        theirs = whole.get(name)
        if theirs is None:
            theirs = name.replace("seq_pool.score", "attention_pool").replace("head.", "fc.")
            for ours, other in parts:
                theirs = theirs.replace(ours, other)
            theirs = f"classifier.{theirs}"
        out[theirs] = tensor
    return out


@pytest.mark.parametrize(
    "more",
    [
        {"num_conv_layers": 2},
        {"kernel_size": 7, "num_conv_layers": 1},
        {"tokenizer": "patch", "patch_size": 4},
        {"tokenizer": "patch", "patch_size": 4, "global_pool": "token"},
    ],
)
@torch.no_grad()
def test_compact_transformers_as_their_authors_publish_them(more: dict[str, Any]) -> None:
    sizes: dict[str, Any] = {"embed_dim": 128, "depth": 2, "num_heads": 2, "num_classes": 5}
    wanted = randomised(CompactTransformer(**sizes, **more))
    loaded = vitkit.load_model(_published_compact(wanted.state_dict()))
    assert loaded.report.format.startswith("Compact-Transformers")
    assert loaded.preprocessing.mean == (0.4914, 0.4822, 0.4465)
    x = images()
    assert torch.equal(loaded.model(x), wanted(x))
    resized = vitkit.load_model(_published_compact(wanted.state_dict()), img_size=48)
    assert "pos_embed" in resized.report.resized


@torch.no_grad()
def test_old_timm_files_with_a_representation_layer() -> None:
    theirs = randomised(timm.models.VisionTransformer(**TIMM))
    state = theirs.state_dict() | {"pre_logits.fc.weight": torch.ones(128, 128)}
    loaded = vitkit.load_model({f"module.{name}": tensor for name, tensor in state.items()})
    assert loaded.section["num_classes"] == 0
    assert set(loaded.report.unused) == {"pre_logits.fc.weight", "head.weight", "head.bias"}
    x = images()
    features = theirs.forward_features(x)
    assert worst(loaded.model.forward_features(x), features) <= TOLERANCE


@torch.no_grad()
def test_the_pooler_of_a_bare_hugging_face_model_is_left_and_said() -> None:
    theirs = randomised(hf.ViTModel(hf.ViTConfig(**HF_VIT)))
    loaded = vitkit.load_model(theirs.state_dict())
    assert "pooler.dense.weight" in loaded.report.unused
    assert any("pooler" in note for note in loaded.report.notes)
    x = images()
    assert worst(loaded.model.forward_features(x), theirs(x).last_hidden_state) <= TOLERANCE


@torch.no_grad()
def test_a_head_of_another_pooling_begins_anew_and_is_said() -> None:
    theirs: Any = randomised(CASES["hf-dinov2-classifier"].make())
    assert vitkit.load_model(theirs.state_dict()).section["global_pool"] == "token_avg"
    narrow = vitkit.load_model(theirs.state_dict(), global_pool="token")
    wide = vitkit.load_model(narrow.model.state_dict(), global_pool="token_avg")
    for loaded in (narrow, wide):
        assert set(loaded.report.new) == {"head.weight", "head.bias"}
        assert {"head.weight", "head.bias"} <= set(loaded.report.unused)
        assert any("behind another pooling" in note for note in loaded.report.notes)
    x = images()
    hidden = theirs.dinov2(x).last_hidden_state
    assert worst(narrow.model.forward_features(x), hidden) <= TOLERANCE
    assert vitkit.load_model(theirs.state_dict(), num_classes=3).model(x).shape == (2, 3)
    # Without its head it is an encoder, whose norm may lie behind the pooling.
    mean = VisionTransformer(**TIMM, global_pool="avg", init_values=1e-5)
    report = vitkit.load_weights(mean, theirs.state_dict())
    assert {"norm.weight", "head.weight"} <= set(report.unused)
    assert {name.split(".")[0] for name in report.new} == {"head", "fc_norm"}


def test_ours_among_them() -> None:
    ours = VisionTransformer(**TIMM, class_token=False, global_pool="avg")
    loaded = vitkit.load_model(ours.state_dict())
    pairs = zip(ours.parameters(), loaded.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_tensor_without_a_name_at_hugging_face_is_named() -> None:
    section: dict[str, Any] = {"name": "vit_tiny_patch16_224", "img_size": 32, "embed_dim": 32}
    section |= {"depth": 1, "num_heads": 2, "num_classes": 3}
    model = create_model(section["name"], **{k: v for k, v in section.items() if k != "name"})
    named, _ = hugging_face_folder(model, section, ())
    assert not any("None" in name for name in named)
    model.register_buffer("extra", torch.zeros(1))
    with pytest.raises(WeightsError, match="no name for the tensor extra"):
        hugging_face_folder(model, section, ())
