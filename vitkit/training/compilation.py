"""How often a compiled network is compiled: once a shape is the price, more is time lost."""

from __future__ import annotations

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

__all__ = ["GraphCount"]


class GraphCount(Callback):
    """Counts the graphs that torch compiles during a training.

    The first epoch, with its validation, is the warm-up: it sees every shape of a training whose
    images do not grow. Forward passes are counted; each brings its backward pass. Of a resumed
    training the part since then is counted.
    """

    def __init__(self) -> None:
        self._before = 0
        self._warm: int | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What this process has compiled before is not the training's."""
        self._before, self._warm = _compiled(), None

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The first epoch is the warm-up."""
        if self._warm is None:
            self._warm = _compiled()

    def facts(self) -> dict[str, int]:
        """``compiled_graphs``, and how many of them after the warm-up: ``recompiled_graphs``."""
        now = _compiled()
        return {
            "compiled_graphs": now - self._before,
            "recompiled_graphs": now - (now if self._warm is None else self._warm),
        }


def _compiled() -> int:
    """Graphs that torch has compiled in this process."""
    # By attribute: importing it takes long, and only a compiled training needs it.
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])
