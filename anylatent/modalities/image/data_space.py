"""Pictures as latents: diffusion of pixels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from anylatent.core.latents import Field, Latent, LatentSpec
from anylatent.core.modality import Batch, DataSpace
from anylatent.modalities.image.likelihood import log_prob
from anylatent.modalities.image.pictures import Pictures


class Pixels(DataSpace):
    """z (C, H, W), the numbers of a picture in [-1, 1]."""

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape = tuple(shape)

    @property
    def spec(self) -> LatentSpec:
        if len(self.shape) != 3:
            raise ValueError(f"pictures have a shape (C, H, W), got {self.shape}: see Data.facts")
        return LatentSpec({"z": Field(self.shape)})

    def lift(self, batch: Batch) -> Latent:
        return self.spec.wrap({"z": batch["image"]})

    def lower(self, z: Latent) -> Pictures:
        return Pictures(z["z"])

    def log_prob(self, batch: Batch, z: Latent) -> Tensor:
        """Of the bytes of pictures around z, see `likelihood`."""
        return log_prob(batch["image"], z["z"])
