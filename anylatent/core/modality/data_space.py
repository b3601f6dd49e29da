"""Data themselves as latents: diffusion without an autoencoder."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from anylatent.core.latents import Latent, LatentSpec
from anylatent.core.modality.batch import Batch
from anylatent.core.modality.outputs import Outputs


class DataSpace(ABC):
    """A continuous form of the data in which diffusion can work, see autoencoder=identity."""

    @property
    @abstractmethod
    def spec(self) -> LatentSpec:
        """The space. Raises ValueError where the modality was built without the data's facts."""

    @abstractmethod
    def lift(self, batch: Batch) -> Latent:
        """The data of a batch as a latent of `spec`."""

    @abstractmethod
    def lower(self, z: Latent) -> Outputs:
        """Outputs from latents of `spec`; undoes `lift`."""

    def log_prob(self, batch: Batch, z: Latent) -> Tensor | None:
        """log p(data | z) in nats, (B,), for a latent of `spec` with a little noise; None where
        there is no such law. Of discrete data a log-probability, of others a log-density."""
        return None
