"""Both at once: latents move while the generator learns."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from anylatent.core.training.stages.base import Stage


class JointStage(Stage):
    """Trains the autoencoder and the generator together: the latents move while it learns.

    The loss is the sum of the autoencoder's terms and the generator's loss on the posterior's
    sample, whose gradient reaches the encoder.
    """

    name, key = "diffusion", 3

    def network(self) -> nn.Module:
        return nn.ModuleList([self.system.autoencoder, self.system.generator])

    def collate(self, items: Any) -> Any:
        return dict(self.system.modality.collate(items))

    def training_step(self, batch: dict[str, Any], index: int) -> None:
        noise = self.begin()
        system = self.system
        batch = dict(system.modality.augment(batch, noise))
        cond = system.condition(system.columns(batch))
        cond = cond.drop(self.settings.drop, noise) if cond is not None else None
        terms, _ = system.autoencoder.loss(batch, noise, self.step)
        x0 = system.normaliser.encode(system.autoencoder.encode(batch).sample(noise))
        own = system.generator.loss(x0, cond, noise).mean()
        loss = torch.stack([own, *(term.mean() for term in terms.values())]).sum()
        norm = self.descend(loss, self.wrapped())
        self.finish({"loss": loss, "generator": own, **terms, "gradient": norm})
