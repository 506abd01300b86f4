"""The mean of checkpoints: against numpy in float64, torch's own averaging, and what is refused."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from vitkit.errors import WeightsError
from vitkit.weights import read_checkpoint, read_file
from vitkit.weights.average import average_files, write_checkpoint

OWN: dict[str, Any] = {
    "format_version": 1,
    "config": {"model": {"name": "x", "depth": 1}, "optimizer": {"lr": 0.1}},
    "model": {"name": "x"},
    "data": {"name": "y"},
    "epoch": 3,
}


class Net(nn.Module):
    """Every kind of tensor: two types of numbers, statistics, a counter, a mask."""

    mask: Tensor

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.linear = nn.Linear(3, width)
        self.norm = nn.BatchNorm1d(width)
        self.short = nn.Parameter(torch.randn(5, dtype=torch.bfloat16))
        self.register_buffer("mask", torch.tensor([True, False]))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.linear(x))
        return out


class One(nn.Module):
    """A single number."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([value], dtype=torch.bfloat16))


def _nets(count: int = 3) -> list[Net]:
    nets = []
    for seed in range(count):
        torch.manual_seed(seed)
        net = Net()
        for _ in range(seed + 1):
            net(3 * torch.randn(8, 3) + seed)  # statistics of its own
        nets.append(net)
    return nets


def _save(path: Path, net: nn.Module, step: int, **own: Any) -> Path:
    state = {f"model.{name}": t.detach() for name, t in net.state_dict().items()}
    content = {"state_dict": state, "global_step": step, "optimizer_states": [{"step": step}]}
    torch.save({**content, "vitkit": {**copy.deepcopy(OWN), "step": step, **own}}, path)
    return path


@pytest.fixture
def saved(tmp_path: Path) -> tuple[list[Net], list[Path]]:
    nets = _nets()
    return nets, [_save(tmp_path / f"{i}.ckpt", net, 10 * i + 10) for i, net in enumerate(nets)]


def test_means_in_float64_and_the_rest_from_the_newest(saved: tuple[list[Net], list[Path]]) -> None:
    nets, paths = saved
    content = average_files([paths[2], paths[0], paths[1]])  # the order does not matter
    states = [net.state_dict() for net in nets]
    for name, tensor in states[0].items():
        got = content["state_dict"][f"model.{name}"]
        assert got.dtype == tensor.dtype and got.shape == tensor.shape
        if tensor.is_floating_point():
            each = [state[name].detach().double().numpy() for state in states]
            want = torch.from_numpy(np.mean(each, axis=0)).to(tensor.dtype)
            # The order of the sum may move the last bit of float64, not that of what is stored.
            torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-9)
        else:
            assert torch.equal(got, states[2][name])
    assert content["state_dict"]["model.norm.num_batches_tracked"] == 3
    assert content["global_step"] == 30 and content["optimizer_states"] == [{"step": 30}]
    assert content["vitkit"]["average_of_steps"] == [10, 20, 30]


def test_it_is_what_torch_averages(saved: tuple[list[Net], list[Path]]) -> None:
    nets, paths = saved
    parts = [nn.ModuleDict({"linear": net.linear, "norm": net.norm}) for net in nets]
    theirs = AveragedModel(parts[0], use_buffers=True)  # which cannot average a mask
    for part in parts:
        theirs.update_parameters(part)
    content = average_files(paths)
    compared = 0
    for name, tensor in theirs.module.state_dict().items():
        if not tensor.is_floating_point():
            continue  # torch averages counters too
        got = content["state_dict"][f"model.{name}"]
        torch.testing.assert_close(got, tensor, rtol=1e-5, atol=1e-6)
        compared += 1
    assert compared == 6  # weight and bias of both, mean and variance


def test_many_small_numbers_are_not_lost_in_the_sum(tmp_path: Path) -> None:
    """Added in bfloat16, one at a time to a large one, they would change nothing."""
    values = [1.0, *[2.0**-9] * 15]
    paths = [_save(tmp_path / f"{i}.ckpt", One(v), i) for i, v in enumerate(values)]
    got = average_files(paths)["state_dict"]["model.w"]
    lost = torch.tensor([1.0 / 16], dtype=torch.bfloat16)
    assert got == torch.tensor([sum(values) / 16], dtype=torch.bfloat16) != lost


def test_a_moving_average_is_averaged_beside_the_weights(tmp_path: Path) -> None:
    nets = _nets(4)
    trained, moving = nets[:2], nets[2:]
    paths = [
        _save(tmp_path / f"{i}.ckpt", net, i, averaged=dict(moving[i].state_dict()))
        for i, net in enumerate(trained)
    ]
    write_checkpoint(average_files(paths), tmp_path / "mean.ckpt")
    found = read_checkpoint(tmp_path / "mean.ckpt")
    assert found.weights_name == "averaged" and found.averaged is not None
    for group, pair in ((found.trained, trained), (found.averaged, moving)):
        one, two = (net.linear.weight.detach() for net in pair)
        torch.testing.assert_close(group["linear.weight"], (one + two) / 2)


def test_it_is_written_whole_and_never_over_another(
    saved: tuple[list[Net], list[Path]], tmp_path: Path
) -> None:
    content = average_files(saved[1])
    target = tmp_path / "new" / "mean.ckpt"
    write_checkpoint(content, target)
    assert [p.name for p in target.parent.iterdir()] == ["mean.ckpt"]
    assert read_checkpoint(target).step == 30
    assert read_file(target)["vitkit"]["average_of_steps"] == [10, 20, 30]
    with pytest.raises(WeightsError, match="exists and is not overwritten"):
        write_checkpoint(content, target)
    (tmp_path / "file").touch()
    with pytest.raises(WeightsError, match=r"cannot write .*choose another --output"):
        write_checkpoint(content, tmp_path / "file" / "mean.ckpt")


def test_what_is_refused(saved: tuple[list[Net], list[Path]], tmp_path: Path) -> None:
    nets, (first, *_) = saved
    config = {**OWN["config"], "optimizer": {"lr": 0.2}}
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    others = {
        "both hold step 10; give each checkpoint once": first,
        r"config \(optimizer\) differ": _save(tmp_path / "a.ckpt", nets[0], 5, config=config),
        "their model differ": _save(tmp_path / "b.ckpt", nets[0], 5, model={"name": "z"}),
        "their tokenizer differ": _save(tmp_path / "c.ckpt", nets[0], 5, tokenizer={"kind": "b"}),
        r"d\.ckpt has other tensors": _save(tmp_path / "d.ckpt", Net(5), 5),
        "no such weights file": tmp_path / "none.ckpt",
        "is not a vitkit checkpoint": tmp_path / "foreign.ckpt",
    }
    for said, other in others.items():
        with pytest.raises(WeightsError, match=said) as error:
            average_files([first, other])
        assert "\n" not in str(error.value)
    with pytest.raises(WeightsError, match="nothing to average: 1 checkpoint"):
        average_files([first])


def test_two_processes_never_write_the_same_part(
    saved: tuple[list[Net], list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []

    def save(content: object, path: Path) -> None:
        written.append(path.name)
        path.touch()
        raise RuntimeError

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(WeightsError, match=r"cannot write .*mean.ckpt: RuntimeError; choose"):
        write_checkpoint(average_files(saved[1]), tmp_path / "new" / "mean.ckpt")
    assert written == [f"mean.ckpt.{os.getpid()}.part"]
    assert not list((tmp_path / "new").iterdir())
