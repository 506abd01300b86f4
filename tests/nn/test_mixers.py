"""MLP-Mixer's and ConvMixer's blocks against timm's, torch's functions, and their own promises."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.models.mlp_mixer import MixerBlock as TimmMixerBlock
from torch import Tensor, nn

from vitkit.nn import (
    Attention,
    Block,
    BlockContext,
    ConvMixerBlock,
    LayerCache,
    MixerBlock,
    Mlp,
    Trunk,
    TwiceActivatedMlp,
    make_norm,
)

BATCH, GRID, WIDTH = 3, (3, 5), 12
LENGTH = GRID[0] * GRID[1]
CTX = BlockContext(GRID)
LIMIT = 1e-12
"""Of an error over the reference's largest value; the largest measured is 1.1e-16."""


def shaken(module: Any) -> Any:
    """The module in float64 with all weights and statistics far from their first values."""
    draw = torch.Generator().manual_seed(0)
    module.double()
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                noise = torch.randn(tensor.shape, generator=draw, dtype=tensor.dtype)
                tensor.add_(noise.abs() if name.endswith("running_var") else 0.3 * noise)
    return module


def random(*shape: int, seed: int = 1) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=draw, dtype=torch.float64).requires_grad_()


def tokens() -> Tensor:
    return random(BATCH, LENGTH, WIDTH)


def assert_equal(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= LIMIT * expected.abs().max()


def assert_equal_with_gradients(
    ours: nn.Module, found: Tensor, expected: Tensor, leaves: list[Tensor], other: list[Tensor]
) -> None:
    """Values, and the gradients of a generic function of them."""
    assert_equal(found, expected)
    weight = random(*expected.shape, seed=5).detach()
    grads = torch.autograd.grad((found * weight).sum(), [*leaves, *ours.parameters()])
    wanted = torch.autograd.grad((expected * weight).sum(), [*leaves, *other])
    for one, two in zip(grads, wanted, strict=True):
        assert_equal(one, two.reshape(one.shape))


def mixer(**kwargs: Any) -> MixerBlock:
    more: dict[str, Any] = {"tokens_dim": 6, "channels_dim": 48, "norm_layer": make_norm()}
    return shaken(MixerBlock(WIDTH, LENGTH, **{**more, **kwargs}))


def test_the_mixer_is_timms() -> None:
    ours = mixer()
    theirs = TimmMixerBlock(WIDTH, LENGTH).double()
    theirs.load_state_dict(ours.state_dict())
    x = tokens()
    assert_equal_with_gradients(ours, ours(x, CTX), theirs(x), [x], list(theirs.parameters()))


def test_a_shared_norm_is_one_norm_in_both_places() -> None:
    ours, two = mixer(shared_norm=True), mixer()
    with torch.no_grad():
        two.load_state_dict(ours.state_dict(), strict=False)
        two.norm2.load_state_dict(ours.norm1.state_dict())
    x = tokens()
    assert_equal(ours(x), two(x))
    for branch in (two.norm1, two.norm2):  # and both count
        with torch.no_grad():
            branch.weight.add_(0.5)
        assert not torch.allclose(ours(x), two(x))
        branch.load_state_dict(ours.norm1.state_dict())
    count = sum(p.numel() for p in ours.parameters())
    assert count == sum(p.numel() for p in two.parameters()) - 2 * WIDTH
    assert [name for name in ours.state_dict() if "norm" in name] == ["norm1.weight", "norm1.bias"]


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("training", [True, False])
def test_conv_mixer_is_timms(kernel: int, training: bool) -> None:
    ours = shaken(ConvMixerBlock(WIDTH, kernel_size=kernel)).train(training)
    theirs = timm.models.ConvMixer(WIDTH, 1, kernel_size=kernel).blocks[0].double().train(training)
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    x = tokens()
    image = x.transpose(1, 2).reshape(BATCH, WIDTH, *GRID)
    expected = theirs(image).flatten(2).transpose(1, 2)
    assert_equal_with_gradients(ours, ours(x, CTX), expected, [x], list(theirs.parameters()))
    for one, two in zip(ours.buffers(), theirs.buffers(), strict=True):
        assert_equal(one.double(), two.double())


def test_prefix_tokens_pass_a_conv_mixer_unchanged() -> None:
    block, x = shaken(ConvMixerBlock(WIDTH, kernel_size=3)), tokens()
    prefix = random(BATCH, 2, WIDTH, seed=2)
    out = block(torch.cat([prefix, x], dim=1), BlockContext(GRID, num_prefix=2))
    assert torch.equal(out[:, :2], prefix)
    assert_equal(out[:, 2:], block(x, CTX))


def test_conv_mixer_sees_neighbours_on_the_grid_and_no_further() -> None:
    block = shaken(ConvMixerBlock(WIDTH, kernel_size=3)).eval()
    x = tokens()
    grad = torch.autograd.grad(block(x, CTX)[:, 7].sum(), x)[0].abs().sum(dim=(0, 2))
    rows, columns = 7 // GRID[1], 7 % GRID[1]
    near = [
        abs(n // GRID[1] - rows) <= 1 and abs(n % GRID[1] - columns) <= 1 for n in range(LENGTH)
    ]
    assert (grad > 0).tolist() == near


def test_twice_activated() -> None:
    mlp = shaken(TwiceActivatedMlp(WIDTH, 20, act_layer="gelu_tanh"))
    x = tokens()
    gelu = nn.GELU("tanh")
    hidden = gelu(F.linear(x, mlp.fc1.weight, mlp.fc1.bias))
    assert_equal(mlp(x), gelu(F.linear(hidden, mlp.fc2.weight, mlp.fc2.bias)))


@pytest.mark.parametrize("kind", [Mlp, TwiceActivatedMlp])
def test_a_pair_of_dropouts_drops_where_it_says(kind: type[Mlp]) -> None:
    mlp = kind(64, 96, drop=(0.0, 0.5)).train()
    assert mlp.drop1 is None and mlp.drop2 is not None and mlp.drop2.p == 0.5
    out = mlp(torch.randn(50, 64))
    assert 0.4 < (out == 0).float().mean() < 0.6
    inner = kind(64, 96, drop=(0.5, 0.0)).train()
    assert not (inner(torch.randn(50, 64)) == 0).any()
    both = Mlp(4, 4, drop=0.3)
    assert [getattr(drop, "p", None) for drop in (both.drop1, both.drop2)] == [0.3, 0.3]


@pytest.mark.parametrize("kind", ["mixer", "conv"])
def test_a_dropped_branch_leaves_the_residual(kind: str) -> None:
    block = mixer(drop_path=0.5) if kind == "mixer" else ConvMixerBlock(WIDTH, drop_path=0.5)
    block = block.double().train()
    torch.manual_seed(0)
    dropped = torch.stack([block.drop_path(torch.ones(BATCH, 1, 1)) for _ in range(200)])
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    block.drop_path.p = 1.0 - 1e-9
    if kind == "mixer":
        x = tokens()
        assert torch.equal(block(x), x)
    else:
        kept = nn.Sequential(block.pointwise, block.act, block.norm2)
        x = tokens()
        image = x.transpose(1, 2).reshape(BATCH, WIDTH, *GRID)
        assert_equal(block(x, CTX), kept(image).flatten(2).transpose(1, 2))


@pytest.mark.parametrize(
    ("rule", "word"),
    [
        ({"mask": torch.ones(LENGTH, LENGTH, dtype=torch.bool)}, "mask"),
        ({"bias": torch.zeros(LENGTH, LENGTH)}, "bias"),
        ({"is_causal": True}, "causal"),
        ({"cache": LayerCache()}, "cache"),
    ],
)
def test_rules_that_cannot_be_kept_are_refused(rule: dict[str, Any], word: str) -> None:
    for block in (mixer(), ConvMixerBlock(WIDTH).double()):
        with pytest.raises(ValueError, match=f"{word}.*attention"):
            block(tokens(), BlockContext(GRID, **rule))


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"14 tokens .* built for 15"):
        mixer()(tokens()[:, 1:])
    with pytest.raises(ValueError, match="grid"):
        ConvMixerBlock(WIDTH).double()(tokens())


def hybrid() -> Trunk:
    attention = Block(WIDTH, Attention(WIDTH, 2), Mlp(WIDTH, 24))
    return shaken(Trunk([ConvMixerBlock(WIDTH, kernel_size=3), mixer(), attention]))


def test_a_trunk_of_several_kinds_is_its_blocks_in_order() -> None:
    trunk, x = hybrid().eval(), tokens()
    expected = x
    for block in trunk:
        expected = block(expected, CTX)
    assert torch.equal(trunk(x, CTX), expected)
    steps = trunk.intermediates(x, CTX, indices=range(3))
    assert torch.equal(steps[-1], expected) and not torch.allclose(steps[0], steps[1])
    assert_equal(trunk(x, CTX, read=2), expected[:, :2])


@pytest.mark.parametrize("synced", [False, True])
def test_recomputation_counts_each_batch_once(synced: bool) -> None:
    plain = hybrid().train()
    if synced:  # which in one process counts as the others do
        plain = nn.SyncBatchNorm.convert_sync_batchnorm(plain)
    checkpointed = copy.deepcopy(plain)
    checkpointed.grad_checkpointing = True
    for seed in (1, 2):
        for trunk in (plain, checkpointed):
            trunk(random(BATCH, LENGTH, WIDTH, seed=seed), CTX).square().sum().backward()
    assert plain[0].norm1.num_batches_tracked == 2
    assert plain[0].norm1.momentum == checkpointed[0].norm1.momentum == 0.1
    for one, two in zip(plain.buffers(), checkpointed.buffers(), strict=True):
        assert torch.equal(one, two)
    for mine, other in zip(checkpointed.parameters(), plain.parameters(), strict=True):
        assert mine.grad is not None and other.grad is not None
        assert_equal(mine.grad, other.grad)
