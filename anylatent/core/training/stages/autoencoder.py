"""The first stage: the autoencoder, and its adversary."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from anylatent.core.latents import Noise, Stream
from anylatent.core.modality import compare
from anylatent.core.registry import register
from anylatent.core.support.files import UserError
from anylatent.core.training.settings import StageSettings
from anylatent.core.training.stages.base import Descend, Terms, Training
from anylatent.core.training.stages.restoring import Restoring


@dataclass(frozen=True)
class AutoencoderSettings(StageSettings):
    """See `StageSettings`. With a `window`, the stage learns from that many entries in a row of
    each item of variable length, as frames of a video, at a place drawn anew at each step; by
    default one where it codes entries one by one, else as many as the data say, and whole items
    where they say nothing."""

    steps: int = 2000
    window: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window is not None and self.window < 1:
            raise ValueError(f"need window >= 1, got {self.window}")


@register("stage", "autoencoder")
class AutoencoderStage(Restoring):
    """Trains the autoencoder and, with an optimiser of its own, its adversary."""

    name, stream = "autoencoder", Stream.AUTOENCODER
    settings_type = AutoencoderSettings

    def __init__(self, training: Training, settings: StageSettings) -> None:
        super().__init__(training, settings)
        fields = self.system.autoencoder.spec.fields.values()
        self.told_lengths = any(field.variable for field in fields)
        self.window = self._window()

    def _window(self) -> int | None:
        """That of the settings, else of the data. Raises UserError for one of data that have
        none."""
        assert isinstance(self.settings, AutoencoderSettings)
        own, usual = self.settings.window, self.window
        if own is not None and usual is None:
            raise UserError(
                f"training.autoencoder.window={own}: items of {type(self.training.data).__name__} "
                "are read as a whole; leave it out"
            )
        if own is None and usual is not None and self.system.autoencoder.by_entry:
            return 1
        return usual if own is None else own

    def networks(self) -> dict[str, nn.Module]:
        return {"autoencoder": self.system.autoencoder}

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
