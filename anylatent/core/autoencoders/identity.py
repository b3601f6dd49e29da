"""Diffusion in the data's own space: an autoencoder that does nothing."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from anylatent.core.autoencoders.base import Autoencoder
from anylatent.core.latents import Latent, Noise, Posterior
from anylatent.core.modality import Batch, Modality
from anylatent.core.registry import register


@register("autoencoder", "identity")
class Identity(Autoencoder):
    """No autoencoder: the modality's own continuous form of the data is the latent.

    Diffusion as in 2006.11239, before latents. Nothing is trained; the spec is
    `modality.raw_spec()`.
    """

    def __init__(self, modality: Modality) -> None:
        super().__init__()
        self.modality = modality
        self.spec = modality.raw_spec()

    def encode(self, batch: Batch) -> Posterior:
        return Posterior(self.modality.lift(batch))

    def decode(self, z: Latent) -> Any:
        return self.modality.lower(z)

    def loss(self, batch: Batch, noise: Noise, step: int) -> tuple[dict[str, Tensor], Any]:
        z = self.modality.lift(batch)
        return {"none": z.mse(z)}, self.decode(z)

    def log_prob(self, batch: Batch, z: Latent) -> Tensor | None:
        return self.modality.log_prob(batch, z)
