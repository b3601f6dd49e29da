"""The first stage: the autoencoder, and its adversary."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from anylatent.core.autoencoders import Autoencoder
from anylatent.core.latents import Noise, Stream
from anylatent.core.modality import compare
from anylatent.core.registry import register
from anylatent.core.training.settings import StageSettings
from anylatent.core.training.stages.base import Descend, Stage, Terms, Training, learning


@dataclass(frozen=True)
class AutoencoderSettings(StageSettings):
    """See `StageSettings`."""

    steps: int = 2000


@register("stage", "autoencoder")
class AutoencoderStage(Stage):
    """Trains the autoencoder and, with an optimiser of its own, its adversary."""

    name, stream = "autoencoder", Stream.AUTOENCODER
    settings_type = AutoencoderSettings

    def __init__(self, training: Training, settings: StageSettings) -> None:
        super().__init__(training, settings)
        fields = self.system.autoencoder.spec.fields.values()
        self.told_lengths = any(field.variable for field in fields)

    def networks(self) -> dict[str, nn.Module]:
        return {"autoencoder": self.system.autoencoder}

    def optimisers(self) -> dict[str, Iterable[nn.Parameter]]:
        return with_adversary(self.system.autoencoder, self.networks().values())

    def dataset(self) -> Dataset[Any]:
        return self.training.data.train()

    def collate(self, items: Any) -> Any:
        return dict(self.system.modality.collate(items))

    def step(self, batch: Any, noise: Noise, number: int, descend: Descend) -> Terms:
        autoencoder, modality = self.system.autoencoder, self.system.modality
        batch = dict(modality.augment(batch, noise))
        terms, output = autoencoder.loss(batch, noise, number)
        loss = torch.stack([term.mean() for term in terms.values()]).sum()
        descend("all", loss)
        critic = autoencoder.adversary_loss(batch, output, number)
        if critic:
            descend("adversary", torch.stack([term.mean() for term in critic.values()]).sum())
        return {"loss": loss, **terms, **critic}

    def report(self) -> dict[str, float]:
        return self.system.autoencoder.report()

    def figures(self) -> dict[str, float]:
        batch, noise = self._held_out()
        terms, _ = self.system.autoencoder.loss(batch, noise, 0)
        each = {f"held_out_{name}": float(term.mean()) for name, term in terms.items()}
        return {**each, "held_out_loss": sum(each.values())}

    def draw(self, folder: Path, number: int) -> None:
        """Held-out data, and what is restored of them."""
        system, (batch, _) = self.system, self._held_out()
        outputs = system.autoencoder.decode(system.autoencoder.encode(batch).mean)
        picture = compare(system.modality.originals(batch), outputs)
        picture.save(folder / f"reconstructions_{number:06d}.png")

    def _held_out(self) -> tuple[Any, Noise]:
        config = self.training.config
        batch = self.training.held_out(config.pictures.samples)
        size = next(len(value) for value in batch.values())
        return batch, Noise.of((config.seed, Stream.RECONSTRUCTIONS), size)


def with_adversary(
    autoencoder: Autoencoder, networks: Iterable[nn.Module]
) -> dict[str, Iterable[nn.Parameter]]:
    """All parameters that learn, those of an adversary apart."""
    adversary = autoencoder.adversary
    apart = [] if adversary is None else list(adversary.parameters())
    known = {id(p) for p in apart}
    every = learning(networks)
    own: dict[str, Iterable[nn.Parameter]] = {"all": [p for p in every if id(p) not in known]}
    return {**own, "adversary": apart} if apart else own
