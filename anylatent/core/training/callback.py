"""What happens after each step of a stage."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl

from anylatent.core.training.module import StageModule


class StageCallback(pl.Callback):
    """A callback after each step of a stage, on the first process unless `everywhere`."""

    everywhere = False

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        assert isinstance(module, StageModule)
        if module.gathered:
            return  # in the middle of a step
        if self.everywhere or trainer.is_global_zero:
            self.after_step(trainer, module)

    def after_step(self, trainer: pl.Trainer, module: StageModule) -> None:
        raise NotImplementedError
