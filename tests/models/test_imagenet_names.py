"""Names of ImageNet's classes: no two alike, in the order of the heads."""

from __future__ import annotations

import pytest
from torchvision.models import ViT_B_16_Weights

from vitkit.models import imagenet_names

PUBLISHED = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"


def test_a_thousand_are_called_as_in_torchvision() -> None:
    names = imagenet_names(1000)
    theirs = ViT_B_16_Weights.IMAGENET1K_V1.meta["categories"]
    other = {given: name for name, given in zip(names, theirs, strict=True) if name != given}
    assert other == {
        "crane bird": "crane (n02012849)",
        "crane": "crane (n03126707)",
        "maillot tank suit": "maillot, tank suit",
    }
    assert len(set(names)) == 1000


@pytest.mark.parametrize("count", [11221, 11821, 21841, 21843])
def test_no_two_are_alike_in_the_larger_subsets(count: int) -> None:
    assert len(set(imagenet_names(count))) == count


def test_where_there_are_none() -> None:
    assert imagenet_names(10) == ()
    assert imagenet_names(1000, PUBLISHED) == imagenet_names(1000)
    assert imagenet_names(21843, PUBLISHED) == ()
    assert imagenet_names(1000, "vit_tiny_patch16_224.mine") == ()
    assert imagenet_names(1000, "a_model_of_nobodys.in1k") == ()
