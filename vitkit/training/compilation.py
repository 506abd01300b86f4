"""How often a compiled network is compiled: once a shape is the price, more is time lost."""

from __future__ import annotations

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import nn

__all__ = ["GraphCount", "compile_network", "compiled_graphs"]

MOST_GRAPHS = 32
"""Of one function: behind so many torch compiles no more, and is slow without a word. Sizes that
grow, and whole and short batches, are soon more than its usual eight."""


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
        self._before, self._warm = compiled_graphs(), None

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The first epoch is the warm-up."""
        if self._warm is None:
            self._warm = compiled_graphs()

    def facts(self) -> dict[str, int]:
        """``compiled_graphs``, and how many of them after the warm-up: ``recompiled_graphs``."""
        now = compiled_graphs()
        return {
            "compiled_graphs": now - self._before,
            "recompiled_graphs": now - (now if self._warm is None else self._warm),
        }


def compile_network(network: nn.Module, *, any_shape: bool) -> None:
    """Compile a network where it stands.

    Args:
        network: to be compiled at its first call.
        any_shape: once for any shape, rather than once a shape.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MOST_GRAPHS)
    network.compile(dynamic=any_shape)


def compiled_graphs() -> int:
    """Graphs that torch has compiled in this process."""
    # By attribute: importing it takes long, and only a compiled training needs it.
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])
