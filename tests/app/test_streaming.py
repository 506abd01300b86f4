"""Settings of the processes that decode pictures reach the loaders of a training."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.small_data import write_pictures
from vitkit.app import train
from vitkit.app.jobs import job_class
from vitkit.config import RunConfig

Tiny = Callable[..., RunConfig]


@pytest.mark.parametrize("persistent", ["true", "false"])
def test_workers_of_a_folder_that_is_streamed(tiny: Tiny, tmp_path: Path, persistent: str) -> None:
    write_pictures(tmp_path / "pictures")
    config = tiny(
        "data.name=image_folder",
        f"data.root={tmp_path / 'pictures'}",
        "data.resident=never",
        "data.batch_size=4",
        "data.num_workers=1",
        "data.prefetch_factor=3",
        f"data.persistent_workers={persistent}",
        "trainer.max_epochs=2",
    )
    here = SimpleNamespace(root_device=torch.device("cpu"))
    trainer: Any = SimpleNamespace(global_rank=0, world_size=1, strategy=here)
    for loader in job_class(config)(config).loaders(trainer):
        streaming = loader._source._loader
        assert (streaming.num_workers, streaming.prefetch_factor) == (1, 3)
        assert streaming.persistent_workers == (persistent == "true")
    assert "test/acc" in train(config, progress=False).metrics
    assert not multiprocessing.active_children()  # ended with the training
