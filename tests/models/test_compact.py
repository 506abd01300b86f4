"""CCT, CVT and ViT-Lite against a few lines of torch that follow the paper and its repository."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitkit.models import CompactTransformer, create_model
from vitkit.models.compact import ConvTokenizer, SequencePool

SMALL: dict[str, Any] = {
    "img_size": (12, 16),
    "num_classes": 5,
    "embed_dim": 24,
    "depth": 2,
    "num_heads": 3,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "cct_3x1": {**SMALL},
    "cct_3x2": {**SMALL, "num_conv_layers": 2, "conv_dim": 10},
    "cct_7x2": {**SMALL, "kernel_size": 7, "num_conv_layers": 2},
    "cct_sine": {**SMALL, "positional_embedding": "sine"},
    "cct_none": {**SMALL, "positional_embedding": "none"},
    "cvt": {**SMALL, "tokenizer": "patch"},
    "vit_lite": {**SMALL, "tokenizer": "patch", "global_pool": "token"},
}


def reference(model: CompactTransformer, images: Tensor, kwargs: dict[str, Any]) -> Tensor:
    """The published forward pass, written with torch's functions and MultiheadAttention."""
    w = dict(model.named_parameters())
    width = kwargs["embed_dim"]
    if kwargs.get("tokenizer") == "patch":
        x = F.conv2d(images, w["tokenizer.proj.weight"], w["tokenizer.proj.bias"], stride=4)
    else:
        k = kwargs.get("kernel_size", 3)
        x = images
        for layer in range(kwargs.get("num_conv_layers", 1)):
            stride, padding = {3: (1, 1), 7: (2, 3)}[k]
            x = F.conv2d(x, w[f"tokenizer.layers.{3 * layer}.weight"], None, stride, padding)
            x = F.max_pool2d(F.relu(x), 3, 2, 1)
    x = x.flatten(2).mT
    if "cls_token" in w:
        x = torch.cat([w["cls_token"].expand(len(x), 1, width), x], dim=1)
    kind = kwargs.get("positional_embedding", "learnable")
    if kind == "learnable":
        x = x + w["pos_embed"]
    elif kind == "sine":
        table = [
            [
                (math.cos if c % 2 else math.sin)(p / 10000 ** (2 * (c // 2) / width))
                for c in range(width)
            ]
            for p in range(x.shape[1])
        ]
        x = x + torch.tensor(table, dtype=x.dtype)
    for index in range(kwargs["depth"]):
        b = {key.removeprefix(f"blocks.{index}."): v for key, v in w.items()}

        def norm(x: Tensor, name: str, b: dict[str, Tensor] = b) -> Tensor:
            return F.layer_norm(x, (width,), b[f"{name}.weight"], b[f"{name}.bias"])

        h = norm(x, "norm1")
        mixed, _ = F.multi_head_attention_forward(
            *[h.transpose(0, 1)] * 3,
            width,
            kwargs["num_heads"],
            b["attn.qkv.weight"],
            None,
            None,
            None,
            False,
            0.0,
            b["attn.proj.weight"],
            b["attn.proj.bias"],
        )
        x = norm(x + mixed.transpose(0, 1), "norm2")
        hidden = F.gelu(F.linear(x, b["mlp.fc1.weight"], b["mlp.fc1.bias"]))
        x = x + F.linear(hidden, b["mlp.fc2.weight"], b["mlp.fc2.bias"])
    x = F.layer_norm(x, (width,), w["norm.weight"], w["norm.bias"])
    if "cls_token" in w:
        pooled = x[:, 0]
    else:
        scores = x @ w["seq_pool.score.weight"][0] + w["seq_pool.score.bias"]
        pooled = (scores.softmax(1)[:, :, None] * x).sum(1)
    return F.linear(pooled, w["head.weight"], w["head.bias"])


@pytest.mark.parametrize("name", VARIANTS)
def test_equals_the_published_forward_and_gradients(name: str) -> None:
    torch.manual_seed(0)
    model = CompactTransformer(**VARIANTS[name]).double().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
    images = torch.randn(2, 3, 12, 16, dtype=torch.float64, requires_grad=True)
    inputs = [images, *model.parameters()]
    ours, theirs = model(images), reference(model, images, VARIANTS[name])
    limit = 1e-6 if name == "cct_sine" else 1e-10  # the table is float32
    assert (ours - theirs).abs().max() < limit * theirs.abs().max()
    weight = torch.randn_like(ours)
    found = torch.autograd.grad((ours * weight).sum(), inputs)
    expected = torch.autograd.grad((theirs * weight).sum(), inputs)
    largest = max(g.abs().max() for g in expected)
    for mine, other in zip(found, expected, strict=True):
        # The score's bias has no gradient by mathematics, hence the second scale.
        assert (mine - other).abs().max() < limit * max(other.abs().max(), 1e-3 * largest)


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("cct_7_3x1_32", 256),
        ("cct_7_3x2_32", 64),
        ("cct_7_7x2_224", 196),
        ("cct_14_7x2_384", 576),
        ("cvt_7_4_32", 64),
        ("vit_lite_7_patch4_32", 65),
    ],
)
def test_published_token_counts(name: str, tokens: int) -> None:
    with torch.device("meta"):
        model = create_model(name, depth=1)
        size = int(name.rsplit("_", 1)[1])
        assert model.forward_features(torch.zeros(1, 3, size, size)).shape[1] == tokens


@pytest.mark.parametrize("size", [(5, 9), (32, 31), (1, 1), (17, 64)])
@pytest.mark.parametrize("kernel", [1, 2, 3, 5, 7])
def test_the_grid_of_any_size_is_known_beforehand(kernel: int, size: tuple[int, int]) -> None:
    tokenizer = ConvTokenizer(size, embed_dim=8, kernel_size=kernel, num_conv_layers=2, conv_dim=4)
    tokens, grid = tokenizer(torch.zeros(1, 3, *size))
    assert tokens.shape[1] == tokenizer.num_patches == grid[0] * grid[1]
    assert tokenizer.layers(torch.zeros(1, 3, *size)).shape[2:] == grid


def test_sequence_pool_is_a_mean_without_preference_and_one_token_with_a_strong_one() -> None:
    pool, tokens = SequencePool(4), torch.randn(2, 6, 4)
    nn.init.zeros_(pool.score.weight)
    torch.testing.assert_close(pool(tokens), tokens.mean(1))
    nn.init.constant_(pool.score.weight, 1e4)
    best = tokens.sum(2).argmax(1)
    torch.testing.assert_close(pool(tokens), tokens[torch.arange(2), best])


def test_published_defaults() -> None:
    model = create_model("cct_7_3x1_32")
    assert [b.attn.attn_drop for b in model.blocks] == [0.1] * 7
    rates = [getattr(b.drop_path1, "p", 0.0) for b in model.blocks]
    assert rates == pytest.approx([0.1 * i / 6 for i in range(7)])
    assert model.blocks[0].norm1.eps == 1e-5
    assert model.pos_embed.std().item() == pytest.approx(0.2, rel=0.05)
    assert model.blocks[0].attn.qkv.weight.std().item() == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize(
    ("option", "value"),
    [("tokenizer", "words"), ("global_pool", "avg"), ("positional_embedding", "rotary")],
)
def test_constructor_errors(option: str, value: str) -> None:
    with pytest.raises(ValueError, match=value):
        CompactTransformer(**SMALL, **{option: value})


def test_another_image_size_is_refused() -> None:
    for kwargs in (VARIANTS["cct_3x1"], VARIANTS["cvt"]):
        with pytest.raises(ValueError, match="built for 12 x 16"):
            CompactTransformer(**kwargs)(torch.zeros(1, 3, 16, 16))
