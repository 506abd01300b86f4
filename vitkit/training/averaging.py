"""Exponential moving average of the weights, used for validation and testing."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from vitkit.training.base import CHECKPOINT_KEY

__all__ = ["WeightAverage", "average_decay"]


def average_decay(updates: int, decay: float, warmup: bool) -> float:
    """Decay of one update: with warm-up, (1 + n) / (10 + n) until that reaches ``decay``.

    Without it the average would remember the random start for 1 / (1 - decay) steps.
    """
    return min(decay, (1 + updates) / (10 + updates)) if warmup else decay


class WeightAverage(Callback):
    """Keeps an average of parameters and floating-point buffers beside the trained ones.

    Validation sees the averaged weights; the checkpoint holds both sets: the trained ones as
    Lightning's ``state_dict``, the averaged ones under our own key.

    Args:
        decay: share of the old average kept at each optimiser step.
        warmup: see :func:`average_decay`.
    """

    def __init__(self, decay: float, warmup: bool = True) -> None:
        self.decay, self.warmup = decay, warmup
        self.updates = 0
        self._averaged: dict[str, Tensor] | None = None
        self._seen_step = 0
        self._swapped = False
        self._both: tuple[list[Tensor], list[Tensor]] | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start from the first weights, on their device, or take up what a checkpoint held."""
        self._both = None
        live = _tensors(_network(pl_module))
        held = self._averaged or {name: tensor.detach().clone() for name, tensor in live.items()}
        self._averaged = {name: held[name].to(tensor.device) for name, tensor in live.items()}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Only here does a resumed run know its step."""
        self._seen_step = trainer.global_step

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Average once per optimiser step, however many micro-batches it had."""
        if trainer.global_step == self._seen_step:
            return
        self._seen_step = trainer.global_step
        decay = average_decay(self.updates, self.decay, self.warmup)
        averaged, live = self._pairs(pl_module)
        torch._foreach_lerp_(averaged, live, 1.0 - decay)
        self.updates += 1

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the averaged weights."""
        self._swap(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go back to the trained weights."""
        self._swap(pl_module)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Never leave the averaged weights in the place of the trained ones."""
        if self._swapped:
            self._swap(pl_module)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the averaged weights and the number of updates."""
        own = checkpoint.setdefault(CHECKPOINT_KEY, {})
        own["averaged"] = self.weights(_network(pl_module))
        own["average_updates"] = self.updates

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take up the average where the checkpoint left it."""
        own = checkpoint.get(CHECKPOINT_KEY, {})
        if own.get("averaged") is not None:
            self._both = None
            names = _tensors(_network(pl_module)).keys()
            self._averaged = {name: own["averaged"][name] for name in names}
            self.updates = int(own["average_updates"])

    def weights(self, network: nn.Module) -> dict[str, Tensor]:
        """A full state dict with the averages in place; integer buffers as they are."""
        state = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
        for name, tensor in (self._averaged or {}).items():
            if name in state:
                state[name] = tensor.detach().clone()
        return state

    def _pairs(self, pl_module: LightningModule) -> tuple[list[Tensor], list[Tensor]]:
        """Averaged and live tensors; looked up once, for a walk through the modules takes time."""
        if self._both is None:
            assert self._averaged is not None
            live = _tensors(_network(pl_module))
            self._both = [self._averaged[name] for name in live], list(live.values())
        averaged, live_now = self._both
        return averaged, [tensor.detach() for tensor in live_now]

    def _swap(self, pl_module: LightningModule) -> None:
        if self._averaged is None:
            return
        averaged, live = self._pairs(pl_module)
        with torch.no_grad():
            kept = [tensor.clone() for tensor in live]
            torch._foreach_copy_(live, averaged)
            torch._foreach_copy_(averaged, kept)
        self._swapped = not self._swapped


def _network(pl_module: LightningModule) -> nn.Module:
    network = pl_module.model
    assert isinstance(network, nn.Module)
    return network


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and floating-point buffers that belong to the state dict."""
    state = network.state_dict(keep_vars=True)
    return {name: tensor for name, tensor in state.items() if tensor.is_floating_point()}
