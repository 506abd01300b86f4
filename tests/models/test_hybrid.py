"""Lists of blocks: the notebooks' printed sizes, timm's MLP-Mixer and ConvMixer, Keras' forward."""

from __future__ import annotations

import math
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitkit.models import HybridClassifier, create_model, list_models
from vitkit.models.presets import PRESETS
from vitkit.nn import (
    Attention,
    Block,
    BlockContext,
    ConvMixerBlock,
    MixerBlock,
    RecurrentBlock,
    record_attention,
)

# "Transformers: from NLP to CV", the four notebooks: what Keras printed as trainable, and how many
# more it printed as the total: 7 of the normalisation, if any, and BatchNorm's statistics.
NOTEBOOKS = {
    "nb01_vit": (21_084_362, 7),
    "nb02_mixer": (90_058, 7),
    "nb03_mixer": (76_298, 7),
    "nb03_vit1": (349_258, 7),
    "nb03_vit2": (324_106, 7),
    "nb03_mixer_vit": (200_202, 7),
    "nb03_2mixer_vit": (225_354, 7),
    "nb04_mixer": (168_586, 7),
    "nb04_convmixer": (1_162, 96),
    "nb04_convmixer_mixer": (141_242, 96),
}
TIMMS = sorted(name for name in list_models("*mixer*") if timm.is_model(name))
LIMIT = 1e-10
"""Of an error over the reference's largest value; the largest measured is 2.6e-15."""


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def shaken(model: Any) -> Any:
    """The model in float64 with all weights and statistics far from their first values."""
    torch.manual_seed(0)
    model.double()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                noise = torch.randn_like(tensor)
                tensor.add_(noise.abs() if name.endswith("running_var") else 0.2 * noise)
    return model


def assert_equal(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= LIMIT * expected.abs().max()


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_notebooks_printed_counts(name: str) -> None:
    trainable, more = NOTEBOOKS[name]
    with torch.device("meta"):
        model = create_model(name)
    assert count(model) == trainable
    statistics = sum(b.numel() for b in model.buffers() if b.is_floating_point())
    assert statistics == (0 if more == 7 else more)


def test_every_notebook_model_is_counted() -> None:
    assert set(NOTEBOOKS) == set(list_models("nb*"))


def test_the_eleventh_count_is_of_the_layers_behind_the_attention_maps() -> None:
    """82,688: notebook 01's second model, from the picture to the scores of its one block."""
    model = create_model("nb01_vit").eval()
    block = model.blocks[0]
    layers = count(model.stem) + model.pos_embed.numel() + count(block.norm1) + count(block.attn)
    assert layers == 82_688
    with record_attention(model) as maps, torch.no_grad():
        model(torch.rand(2, 3, 72, 72))
    assert maps[0].shape == (2, 4, 144, 144)
    torch.testing.assert_close(maps[0].sum(-1), torch.ones(2, 4, 144))


@pytest.mark.parametrize(
    ("name", "more", "expected"),
    [
        # Keras' own examples, which the notebooks started from: totals less what is not trained.
        ("nb01_vit", {"depth": 8, "num_classes": 100}, 21_759_019 - 7),
        (
            "nb02_mixer",
            {"img_size": 64, "num_classes": 100, "tokens_mlp_dim": 64, "channels_mlp_dim": 64},
            242_795 - 7,
        ),
        ("convmixer_256_8_32", {}, 602_890 - 8_704),
    ],
)
def test_counts_of_keras_examples(name: str, more: dict[str, Any], expected: int) -> None:
    with torch.device("meta"):
        assert count(create_model(name, **more)) == expected


@pytest.mark.parametrize("name", TIMMS)
def test_names_mean_what_they_mean_in_timm(name: str) -> None:
    with torch.device("meta"):
        ours, theirs = create_model(name), timm.create_model(name, num_classes=1000)
    assert count(ours) == count(theirs)
    if name.startswith("mixer"):  # down to the names of the parameters
        shapes = [{k: v.shape for k, v in m.state_dict().items()} for m in (ours, theirs)]
        assert shapes[0] == shapes[1]


def test_timms_names_are_here() -> None:
    assert len(TIMMS) == 9


def test_mlp_mixer_is_timms() -> None:
    theirs = shaken(
        timm.models.MlpMixer(5, (16, 24), patch_size=4, num_blocks=3, embed_dim=20).eval()
    )
    ours = create_model(
        "mixer_s16_224", num_classes=5, img_size=(16, 24), patch_size=4, depth=3, embed_dim=20
    )
    ours.double().eval().load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 16, 24, dtype=torch.float64)
    assert_equal(ours(images), theirs(images))
    assert_equal(ours.forward_features(images), theirs.forward_features(images))


@pytest.mark.parametrize("act", ["gelu", "relu"])
def test_conv_mixer_is_timms(act: str) -> None:
    layer = {"gelu": nn.GELU, "relu": nn.ReLU}[act]
    theirs = shaken(timm.models.ConvMixer(12, 3, 5, 2, num_classes=5, act_layer=layer).train(False))
    ours = create_model(
        "convmixer_256_8_32",
        num_classes=5,
        img_size=(8, 12),
        depth=3,
        embed_dim=12,
        act_layer=act,
    )
    ours.double().eval()
    # The same modules in the same order, under other names.
    names = zip(ours.state_dict(), theirs.state_dict().values(), strict=True)
    ours.load_state_dict(dict(names))
    images = torch.randn(2, 3, 8, 12, dtype=torch.float64)
    assert_equal(ours(images), theirs(images))


def keras_forward(model: HybridClassifier, images: Tensor, act: str) -> Tensor:
    """The notebooks' forward pass, layer by layer as Keras' functions define it.

    Kernels are (inputs, outputs) there, and attention's (C, heads, key_dim).
    """
    w = dict(model.state_dict())
    gelu = nn.GELU("tanh" if act == "gelu_tanh" else "none")

    def dense(x: Tensor, name: str) -> Tensor:
        return x @ w[f"{name}.weight"].flatten(1).T + w[f"{name}.bias"]

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    def batch_norm(x: Tensor, name: str) -> Tensor:
        mean, var = w[f"{name}.running_mean"], w[f"{name}.running_var"]
        return (x - mean) / (var + 1e-3).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]

    def attention(x: Tensor, name: str, heads: int = 4, key_dim: int = 64) -> Tensor:
        kernels = w[f"{name}.qkv.weight"].T.reshape(-1, 3, heads, key_dim)
        biases = w[f"{name}.qkv.bias"].reshape(3, heads, key_dim)
        q, k, v = (
            torch.einsum("bnc,chd->bhnd", x, kernels[:, i]) + biases[i][:, None] for i in range(3)
        )
        scores = (q / math.sqrt(key_dim)) @ k.mT
        mixed = scores.softmax(-1) @ v
        kernel = w[f"{name}.proj.weight"].T.reshape(heads, key_dim, -1)
        return torch.einsum("bhnd,hdc->bnc", mixed, kernel) + w[f"{name}.proj.bias"]

    side = model.stem.patch_size[0]
    rows, columns = model.stem.grid_size
    patches = images.unflatten(2, (rows, side)).unflatten(4, (columns, side))
    x = dense(patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2), "stem.proj")
    if "stem.norm.weight" in w:
        x = batch_norm(gelu(x), "stem.norm")
    if "pos_embed" in w:
        x = x + w["pos_embed"]
    for index, block in enumerate(model.blocks):
        name = f"blocks.{index}"
        if isinstance(block, Block):
            x = x + attention(norm(x, f"{name}.norm1"), f"{name}.attn")
            hidden = gelu(dense(norm(x, f"{name}.norm2"), f"{name}.mlp.fc1"))
            x = x + gelu(dense(hidden, f"{name}.mlp.fc2"))
        elif isinstance(block, MixerBlock):
            turned = norm(x, f"{name}.norm1").mT
            hidden = gelu(dense(turned, f"{name}.mlp_tokens.fc1"))
            x = x + dense(hidden, f"{name}.mlp_tokens.fc2").mT
            hidden = gelu(dense(norm(x, f"{name}.norm1"), f"{name}.mlp_channels.fc1"))
            x = x + dense(hidden, f"{name}.mlp_channels.fc2")
        else:
            kernel, bias = w[f"{name}.depthwise.weight"], w[f"{name}.depthwise.bias"]
            image = x.mT.unflatten(2, (rows, columns))
            around = F.conv2d(F.pad(image, (2, 2, 2, 2)), kernel, bias, groups=x.shape[2])
            x = x + batch_norm(gelu(around).flatten(2).mT, f"{name}.norm1")
            x = batch_norm(gelu(dense(x, f"{name}.pointwise")), f"{name}.norm2")
    if "norm.weight" in w:
        x = norm(x, "norm")
    x = x.flatten(1) if model.global_pool == "flatten" else x.mean(1)
    for name in ("head_hidden.0", "head_hidden.3"):
        x = gelu(dense(x, name)) if f"{name}.weight" in w else x
    return dense(x, "head")


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_notebooks_forward(name: str) -> None:
    # All as in the notebook, but for fewer patches and the ViT's huge hidden layers.
    more: dict[str, Any] = {"img_size": 24}
    if name == "nb01_vit":
        more["head_hidden_dims"] = (20, 10)
    if "conv" in name:
        more["img_size"] = 12
    model = shaken(create_model(name, **more)).eval()
    size = more["img_size"]
    images = torch.randn(3, 3, size, size, dtype=torch.float64)
    act = str(PRESETS[name].kwargs.get("act_layer", "gelu"))
    assert_equal(model(images), keras_forward(model, images, act))


def dropouts(module: nn.Module) -> list[float]:
    return [m.p for m in module.modules() if isinstance(m, nn.Dropout)]


def test_the_notebooks_dropout() -> None:
    vit = create_model("nb01_vit")
    assert vit.head_drop.p == 0.5 and dropouts(vit.head_hidden) == [0.5, 0.5]
    hybrid = create_model("nb03_2mixer_vit")
    assert [type(block) for block in hybrid.blocks] == [MixerBlock, MixerBlock, Block]
    mixer, attention = hybrid.blocks[0], hybrid.blocks[2]
    for mlp in (mixer.mlp_tokens, mixer.mlp_channels):
        assert mlp.drop1 is None and mlp.drop2.p == 0.4
    for block in (vit.blocks[0], attention):
        assert block.attn.attn_drop == 0.1 and block.attn.proj_drop is None
        assert dropouts(block.mlp) == [0.1, 0.1]
    assert hybrid.head_drop.p == 0.4
    last = create_model("nb04_convmixer_mixer")
    assert dropouts(last.blocks[1]) == [0.9, 0.9] and last.head_drop.p == 0.0
    assert isinstance(last.blocks[0], ConvMixerBlock)
    for norm in (last.stem.norm, last.blocks[0].norm1, last.blocks[0].norm2):
        assert (norm.eps, norm.momentum) == (1e-3, 0.01)


def test_the_list_is_repeated_to_the_depth() -> None:
    small: dict[str, Any] = {"img_size": 8, "embed_dim": 8, "num_heads": 2}
    for depth, kinds in ((None, "ma"), (1, "m"), (5, "mamam")):
        model = HybridClassifier(blocks=("mixer", "attention"), depth=depth, **small)
        found = "".join("m" if isinstance(b, MixerBlock) else "a" for b in model.blocks)
        assert found == kinds


def test_first_weights_are_glorots() -> None:
    torch.manual_seed(0)
    model = create_model("nb03_mixer_vit")
    for layer in (model.stem.proj, model.blocks[0].mlp_tokens.fc1, model.blocks[1].attn.proj):
        weight = layer.weight.flatten(1)
        limit = math.sqrt(6 / sum(weight.shape))
        assert 0.95 * limit < weight.abs().max() <= limit
        assert not layer.bias.any()


def test_rates_of_drop_path_rise() -> None:
    model = create_model("convmixer_256_8_32", drop_path_rate=0.2, depth=3, embed_dim=8)
    rates = [getattr(block.drop_path, "p", 0.0) for block in model.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2])


def test_attention_of_a_hybrid_can_be_recorded() -> None:
    model = create_model("nb03_2mixer_vit").eval()
    with record_attention(model) as maps, torch.no_grad():
        model(torch.rand(1, 3, 64, 64))
    assert sum(isinstance(m, Attention) for m in model.modules()) == len(maps) == 1
    assert maps[0].shape == (1, 4, 64, 64)


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("stem", "conv", "'conv'.*'convmixer'"),
        ("pos_embed", "rotary", "'rotary'.*'learn'"),
        ("global_pool", "token", "'token'.*'flatten'"),
        ("blocks", ("mixer", "pool"), "'pool'.*'attention'.*'conv'"),
        ("blocks", (), "list of"),
        ("blocks", "mixer", "list of"),
        ("img_size", 30, "30 x 30.*4 x 4"),
    ],
)
def test_constructor_errors(option: str, value: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        HybridClassifier(**{option: value})


def test_another_image_size_is_refused() -> None:
    with pytest.raises(ValueError, match="built for 32 x 32"):
        create_model("nb04_convmixer")(torch.zeros(1, 3, 16, 16))


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_recurrent_blocks_read_the_patches_row_by_row(kind: str, bidirectional: bool) -> None:
    more: dict[str, Any] = {"img_size": 16, "embed_dim": 8, "num_heads": 2, "recurrent_dim": 6}
    model = shaken(
        HybridClassifier(
            blocks=(kind, "attention"), depth=3, bidirectional=bidirectional, drop_rate=0.0, **more
        )
    ).eval()
    kinds = [type(block) for block in model.blocks]
    assert kinds == [RecurrentBlock, Block, RecurrentBlock]
    assert model.blocks[0].rnn.rnn.hidden_size == 6
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    changed = images.clone()
    changed[:, :, 8:12] += 1.0  # the third row of patches
    tokens = [model.blocks[0](model.stem(x)[0], BlockContext((4, 4))) for x in (images, changed)]
    alike = torch.isclose(*tokens).all(-1)
    assert alike[:, :8].all() != bidirectional and not alike[:, 8:].any()
