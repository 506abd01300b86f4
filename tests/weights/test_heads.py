"""A head's rows follow the names of their classes."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import nn

from vitkit.models import VisionTransformer, create_model
from vitkit.weights.heads import match_classes

SMALL: dict[str, Any] = {"img_size": 8, "patch_size": 4, "embed_dim": 16, "depth": 1}
SMALL |= {"num_heads": 2}
FIVE = ("ant", "bee", "cat", "dog", "elk")


def _model(num_classes: int, seed: int) -> VisionTransformer:
    torch.manual_seed(seed)
    return VisionTransformer(**SMALL, num_classes=num_classes).eval()


@pytest.mark.parametrize("wanted", [("elk", "dog", "cat", "bee", "ant"), ("dog", "bee"), FIVE])
def test_every_class_keeps_its_logit(wanted: tuple[str, ...]) -> None:
    giver, taker = _model(5, 0), _model(len(wanted), 1)
    tensors, word = match_classes(taker, giver.state_dict(), FIVE, wanted)
    taker.load_state_dict(tensors)
    images = torch.randn(3, 3, 8, 8)
    expected = giver(images)[:, [FIVE.index(name) for name in wanted]]
    torch.testing.assert_close(taker(images), expected)
    assert ("by name" in word) == (wanted != FIVE)


@pytest.mark.parametrize(
    ("given", "wanted", "strange"),
    [(FIVE, ("ant", "fox"), "fox"), (("crane", "crane", "ant"), ("ant", "crane"), "crane")],
)
def test_a_class_that_the_weights_do_not_know_makes_the_head_new(
    given: tuple[str, ...], wanted: tuple[str, ...], strange: str
) -> None:
    state = _model(len(given), 0).state_dict()
    tensors, word = match_classes(_model(len(wanted), 1), state, given, wanted)
    assert set(state) - set(tensors) == {"head.weight", "head.bias"}
    assert repr(strange) in word


def test_nothing_is_changed_where_names_are_unknown_or_there_is_no_head() -> None:
    state = _model(5, 0).state_dict()
    for model, given, wanted in (
        (_model(5, 1), (), FIVE),
        (_model(5, 1), FIVE, ()),
        (_model(0, 1), FIVE, FIVE[::-1]),
        (nn.Linear(3, 5), FIVE, FIVE[::-1]),
    ):
        tensors, word = match_classes(model, state, given, wanted)
        assert word == ""
        assert list(tensors) == list(state)
        assert all(torch.equal(tensors[name], state[name]) for name in state)


def test_both_heads_of_a_distilled_model_and_timms() -> None:
    distilled = create_model("deit_tiny_distilled_patch16_224", num_classes=5)
    other = timm.create_model("resnet18", num_classes=5)
    for model, heads in ((distilled, ("head", "head_dist")), (other, ("fc",))):
        state = model.state_dict()
        tensors, _ = match_classes(model, state, FIVE, FIVE[::-1])
        for head in heads:
            for part in ("weight", "bias"):
                name = f"{head}.{part}"
                assert torch.equal(tensors[name], state[name].flip(0))
