"""The two-view systems: sizes and names to the digit, and what each adds to the core."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from examples.two_view import (
    FUSION_LARGE,
    CroCo,
    Fast3R,
    PointMap,
    Sizes,
    TwoView,
    fast3r_from_dust3r,
    load_published,
    match_views,
    open_published,
    reciprocal_matches,
    to_published,
)
from examples.two_view.croco import completion_loss, hide_patches, patches_of
from examples.two_view.decoder import exchange
from examples.two_view.dpt import Dpt
from examples.two_view.fast3r import EVAL_SCALE, FusionAttention, draw_indices
from examples.two_view.heads import points_and_confidence
from examples.two_view.keys import from_published
from examples.two_view.published import model_of, parse_constructor
from tests.examples import published_names
from vitkit.errors import ConfigError, DataError, WeightsError
from vitkit.nn import Attention, attention

SMALL = Sizes(32, 2, 2, 16, 2, 2)
HEADS = ("linear", "dpt", "catmlp+dpt")
SYSTEMS: dict[str, Any] = {
    "croco": CroCo,
    "linear": lambda: TwoView("linear"),
    "dpt": lambda: TwoView("dpt"),
    "catmlp+dpt": lambda: TwoView("catmlp+dpt"),
    "fast3r": Fast3R,
}
COUNTS = {
    "croco": 417_918_720,
    "linear": 532_342_784,
    "dpt": 571_171_208,
    "catmlp+dpt": 688_638_856,
    "fast3r": 647_551_368,
}


def published(system: str) -> published_names.Shapes:
    if system in HEADS:
        return published_names.two_view(system)
    return published_names.croco() if system == "croco" else published_names.fast3r()


def on_meta(system: str) -> nn.Module:
    with torch.device("meta"):
        model: nn.Module = SYSTEMS[system]()
    return model


def images(height: int = 32, width: int = 48, batch: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("system", COUNTS)
def test_parameters_to_the_digit(system: str) -> None:
    assert sum(p.numel() for p in on_meta(system).parameters()) == COUNTS[system]


@pytest.mark.parametrize("system", COUNTS)
def test_published_names_and_shapes_both_ways(system: str) -> None:
    model, shapes = on_meta(system), published(system)
    back = to_published(model.state_dict())
    assert {name: tuple(tensor.shape) for name, tensor in back.items()} == shapes
    ours = from_published(published_names.on_meta(shapes))
    own = model.state_dict()
    assert set(ours) == set(own)
    assert all(ours[name].shape == own[name].shape for name in own)


@pytest.mark.parametrize("head", HEADS)
def test_published_weights_come_in_and_go_out_unchanged(head: str) -> None:
    torch.manual_seed(0)
    model, other = TwoView(head, SMALL), TwoView(head, SMALL)
    state = to_published(model.state_dict())
    load_published(other, state)
    again = to_published(other.state_dict())
    assert set(again) == set(state)
    assert all(torch.equal(again[name], state[name]) for name in state)
    # Keys and values are not mixed up: cross attention with three projections of its own.
    name = "dec_blocks.0.cross_attn."
    weights = {part: state[f"{name}proj{part}.weight"] for part in "qkv"}
    biases = {part: torch.randn(16) for part in "qkv"}
    state |= {f"{name}proj{part}.bias": biases[part] for part in "qkv"}
    load_published(other, state)
    x, y = torch.randn(1, 5, 16), torch.randn(1, 7, 16)
    q, k, v = (
        (t @ weights[part].T + biases[part]).view(1, -1, 2, 8).transpose(1, 2)
        for part, t in (("q", x), ("k", y), ("v", y))
    )
    expected = attention(q, k, v).transpose(1, 2).flatten(2)
    block: Any = other.dec_blocks[0]
    torch.testing.assert_close(block.cross_attn(x, y), block.cross_attn.proj(expected))


def test_a_second_decoder_that_is_absent_is_a_copy_of_the_first() -> None:
    torch.manual_seed(0)
    model, other = TwoView("linear", SMALL), TwoView("linear", SMALL)
    state = to_published(model.state_dict())
    load_published(other, {k: v for k, v in state.items() if not k.startswith("dec_blocks2.")})
    for one, two in zip(other.dec_blocks.parameters(), other.dec_blocks2.parameters(), strict=True):
        assert torch.equal(one, two)
    for one, two in zip(model.dec_blocks.parameters(), other.dec_blocks.parameters(), strict=True):
        assert torch.equal(one, two)


def test_weights_that_do_not_fit_are_refused_in_one_line() -> None:
    model = TwoView("linear", SMALL)
    state = to_published(model.state_dict())
    for change, said in (
        ({"enc_norm.weight": None}, "enc_norm.weight is missing"),
        ({"surplus": torch.zeros(1)}, "surplus is unknown"),
        ({"enc_norm.bias": torch.zeros(3)}, r"enc_norm.bias is \(3,\), not \(32,\)"),
        ({"dec_blocks.0.cross_attn.projv.weight": None}, "has no projv beside it"),
        ({"dec_blocks.1.cross_attn.projk.bias": None}, "has no projk beside it"),
    ):
        changed = {k: v for k, v in (state | change).items() if v is not None}
        with pytest.raises(WeightsError, match=said) as caught:
            load_published(model, changed)
        assert "\n" not in str(caught.value)


DUST3R = (
    "AsymmetricCroCo3DStereo(pos_embed='RoPE100', img_size=(224, 224), head_type='linear', "
    "output_mode='pts3d', depth_mode=('exp', -inf, inf), conf_mode=('exp', 1, inf), "
    "enc_embed_dim=32, enc_depth=2, enc_num_heads=2, dec_embed_dim=16, dec_depth=2, "
    "dec_num_heads=2)"
)


def test_a_constructor_is_read_and_never_run() -> None:
    name, settings = parse_constructor(DUST3R)
    assert name == "AsymmetricCroCo3DStereo"
    assert settings["depth_mode"] == ("exp", -math.inf, math.inf)
    assert settings["img_size"] == (224, 224) and settings["enc_depth"] == 2
    for text in (
        "A(x=__import__('os').getcwd())",
        "A(x=y)",
        "A(**x)",
        "A(1)",
        "a.b(x=1)",
        "A",
        "A(x=-'1')",
        "A(x=1) + A(x=2)",
        "A(",
        "A(x={1: 2})",
        "(" * 5000,
    ):
        with pytest.raises(WeightsError, match="cannot read the model's description") as caught:
            parse_constructor(text)
        assert len(str(caught.value)) < 250


def test_a_published_file_becomes_its_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = TwoView("linear", SMALL).eval()
    path = tmp_path / "dust3r.pth"
    state = to_published(model.state_dict())
    torch.save({"args": argparse.Namespace(model=DUST3R), "model": state}, path)
    opened = open_published(path)
    assert isinstance(opened, TwoView) and not opened.training
    assert opened.sizes == SMALL
    a, b = images(), images(seed=1)
    assert torch.equal(opened(a, b)[1].points, model(a, b)[1].points)

    croco = {"enc_embed_dim": 32, "enc_depth": 2, "enc_num_heads": 2}
    croco |= {"dec_embed_dim": 16, "dec_depth": 2, "dec_num_heads": 2}
    for scheme in ("RoPE100", "cosine"):
        whole: dict[str, Any] = {**croco, "pos_embed": scheme, "img_size": 32}
        completer = model_of({"croco_kwargs": whole})
        assert isinstance(completer, CroCo)
        content = {"croco_kwargs": whole, "model": to_published(completer.state_dict())}
        torch.save(content, path)
        assert isinstance(open_published(path), CroCo)


def test_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    with pytest.raises(WeightsError, match="no such weights file"):
        open_published(path)
    path.write_bytes(b"no weights")
    with pytest.raises(WeightsError, match="damaged"):
        open_published(path)
    torch.save({"model": {}, "args": argparse.Namespace(model="Other(x=1)")}, path)
    with pytest.raises(WeightsError, match="holds a Other; known: Asymm"):
        open_published(path)
    torch.save({"model": {}}, path)
    with pytest.raises(WeightsError, match="says nothing of its model"):
        open_published(path)
    torch.save([1], path)
    with pytest.raises(WeightsError, match="holds no `model`"):
        open_published(path)
    torch.save({"model": nn.Linear(1, 1)}, path)
    with pytest.raises(WeightsError, match="more than tensors"):
        open_published(path)


class Noting(nn.Module):
    """A block that notes what it was given and adds its number."""

    def __init__(self, number: float) -> None:
        super().__init__()
        self.number, self.calls = number, []  # type: list[tuple[Tensor, Tensor, Any, Any]]

    def forward(self, x: Tensor, other: Tensor, turn: Any, other_turn: Any) -> Tensor:
        self.calls.append((x, other, turn, other_turn))
        return x + self.number


def test_each_twin_reads_what_the_other_came_in_with() -> None:
    pairs = [(Noting(1.0), Noting(10.0)), (Noting(100.0), Noting(1000.0))]
    zero = torch.zeros(1)
    first, second = exchange(pairs, (zero, zero), ("a", "b"))  # type: ignore[arg-type]
    assert [x.item() for x in first] == [1, 101]
    assert [y.item() for y in second] == [10, 1010]
    (own, other, *turns), (twin, twins_other, *twins_turns) = (p.calls[0] for p in pairs[1])
    assert (own.item(), other.item()) == (1, 10) and turns == ["a", "b"]
    assert (twin.item(), twins_other.item()) == (10, 1) and twins_turns == ["b", "a"]


@pytest.mark.parametrize("head", HEADS)
def test_both_views_have_points(head: str) -> None:
    torch.manual_seed(0)
    model = TwoView(head, SMALL).eval()
    with torch.no_grad():
        views = model(images(32, 48), images(48, 16, seed=1))
    for view, shape in zip(views, ((2, 32, 48), (2, 48, 16)), strict=True):
        assert view.points.shape == (*shape, 3)
        assert view.confidence.shape == shape and view.confidence.min() > 1
        assert view.points.isfinite().all()
        if head == "catmlp+dpt":
            assert view.descriptors.shape == (*shape, 24)
            torch.testing.assert_close(view.descriptors.norm(dim=-1), torch.ones(shape))
            assert view.match_confidence.shape == shape and view.match_confidence.min() > 0
        else:
            assert view.descriptors is None and view.match_confidence is None


def test_views_of_one_shape_are_encoded_at_once_and_alike() -> None:
    torch.manual_seed(0)
    model = TwoView("linear", SMALL).eval()
    a, b = images(), images(seed=1)
    together = model._encode_both(a, b)
    for (tokens, grid), view in zip(together, (a, b), strict=True):
        alone, own_grid = model.encode(view)
        torch.testing.assert_close(tokens, alone)
        assert grid == own_grid == (2, 3)


def test_every_parameter_learns() -> None:
    torch.manual_seed(0)
    model = TwoView("catmlp+dpt", SMALL)
    first, second = model(images(), images(seed=1))
    total: Tensor = torch.zeros(())
    for view in (first, second):
        assert isinstance(view, PointMap)
        assert view.descriptors is not None and view.match_confidence is not None
        total = total + view.points.square().sum() + view.confidence.sum()
        total = total + view.descriptors[..., 0].sum() + view.match_confidence.sum()
    total.backward()
    idle = {name for name, p in model.named_parameters() if p.grad is None}
    # What only completion needs, and the unit that has nothing to add at the coarsest fusion.
    unused = {name for name in idle if "refinenet4.resConfUnit1" in name or name == "mask_token"}
    assert idle == unused and "mask_token" in idle and len(idle) == 1 + 2 * 4


def test_points_and_confidence_equal_their_formula() -> None:
    raw = torch.tensor([0.3, -0.4, 1.2, -0.7]).view(1, 4, 1, 1)
    found = points_and_confidence(raw)
    assert found.points.flatten().tolist() == pytest.approx(
        [x * math.expm1(1.3) / 1.3 for x in (0.3, -0.4, 1.2)]
    )
    assert found.confidence.item() == pytest.approx(1 + math.exp(-0.7))
    zero = points_and_confidence(torch.zeros(1, 4, 1, 1))
    assert zero.points.tolist() == [[[[0.0, 0.0, 0.0]]]]


@pytest.mark.parametrize("grid", [(2, 3), (4, 4), (3, 5), (1, 1)])
def test_the_dense_head_enlarges_any_grid_by_16(grid: tuple[int, int]) -> None:
    head = Dpt((8,) * 4, 4, features=16, widths=(4, 8, 12, 16))
    tokens = [torch.randn(1, grid[0] * grid[1], 8) for _ in range(4)]
    assert head(tokens, grid).shape == (1, 4, 16 * grid[0], 16 * grid[1])


def test_what_cannot_be_built_or_read_is_said_in_one_line() -> None:
    with pytest.raises(ConfigError, match="unknown head 'conv'; allowed: linear, dpt, catmlp"):
        TwoView("conv", SMALL)
    with pytest.raises(ConfigError, match="patch_size 8; the dense head"):
        TwoView("dpt", Sizes(32, 1, 2, 16, 1, 2, patch_size=8))
    with pytest.raises(ConfigError, match="pos_embed 'learned' is unknown"):
        Sizes(pos_embed="learned")
    with pytest.raises(DataError, match="images of 30 x 48; allowed: sides that are multiples"):
        TwoView("linear", SMALL)(images(30), images(30))
    with pytest.raises(DataError, match="0 views; allowed: 1 to 1000"):
        Fast3R(SMALL)([])


@pytest.mark.parametrize("scheme", ["RoPE100", "cosine"])
def test_completion_sees_only_what_is_not_hidden(scheme: str) -> None:
    torch.manual_seed(0)
    model = CroCo(Sizes(32, 2, 2, 16, 2, 2, pos_embed=scheme, img_size=(32, 48))).eval()
    first, second = images(), images(seed=1)
    hidden = hide_patches(2, 6, 0.5, generator=torch.Generator().manual_seed(0))
    assert hidden.sum(dim=1).tolist() == [3, 3]
    changed = patches_of(first, 16).clone()
    changed[hidden] = 9.0
    altered = changed.view(2, 2, 3, 16, 16, 3).permute(0, 5, 1, 3, 2, 4).reshape(2, 3, 32, 48)
    with torch.no_grad():
        out = model(first, second, hidden)
        assert out.shape == (2, 6, 768)
        torch.testing.assert_close(model(altered, second, hidden), out)
        assert not torch.allclose(model(first, images(seed=2), hidden), out)
        # Places matter: the same patches elsewhere give something else.
        nothing = torch.zeros_like(hidden)
        same = images(16, 16).repeat(1, 1, 2, 3)
        tokens = model(same, second, nothing)
    assert not torch.allclose(tokens[:, 0], tokens[:, 5])
    loss = completion_loss(model(first, second, hidden), first, hidden, 16)
    loss.backward()
    assert model.mask_token.grad is not None and model.mask_token.grad.abs().sum() > 0


def test_completion_is_perfect_when_it_says_the_normalised_pixels() -> None:
    picture = images()
    target = patches_of(picture, 16)
    assert torch.equal(target[0, 1, :3], picture[0, :, 0, 16])
    assert torch.equal(target[1, 3, -3:], picture[1, :, 31, 15])
    normal = (target - target.mean(-1, keepdim=True)) / target.std(-1, keepdim=True)
    hidden = hide_patches(2, 6)
    assert completion_loss(normal, picture, hidden, 16).item() == pytest.approx(0, abs=1e-8)
    assert completion_loss(normal + 2, picture, hidden, 16).item() == pytest.approx(4, rel=1e-4)


def test_matching_finds_a_known_permutation() -> None:
    torch.manual_seed(0)
    first = nn.functional.normalize(torch.randn(50, 24), dim=1)
    order = torch.randperm(50)
    for chunk in (7, 4096):
        rows, others = reciprocal_matches(first, first[order], chunk=chunk)
        assert rows.tolist() == list(range(50))
        assert torch.equal(order[others], rows)
    a, b = torch.randn(31, 5), torch.randn(17, 5)
    scores = a @ b.T
    mutual = [
        (i, j)
        for i in range(31)
        for j in range(17)
        if scores[i].argmax() == j and scores[:, j].argmax() == i
    ]
    rows, others = reciprocal_matches(a, b, chunk=10)
    assert list(zip(rows.tolist(), others.tolist(), strict=True)) == mutual


def test_matches_are_told_by_row_and_column() -> None:
    torch.manual_seed(0)
    first = nn.functional.normalize(torch.randn(4, 6, 24), dim=-1)
    here, there = match_views(first, first.flip(0, 1))
    assert len(here) == 24
    assert torch.equal(there, torch.tensor([3, 5]) - here)


@pytest.mark.parametrize("count", [1, 2, 5, 20])
def test_any_number_of_views_is_fused(count: int) -> None:
    torch.manual_seed(0)
    model = Fast3R(Sizes(32, 1, 2, 16, 2, 2)).eval()
    views = [images(32, 16, 1, seed) for seed in range(count)]
    with torch.no_grad():
        out = model(views, generator=torch.Generator().manual_seed(0))
        again = model(views, generator=torch.Generator().manual_seed(0))
    assert len(out) == count
    for view, same in zip(out, again, strict=True):
        for points in (view.shared, view.own):
            assert points.points.shape == (1, 32, 16, 3)
            assert points.confidence.shape == (1, 32, 16)
        assert torch.equal(view.shared.points, same.shared.points)
        assert not torch.equal(view.shared.points, view.own.points)


def test_views_may_differ_in_shape_and_only_their_names_tell_them_apart() -> None:
    torch.manual_seed(0)
    model = Fast3R(Sizes(32, 1, 2, 16, 2, 2)).eval()
    views = [images(32, 16), images(16, 48, seed=1), images(32, 16, seed=2)]
    indices = torch.tensor([[0, 7, 3], [0, 1, 999]])
    with torch.no_grad():
        out = model(views, indices)
        swapped = model([views[0], views[2], views[1]], indices[:, [0, 2, 1]])
        renamed = model(views, indices[:, [0, 2, 1]])
    assert [tuple(v.shared.confidence.shape[1:]) for v in out] == [(32, 16), (16, 48), (32, 16)]
    torch.testing.assert_close(swapped[2].shared.points, out[1].shared.points)
    assert not torch.allclose(renamed[1].shared.points, out[1].shared.points)


def test_names_of_views_are_different_and_the_first_is_0() -> None:
    indices = draw_indices(3, 20)
    assert indices[:, 0].tolist() == [0, 0, 0]
    assert all(len(set(row)) == 20 and 0 <= min(row) <= max(row) < 1000 for row in indices.tolist())
    assert indices[0].tolist() != indices[1].tolist()
    table = Fast3R(SMALL).decoder.view_table
    angle = 7 * 10000 ** -(3 / 8)
    assert table[7, 3].item() == pytest.approx(math.sin(angle), rel=1e-5)
    assert table[7, 8 + 3].item() == pytest.approx(math.cos(angle), rel=1e-5)


def test_fusion_is_sharper_in_evaluation_alone() -> None:
    assert round(EVAL_SCALE, 4) == 1.2815
    torch.manual_seed(0)
    ours = FusionAttention(16, 2, qkv_bias=True)
    plain, sharp = Attention(16, 2, qkv_bias=True), Attention(16, 2, qkv_bias=True)
    sharp.scale = 1.2815 / 8**0.5
    for other in (plain, sharp):
        other.load_state_dict(ours.state_dict())
    x = 3 * torch.randn(2, 9, 16)
    torch.testing.assert_close(ours.train()(x), plain(x))
    torch.testing.assert_close(ours.eval()(x), sharp(x), rtol=1e-3, atol=1e-4)
    assert not torch.allclose(ours(x), plain(x), rtol=1e-3, atol=1e-3)


def test_fast3r_starts_from_a_dust3r_file() -> None:
    torch.manual_seed(0)
    source = TwoView("dpt", SMALL)
    state = to_published(source.state_dict())
    model = Fast3R(SMALL)  # a fusion of the decoder's width: the head fits
    model.load_state_dict(fast3r_from_dust3r(state, model), strict=False)
    x = images()
    torch.testing.assert_close(model.encoder.encode(x)[0], source.encode(x)[0])
    pairs = zip(
        model.downstream_head.parameters(), source.downstream_head1.parameters(), strict=True
    )
    assert all(torch.equal(one, two) for one, two in pairs)
    wider = Fast3R(Sizes(32, 2, 2, 32, 2, 2))
    taken = fast3r_from_dust3r(state, wider)
    assert taken and all(name.startswith("encoder.") for name in taken)
    with pytest.raises(WeightsError, match="no encoder of this size"):
        fast3r_from_dust3r(state, Fast3R(Sizes(32, 3, 2, 16, 2, 2)))


def test_a_published_dust3r_file_starts_the_published_fast3r() -> None:
    state = published_names.on_meta(published_names.two_view("dpt"))
    taken = fast3r_from_dust3r(state, on_meta("fast3r"))
    assert len(taken) == 24 * 12 + 4
    with torch.device("meta"):
        base = Fast3R(Sizes())
    assert sum(name.startswith("downstream_head.") for name in fast3r_from_dust3r(state, base)) > 50
    assert FUSION_LARGE.dec_depth == 24
