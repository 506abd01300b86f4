"""A model whose state is more than its weights: BatchNorm's statistics in averages and files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.interrupted import LIVELY, assert_equal_checkpoints, stop_at
from vitkit.app import TrainResult, evaluate, resume, train
from vitkit.config import RunConfig
from vitkit.errors import Interrupted
from vitkit.weights import read_checkpoint

CONV = (
    "model.name=nb04_convmixer_mixer",
    "model.mixer_drop_rate=0.1",
    "model.blocks=[conv, mixer, conv]",
    "model.depth=3",
    "ema.enabled=true",
)
"""Conv, mixer, conv, with five BatchNorms, on the tiny run's images."""

Tiny = Callable[..., RunConfig]


def statistics(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: t for name, t in tensors.items() if "running_" in name}


def _whole_and_in_parts(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, *more: str
) -> tuple[TrainResult, TrainResult]:
    """A run, and the same stopped in its second epoch and resumed: equal checkpoints."""
    whole = train(tiny(*more, folder="whole"), progress=False)
    with monkeypatch.context() as patch:
        stop_at(patch, 4)
        with pytest.raises(Interrupted):
            train(tiny(*more, folder="parts"), progress=False)
    parts = resume(whole.folder.parent / "parts", progress=False)
    assert_equal_checkpoints(whole.checkpoint, parts.checkpoint)
    return whole, parts


def test_a_resumed_run_equals_an_uninterrupted_one(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = _whole_and_in_parts(tiny, monkeypatch, *LIVELY, *CONV)
    assert parts.metrics == whole.metrics


def test_the_average_takes_in_statistics_and_leaves_counters(tiny: Tiny) -> None:
    result = train(tiny(*CONV, "ema.decay=0.5", "ema.warmup=false"), progress=False)
    checkpoint = read_checkpoint(result.checkpoint)
    averaged = checkpoint.averaged or {}
    assert averaged.keys() == checkpoint.trained.keys()
    trained = statistics(checkpoint.trained)
    assert len(trained) == 10
    for name, tensor in statistics(averaged).items():
        assert not torch.equal(tensor, trained[name]), name
        assert tensor.isfinite().all()
        assert "running_var" not in name or (tensor > 0).all()
    counters = [t for name, t in averaged.items() if name.endswith("num_batches_tracked")]
    assert [int(t) for t in counters] == [9] * 5  # three epochs of three steps


def test_an_average_that_forgets_at_once_is_what_was_trained(tiny: Tiny) -> None:
    result = train(tiny(*CONV, "ema.decay=0", "ema.warmup=false"), progress=False)
    checkpoint = read_checkpoint(result.checkpoint)
    for name, tensor in (checkpoint.averaged or {}).items():
        assert torch.equal(tensor, checkpoint.trained[name]), name


@pytest.mark.parametrize("size", [1, 64])
def test_evaluation_reads_the_statistics_and_not_the_batch(tiny: Tiny, size: int) -> None:
    result = train(tiny(*CONV), progress=False)
    for split in ("test", "val"):
        again = evaluate(
            result.folder, [f"data.eval_batch_size={size}"], split=split, progress=False
        )
        assert again.weights_name == "averaged"
        told = [name for name in result.metrics if name.startswith(f"{split}/")]
        assert {f"{split}/loss", f"{split}/acc"} <= {*told}
        for name in told:
            assert again.metrics[name] == pytest.approx(result.metrics[name], rel=1e-5), name
    assert Path(result.folder / "eval.json").exists()


def test_frozen_statistics_stay_also_where_a_run_goes_on_in_mid_epoch(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, parts = _whole_and_in_parts(tiny, monkeypatch, *CONV, "task.finetune.mode=head")
    for name, tensor in statistics(read_checkpoint(parts.checkpoint).trained).items():
        assert torch.equal(tensor, torch.full_like(tensor, float("running_var" in name))), name
