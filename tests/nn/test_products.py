"""Linear layers by oneDNN: torch's numbers and gradients, and torch's own where it is watched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from vitkit.nn import Linear, hardware, linear, products

pytestmark = pytest.mark.skipif(not hardware.HAS_ONEDNN_LINEAR, reason="this torch has no oneDNN")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """As on a processor where oneDNN is quicker, for products of any size; counts them."""
    monkeypatch.setattr(hardware, "ONEDNN_IS_QUICKER", True)
    monkeypatch.setattr(products, "LEAST", 1)
    calls: list[int] = []
    own: Callable[..., Tensor] = products._times

    def counted(*arguments: Tensor) -> Tensor:
        calls.append(1)
        return own(*arguments)

    monkeypatch.setattr(products, "_times", counted)
    return calls


def layer(rows: tuple[int, ...], out: int, *, bias: bool = True) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    shapes = [rows, (out, rows[-1]), *[(out,)] * bias]
    return tuple(torch.randn(s, generator=generator).requires_grad_() for s in shapes)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("out", [3, 24, 64])
@pytest.mark.parametrize("rows", [(24,), (40, 24), (5, 7, 24)])
def test_numbers_and_gradients_are_torchs(
    rows: tuple[int, ...], out: int, bias: bool, quick: list[int]
) -> None:
    given = layer(rows, out, bias=bias)
    got, want = linear(*given), F.linear(*given)
    assert got.shape == want.shape and quick
    torch.testing.assert_close(got, want)
    weights = torch.randn(want.shape, generator=torch.Generator().manual_seed(1))
    mine = torch.autograd.grad((got * weights).sum(), given)
    theirs = torch.autograd.grad((want * weights).sum(), given)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_inputs_may_lie_in_memory_as_they_like(quick: list[int]) -> None:
    x, weight, bias = layer((6, 8, 24), 16)
    turned, strided = x.transpose(0, 1), weight.detach().t().contiguous().t()
    torch.testing.assert_close(linear(turned, strided, bias), F.linear(turned, strided, bias))
    torch.testing.assert_close(linear(x[:, ::2], weight), F.linear(x[:, ::2], weight))
    assert len(quick) == 2
    wide = torch.randn(40, 24, requires_grad=True)
    linear(x, wide).sum().backward()  # a gradient of one number, expanded
    torch.testing.assert_close(wide.grad, x.detach().sum((0, 1)).expand(40, 24))


def test_outputs_may_be_written_to(quick: list[int]) -> None:
    x, weight, bias = layer((6, 8, 24), 48)
    part = linear(x, weight, bias)[..., :24]
    part.mul_(2.0)
    (part.sum() + linear(x, weight, bias).add_(1.0).relu_().sum()).backward()
    assert quick and x.grad is not None


def test_frozen_layers_keep_nothing_that_no_gradient_needs() -> None:
    x, weight, bias = layer((40, 24), 16)
    kept: list[tuple[int, ...]] = []

    def keep(saved: Tensor) -> Tensor:
        kept.append(tuple(saved.shape))
        return saved

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
        linear(x, weight.detach(), bias)
        assert kept == [(16, 24)]
        linear(x.detach(), weight, bias)
        assert kept == [(16, 24), (40, 24)]
        linear(x.detach(), weight.detach(), bias)
    assert len(kept) == 2


def test_only_the_gradients_that_are_wanted_are_made(quick: list[int]) -> None:
    x, weight, bias = layer((40, 24), 16)
    quick.clear()
    linear(x.detach(), weight, bias).sum().backward()
    assert len(quick) == 2 and x.grad is None and weight.grad is not None
    quick.clear()
    linear(x, weight.detach(), bias.detach()).sum().backward()
    assert len(quick) == 2 and x.grad is not None


def test_gradients_can_be_differentiated_again(quick: list[int]) -> None:
    given = layer((6, 24), 16)

    def penalty(f: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        grads = torch.autograd.grad(f(*given).pow(3).sum(), given, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in grads), given)

    quick.clear()
    ours = penalty(linear)
    assert len(quick) > 3
    for a, b in zip(ours, penalty(F.linear), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-2)


@pytest.mark.filterwarnings("default:.*torch.jit.script:FutureWarning")  # torch's own business
def test_torchs_own_is_called_where_it_is_watched(quick: list[int]) -> None:
    x, weight, bias = layer((40, 24), 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert linear(x, weight, bias).dtype == torch.bfloat16
    with FlopCounterMode(display=False) as counter:
        linear(x, weight, bias)
    assert counter.get_total_flops() == 2 * 40 * 24 * 16
    torch.func.vmap(lambda row: linear(row, weight.detach()))(x.detach())
    compiled = torch.compile(linear, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, weight, bias), F.linear(x, weight, bias))
    assert linear(x.double(), weight.double()).dtype == torch.float64
    with torch.autograd.forward_ad.dual_level():
        linear(torch.autograd.forward_ad.make_dual(x.detach(), x.detach()), weight.detach())
    assert not quick
    out = linear(x, weight, bias).sum()
    assert len(quick) == 1
    with FlopCounterMode(display=False) as counter:
        out.backward()
    assert counter.get_total_flops() == 2 * 2 * 40 * 24 * 16 and len(quick) == 1
    with pytest.raises(RuntimeError, match=r"shapes cannot be multiplied \(40x24 and 20x16\)"):
        linear(x, torch.randn(16, 20))


def test_small_products_are_torchs(monkeypatch: pytest.MonkeyPatch, quick: list[int]) -> None:
    given = layer((40, 24), 16)
    monkeypatch.setattr(products, "LEAST", 40 * 24 * 16 + 1)
    linear(*given)
    assert not quick
    monkeypatch.setattr(products, "LEAST", 40 * 24 * 16)
    linear(*given)
    assert quick


def test_the_layer_is_torchs_in_all_else(quick: list[int]) -> None:
    torch.manual_seed(0)
    ours = Linear(24, 16)
    torch.manual_seed(0)
    theirs = nn.Linear(24, 16)
    assert isinstance(ours, nn.Linear) and ours.state_dict().keys() == theirs.state_dict().keys()
    assert all(map(torch.equal, ours.parameters(), theirs.parameters()))
    x = torch.randn(5, 24)
    torch.testing.assert_close(ours(x), theirs(x))
    assert len(quick) == 1


def test_the_same_product_twice_is_the_same_to_the_bit() -> None:
    given = layer((64, 96), 48)
    once, again = (
        [out := linear(*given), *torch.autograd.grad(out.square().sum(), given)] for _ in range(2)
    )
    assert all(map(torch.equal, once, again))


def test_recomputed_blocks_give_the_same_gradients(quick: list[int]) -> None:
    given = layer((40, 24), 16)
    want = torch.autograd.grad(linear(*given).square().sum(), given)
    again = checkpoint(linear, *given, use_reentrant=False)
    assert isinstance(again, Tensor)
    assert all(map(torch.equal, want, torch.autograd.grad(again.square().sum(), given)))
    with torch.inference_mode():
        assert torch.equal(linear(*given), linear(*(g.detach() for g in given)))
    assert quick


@pytest.mark.parametrize(
    ("maker", "family", "wide"),
    [("AuthenticAMD", "26", True), ("AuthenticAMD", "25", False), ("GenuineIntel", "26", False)],
)
def test_which_processors_are_wide(tmp_path: Path, maker: str, family: str, wide: bool) -> None:
    told = tmp_path / "cpuinfo"
    one = f"processor\t: 0\nvendor_id\t: {maker}\ncpu family\t: {family}\nmodel\t\t: 2\n"
    told.write_text(f"{one}\n{one}")
    assert hardware._is_wide_amd(told) is wide
    assert not hardware._is_wide_amd(tmp_path / "nowhere")


def test_a_torch_without_onednn_multiplies_no_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Apple's processors, where the operation that tells is not there."""
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace())
    assert hardware._multiplies_bfloat16() is False
    told = SimpleNamespace(_is_mkldnn_bf16_supported=lambda: 1)
    monkeypatch.setattr(torch.ops, "mkldnn", told)
    assert hardware._multiplies_bfloat16() is True
