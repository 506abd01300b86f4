"""Early stopping that stays stopped when the run is resumed."""

from __future__ import annotations

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping

from vitkit.errors import TrainingError
from vitkit.training.base import CALMER

__all__ = ["EarlyStop"]


class EarlyStop(EarlyStopping):
    """Lightning's, which forgets that it has stopped a training that is resumed, and ends one whose
    metric is not finite as if that were well.

    A run that is stopped in its test, after its training had ended early, would otherwise train an
    epoch more when it goes on.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stay stopped."""
        super().on_train_start(trainer, pl_module)
        if self.wait_count >= self.patience:
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop if the metric has not become better for long.

        Raises:
            TrainingError: it is not finite.
        """
        value = trainer.callback_metrics.get(self.monitor)
        if value is not None and not value.isfinite():
            raise TrainingError(
                f"{self.monitor} became NaN or infinite in epoch {trainer.current_epoch + 1}; "
                + CALMER
            )
        super().on_train_epoch_end(trainer, pl_module)
