"""Both at once: latents move while the generator learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from anylatent.core.latents import Noise, Stream
from anylatent.core.registry import register
from anylatent.core.support.files import UserError
from anylatent.core.training.encoding import latents
from anylatent.core.training.settings import StageSettings
from anylatent.core.training.stages.base import Descend, Terms, Training
from anylatent.core.training.stages.diffusion import (
    DiffusionSettings,
    draw_samples,
    generating,
    held_out_loss,
)
from anylatent.core.training.stages.restoring import Restoring


@register("stage", "joint")
class JointStage(Restoring):
    """Trains the autoencoder and the generator together, from scratch or after `autoencoder`.

    The loss is the sum of the autoencoder's terms and the generator's loss on the posterior's
    sample, whose gradient reaches the encoder. Latents are normalised as they were after the
    autoencoder's own stage; from scratch they are not, for their scale moves.
    """

    name, stream = "joint", Stream.JOINT
    completes = True
    told_as = "diffusion"
    settings_type = DiffusionSettings
    settings: DiffusionSettings

    def __init__(self, training: Training, settings: StageSettings) -> None:
        super().__init__(training, settings)
        if not self.system.generator.slopes:
            raise UserError(
                f"stage=joint: the loss of {type(self.system.generator).__name__} has no slope in "
                "latents that the autoencoder could follow; use stage=all"
            )
        if not self.settings.together:
            raise UserError("stage=joint trains all at once: leave out training.diffusion.together")
        own = self.settings
        if own.copies > 1 or own.window is not None or own.singles:
            raise UserError(
                "stage=joint augments items anew at each step, and takes them as the data give "
                f"them: copies={own.copies}, window={own.window} and singles={own.singles} are for "
                "latents that are computed once; leave them out"
            )
        if "autoencoder" in training.done.done and not training.done.normalised:
            latents(training)  # fits the normaliser, where it is to be

    def networks(self) -> dict[str, nn.Module]:
        return {"autoencoder": self.system.autoencoder, **generating(self.system)}

    def collate(self, items: Any) -> Any:
        """What the conditioner reads of plain values stays on the host, which reads it."""
        batch, told = dict(self.system.modality.collate(items)), self.system.conditioner.columns
        for name in told:
            if isinstance(column := batch.get(name), Tensor) and column.ndim == 1:
                batch[name] = column.tolist()
        return batch

    def step(self, batch: Any, noise: Noise, number: int, descend: Descend) -> Terms:
        system = self.system
        batch = dict(system.modality.augment(batch, noise))
        cond = system.condition(system.columns(batch), noise)
        cond = cond.drop(self.settings.drop, noise) if cond is not None else None
        terms, output = system.autoencoder.loss(batch, noise, number)
        x0 = system.latents(batch, noise)
        own = system.generator.loss(x0, cond, noise).mean()
        loss = torch.stack([own, *(term.mean() for term in terms.values())]).sum()
        descend("all", loss)
        critic = system.autoencoder.adversary_loss(batch, output, number)
        if critic:
            descend("adversary", torch.stack([term.mean() for term in critic.values()]).sum())
        return {"loss": loss, "generator": own, **terms, **critic}

    def figures(self) -> dict[str, float]:
        return {"held_out_loss": held_out_loss(self.training)}

    def draw(self, folder: Path, number: int) -> None:
        """Samples under the conditions of held-out data."""
        draw_samples(self.training, folder / f"samples_{number:06d}.png")
