"""Diffusion in the data's own space: an autoencoder that does nothing."""

from __future__ import annotations

from torch import Tensor

from anylatent.core.autoencoders.base import Autoencoder
from anylatent.core.latents import Latent, Noise, Posterior
from anylatent.core.modality import Batch, Modality, Outputs
from anylatent.core.registry import register
from anylatent.core.support.files import UserError


@register("autoencoder", "identity")
class Identity(Autoencoder):
    """No autoencoder: the modality's own continuous form of the data is the latent.

    Diffusion as in 2006.11239, before latents. Nothing is trained; the spec is that
    of `modality.data_space`. Raises UserError
    for a modality without one.
    """

    def __init__(self, modality: Modality) -> None:
        super().__init__()
        if modality.data_space is None:
            raise UserError(
                f"{type(modality).__name__} has no data-space latents: autoencoder=identity is not "
                "for it"
            )
        self.space = modality.data_space
        self.spec = self.space.spec

    def encode(self, batch: Batch) -> Posterior:
        return Posterior(self.space.lift(batch))

    def decode(self, z: Latent) -> Outputs:
        return self.space.lower(z)

    def restore(self, z: Latent) -> Latent:
        return z

    def loss(self, batch: Batch, noise: Noise, step: int) -> tuple[dict[str, Tensor], None]:
        z = self.space.lift(batch)
        return {"none": z.mse(z)}, None

    def log_prob(self, batch: Batch, z: Latent) -> Tensor | None:
        return self.space.log_prob(batch, z)
