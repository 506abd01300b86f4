"""CIFAR's ResNet against one written down layer by layer, and its published size."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from vitkit.errors import ConfigError
from vitkit.models import create_model
from vitkit.weights import load_weights


def by_hand(w: dict[str, Tensor], x: Tensor, blocks: int) -> Tensor:
    def conv_norm(x: Tensor, conv: str, norm: str, stride: int = 1) -> Tensor:
        x = F.conv2d(x, w[f"{conv}.weight"], stride=stride, padding=1)
        return F.batch_norm(
            x,
            w[f"{norm}.running_mean"],
            w[f"{norm}.running_var"],
            w[f"{norm}.weight"],
            w[f"{norm}.bias"],
        )

    x = conv_norm(x, "conv1", "bn1").relu()
    for stage in (1, 2, 3):
        for block in range(blocks):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = conv_norm(x, f"{name}.conv1", f"{name}.bn1", stride).relu()
            y = conv_norm(y, f"{name}.conv2", f"{name}.bn2")
            if stride == 2:
                zeros = x.new_zeros(x.shape[0], x.shape[1] // 2, *y.shape[2:])
                x = torch.cat([zeros, x[:, :, ::2, ::2], zeros], dim=1)
            x = (x + y).relu()
    return x.mean(dim=(2, 3)) @ w["linear.weight"].T + w["linear.bias"]


def test_equals_the_layers_written_out() -> None:
    torch.manual_seed(0)
    model = create_model("resnet20_32").double()
    model(torch.randn(8, 3, 16, 16, dtype=torch.float64))  # running statistics of its own
    model.eval()
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    expected = by_hand(model.state_dict(), images, 3)
    torch.testing.assert_close(model(images), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("depth", "count"), [(20, 0.27), (32, 0.46), (56, 0.85), (110, 1.7)])
def test_sizes_as_printed_in_the_paper(depth: int, count: float) -> None:
    with torch.device("meta"):
        model = create_model(f"resnet{depth}_32")
    total = sum(p.numel() for p in model.parameters())
    assert total / 1e6 == pytest.approx(count, abs=0.03)


def test_a_depth_that_is_not_6_n_plus_2() -> None:
    with pytest.raises(ConfigError, match=r"depth 18: should be 6 n \+ 2"):
        create_model("resnet20_32", depth=18)


def published(depth: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes in published files of CIFAR's ResNets, which count no batches."""

    def conv_norm(number: int, prefix: str, old: int, new: int) -> dict[str, tuple[int, ...]]:
        norm = ("weight", "bias", "running_mean", "running_var")
        return {
            f"{prefix}conv{number}.weight": (new, old, 3, 3),
            **{f"{prefix}bn{number}.{name}": (new,) for name in norm},
        }

    shapes, width = conv_norm(1, "", 3, 16), 16
    for stage, dim in ((1, 16), (2, 32), (3, 64)):
        for block in range((depth - 2) // 6):
            prefix = f"layer{stage}.{block}."
            shapes |= conv_norm(1, prefix, width, dim) | conv_norm(2, prefix, dim, dim)
            width = dim
    return shapes | {"linear.weight": (10, 64), "linear.bias": (10,)}


def test_published_weights_load_without_a_map(tmp_path: Path) -> None:
    model = create_model("resnet56_32")
    assert sum(p.numel() for p in model.parameters()) == 853_018
    given = {name: torch.randn(shape) for name, shape in published(56).items()}
    save_file(given, tmp_path / "resnet56.safetensors")
    report = load_weights(model, tmp_path / "resnet56.safetensors")
    assert len(report.loaded) == len(given) == 277 and not report.new and not report.unused
    state = model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in given.items())
