"""Layers called as plain functions give the same, and nothing of the model is changed by it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from vitkit.models import (
    CompactTransformer,
    DistilledVisionTransformer,
    HybridClassifier,
    PixelTextClassifier,
    TextTransformer,
    VisionTransformer,
)
from vitkit.nn import (
    BlockContext,
    LayerCache,
    add_lora,
    direct_calls,
    encoder_blocks,
    make_norm,
    record_attention,
)

WIDTH, HEADS, LENGTH = 24, 4, 7
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "everything": {
        "qk_norm": True,
        "init_values": 0.5,
        "drop_path_rate": 0.2,
        "proj_drop_rate": 0.1,
        "mlp_layer": "swiglu",
        "norm_layer": make_norm("rmsnorm"),
        "num_kv_heads": 2,
    },
    "silu": {"act_layer": "silu", "norm_first": False},
    "relu": {"act_layer": "relu", "qkv_bias": False, "proj_bias": False},
    "quick": {"act_layer": "quick_gelu", "init_values": 0.5},
    "tanh": {"act_layer": "gelu_tanh", "norm_layer": make_norm(eps=0.1)},
}


@pytest.fixture(params=KINDS)
def trunk(request: pytest.FixtureRequest) -> Any:
    """A trunk, and tokens for it."""
    torch.manual_seed(0)
    return encoder_blocks(2, WIDTH, HEADS, **KINDS[request.param]).eval()


def tokens() -> torch.Tensor:
    return torch.randn(3, LENGTH, WIDTH, generator=torch.Generator().manual_seed(1))


def calls_of_layers(trunk: nn.Module) -> int:
    """How many layers are called by torch's machinery in one pass."""
    called: list[str] = []
    with nn.modules.module.register_module_forward_hook(
        lambda m, *_: called.append(type(m).__name__)
    ):
        trunk(tokens())
    return len(called)


def test_outputs_are_the_same_to_the_bit_and_few_layers_are_called(trunk: Any) -> None:
    x = tokens()
    expected, before = trunk(x), calls_of_layers(trunk)
    across = trunk[0].attn(x[:, :2], x)
    with direct_calls(trunk):
        assert torch.equal(trunk(x), expected)
        assert torch.equal(trunk(x, read=2), expected[:, :2])
        assert torch.equal(trunk[0].attn(x[:, :2], x), across)
        inside = calls_of_layers(trunk)
    assert inside < before / 2
    assert torch.equal(trunk(x), expected) and calls_of_layers(trunk) == before


def test_a_cache_and_a_recorder_work_as_ever(trunk: Any) -> None:
    x = tokens()
    causal = BlockContext(is_causal=True)
    with torch.no_grad():
        expected = trunk(x, causal)
        caches = [LayerCache() for _ in trunk]
        with direct_calls(trunk), record_attention(trunk) as maps:
            steps = [
                trunk(x[:, i : i + 1], BlockContext(is_causal=True, caches=caches))
                for i in range(LENGTH)
            ]
    assert torch.allclose(torch.cat(steps, 1), expected, atol=1e-6)
    assert maps[1].shape == (3, HEADS, 1, LENGTH)


def test_the_model_is_left_as_it_was_also_after_an_error(trunk: Any) -> None:
    keys, names = list(trunk.state_dict()), [name for name, _ in trunk.named_modules()]
    attributes = {name: set(vars(module)) for name, module in trunk.named_modules()}
    with pytest.raises(RuntimeError, match="halt"), direct_calls(trunk):
        assert list(trunk.state_dict()) == keys
        assert [name for name, _ in trunk.named_modules()] == names
        raise RuntimeError("halt")
    assert {name: set(vars(module)) for name, module in trunk.named_modules()} == attributes
    assert isinstance(trunk[0].mlp.fc1, nn.Linear)


def test_layers_with_hooks_and_unknown_layers_are_called_as_ever(trunk: Any) -> None:
    seen: list[int] = []
    handle = trunk[1].mlp.fc2.register_forward_hook(lambda *_: seen.append(1))
    add_lora(trunk, rank=2, alpha=2.0, targets=["fc1"])
    nn.init.ones_(trunk[0].mlp.fc1.lora_b[0])
    expected = trunk(tokens())
    with direct_calls(trunk):
        assert torch.equal(trunk(tokens()), expected)
    handle.remove()
    assert len(seen) == 2


def test_a_layer_put_in_place_inside_is_used_and_stays(trunk: Any) -> None:
    with direct_calls(trunk):
        trunk[0].mlp = nn.Identity()
        changed = trunk(tokens())
    assert type(trunk[0].mlp) is nn.Identity
    assert torch.equal(trunk(tokens()), changed)


def test_weights_that_move_are_followed(trunk: Any) -> None:
    with direct_calls(trunk):
        trunk.double()
        inside = trunk(tokens().double())
    assert inside.dtype == torch.float64
    assert torch.equal(trunk(tokens().double()), inside)


SMALL: dict[str, Any] = {"embed_dim": WIDTH, "depth": 2, "num_heads": HEADS}
PICTURES: dict[str, Any] = {"img_size": 8, "num_classes": 5, **SMALL}
KINDS_OF_BLOCK = ("attention", "mixer", "conv", "lstm")
MODELS: dict[str, Any] = {
    "token": lambda: VisionTransformer(patch_size=4, **PICTURES),
    "map": lambda: VisionTransformer(patch_size=4, global_pool="map", **PICTURES),
    "distilled": lambda: DistilledVisionTransformer(patch_size=4, **PICTURES),
    "compact": lambda: CompactTransformer(**PICTURES),
    "hybrid": lambda: HybridClassifier(blocks=KINDS_OF_BLOCK, **{**PICTURES, "depth": 4}),
    "pixels": lambda: PixelTextClassifier(**PICTURES),
    "text": lambda: TextTransformer(11, 8, **SMALL),
}


@pytest.mark.parametrize("name", MODELS)
def test_whole_models_may_be_called_so(name: str) -> None:
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    inputs = torch.randint(11, (2, 8)) if name == "text" else torch.rand(2, 3, 8, 8)
    expected = model(inputs)
    with direct_calls(model):
        # A last block that reads one token computes all of them here.
        torch.testing.assert_close(model(inputs), expected, rtol=1e-4, atol=1e-5)


def test_a_hook_on_every_module_hears_every_call(trunk: Any) -> None:
    heard: list[nn.Module] = []
    handle = nn.modules.module.register_module_forward_hook(lambda m, *_: heard.append(m))
    try:
        trunk(tokens())
        plain = len(heard)
        with direct_calls(trunk):
            trunk(tokens())
    finally:
        handle.remove()
    assert len(heard) == 2 * plain


def test_blocks_that_overlap_last_to_their_own_ends(trunk: Any) -> None:
    before = calls_of_layers(trunk)
    attributes = {name: set(vars(module)) for name, module in trunk.named_modules()}
    first, second = direct_calls(trunk), direct_calls(trunk)
    first.__enter__()
    second.__enter__()
    inside = calls_of_layers(trunk)
    first.__exit__(None, None, None)
    assert calls_of_layers(trunk) == inside < before
    second.__exit__(None, None, None)
    assert calls_of_layers(trunk) == before
    assert {name: set(vars(module)) for name, module in trunk.named_modules()} == attributes
