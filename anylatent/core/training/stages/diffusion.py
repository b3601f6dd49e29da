"""The second stage: a generator on cached posteriors."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from anylatent.core.training.stages.base import Stage


class DiffusionStage(Stage):
    """Trains the generator on cached posteriors: sampled, normalised, conditions dropped."""

    name, key = "diffusion", 2

    def network(self) -> nn.Module:
        return self.system.generator

    def transfer_batch_to_device(self, batch: Any, device: torch.device, _: int) -> Any:
        """Without waiting: Lightning waits for whatever is not a plain tensor."""
        return tuple(part and part.to(device, non_blocking=True) for part in batch)

    def training_step(self, batch: Any, index: int) -> None:
        noise = self.begin()
        posterior, cond = batch
        x0 = self.system.normaliser.encode(posterior.sample(noise))
        cond = cond.drop(self.settings.drop, noise) if cond is not None else None
        loss = self.system.generator.loss(x0, cond, noise).mean()
        norm = self.descend(loss, self.wrapped())
        self.finish({"loss": loss, "gradient": norm})
