"""Early stopping that stays stopped when the run is resumed."""

from __future__ import annotations

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping

__all__ = ["EarlyStop"]


class EarlyStop(EarlyStopping):
    """Lightning's, which forgets that it has stopped a training that is resumed.

    A run that is stopped in its test, after its training had ended early, would otherwise train an
    epoch more when it goes on.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stay stopped."""
        super().on_train_start(trainer, pl_module)
        if self.wait_count >= self.patience:
            trainer.should_stop = True
