"""The first stage: the autoencoder, and its adversary."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from anylatent.core.training.stages.base import Stage


class AutoencoderStage(Stage):
    """Trains the autoencoder and, with an optimiser of its own, its adversary."""

    name, key = "autoencoder", 1

    def network(self) -> nn.Module:
        return self.system.autoencoder

    @property
    def idle(self) -> bool:
        return self.system.autoencoder.adversary is not None

    @property
    def told_lengths(self) -> bool:
        return any(field.variable for field in self.system.autoencoder.spec.fields.values())

    def collate(self, items: Any) -> Any:
        return dict(self.system.modality.collate(items))

    def trained_parameters(self) -> Iterable[nn.Parameter]:
        adversary = self.system.autoencoder.adversary
        apart = {id(p) for p in adversary.parameters()} if adversary is not None else set()
        own = self.system.autoencoder.parameters()
        return (p for p in own if p.requires_grad and id(p) not in apart)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        optimizers = list(self.optimizer_factory(self.trained_parameters()))
        self.own = len(optimizers)
        if self.system.autoencoder.adversary is not None:
            optimizers += self.optimizer_factory(self.system.autoencoder.adversary.parameters())
        self.base_rates = [[g["lr"] for g in o.param_groups] for o in optimizers]
        return optimizers

    def training_step(self, batch: dict[str, Any], index: int) -> None:
        noise = self.begin()
        autoencoder, modality = self.system.autoencoder, self.system.modality
        batch = dict(modality.augment(batch, noise))
        optimizers = self.wrapped()
        terms, output = autoencoder.loss(batch, noise, self.step)
        loss = torch.stack([term.mean() for term in terms.values()]).sum()
        norm = self.descend(loss, optimizers[: self.own])
        critic = autoencoder.adversary_loss(batch, output, self.step)
        if critic:
            against = torch.stack([term.mean() for term in critic.values()]).sum()
            self.descend(against, optimizers[self.own :])
        self.finish({"loss": loss, **terms, **critic, "gradient": norm})
